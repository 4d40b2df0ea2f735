//! Moves conjuncts towards the scans, and into them.
//!
//! They pass projections (columns replaced by what they stand for), sorts, and aggregations as far as they read only
//! group keys; they go into each input of a union. They do not pass a limit, which they would change.

use super::Rule;
use super::fold_constants::{fold, simplify_conjuncts};
use super::substitute::{Definitions, is_deterministic};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use std::collections::HashSet;
use std::sync::Arc;

/// See the module.
pub(super) struct FilterPushdown;

impl Rule for FilterPushdown {
    fn name(&self) -> &'static str {
        "filter_pushdown"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        Ok(push(plan, vec![]))
    }
}

/// `plan` under `conjuncts`, which speak of its outputs.
pub(super) fn push(plan: &Arc<Plan>, mut conjuncts: Vec<Expr>) -> Arc<Plan> {
    match plan.as_ref() {
        Plan::Filter { input, conjuncts: own } => {
            // Those further down are evaluated first.
            let mut all = own.clone();
            all.append(&mut conjuncts);
            match simplify_conjuncts(all) {
                Some(all) => push(input, all),
                None => Arc::new(plan.emptied()),
            }
        }
        Plan::Project { input, columns } => {
            let definitions = Definitions::of(columns);
            let (moving, staying) = partition(conjuncts, |conjunct| {
                definitions.may_expand(conjunct) && is_deterministic(&definitions.apply(conjunct.clone()))
            });
            let moved = moving.into_iter().map(|conjunct| fold(definitions.apply(conjunct))).collect();
            match simplify_conjuncts(moved) {
                Some(moved) => {
                    let input = push(input, moved);
                    filter(Plan::Project { input, columns: columns.clone() }, staying)
                }
                None => Arc::new(plan.emptied()),
            }
        }
        Plan::Aggregate { input, groups, aggregates } => {
            let definitions = Definitions::of(groups);
            // Without groups there is one row whatever the input: a conjunct must decide about that row.
            let (moving, staying) = partition(conjuncts, |conjunct| {
                !groups.is_empty()
                    && definitions.cover(conjunct)
                    && definitions.may_expand(conjunct)
                    && is_deterministic(&definitions.apply(conjunct.clone()))
            });
            let moved = moving.into_iter().map(|conjunct| fold(definitions.apply(conjunct))).collect();
            match simplify_conjuncts(moved) {
                Some(moved) => {
                    let input = push(input, moved);
                    let (groups, aggregates) = (groups.clone(), aggregates.clone());
                    filter(Plan::Aggregate { input, groups, aggregates }, staying)
                }
                None => Arc::new(plan.emptied()),
            }
        }
        Plan::Sort { input, keys, fetch: None } => {
            Arc::new(Plan::Sort { input: push(input, conjuncts), keys: keys.clone(), fetch: None })
        }
        Plan::Sort { input, keys, fetch } => {
            let input = push(input, vec![]);
            filter(Plan::Sort { input, keys: keys.clone(), fetch: *fetch }, conjuncts)
        }
        Plan::Repeat { input, times } => {
            Arc::new(Plan::Repeat { input: push(input, conjuncts), times: times.clone() })
        }
        Plan::LimitPer { input, groups, keys, skip, fetch } => {
            let grouped: HashSet<ColumnId> = groups.iter().filter_map(column_of).collect();
            let grouped = Columns(grouped);
            // All rows of a group pass, or none.
            let (moving, staying) = partition(conjuncts, |e| grouped.cover(e) && is_deterministic(e));
            let input = push(input, moving);
            let (groups, keys) = (groups.clone(), keys.clone());
            filter(Plan::LimitPer { input, groups, keys, skip: *skip, fetch: *fetch }, staying)
        }
        Plan::UnionAll { columns, inputs, values } => push_union(plan, columns, inputs, values, conjuncts),
        Plan::Limit { input, skip, fetch } => {
            let input = push(input, vec![]);
            filter(Plan::Limit { input, skip: *skip, fetch: *fetch }, conjuncts)
        }
        Plan::Scan { table, provider, columns, filter_columns, filters } => {
            let mut filters = filters.clone();
            filters.append(&mut conjuncts);
            match simplify_conjuncts(filters) {
                Some(filters) => Arc::new(Plan::Scan {
                    table: table.clone(),
                    provider: Arc::clone(provider),
                    columns: columns.clone(),
                    filter_columns: filter_columns.clone(),
                    filters,
                }),
                None => Arc::new(plan.emptied()),
            }
        }
        Plan::Join { kind, left, right, keys, filters } => {
            push_join(kind.clone(), [left, right], keys.clone(), filters.clone(), conjuncts)
        }
        Plan::Values { .. } | Plan::Shared { .. } => filter(plan.as_ref().clone(), conjuncts),
    }
}

