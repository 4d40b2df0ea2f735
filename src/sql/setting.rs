//! SET and RESET: which setting, and what it is to be. What settings there are is the session's business.

use super::{Statement, place, unsupported_statement};
use crate::error::{Error, Location, Result};
use sqlparser::ast::{self, ContextModifier, Expr, Reset, Set, UnaryOperator, Value};

/// A change of settings, its names and values as written.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    /// What to change; `None` for everything.
    pub(crate) name: Option<String>,
    /// Its new value; `None` for the default.
    pub(crate) value: Option<String>,
    /// Where the name stands.
    pub(crate) location: Option<Location>,
}

/// `SET name = value`, `SET name TO value`, `SET name = DEFAULT`.
pub(super) fn set(set: &Set, statement: &ast::Statement) -> Result<Statement> {
    let Set::SingleAssignment { scope, hivevar: false, variable, values } = set else {
        return Err(unsupported_statement(statement));
    };
    let location = place(variable);
    match scope {
        None | Some(ContextModifier::Session) => {}
        Some(other @ (ContextModifier::Local | ContextModifier::Global)) => {
            let message = format!("SET {other}: what SET changes, it changes for the session");
            return Err(Error::unsupported(message, location));
        }
    }
    let texts = values.iter().map(text).collect::<Result<Vec<_>>>()?;
    let is_default = matches!(&values[..], [Expr::Identifier(word)] if word.quote_style.is_none()
        && word.value.eq_ignore_ascii_case("default"));
    let value = (!is_default).then(|| texts.join(","));
    Ok(Statement::Set(Assignment { name: Some(bare(variable)), value, location }))
}

/// `RESET name`, `RESET ALL`.
pub(super) fn reset(reset: &Reset, statement: &ast::Statement) -> Result<Statement> {
    match reset {
        Reset::ALL => Ok(Statement::Set(Assignment { name: None, value: None, location: None })),
        Reset::ConfigurationParameter(name) => {
            Ok(Statement::Set(Assignment { name: Some(bare(name)), value: None, location: place(name) }))
        }
        Reset::SessionAuthorization => Err(unsupported_statement(statement)),
    }
}

/// The name without quotes.
fn bare(name: &ast::ObjectName) -> String {
    let parts =
        name.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), |i| i.value.clone()));
    parts.collect::<Vec<_>>().join(".")
}

/// A literal or a bare word as text.
fn text(value: &Expr) -> Result<String> {
    match value {
        Expr::Identifier(word) => Ok(word.value.clone()),
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Ok(text.clone()),
            other => Ok(other.to_string()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(format!("-{}", text(expr)?)),
        other => {
            let message = format!("a setting takes a literal, such as 4 or '256MB', not {other}");
            Err(Error::plan(message, place(other)))
        }
    }
}
