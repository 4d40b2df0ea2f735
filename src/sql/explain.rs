//! The options of EXPLAIN: which are known, and that no other is passed over in silence.

use super::{location, place};
use crate::error::{Error, Result};
use sqlparser::ast::{self, Expr, UtilityOption, Value};

/// Whether the options in parentheses ask for the query to be run.
pub(super) fn analyzes(options: &[UtilityOption]) -> Result<bool> {
    let mut analyzes = false;
    for option in options {
        let word = option.arg.as_ref().map(word);
        match (option.name.value.to_ascii_lowercase().as_str(), word.as_deref()) {
            ("analyze", None | Some("true" | "on" | "1")) => analyzes = true,
            ("analyze", Some("false" | "off" | "0")) => analyzes = false,
            ("format", Some("text")) => {}
            _ => {
                let message = format!("EXPLAIN ({option}); plans are text: EXPLAIN, EXPLAIN ANALYZE");
                return Err(Error::unsupported(message, location(option.name.span)));
            }
        }
    }
    Ok(analyzes)
}

/// The error of an EXPLAIN with words between it and its statement that mean nothing here.
pub(super) fn unsupported_form(statement: &ast::Statement) -> Error {
    let message = "this form of EXPLAIN; plans are text: EXPLAIN, EXPLAIN ANALYZE";
    Error::unsupported(message, place(statement))
}

/// The value of an option, in lower case and without quotes.
fn word(value: &Expr) -> String {
    match value {
        Expr::Identifier(ident) => ident.value.to_ascii_lowercase(),
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) => text.to_ascii_lowercase(),
            other => other.to_string().to_ascii_lowercase(),
        },
        other => other.to_string().to_ascii_lowercase(),
    }
}