/// A join under `conjuncts`: what reads one side goes into that side where the kind allows it; what an inner join's
/// sides must have in common becomes a key or filter of it.
fn push_join(
    kind: JoinKind,
    [left, right]: [&Arc<Plan>; 2],
    mut keys: Vec<JoinKey>,
    filters: Vec<Expr>,
    mut conjuncts: Vec<Expr>,
) -> Arc<Plan> {
    let mut filters = if kind == JoinKind::Inner {
        conjuncts.extend(filters);
        vec![]
    } else {
        filters
    };
    let (from_left, from_right) = (Columns::of(left), Columns::of(right));
    let keeps_left_rows_apart = match kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Single | JoinKind::Semi => true,
        JoinKind::Anti { .. } | JoinKind::Mark { .. } => true,
        JoinKind::Full => false,
    };
    let (to_left, above) =
        partition(conjuncts, |e| keeps_left_rows_apart && from_left.cover(e) && is_deterministic(e));
    let (mut to_right, mut above) =
        partition(above, |e| kind == JoinKind::Inner && from_right.cover(e) && is_deterministic(e));
    let mut left_filters = to_left;
    match kind {
        JoinKind::Inner => {
            for conjunct in std::mem::take(&mut above) {
                match as_key(conjunct, &from_left, &from_right) {
                    Ok(key) => keys.push(key),
                    Err(conjunct) => filters.push(conjunct),
                }
            }
        }
        // A right row that fails a condition of its own meets nobody.
        JoinKind::Left | JoinKind::Single | JoinKind::Semi | JoinKind::Anti { null_aware: false } => {
            let (own, mut rest) = partition(filters, |e| from_right.cover(e) && is_deterministic(e));
            to_right.extend(own);
            if kind == JoinKind::Semi {
                let (own, others) = partition(rest, |e| from_left.cover(e) && is_deterministic(e));
                left_filters.extend(own);
                rest = others;
            }
            filters = vec![];
            for conjunct in rest {
                match as_key(conjunct, &from_left, &from_right) {
                    Ok(key) => keys.push(key),
                    Err(conjunct) => filters.push(conjunct),
                }
            }
        }
        JoinKind::Full | JoinKind::Anti { null_aware: true } | JoinKind::Mark { .. } => {}
    }
    let side = |input: &Arc<Plan>, conjuncts| match simplify_conjuncts(conjuncts) {
        Some(conjuncts) => push(input, conjuncts),
        None => Arc::new(input.emptied()),
    };
    let (left, right) = (side(left, left_filters), side(right, to_right));
    filter(Plan::Join { kind, left, right, keys, filters }, above)
}

/// A union under `conjuncts`: those that can be asked of every input are. An input they leave nothing of goes.
fn push_union(
    plan: &Arc<Plan>,
    columns: &[Column],
    inputs: &[Arc<Plan>],
    values: &[Vec<Expr>],
    conjuncts: Vec<Expr>,
) -> Arc<Plan> {
    let computed = |values: &[Expr]| -> Vec<(Column, Expr)> {
        columns.iter().cloned().zip(values.iter().cloned()).collect()
    };
    let defined: Vec<Vec<(Column, Expr)>> = values.iter().map(|values| computed(values)).collect();
    let (moving, staying) = partition(conjuncts, |conjunct| {
        defined.iter().all(|defined| {
            let definitions = Definitions::of(defined);
            definitions.may_expand(conjunct) && is_deterministic(&definitions.apply(conjunct.clone()))
        })
    });
    let (mut kept, mut kept_values) = (vec![], vec![]);
    for ((input, values), defined) in inputs.iter().zip(values).zip(&defined) {
        let definitions = Definitions::of(defined);
        let moved = moving.iter().map(|conjunct| fold(definitions.apply(conjunct.clone()))).collect();
        let pushed = simplify_conjuncts(moved).map(|moved| push(input, moved));
        if let Some(input) = pushed
            && !matches!(input.as_ref(), Plan::Values { rows, .. } if rows.is_empty())
        {
            kept.push(input);
            kept_values.push(values.clone());
        }
    }
    match (kept.len(), kept.pop(), kept_values.pop()) {
        (1, Some(input), Some(values)) if inputs.len() > 1 => {
            filter(Plan::Project { input, columns: computed(&values) }, staying)
        }
        (_, Some(input), Some(values)) => {
            kept.push(input);
            kept_values.push(values);
            let union = Plan::UnionAll { columns: columns.to_vec(), inputs: kept, values: kept_values };
            filter(union, staying)
        }
        (_, None, _) | (_, _, None) => Arc::new(plan.emptied()),
    }
}

/// The column, if an expression is nothing else.
fn column_of(expr: &Expr) -> Option<ColumnId> {
    match expr {
        Expr::Column { id, .. } => Some(*id),
        _ => None,
    }
}

