//! What holds for one column of an equality between two inputs of a join holds for the other: comparisons with
//! constants on one side of a join filter the other side too.

use super::Rule;
use super::filter_pushdown::push;
use super::substitute::inline;
use crate::error::Result;
use crate::expr::{ColumnId, Expr};
use crate::logical::{ColumnIds, JoinKey, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes looked at for the facts about one column. Queries that many-fold equalities join are not searched to the end.
const MOST_STEPS: usize = 1_000;

/// See the module.
pub(super) struct TransitivePredicates;

impl Rule for TransitivePredicates {
    fn name(&self) -> &'static str {
        "transitive_predicates"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let mut compares = false;
        plan.for_each_node(&mut |node| {
            node.for_each_expr(&mut |e| compares |= is_comparison(e));
        });
        Ok(if compares { derive(plan) } else { Arc::clone(plan) })
    }
}

/// From the top down, so that what a side is given reaches the joins within it.
fn derive(plan: &Arc<Plan>) -> Arc<Plan> {
    let Plan::Join { kind, left, right, keys, filters } = plan.as_ref() else {
        let Ok(node) = plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(derive(input)));
        return Arc::new(node);
    };
    let (to_left, to_right) = directions(kind);
    let implied = |from: &Arc<Plan>, to: &Arc<Plan>, pairs: Vec<(&Expr, &Expr)>| {
        let mut implied: Vec<Expr> = vec![];
        for (known, other) in pairs {
            let (Expr::Column { id, .. }, Expr::Column { id: other_id, .. }) = (known, other) else {
                continue;
            };
            if known.data_type() != other.data_type() {
                continue;
            }
            let there = facts(to, *other_id, &mut MOST_STEPS.clone());
            for fact in facts(from, *id, &mut MOST_STEPS.clone()) {
                let fact = inline(fact, &HashMap::from([(*id, other.clone())]));
                if !there.contains(&fact) && !implied.contains(&fact) {
                    implied.push(fact);
                }
            }
        }
        implied
    };
    let onto = |to: &Arc<Plan>, implied: Vec<Expr>| {
        if implied.is_empty() { derive(to) } else { derive(&push(to, implied)) }
    };
    let for_left = if to_left {
        implied(right, left, keys.iter().map(|k| (&k.right, &k.left)).collect())
    } else {
        vec![]
    };
    let for_right = if to_right {
        implied(left, right, keys.iter().map(|k| (&k.left, &k.right)).collect())
    } else {
        vec![]
    };
    Arc::new(Plan::Join {
        kind: kind.clone(),
        left: onto(left, for_left),
        right: onto(right, for_right),
        keys: keys.clone(),
        filters: filters.clone(),
    })
}

/// Whether rows of the left, of the right input that cannot meet any row do not matter.
fn directions(kind: &JoinKind) -> (bool, bool) {
    match kind {
        JoinKind::Inner | JoinKind::Semi => (true, true),
        JoinKind::Left | JoinKind::Single | JoinKind::Anti { null_aware: false } => (false, true),
        JoinKind::Full | JoinKind::Anti { null_aware: true } | JoinKind::Mark { .. } => (false, false),
    }
}

/// Comparisons of column `id` with constants that hold for every row of `plan`, in terms of that column.
fn facts(plan: &Plan, id: ColumnId, steps: &mut usize) -> Vec<Expr> {
    if *steps == 0 || !plan.columns().iter().any(|column| column.id == id) {
        return vec![];
    }
    *steps -= 1;
    let of = |conjuncts: &[Expr]| conjuncts.iter().filter(|e| bounds(e, id)).cloned().collect::<Vec<_>>();
    // The facts about what the column stands for below.
    let mut below = |input: &Plan, expr: Option<&Expr>| match expr {
        Some(Expr::Column { id: source, data_type, nullable }) => {
            let column = Expr::Column { id, data_type: data_type.clone(), nullable: *nullable };
            let renamed = HashMap::from([(*source, column)]);
            facts(input, *source, steps).into_iter().map(|fact| inline(fact, &renamed)).collect()
        }
        _ => vec![],
    };
    match plan {
        Plan::Scan { filters, .. } => of(filters),
        Plan::Values { .. } => vec![],
        Plan::Filter { input, conjuncts } => {
            let mut all = facts(input, id, steps);
            all.extend(of(conjuncts));
            all
        }
        Plan::Project { input, columns } => {
            below(input, columns.iter().find(|(column, _)| column.id == id).map(|(_, e)| e))
        }
        Plan::Aggregate { input, groups, .. } => {
            below(input, groups.iter().find(|(column, _)| column.id == id).map(|(_, e)| e))
        }
        Plan::Sort { input, .. } | Plan::Limit { input, .. } => facts(input, id, steps),
        Plan::Join { kind, left, right, keys, .. } => {
            let (left_is_bound, right_is_bound) = match kind {
                JoinKind::Inner => (true, true),
                JoinKind::Semi => (true, false),
                JoinKind::Left
                | JoinKind::Single
                | JoinKind::Anti { .. }
                | JoinKind::Mark { .. }
                | JoinKind::Full => (false, false),
            };
            // Null-extended columns satisfy nothing.
            let mut all = if kind.nulls_left() { vec![] } else { facts(left, id, steps) };
            if kind.emits_right() && !kind.nulls_right() {
                all.extend(facts(right, id, steps));
            }
            for JoinKey { left: l, right: r, .. } in keys {
                let is_it = |e: &Expr| matches!(e, Expr::Column { id: read, .. } if *read == id);
                let (input, own, other) = match (is_it(l), is_it(r)) {
                    (true, _) if left_is_bound => (right, l, r),
                    (_, true) if right_is_bound => (left, r, l),
                    _ => continue,
                };
                let Expr::Column { id: there, .. } = other else { continue };
                if own.data_type() == other.data_type() {
                    let renamed = HashMap::from([(*there, own.clone())]);
                    all.extend(facts(input, *there, steps).into_iter().map(|fact| inline(fact, &renamed)));
                }
            }
            all
        }
    }
}

