//! An aggregation of what another one groups more finely is computed from the other's groups, which are kept for both.
//!
//! `sum(x)` of all rows is the sum of the sums of groups, so a query that compares each group with the whole (as
//! `having sum(x) > (select 0.01 * sum(x) …)` does) reads its tables once. The rule runs when joins are in their final
//! order and before columns are pruned: until then both aggregations have the same input, if they ever have. It pays
//! where sharing the finer one does (see [`super::shared_subplans`]), as whose copies it leaves the two.

use super::Rule;
use super::copy::{copy, with_new_ids};
use super::partial_aggregates::{has_parts, put_together, with_outputs};
use super::projection_pushdown::ProjectionPushdown;
use super::shared_subplans::{first_free_number, is_same, may_be_shared};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, Plan};
use std::sync::Arc;

/// More aggregations are not compared with each other.
const MOST_AGGREGATIONS: usize = 64;

/// See the module.
pub(super) struct CoarserAggregates;

impl Rule for CoarserAggregates {
    fn name(&self) -> &'static str {
        "coarser_aggregates"
    }

    fn shares(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let mut all = Vec::new();
        collect(plan, &mut all);
        if all.len() < 2 || all.len() > MOST_AGGREGATIONS {
            return Ok(Arc::clone(plan));
        }
        let mut number = first_free_number(plan);
        let mut replaced: Vec<(Arc<Plan>, Arc<Plan>)> = Vec::new();
        for (at, coarse) in all.iter().enumerate() {
            let finer =
                all.iter().enumerate().filter(|(other, finer)| *other != at && finer.is_finer_than(coarse));
            // The finest is computed from no other.
            let Some((_, fine)) = finer.max_by_key(|(_, finer)| finer.groups.len()) else { continue };
            let known = replaced.iter().find(|(plan, _)| Arc::ptr_eq(plan, &fine.plan));
            let shared = match known {
                Some((_, shared)) => Arc::clone(shared),
                None if may_be_shared(&fine.plan) => {
                    let columns = fine.plan.output_columns();
                    let kept = ProjectionPushdown.apply(&fine.plan, ids)?;
                    let shared = Arc::new(Plan::Shared { number, plan: kept, columns });
                    number += 1;
                    replaced.push((Arc::clone(&fine.plan), Arc::clone(&shared)));
                    shared
                }
                None => continue,
            };
            let from_groups = coarse.over_groups_of(fine, &shared, ids)?;
            replaced.push((Arc::clone(&coarse.plan), from_groups));
        }
        Ok(replace(plan, &replaced))
    }
}

/// An aggregation, in terms of its input with columns numbered from 0.
struct Aggregation {
    plan: Arc<Plan>,
    input: Arc<Plan>,
    groups: Vec<Expr>,
    calls: Vec<AggregateCall>,
}

/// All aggregations that are not shared yet.
fn collect(plan: &Arc<Plan>, all: &mut Vec<Aggregation>) {
    match plan.as_ref() {
        Plan::Shared { .. } => return,
        Plan::Aggregate { input, groups, aggregates } => {
            let (input, renamed) = copy(input, &mut ColumnIds::default());
            let groups = groups.iter().map(|(_, e)| with_new_ids(e.clone(), &renamed)).collect();
            let canonical = |call: &AggregateCall| AggregateCall {
                arguments: call.arguments.iter().map(|e| with_new_ids(e.clone(), &renamed)).collect(),
                filter: call.filter.clone().map(|e| with_new_ids(e, &renamed)),
                ..call.clone()
            };
            let calls = aggregates.iter().map(|(_, call)| canonical(call)).collect();
            all.push(Aggregation { plan: Arc::clone(plan), input, groups, calls });
        }
        _ => {}
    }
    plan.inputs().into_iter().for_each(|input| collect(input, all));
}

impl Aggregation {
    /// Whether the groups of `coarse` consist of whole groups of this one, and all it computes follows from them.
    fn is_finer_than(&self, coarse: &Self) -> bool {
        self.groups.len() > coarse.groups.len()
            && coarse.groups.iter().all(|group| self.groups.contains(group))
            && coarse.calls.iter().all(|call| !call.distinct && has_parts(call) && self.calls.contains(call))
            && is_same(&self.input, &coarse.input)
    }

