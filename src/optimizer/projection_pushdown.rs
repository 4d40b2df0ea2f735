//! Every node produces only columns somebody reads. Scans read only those; columns that only their filters need are
//! read for the filters alone. Projections that do nothing vanish, and one over another becomes one.

use super::Rule;
use super::substitute::{Definitions, is_deterministic, is_trivial};
use crate::error::Result;
use crate::expr::{ColumnId, Expr};
use crate::logical::{Column, ColumnIds, Plan};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// See the module.
pub(super) struct ProjectionPushdown;

pub(super) type Required = BTreeSet<ColumnId>;

impl Rule for ProjectionPushdown {
    fn name(&self) -> &'static str {
        "projection_pushdown"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let outputs = plan.output_columns();
        let required = outputs.iter().map(|column| column.id).collect();
        Ok(exactly(prune(plan, &required), &outputs))
    }
}

/// `plan` producing at least `required`, and little else.
fn prune(plan: &Arc<Plan>, required: &Required) -> Arc<Plan> {
    match plan.as_ref() {
        Plan::Scan { table, provider, columns, filter_columns, filters } => {
            let all: Vec<&(Column, usize)> = columns.iter().chain(filter_columns).collect();
            let filtered = read_by(filters);
            let select = |keep: &dyn Fn(ColumnId) -> bool| -> Vec<(Column, usize)> {
                all.iter().filter(|(column, _)| keep(column.id)).map(|column| (*column).clone()).collect()
            };
            Arc::new(Plan::Scan {
                table: table.clone(),
                provider: Arc::clone(provider),
                columns: select(&|id| required.contains(&id)),
                filter_columns: select(&|id| filtered.contains(&id) && !required.contains(&id)),
                filters: filters.clone(),
            })
        }
        Plan::Values { columns, rows } => {
            let keep: Vec<bool> = columns.iter().map(|column| required.contains(&column.id)).collect();
            let rows = rows.iter().map(|row| kept(row, &keep)).collect();
            Arc::new(Plan::Values { columns: kept(columns, &keep), rows })
        }
        Plan::Filter { input, conjuncts } => {
            let needed = required.union(&read_by(conjuncts)).copied().collect();
            Arc::new(Plan::Filter { input: prune(input, &needed), conjuncts: conjuncts.clone() })
        }
        Plan::Project { input, columns } => {
            let columns: Vec<_> =
                columns.iter().filter(|(column, _)| required.contains(&column.id)).cloned().collect();
            let needed = read_by(columns.iter().map(|(_, expr)| expr));
            project(prune(input, &needed), columns)
        }
        Plan::Aggregate { input, groups, aggregates } => {
            let aggregates: Vec<_> =
                aggregates.iter().filter(|(column, _)| required.contains(&column.id)).cloned().collect();
            if groups.is_empty() && aggregates.is_empty() {
                // One row of nothing, whatever the input.
                return Arc::new(Plan::Values { columns: vec![], rows: vec![vec![]] });
            }
            let keys = groups.iter().map(|(_, key)| key);
            let operands = aggregates.iter().flat_map(|(_, call)| call.arguments.iter().chain(&call.filter));
            let input = prune(input, &read_by(keys.chain(operands)));
            Arc::new(Plan::Aggregate { input, groups: groups.clone(), aggregates })
        }
        Plan::Sort { input, keys, fetch } => {
            let needed: Required =
                required.union(&read_by(keys.iter().map(|key| &key.expr))).copied().collect();
            let input = prune(input, &needed);
            // A sort holds all it is given: what only a filter below read is dropped first.
            let columns: Vec<Column> =
                input.output_columns().into_iter().filter(|column| needed.contains(&column.id)).collect();
            Arc::new(Plan::Sort { input: exactly(input, &columns), keys: keys.clone(), fetch: *fetch })
        }
        Plan::Limit { input, skip, fetch } => {
            Arc::new(Plan::Limit { input: prune(input, required), skip: *skip, fetch: *fetch })
        }
        Plan::Shared { .. } => Arc::clone(plan),
        Plan::LimitPer { input, groups, keys, skip, fetch } => {
            let read = read_by(groups.iter().chain(keys.iter().map(|key| &key.expr)));
            let needed: Required = required.union(&read).copied().collect();
            // It sorts what it is given.
            let (input, groups, keys) = (prune_exactly(input, &needed), groups.clone(), keys.clone());
            Arc::new(Plan::LimitPer { input, groups, keys, skip: *skip, fetch: *fetch })
        }
        Plan::Repeat { input, times } => {
            let needed = required.union(&read_by([times])).copied().collect();
            Arc::new(Plan::Repeat { input: prune(input, &needed), times: times.clone() })
        }
        Plan::UnionAll { columns, inputs, values } => {
            let keep: Vec<bool> = columns.iter().map(|column| required.contains(&column.id)).collect();
            let values: Vec<Vec<Expr>> = values.iter().map(|list| kept(list, &keep)).collect();
            let inputs = inputs.iter().zip(&values).map(|(input, values)| prune(input, &read_by(values)));
            Arc::new(Plan::UnionAll { columns: kept(columns, &keep), inputs: inputs.collect(), values })
        }
        Plan::Join { kind, left, right, keys, filters } => {
            let read = read_by(keys.iter().flat_map(|key| [&key.left, &key.right]).chain(filters));
            let needed: Required = required.union(&read).copied().collect();
            Arc::new(Plan::Join {
                kind: kind.clone(),
                left: prune_exactly(left, &needed),
                right: prune_exactly(right, &needed),
                keys: keys.clone(),
                filters: filters.clone(),
            })
        }
    }
}