/// Whether `expr` may be something to derive others from.
fn is_comparison(expr: &Expr) -> bool {
    match expr {
        Expr::Compare { .. } | Expr::InList { .. } => true,
        Expr::Or(list) => list.iter().all(is_comparison),
        _ => false,
    }
}

/// Whether `expr` compares nothing but column `id` with constants.
fn bounds(expr: &Expr, id: ColumnId) -> bool {
    let is_it = |e: &Expr| matches!(e, Expr::Column { id: read, .. } if *read == id);
    let is_constant = |e: &Expr| matches!(e, Expr::Literal(_));
    match expr {
        Expr::Compare { left, right, .. } => {
            is_it(left) && is_constant(right) || is_constant(left) && is_it(right)
        }
        Expr::InList { operand, .. } => is_it(operand),
        Expr::Or(list) => list.iter().all(|e| bounds(e, id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter_pushdown::FilterPushdown;
    use super::super::testing::assert_rewrites_after;
    use super::*;

    fn assert_becomes(sql: &str, expected: &str) {
        assert_rewrites_after(&[&FilterPushdown], &TransitivePredicates, sql, expected);
    }

    #[test]
    fn constants_and_ranges_cross_joins() {
        assert_becomes(
            "select b from t join u on a = k where a > 3 and k < 9 and b <> 4",
            "Project: b\n  InnerJoin: a = k\n    \
             Scan t: [a, b, c, d] filters=[(a > 3), (b <> 4), (a < 9)]\n    \
             Scan u: [k, x, y] filters=[(k < 9), (k > 3)]\n",
        );
        assert_becomes(
            "select b from t join u on a = k where a in (1, 2) or a > 7",
            "Project: b\n  InnerJoin: a = k\n    \
             Scan t: [a, b, c, d] filters=[((a IN (1, 2)) OR (a > 7))]\n    \
             Scan u: [k, x, y] filters=[((k IN (1, 2)) OR (k > 7))]\n",
        );
    }

    #[test]
    fn they_pass_equalities_of_other_joins_and_group_keys() {
        assert_becomes(
            "select t.b from t join u on a = k join (select a as z, count(*) as n from t group by a) on k = z where t.a = 5",
            "Project: b#1\n  InnerJoin: k = a#7\n    InnerJoin: a#0 = k\n      \
             Scan t: [a#0, b#1, c#2, d#3] filters=[(a#0 = 5)]\n      Scan u: [k, x, y] filters=[(k = 5)]\n    \
             Project: a#7, count_star()\n      Aggregate: groups=[a#7] aggregates=[count(*) AS count_star()]\n        \
             Scan t: [a#7, b#8, c#9, d#10] filters=[(a#7 = 5)]\n",
        );
    }

    #[test]
    fn outer_joins_let_them_pass_to_the_side_that_may_be_missing() {
        assert_becomes(
            "select b from t left join u on a = k where a > 3",
            "Project: b\n  LeftJoin: a = k\n    Scan t: [a, b, c, d] filters=[(a > 3)]\n    \
             Scan u: [k, x, y] filters=[(k > 3)]\n",
        );
        assert_becomes(
            "select b from t left join u on a = k and k > 3",
            "Project: b\n  LeftJoin: a = k\n    Scan t: [a, b, c, d]\n    Scan u: [k, x, y] filters=[(k > 3)]\n",
        );
        assert_becomes(
            "select b from t full join (select * from u where k > 3) on a = k",
            "Project: b\n  FullJoin: a = k\n    Scan t: [a, b, c, d]\n    Project: k, x, y\n      \
             Scan u: [k, x, y] filters=[(k > 3)]\n",
        );
    }

    #[test]
    fn other_predicates_stay_where_they_are() {
        assert_becomes(
            "select b from t join u on a = k where a + 1 > 3 and a is not null and a > b",
            "Project: b\n  InnerJoin: a = k\n    \
             Scan t: [a, b, c, d] filters=[((a + 1) > 3), (NOT (a IS NULL)), (a > b)]\n    Scan u: [k, x, y]\n",
        );
    }
}
