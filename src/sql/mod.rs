//! From SQL text to bound logical plans.
//!
//! Owns: parsing (sqlparser, DuckDB's dialect), name resolution, typing, and the names of result columns.
//!
//! Invariants:
//! 1. Every plan that leaves this room is fully bound: columns are [`crate::expr::ColumnId`]s, expressions are typed,
//!    tables are the providers the resolver gave for this query.
//! 2. Every error about the text has the line and column it speaks of, and the line itself with a caret.
//! 3. No SQL text overflows the stack: nesting is bounded while parsing ([`parse::MAX_NESTING`]), chains of operators
//!    before it ([`parse::MAX_CHAIN`]), queries by [`query::MAX_QUERIES`], and bound expressions by [`expression::MAX_HEIGHT`].
//! 4. A construct the engine lacks is refused in one place, where it will be added.
//!
//! Must not know: optimizer rules, physical operators, execution.

mod aggregate;
mod explain;
mod expression;
mod from;
mod function;
mod join;
#[cfg(test)]
mod join_tests;
mod literal;
mod name;
mod order;
mod ordered;
mod parse;
mod query;
mod scope;
mod select;
mod set_operation;
mod setting;
mod split;
mod subquery;
#[cfg(test)]
mod tests;
mod types;
mod view;

use crate::catalog::TableProvider;
use crate::error::{Error, Location, Result};
use crate::logical::{Column, ColumnIds, Plan};
use sqlparser::ast;
use sqlparser::tokenizer::Span;
use std::sync::Arc;

pub(crate) use setting::Assignment;
pub use split::SqlStatement;
pub(crate) use view::{Definition, View};

/// Where the binder finds tables.
pub(crate) trait TableResolver {
    /// The table of that name (any case), with the name as registered.
    ///
    /// # Errors
    /// Why a table that is known cannot be read.
    fn table(&self, name: &str) -> Result<Option<(String, Arc<dyn TableProvider>)>>;
    /// Whether there is a table of that name (any case), readable or not.
    fn has_table(&self, name: &str) -> bool;
    /// The view of that name (any case).
    fn view(&self, _name: &str) -> Option<Arc<View>> {
        None
    }
    /// Every name it knows, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// A bound statement.
pub(crate) enum Statement {
    /// Rows.
    Query(BoundQuery),
    /// No rows: the views change.
    Define(Definition),
    /// No rows: settings of the session change.
    Set(Assignment),
    /// The plan of a query as text.
    Explain {
        /// Run the query and report what happened.
        analyze: bool,
        /// The query.
        query: BoundQuery,
    },
}

/// A bound query.
pub(crate) struct BoundQuery {
    /// Its plan.
    pub(crate) plan: Arc<Plan>,
    /// The plan's columns in order, under the names the result shows.
    pub(crate) outputs: Vec<Column>,
}

/// Parses and binds `sql`, which may hold several statements.
///
/// # Errors
/// [`Error::Parse`], [`Error::Plan`] or [`Error::Unsupported`], each with its place in `sql`.
pub(crate) fn bind(sql: &str, resolver: &dyn TableResolver) -> Result<Vec<Statement>> {
    let bind_all = || -> Result<Vec<Statement>> {
        let statements = parse::parse(sql)?;
        statements.iter().map(|statement| bind_statement(statement, sql, resolver)).collect()
    };
    bind_all().map_err(|error: Error| error.with_excerpt(sql))
}

/// Splits a text into its statements, without what separates them.
///
/// # Errors
/// [`Error::Parse`] if the text does not even fall into tokens.
pub(crate) fn split(sql: &str) -> Result<Vec<SqlStatement<'_>>> {
    split::split(sql).map_err(|error| error.with_excerpt(sql))
}

fn bind_statement(statement: &ast::Statement, sql: &str, resolver: &dyn TableResolver) -> Result<Statement> {
    match statement {
        ast::Statement::Query(query) => Ok(Statement::Query(Binder::new(resolver).bind_top(query)?)),
        ast::Statement::CreateView(create) => view::create(create, sql, resolver),
        ast::Statement::Drop { object_type: ast::ObjectType::View, if_exists, names, .. } => {
            view::drop(names, *if_exists, resolver)
        }
        ast::Statement::Set(set) => setting::set(set, statement),
        ast::Statement::Reset(reset) => setting::reset(&reset.reset, statement),
        ast::Statement::Explain {
            describe_alias: ast::DescribeAlias::Explain,
            analyze,
            verbose: false,
            query_plan: false,
            estimate: false,
            statement,
            format: None,
            options,
        } => {
            let analyze = explain::analyzes(options.as_deref().unwrap_or_default())? || *analyze;
            match statement.as_ref() {
                ast::Statement::Query(query) => {
                    Ok(Statement::Explain { analyze, query: Binder::new(resolver).bind_top(query)? })
                }
                // There is no plan of it, but what it does is done.
                define @ (ast::Statement::CreateView(_) | ast::Statement::Drop { .. }) if analyze => {
                    bind_statement(define, sql, resolver)
                }
                other => Err(unsupported_statement(other)),
            }
        }
        ast::Statement::Explain { describe_alias: ast::DescribeAlias::Explain, statement, .. } => {
            Err(explain::unsupported_form(statement))
        }
        other => Err(unsupported_statement(other)),
    }
}

/// The place where further kinds of statements will be added.
fn unsupported_statement(statement: &ast::Statement) -> Error {
    let text = statement.to_string();
    let kind = text.split([' ', '(']).next().unwrap_or_default().to_uppercase();
    let message =
        format!("{kind} statements; only queries, EXPLAIN, CREATE VIEW, DROP VIEW, SET and RESET can be run");
    Error::unsupported(message, location(ast::Spanned::span(statement)))
}

/// The state of binding one statement.
struct Binder<'a> {
    resolver: &'a dyn TableResolver,
    ids: ColumnIds,
    /// Queries being bound, each within the one before.
    depth: usize,
    /// Expressions being bound, each within the one before, through all those queries.
    expression_depth: usize,
    /// Joins made so far.
    joins: usize,
    /// Views being bound, each within the one before.
    views: Vec<String>,
}

impl<'a> Binder<'a> {
    fn new(resolver: &'a dyn TableResolver) -> Self {
        Self { resolver, ids: ColumnIds::default(), depth: 0, expression_depth: 0, joins: 0, views: vec![] }
    }
}

/// Where a span starts; `None` for the empty span of nodes the parser keeps no place for.
fn location(span: Span) -> Option<Location> {
    (span.start.line > 0).then_some(Location { line: span.start.line, column: span.start.column })
}

/// Where a node of the syntax tree starts. Walks the node, so call it only to report an error.
fn place(node: &impl ast::Spanned) -> Option<Location> {
    location(node.span())
}

/// Gives an error without a place the place of the syntax that caused it; an error about a value (a literal that is
/// no date, say) becomes one about the query, whose author must act.
fn located(error: Error, location: Option<Location>) -> Error {
    match error {
        Error::Plan(mut l) if l.location.is_none() => {
            l.location = location;
            Error::Plan(l)
        }
        Error::Unsupported(mut l) if l.location.is_none() => {
            l.location = location;
            Error::Unsupported(l)
        }
        Error::Data(e) => Error::plan(e.message, location),
        other => other,
    }
}