/// `plan` producing those of its columns that are in `required` and no others: joins carry what they are given.
fn prune_exactly(plan: &Arc<Plan>, required: &Required) -> Arc<Plan> {
    let columns: Vec<Column> =
        plan.output_columns().into_iter().filter(|column| required.contains(&column.id)).collect();
    let ids = columns.iter().map(|column| column.id).collect();
    exactly(prune(plan, &ids), &columns)
}

pub(super) fn read_by<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Required {
    let mut columns = Required::new();
    for expr in exprs {
        expr.for_each_column(&mut |id| {
            columns.insert(id);
        });
    }
    columns
}

fn kept<T: Clone>(items: &[T], keep: &[bool]) -> Vec<T> {
    items.iter().zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| item.clone()).collect()
}

/// `plan` producing `columns` and nothing else, in that order.
pub(super) fn exactly(plan: Arc<Plan>, columns: &[Column]) -> Arc<Plan> {
    let same = plan.columns().iter().map(|column| column.id).eq(columns.iter().map(|column| column.id));
    if same {
        return plan;
    }
    project(plan, columns.iter().map(|column| (column.clone(), column.to_expr())).collect())
}

/// A projection, unless it does nothing; merged with one below it where nothing is computed twice.
pub(super) fn project(input: Arc<Plan>, columns: Vec<(Column, Expr)>) -> Arc<Plan> {
    let passes_through = columns.iter().all(|(column, expr)| is_column(expr, column.id));
    let in_order = || input.columns().iter().map(|c| c.id).eq(columns.iter().map(|(c, _)| c.id));
    if passes_through && in_order() {
        return input;
    }
    match input.as_ref() {
        Plan::Project { input: below, columns: inner } if mergeable(inner, &columns) => {
            let definitions = Definitions::of(inner);
            let columns =
                columns.into_iter().map(|(column, expr)| (column, definitions.apply(expr))).collect();
            project(Arc::clone(below), columns)
        }
        // A scan emits its columns in any order.
        Plan::Scan { table, provider, columns: read, filter_columns, filters } if passes_through => {
            let position = |id: ColumnId| read.iter().find(|(column, _)| column.id == id).cloned();
            let Some(reordered) = columns.iter().map(|(column, _)| position(column.id)).collect() else {
                return Arc::new(Plan::Project { input, columns });
            };
            let dropped = read.iter().filter(|(column, _)| !columns.iter().any(|(c, _)| c.id == column.id));
            let filtered = read_by(filters);
            let filter_columns = filter_columns
                .iter()
                .chain(dropped)
                .filter(|(column, _)| filtered.contains(&column.id))
                .cloned()
                .collect();
            Arc::new(Plan::Scan {
                table: table.clone(),
                provider: Arc::clone(provider),
                columns: reordered,
                filter_columns,
                filters: filters.clone(),
            })
        }
        Plan::Project { .. }
        | Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Filter { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Join { .. }
        | Plan::UnionAll { .. }
        | Plan::Shared { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. } => Arc::new(Plan::Project { input, columns }),
    }
}

fn is_column(expr: &Expr, id: ColumnId) -> bool {
    matches!(expr, Expr::Column { id: read, .. } if *read == id)
}

/// Whether the outer expressions may be written in terms of the inner ones' inputs: none that costs anything would be
/// evaluated twice, and none that differs from call to call at all.
fn mergeable(inner: &[(Column, Expr)], outer: &[(Column, Expr)]) -> bool {
    let mut uses: HashMap<ColumnId, usize> = HashMap::new();
    for (_, expr) in outer {
        expr.for_each_column(&mut |id| *uses.entry(id).or_default() += 1);
    }
    let definitions = Definitions::of(inner);
    let stays_small = outer.iter().all(|(_, expr)| definitions.may_expand(expr));
    stays_small
        && inner.iter().all(|(column, expr)| {
            is_deterministic(expr) && (is_trivial(expr) || uses.get(&column.id).copied().unwrap_or(0) <= 1)
        })
}

#[cfg(test)]
mod tests {
    use super::super::filter_pushdown::FilterPushdown;
    use super::super::testing::{assert_rewrites, assert_rewrites_after};
    use super::*;

    #[test]
    fn scans_read_only_what_is_needed() {
        assert_rewrites(&ProjectionPushdown, "select c, a from t", "Scan t: [c, a]\n");
        assert_rewrites_after(
            &[&FilterPushdown],
            &ProjectionPushdown,
            "select a from t where b > 1 and a < 5",
            "Scan t: [a] filters=[(b > 1), (a < 5)] reads also [b]\n",
        );
        assert_rewrites(
            &ProjectionPushdown,
            "select count(*) from t",
            "Aggregate: groups=[] aggregates=[count(*) AS count_star()]\n  Scan t: []\n",
        );
    }

    #[test]
    fn unions_carry_only_what_is_read() {
        assert_rewrites(
            &ProjectionPushdown,
            "select v from (select a as v, c as w from t union all select x + y, 'z' from u)",
            "UnionAll: [v] of [a], [(x + y)]\n  Scan t: [a]\n  Project: (x + y)\n    \
             Scan u: [x, y]\n",
        );
    }

    #[test]
    fn unread_aggregates_and_computations_vanish() {
        assert_rewrites(
            &ProjectionPushdown,
            "select n + 1 as m from (select a, count(*) as n, sum(b) as s, a * 2 as z from t group by a)",
            "Project: (count_star() + 1) AS m\n  Aggregate: groups=[a] aggregates=[count(*) AS count_star()]\n    \
             Scan t: [a]\n",
        );
        assert_rewrites(
            &ProjectionPushdown,
            "select 1 as one from (select count(*) from t)",
            "Project: 1 AS one\n  Values: [] rows=1\n",
        );
    }

    #[test]
    fn what_costs_is_not_computed_twice() {
        assert_rewrites(
            &ProjectionPushdown,
            "select x + x as y from (select a * b as x from t)",
            "Project: (x + x) AS y\n  Project: (a * b) AS x\n    Scan t: [a, b]\n",
        );
    }

    #[test]
    fn sorts_hold_no_more_than_they_must() {
        assert_rewrites(
            &ProjectionPushdown,
            "select a from t where b > 1 order by c",
            "Project: a\n  Sort: c\n    Project: a, c\n      Filter: (b > 1)\n        Scan t: [a, b, c]\n",
        );
    }
}
