//! Evaluates what depends on no column, and simplifies logic.
//!
//! A constant that cannot be evaluated (an overflow, a failing cast) stays as it is: it may stand in a branch no row
//! takes, and fails the query only when a row does.

use super::Rule;
use super::substitute::is_deterministic;
use crate::data::{DataType, Scalar, Value};
use crate::error::Result;
use crate::expr::{Expr, evaluate_constant};
use crate::logical::{ColumnIds, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct FoldConstants;

impl Rule for FoldConstants {
    fn name(&self) -> &'static str {
        "fold_constants"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        rewrite(plan)
    }
}

fn rewrite(plan: &Arc<Plan>) -> Result<Arc<Plan>> {
    let node = plan.try_map_inputs(&mut |input| rewrite(input))?;
    let node = node.try_map_exprs(&mut |expr| Ok::<_, crate::error::Error>(fold(expr)))?;
    Ok(match node {
        Plan::Filter { input, conjuncts } => match simplify_conjuncts(conjuncts) {
            None => Arc::new(input.emptied()),
            Some(conjuncts) if conjuncts.is_empty() => input,
            Some(conjuncts) => Arc::new(Plan::Filter { input, conjuncts }),
        },
        other => Arc::new(other),
    })
}

/// Conjuncts of a filter without those that always hold; `None` if one never does. For a filter null is as good as
/// false.
pub(super) fn simplify_conjuncts(conjuncts: Vec<Expr>) -> Option<Vec<Expr>> {
    let mut flat = vec![];
    for conjunct in conjuncts {
        conjunct.into_conjuncts(&mut flat);
    }
    let mut kept: Vec<Expr> = vec![];
    for conjunct in flat {
        match truth(&conjunct) {
            Some(Some(true)) => {}
            Some(Some(false) | None) => return None,
            None if kept.contains(&conjunct) && is_deterministic(&conjunct) => {}
            None => kept.push(conjunct),
        }
    }
    Some(kept)
}

/// The expression with constant parts evaluated and logic simplified, operands first.
pub(super) fn fold(expr: Expr) -> Expr {
    let expr = expr.map_children(&mut fold);
    let expr = match expr {
        Expr::And(list) => return junction(list, true),
        Expr::Or(list) => return junction(list, false),
        Expr::Not(operand) => return negate(*operand),
        Expr::IsNull(operand) if !operand.is_nullable() => Expr::Literal(Scalar::boolean(false)),
        Expr::Case { branches, otherwise, data_type } => return case(branches, otherwise, data_type),
        other => other,
    };
    let mut constant = !matches!(expr, Expr::Literal(_) | Expr::Column { .. });
    expr.for_each_child(&mut |child| constant &= matches!(child, Expr::Literal(_)));
    if constant && is_deterministic(&expr) {
        match evaluate_constant(&expr) {
            Ok(value) => Expr::Literal(value),
            Err(_) => expr,
        }
    } else {
        expr
    }
}

/// The value of a boolean literal, `Some(None)` for null.
fn truth(expr: &Expr) -> Option<Option<bool>> {
    match expr {
        Expr::Literal(Scalar { value: Value::Boolean(value), .. }) => Some(Some(*value)),
        Expr::Literal(Scalar { value: Value::Null, .. }) => Some(None),
        _ => None,
    }
}

/// A conjunction (`neutral` true) or disjunction (false): neutral operands vanish, the opposite decides, repetitions
/// count once, and null stays.
fn junction(list: Vec<Expr>, neutral: bool) -> Expr {
    let mut operands: Vec<Expr> = vec![];
    let flat = list.into_iter().flat_map(|operand| match operand {
        Expr::And(inner) if neutral => inner,
        Expr::Or(inner) if !neutral => inner,
        other => vec![other],
    });
    for operand in flat {
        match truth(&operand) {
            Some(Some(value)) if value == neutral => {}
            Some(Some(decided)) => return Expr::Literal(Scalar::boolean(decided)),
            Some(None) | None => {
                if !(operands.contains(&operand) && is_deterministic(&operand)) {
                    operands.push(operand);
                }
            }
        }
    }
    match operands.len() {
        0 => Expr::Literal(Scalar::boolean(neutral)),
        1 => operands.swap_remove(0),
        _ if neutral => Expr::And(operands),
        _ => Expr::Or(operands),
    }
}

/// NOT, moved inwards where that leaves one operator less.
fn negate(operand: Expr) -> Expr {
    match operand {
        Expr::Not(inner) => *inner,
        Expr::Compare { op, left, right } => Expr::Compare { op: op.negated(), left, right },
        Expr::Literal(Scalar { value: Value::Boolean(value), .. }) => Expr::Literal(Scalar::boolean(!value)),
        Expr::Literal(Scalar { value: Value::Null, .. }) => Expr::Literal(Scalar::null(DataType::Boolean)),
        other => Expr::Not(Box::new(other)),
    }
}

/// Branches that are never taken vanish, and nothing follows one that always is.
fn case(branches: Vec<(Expr, Expr)>, mut otherwise: Option<Box<Expr>>, data_type: DataType) -> Expr {
    let mut kept = vec![];
    for (condition, value) in branches {
        match truth(&condition) {
            Some(Some(true)) => {
                otherwise = Some(Box::new(value));
                break;
            }
            Some(Some(false) | None) => {}
            None => kept.push((condition, value)),
        }
    }
    match (kept.is_empty(), otherwise) {
        (true, Some(value)) => *value,
        (true, None) => Expr::Literal(Scalar::null(data_type)),
        (false, otherwise) => Expr::Case { branches: kept, otherwise, data_type },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn constants_are_evaluated_and_logic_shrinks() {
        assert_rewrites(
            &FoldConstants,
            "select a + 1 as x from t where b > 1 + 2 and true and not (a = 5)",
            "Project: (a + 1) AS x\n  Filter: (b > 3), (a <> 5)\n    Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &FoldConstants,
            "select a from t where a = 1 or true",
            "Project: a\n  Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &FoldConstants,
            "select case when 1 = 2 then a when 1 = 1 then b else 3 end as x from t",
            "Project: b AS x\n  Scan t: [a, b, c, d]\n",
        );
    }

    #[test]
    fn a_filter_that_never_holds_leaves_no_rows() {
        for condition in ["1 = 2", "null", "a = 1 and 1 > 2", "b is null"] {
            assert_rewrites(
                &FoldConstants,
                &format!("select a from t where {condition}"),
                "Project: a\n  Values: [a, b, c, d] rows=0\n",
            );
        }
    }
}
