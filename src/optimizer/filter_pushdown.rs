//! Moves conjuncts towards the scans, and into them.
//!
//! They pass projections (columns replaced by what they stand for), sorts, and aggregations as far as they read only
//! group keys. They do not pass a limit, which they would change.

use super::Rule;
use super::fold_constants::{fold, simplify_conjuncts};
use super::substitute::{Definitions, is_deterministic};
use crate::error::Result;
use crate::expr::Expr;
use crate::logical::{ColumnIds, Plan};
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
fn push(plan: &Arc<Plan>, mut conjuncts: Vec<Expr>) -> Arc<Plan> {
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
        Plan::Values { .. } => filter(plan.as_ref().clone(), conjuncts),
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
