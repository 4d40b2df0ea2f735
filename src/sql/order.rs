//! ORDER BY: ordinals, ALL, directions and the place of nulls.

use super::place;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::logical::SortKey;
use sqlparser::ast;

/// What a key orders by.
#[derive(Clone, Copy)]
pub(super) enum KeySource<'q> {
    /// The result column at that position, from 0.
    Output(usize),
    /// An expression.
    Expr(&'q ast::Expr),
}

/// The keys of an ORDER BY over `outputs` result columns; `bind` turns what a key names into an expression.
pub(super) fn bind_keys<'q>(
    order_by: &'q ast::OrderBy,
    outputs: usize,
    bind: &mut dyn FnMut(KeySource<'q>) -> Result<Expr>,
) -> Result<Vec<SortKey>> {
    if order_by.interpolate.is_some() {
        return Err(Error::unsupported("INTERPOLATE", place(order_by)));
    }
    match &order_by.kind {
        ast::OrderByKind::All(options) => {
            (0..outputs).map(|i| sort_key(bind(KeySource::Output(i))?, options, order_by)).collect()
        }
        ast::OrderByKind::Expressions(keys) => {
            let mut bound = Vec::with_capacity(keys.len());
            for key in keys {
                if key.with_fill.is_some() {
                    return Err(Error::unsupported("WITH FILL", place(key)));
                }
                let expr = match ordinal(&key.expr) {
                    Some(n) => bind(KeySource::Output(output_at(n, outputs, "ORDER BY", &key.expr)?))?,
                    None => bind(KeySource::Expr(&key.expr))?,
                };
                bound.push(sort_key(expr, &key.options, key)?);
            }
            Ok(bound)
        }
    }
}

/// DuckDB's default is ascending, and nulls last whichever the direction.
fn sort_key(expr: Expr, options: &ast::OrderByOptions, at: &impl ast::Spanned) -> Result<SortKey> {
    let descending = match options.sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(ast::OrderBySort::Using(_)) => return Err(Error::unsupported("ORDER BY … USING", place(at))),
    };
    Ok(SortKey { expr, descending, nulls_first: options.nulls_first.unwrap_or(false) })
}

/// The number, if the expression is nothing but an integer.
pub(super) fn ordinal(expr: &ast::Expr) -> Option<&str> {
    match expr {
        ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. })
            if digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Some(digits)
        }
        _ => None,
    }
}

/// The position, from 0, an ordinal means.
pub(super) fn output_at(ordinal: &str, outputs: usize, clause: &str, at: &ast::Expr) -> Result<usize> {
    match ordinal.parse::<usize>() {
        Ok(n) if (1..=outputs).contains(&n) => Ok(n - 1),
        _ => Err(Error::plan(
            format!("{clause} position {ordinal} is out of range; the query has {outputs} result columns"),
            place(at),
        )),
    }
}
