//! Expressions without columns, evaluated while planning.

use super::EvalCx;
use super::dictionary::Caches;
use super::program::Program;
use super::run::{Frame, Run};
use crate::data::{DictionaryIds, Scalar, Value};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::mem::{Account, Pool};
use std::borrow::Cow;

/// Bytes one constant may take; a plan's constants are small, and no query's budget exists yet.
const LIMIT_BYTES: usize = 64 << 20;

/// The value of an expression that reads no column.
///
/// # Errors
/// Value errors of the expression; an internal error if it reads a column.
pub(crate) fn evaluate_constant(expr: &Expr) -> Result<Scalar> {
    let program = Program::new([expr], &[])?;
    let account = Account::open(&Pool::new("constants", LIMIT_BYTES), 0, 4096, 1 << 20)?;
    let ids = DictionaryIds::default();
    let mut cx = EvalCx { account: &account, ids: &ids };
    let mut run = Run { nodes: &program.nodes, caches: &mut Caches::default(), cx: &mut cx };
    let mut frame = Frame::new(Cow::Borrowed(&[]), 1, 1, program.nodes.len());
    let Some(root) = program.roots.first() else {
        return Err(Error::internal("one expression has one root"));
    };
    let result = run.eval_plain(*root, &mut frame)?;
    Ok(result.scalar(0, &expr.data_type()))
}

/// `expr` with its constant parts replaced by their values. Parts that raise an error stay, to raise it only if a row
/// comes by.
pub(crate) fn fold(expr: Expr) -> Expr {
    let expr = simplified(expr.map_children(&mut fold));
    let mut is_constant = !matches!(expr, Expr::Literal(_) | Expr::Column { .. });
    if let Expr::Call { function, .. } = &expr {
        is_constant &= function.is_deterministic();
    }
    expr.for_each_child(&mut |child| is_constant &= matches!(child, Expr::Literal(_)));
    if is_constant && let Ok(value) = evaluate_constant(&expr) {
        return Expr::Literal(value);
    }
    expr
}

/// Drops operands that cannot matter.
fn simplified(expr: Expr) -> Expr {
    let is = |e: &Expr, truth: bool| matches!(e, Expr::Literal(s) if s.value == Value::Boolean(truth));
    let joined = |mut list: Vec<Expr>, neutral: bool, make: fn(Vec<Expr>) -> Expr| {
        if list.iter().any(|e| is(e, !neutral)) {
            return Expr::Literal(Scalar::boolean(!neutral));
        }
        list.retain(|e| !is(e, neutral));
        match list.len() {
            0 => Expr::Literal(Scalar::boolean(neutral)),
            1 => list.swap_remove(0),
            _ => make(list),
        }
    };
    match expr {
        Expr::And(list) => joined(list, true, Expr::And),
        Expr::Or(list) => joined(list, false, Expr::Or),
        Expr::Case { branches, otherwise, data_type } => {
            let mut kept = Vec::new();
            let mut otherwise = otherwise;
            for (condition, value) in branches {
                match &condition {
                    Expr::Literal(scalar) if scalar.value == Value::Boolean(true) => {
                        otherwise = Some(Box::new(value));
                        break;
                    }
                    Expr::Literal(_) => {}
                    _ => kept.push((condition, value)),
                }
            }
            match (kept.is_empty(), otherwise) {
                (true, Some(otherwise)) => *otherwise,
                (true, None) => Expr::Literal(Scalar::null(data_type)),
                (false, otherwise) => Expr::Case { branches: kept, otherwise, data_type },
            }
        }
        other => other,
    }
}
