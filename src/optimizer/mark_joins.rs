//! A filter on nothing but the answer of a mark join, which nobody else reads, makes it a semi or anti join.

use super::Rule;
use crate::data::{Scalar, Value};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{ColumnIds, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// See the module.
pub(super) struct MarkJoins;

impl Rule for MarkJoins {
    fn name(&self) -> &'static str {
        "mark_joins"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let mut reads: HashMap<ColumnId, usize> = HashMap::new();
        plan.for_each_node(&mut |node| {
            node.for_each_expr(&mut |e| e.for_each_column(&mut |id| *reads.entry(id).or_default() += 1));
        });
        for column in plan.columns() {
            *reads.entry(column.id).or_default() += 1;
        }
        rewrite(plan, &reads)
    }
}

fn rewrite(plan: &Arc<Plan>, reads: &HashMap<ColumnId, usize>) -> Result<Arc<Plan>> {
    let node = plan.try_map_inputs(&mut |input| rewrite(input, reads))?;
    let Plan::Filter { mut input, conjuncts } = node else { return Ok(Arc::new(node)) };
    let mut kept = vec![];
    for conjunct in conjuncts {
        let converted = asked(&conjunct).and_then(|(mark, negated)| {
            let mut passes = 0;
            let plan = convert(&input, mark, negated, &mut passes)?;
            // Read here and where it is passed on.
            (reads.get(&mark) == Some(&(1 + passes))).then_some(plan)
        });
        match converted {
            Some(plan) => input = plan,
            None => kept.push(conjunct),
        }
    }
    Ok(if kept.is_empty() { input } else { Arc::new(Plan::Filter { input, conjuncts: kept }) })
}

/// The column a conjunct consists of, and whether it is negated.
fn asked(conjunct: &Expr) -> Option<(ColumnId, bool)> {
    match conjunct {
        Expr::Column { id, .. } => Some((*id, false)),
        Expr::Not(operand) => match operand.as_ref() {
            Expr::Column { id, .. } => Some((*id, true)),
            _ => None,
        },
        _ => None,
    }
}

/// `plan` with only the rows whose mark is true (or false, if negated), and without the mark. Counts in `passes` the
/// projections that passed it on.
fn convert(plan: &Arc<Plan>, mark: ColumnId, negated: bool, passes: &mut usize) -> Option<Arc<Plan>> {
    let converted = match plan.as_ref() {
        Plan::Join { kind: JoinKind::Mark { column, null_aware }, left, right, keys, filters }
            if column.id == mark =>
        {
            let filters = filters.iter().map(|filter| match without_surely(filter) {
                Some(condition) => condition.clone(),
                // A row for which the answer is unknown is not kept either.
                None if negated => not_false(filter.clone()),
                None => filter.clone(),
            });
            let filters = filters.collect();
            let kind = if negated {
                // With neither side ever null the answer is never unknown.
                let null_aware =
                    *null_aware && keys.iter().any(|key| key.left.is_nullable() || key.right.is_nullable());
                JoinKind::Anti { null_aware }
            } else {
                JoinKind::Semi
            };
            let (left, right) = (Arc::clone(left), Arc::clone(right));
            Plan::Join { kind, left, right, keys: keys.clone(), filters }
        }
        Plan::Join { kind: JoinKind::Full, .. } => return None,
        Plan::Join { kind, left, right, keys, filters } => Plan::Join {
            kind: kind.clone(),
            left: convert(left, mark, negated, passes)?,
            right: Arc::clone(right),
            keys: keys.clone(),
            filters: filters.clone(),
        },
        Plan::Filter { input, conjuncts } => {
            Plan::Filter { input: convert(input, mark, negated, passes)?, conjuncts: conjuncts.clone() }
        }
        Plan::Project { input, columns } => {
            let is_mark = |e: &Expr| matches!(e, Expr::Column { id, .. } if *id == mark);
            let (passed, columns): (Vec<_>, Vec<_>) =
                columns.iter().cloned().partition(|(column, e)| column.id == mark && is_mark(e));
            *passes += passed.len();
            Plan::Project { input: convert(input, mark, negated, passes)?, columns }
        }
        Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::UnionAll { .. }
        | Plan::Shared { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. } => return None,
    };
    Some(Arc::new(converted))
}

/// The `e` of `e IS NOT DISTINCT FROM true`: to meet or not to meet, unknown is as good as false.
fn without_surely(filter: &Expr) -> Option<&Expr> {
    let is_true = |e: &Expr| matches!(e, Expr::Literal(Scalar { value: Value::Boolean(true), .. }));
    match filter {
        Expr::Compare { op: CompareOp::IsNotDistinct, left, right } if is_true(right) => Some(left),
        _ => None,
    }
}

/// Whether a filter is true or unknown.
fn not_false(filter: Expr) -> Expr {
    if !filter.is_nullable() {
        return filter;
    }
    let no = Box::new(Expr::Literal(Scalar::boolean(false)));
    Expr::Compare { op: CompareOp::IsDistinct, left: Box::new(filter), right: no }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites_after;
    use super::super::unnest::UnnestSubqueries;
    use super::*;

    fn assert_becomes(condition: &str, expected: &str) {
        let sql = format!("select b from t where {condition}");
        assert_rewrites_after(&[&UnnestSubqueries], &MarkJoins, &sql, expected);
    }

    #[test]
    fn answers_that_are_only_filtered_by_become_semi_and_anti_joins() {
        assert_becomes(
            "exists (select 1 from u where k = a) and b > 1",
            "Project: b\n  SemiJoin: a = k\n    Filter: (b > 1)\n      Scan t: [a, b, c, d]\n    Scan u: [k, x, y]\n",
        );
        assert_becomes(
            "not exists (select 1 from u where k = a and x > b)",
            "Project: b\n  AntiJoin: a = k filters=[(x > b)]\n    Scan t: [a, b, c, d]\n    Scan u: [k, x, y]\n",
        );
        assert_becomes(
            "a in (select k from u)",
            "Project: b\n  SemiJoin: a = k\n    Scan t: [a, b, c, d]\n    Project: k\n      Scan u: [k, x, y]\n",
        );
    }

    #[test]
    fn not_in_knows_of_nulls_where_there_may_be_some() {
        assert_becomes(
            "a not in (select k from u)",
            "Project: b\n  NullAwareAntiJoin: a = k\n    Scan t: [a, b, c, d]\n    Project: k\n      \
             Scan u: [k, x, y]\n",
        );
        assert_becomes(
            "b not in (select y from u)",
            "Project: b\n  AntiJoin: b = y\n    Scan t: [a, b, c, d]\n    Project: y\n      Scan u: [k, x, y]\n",
        );
        // An unknown answer keeps no row: whatever is not known to differ counts as met.
        assert_becomes(
            "b not in (select x from u where k = a)",
            "Project: b\n  AntiJoin: a = k filters=[((b = x) IS DISTINCT FROM false)]\n    Scan t: [a, b, c, d]\n    \
             Project: x, k\n      Scan u: [k, x, y]\n",
        );
    }

    #[test]
    fn answers_that_are_read_otherwise_stay() {
        assert_becomes(
            "exists (select 1 from u where k = a) or b = 1",
            "Project: b\n  Filter: (exists OR (b = 1))\n    MarkJoin: a = k AS exists\n      Scan t: [a, b, c, d]\n      \
             Scan u: [k, x, y]\n",
        );
    }
}