    /// This aggregation over the rows of `shared`, which is `fine`.
    fn over_groups_of(&self, fine: &Self, shared: &Plan, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let (Plan::Shared { number, plan, columns }, Plan::Aggregate { groups, aggregates, .. }) =
            (shared, self.plan.as_ref())
        else {
            return Err(Error::internal("an aggregation of the plan is none"));
        };
        let columns: Vec<Column> =
            columns.iter().map(|column| Column { id: ids.fresh(), ..column.clone() }).collect();
        let (keys, parts) = columns.split_at(fine.groups.len());
        let mut outputs: Vec<(Column, Expr)> =
            groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
        let column_of = |expr: &Expr| keys.iter().zip(&fine.groups).find(|(_, group)| *group == expr);
        let regrouped = groups.iter().zip(&self.groups).filter_map(|((column, _), expr)| {
            column_of(expr).map(|(key, _)| (column.clone(), key.to_expr()))
        });
        let regrouped: Vec<_> = regrouped.collect();
        let mut totals = Vec::with_capacity(aggregates.len());
        for ((column, asked), call) in aggregates.iter().zip(&self.calls) {
            let part = parts.iter().zip(&fine.calls).find(|(_, known)| *known == call);
            let Some((part, _)) = part else {
                return Err(Error::internal("a finer aggregation lacks a part"));
            };
            let (total, value) = put_together(asked, column, part, groups.is_empty(), ids)?;
            totals.push(total);
            outputs.push((column.clone(), value));
        }
        let input = Arc::new(Plan::Shared { number: *number, plan: Arc::clone(plan), columns });
        let aggregate = Plan::Aggregate { input, groups: regrouped, aggregates: totals };
        Ok(Arc::new(with_outputs(aggregate, outputs)))
    }
}

fn replace(plan: &Arc<Plan>, replaced: &[(Arc<Plan>, Arc<Plan>)]) -> Arc<Plan> {
    if let Some((_, by)) = replaced.iter().find(|(old, _)| Arc::ptr_eq(old, plan)) {
        return Arc::clone(by);
    }
    let Ok(mapped) =
        plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(replace(input, replaced)));
    Arc::new(mapped)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, optimized, text};

    fn plan(sql: &str) -> String {
        text(&optimized(bind(sql)).expect("optimizes"))
    }

    #[test]
    fn the_whole_is_computed_from_its_groups() {
        let sql = "select b, sum(a), count(*) from t where c = 'x' group by b \
                   having sum(a) > (select sum(a) / 100 from t where c = 'x') \
                      and count(*) < (select count(*) from t where c = 'x')";
        let text = plan(sql);
        assert_eq!(text.matches("Shared 0").count(), 3, "{text}");
        assert!(text.contains("sum(sum(a)"), "{text}");
        assert!(text.contains("sum(count"), "{text}");
    }

    #[test]
    fn coarser_groups_are_computed_from_finer_ones() {
        let sql = "select x.b, y.n from (select b, d, count(*) n, max(a) from t group by b, d) x \
                   join (select b, max(a) n from t group by b) y on x.b = y.b where x.n > 1";
        let text = plan(sql);
        assert_eq!(text.matches("Shared 0").count(), 2, "{text}");
    }

    #[test]
    fn distinct_values_are_those_of_the_groups_distinct_values() {
        let sql = "select b, count(distinct a) from t group by b \
                   having count(distinct a) > (select count(distinct a) / 2 from t)";
        let text = plan(sql);
        assert_eq!(text.matches("Shared 0").count(), 2, "{text}");
    }

    #[test]
    fn what_does_not_follow_is_computed_from_the_rows() {
        for sql in [
            // Other rows, what the groups do not have, and what parts do not tell.
            "select b, sum(a) from t where c = 'x' group by b having sum(a) > (select sum(a) from t where c = 'y')",
            "select b, sum(a) from t group by b having sum(a) > (select max(a) from t)",
            "select b, stddev(a) from t group by b having stddev(a) > (select stddev(a) from t)",
        ] {
            let text = plan(sql);
            assert_eq!(text.matches("Shared").count(), 0, "{sql}\n{text}");
        }
    }
}