/// The columns a plan produces.
struct Columns(HashSet<ColumnId>);

impl Columns {
    fn of(plan: &Plan) -> Self {
        Self(plan.columns().into_iter().map(|column| column.id).collect())
    }

    /// Whether `expr` reads these columns only, and at least one.
    fn cover(&self, expr: &Expr) -> bool {
        let (mut all, mut any) = (true, false);
        expr.for_each_column(&mut |id| {
            all &= self.0.contains(&id);
            any = true;
        });
        all && any
    }
}

/// The conjunct as a key between two sides, if it is an equality between them; else the conjunct.
fn as_key(conjunct: Expr, from_left: &Columns, from_right: &Columns) -> Result<JoinKey, Expr> {
    let Expr::Compare { op: op @ (CompareOp::Eq | CompareOp::IsNotDistinct), left, right } = conjunct else {
        return Err(conjunct);
    };
    let null_safe = op == CompareOp::IsNotDistinct;
    let is_deterministic = is_deterministic(&left) && is_deterministic(&right);
    if is_deterministic && from_left.cover(&left) && from_right.cover(&right) {
        Ok(JoinKey { left: *left, right: *right, null_safe })
    } else if is_deterministic && from_left.cover(&right) && from_right.cover(&left) {
        Ok(JoinKey { left: *right, right: *left, null_safe })
    } else {
        Err(Expr::Compare { op, left, right })
    }
}

fn partition(conjuncts: Vec<Expr>, moves: impl Fn(&Expr) -> bool) -> (Vec<Expr>, Vec<Expr>) {
    conjuncts.into_iter().partition(moves)
}

fn filter(input: Plan, conjuncts: Vec<Expr>) -> Arc<Plan> {
    let input = Arc::new(input);
    if conjuncts.is_empty() { input } else { Arc::new(Plan::Filter { input, conjuncts }) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn filters_pass_projections_sorts_and_groups_into_the_scan() {
        assert_rewrites(
            &FilterPushdown,
            "select x from (select a + b as x, b from t order by a) where x > 3 and b < 9",
            "Project: x\n  Project: x, b\n    Sort: a\n      Project: (a + b) AS x, b, a\n        \
             Scan t: [a, b, c, d] filters=[((a + b) > 3), (b < 9)]\n",
        );
        assert_rewrites(
            &FilterPushdown,
            "select a, count(*) as n from t group by a having count(*) > 1 and a > 2",
            "Project: a, count_star()\n  Filter: (count_star() > 1)\n    \
             Aggregate: groups=[a] aggregates=[count(*) AS count_star()]\n      \
             Scan t: [a, b, c, d] filters=[(a > 2)]\n",
        );
    }

    #[test]
    fn filters_go_into_the_inputs_of_unions() {
        assert_rewrites(
            &FilterPushdown,
            "select v from (select a as v, 1 as k from t union all select x, 2 from u) where v > 3 and k = 2",
            "Project: v\n  Project: x AS v, 2 AS k#10\n    Project: x, 2\n      \
             Scan u: [k#5, x, y] filters=[(x > 3)]\n",
        );
        assert_rewrites(
            &FilterPushdown,
            "select v from (select a as v from t union select y from u) where v > 3",
            "Project: v\n  Aggregate: groups=[v] aggregates=[]\n    UnionAll: [v] of [a], [y]\n      \
             Project: a\n        Scan t: [a, b, c, d] filters=[(a > 3)]\n      Project: y\n        \
             Scan u: [k, x, y] filters=[(y > 3)]\n",
        );
    }

    #[test]
    fn conjuncts_do_not_grow_without_bound_on_their_way() {
        let mut sql = "select a as x from t".to_owned();
        for _ in 0..40 {
            sql = format!("select x + x as x from ({sql})");
        }
        let plan = super::super::testing::bind(&format!("select x from ({sql}) where x > 1"));
        let plan = super::super::testing::optimized(plan).expect("optimizes");
        let mut largest = 0;
        plan.for_each_node(&mut |node| node.for_each_expr(&mut |e| largest = largest.max(e.node_count())));
        assert!(largest <= 256, "{largest} nodes");
    }

    #[test]
    fn filters_stay_above_limits_and_ungrouped_aggregates() {
        assert_rewrites(
            &FilterPushdown,
            "select a from (select a from t limit 3) where a > 1",
            "Project: a\n  Filter: (a > 1)\n    Limit: 3\n      Project: a\n        Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &FilterPushdown,
            "select n from (select count(*) as n from t) where n > 1",
            "Project: count_star()\n  Project: count_star()\n    Filter: (count_star() > 1)\n      \
             Aggregate: groups=[] aggregates=[count(*) AS count_star()]\n        Scan t: [a, b, c, d]\n",
        );
    }
}
