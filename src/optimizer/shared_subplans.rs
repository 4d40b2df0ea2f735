//! A part of the plan that occurs several times is executed once, and its rows are kept for all who read them.
//!
//! The rule runs last: what readers filter or leave out has been moved into their copies by then, so that copies still
//! the same lose nothing by being one. It pays where keeping the rows is less work than making them again: where they
//! are at most half as many as the rows of tables they are made of.

use super::Rule;
use super::cardinality::rows;
use super::copy::copy;
use super::substitute::is_deterministic;
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The most nodes of a plan that is looked through; comparing all parts of larger ones takes too long.
const MAX_NODES: usize = 1024;

/// See the module.
pub(super) struct SharedSubplans;

impl Rule for SharedSubplans {
    fn name(&self) -> &'static str {
        "shared_subplans"
    }

    fn shares(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let mut nodes = 0;
        plan.for_each_node(&mut |_| nodes += 1);
        if nodes > MAX_NODES {
            return Ok(Arc::clone(plan));
        }
        let mut candidates: BTreeMap<String, Vec<Arc<Plan>>> = BTreeMap::new();
        collect(plan, &mut candidates);
        // Few plans have parts that even look alike; only those are compared.
        let alike = candidates.into_values().filter(|alike| alike.len() > 1);
        let kinds: Vec<Kind> = alike.flat_map(kinds).filter(|kind| kind.plans.len() > 1).collect();
        if kinds.is_empty() {
            return Ok(Arc::clone(plan));
        }
        let finder = Finder { kinds };
        // A part of a part that is shared already occurs less often than it seems.
        let mut uses = vec![0; finder.kinds.len()];
        finder.count(plan, &mut uses);
        let numbers = uses.iter().scan(first_free_number(plan), |next, &uses| {
            let number = (uses > 1).then_some(*next);
            *next += usize::from(uses > 1);
            Some(number)
        });
        let numbers: Vec<_> = numbers.collect();
        Ok(finder.replace(plan, &numbers))
    }
}

/// A number above those of what is shared already.
pub(super) fn first_free_number(plan: &Plan) -> usize {
    let mut number = 0;
    plan.for_each_node(&mut |node| {
        if let Plan::Shared { number: taken, .. } = node {
            number = number.max(taken + 1);
        }
    });
    number
}

/// The parts of a plan that may be shared, by what is easily seen of them.
fn collect(plan: &Arc<Plan>, candidates: &mut BTreeMap<String, Vec<Arc<Plan>>>) {
    if let Plan::Shared { .. } = plan.as_ref() {
        return;
    }
    if may_be_shared(plan) {
        let mut print = String::new();
        plan.for_each_node(&mut |node| {
            let table = if let Plan::Scan { table, .. } = node { table } else { "" };
            let columns = node.columns().len();
            let _ = write!(print, "{:?} {table} {columns} ", std::mem::discriminant(node));
        });
        candidates.entry(print).or_default().push(Arc::clone(plan));
    }
    for input in plan.inputs() {
        collect(input, candidates);
    }
}

/// Plans that are the same.
struct Kind {
    plans: Vec<Arc<Plan>>,
    /// The same with columns numbered from 0, as they are then in all of them.
    canonical: Arc<Plan>,
}

/// Plans that look alike, those that are the same together.
fn kinds(alike: Vec<Arc<Plan>>) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = vec![];
    for plan in alike {
        let (canonical, _) = copy(&plan, &mut ColumnIds::default());
        match kinds.iter_mut().find(|kind| is_same(&kind.canonical, &canonical)) {
            Some(kind) => kind.plans.push(plan),
            None => kinds.push(Kind { plans: vec![plan], canonical }),
        }
    }
    kinds
}

/// Finds the parts to replace.
struct Finder {
    kinds: Vec<Kind>,
}

impl Finder {
    fn kind_of(&self, plan: &Arc<Plan>) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.plans.iter().any(|known| Arc::ptr_eq(known, plan)))
    }

    /// How often each kind occurs outside of others that occur several times.
    fn count(&self, plan: &Arc<Plan>, uses: &mut [usize]) {
        match self.kind_of(plan) {
            Some(kind) => uses[kind] += 1,
            None => plan.inputs().into_iter().for_each(|input| self.count(input, uses)),
        }
    }

    fn replace(&self, plan: &Arc<Plan>, numbers: &[Option<usize>]) -> Arc<Plan> {
        if let Some(kind) = self.kind_of(plan)
            && let Some(number) = numbers[kind]
        {
            let columns = plan.output_columns();
            let first = Arc::clone(&self.kinds[kind].plans[0]);
            return Arc::new(Plan::Shared { number, plan: first, columns });
        }
        let mapped =
            plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(self.replace(input, numbers)));
        let Ok(mapped) = mapped;
        Arc::new(mapped)
    }
}

/// Whether it would pay to keep the rows, and they are the same each time they are made.
pub(super) fn may_be_shared(plan: &Arc<Plan>) -> bool {
    let is_work = match plan.as_ref() {
        Plan::Aggregate { .. } | Plan::Join { .. } | Plan::LimitPer { .. } => true,
        Plan::Sort { fetch, .. } => fetch.is_some(),
        Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Filter { .. }
        | Plan::Project { .. }
        | Plan::UnionAll { .. }
        | Plan::Repeat { .. }
        | Plan::Shared { .. }
        | Plan::Limit { .. } => false,
    };
    if !is_work || plan.columns().is_empty() {
        return false;
    }
    let (mut is_same_each_time, mut read_rows) = (true, Some(0.0));
    plan.for_each_node(&mut |node| {
        node.for_each_expr(&mut |e| is_same_each_time &= is_deterministic(e));
        if let Plan::Scan { provider, .. } = node {
            let rows = provider.statistics().rows;
            read_rows = read_rows.zip(rows).map(|(sum, rows)| sum + rows as f64);
        }
    });
    let pays = match (rows(plan), read_rows) {
        (Some(kept), Some(read)) => 2.0 * kept <= read,
        // Of an aggregation less comes out than goes in.
        (None, _) | (_, None) => matches!(plan.as_ref(), Plan::Aggregate { .. }),
    };
    is_same_each_time && pays
}

/// Whether two plans whose columns are numbered in the same way are the same, names of columns aside.
pub(super) fn is_same(a: &Plan, b: &Plan) -> bool {
    let columns = |a: &Column, b: &Column| a.id == b.id && a.field.data_type == b.field.data_type;
    let computed = |a: &[(Column, Expr)], b: &[(Column, Expr)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| columns(&a.0, &b.0) && a.1 == b.1)
    };
    let called = |a: &[(Column, AggregateCall)], b: &[(Column, AggregateCall)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| columns(&a.0, &b.0) && a.1 == b.1)
    };
    let read = |a: &[(Column, usize)], b: &[(Column, usize)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| columns(&a.0, &b.0) && a.1 == b.1)
    };
    let listed =
        |a: &[Column], b: &[Column]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| columns(a, b));
    let nodes = match (a, b) {
        (
            Plan::Scan { table, columns, filter_columns, filters, provider },
            Plan::Scan {
                table: b_table,
                columns: b_columns,
                filter_columns: b_filter_columns,
                filters: b_filters,
                provider: b_provider,
            },
        ) => {
            table == b_table
                && Arc::ptr_eq(provider, b_provider)
                && read(columns, b_columns)
                && read(filter_columns, b_filter_columns)
                && filters == b_filters
        }
        (Plan::Values { columns, rows }, Plan::Values { columns: b_columns, rows: b_rows }) => {
            listed(columns, b_columns) && rows == b_rows
        }
        (Plan::Filter { conjuncts, .. }, Plan::Filter { conjuncts: b_conjuncts, .. }) => {
            conjuncts == b_conjuncts
        }
        (Plan::Project { columns, .. }, Plan::Project { columns: b_columns, .. }) => {
            computed(columns, b_columns)
        }
        (
            Plan::Aggregate { groups, aggregates, .. },
            Plan::Aggregate { groups: b_groups, aggregates: b_aggregates, .. },
        ) => computed(groups, b_groups) && called(aggregates, b_aggregates),
        (Plan::Sort { keys, fetch, .. }, Plan::Sort { keys: b_keys, fetch: b_fetch, .. }) => {
            keys == b_keys && fetch == b_fetch
        }
        (
            Plan::Join { kind, keys, filters, .. },
            Plan::Join { kind: b_kind, keys: b_keys, filters: b_filters, .. },
        ) => {
            let same_kind = match (kind, b_kind) {
                (
                    JoinKind::Mark { column, null_aware },
                    JoinKind::Mark { column: b_column, null_aware: b_null_aware },
                ) => columns(column, b_column) && null_aware == b_null_aware,
                (kind, b_kind) => kind == b_kind,
            };
            same_kind && keys == b_keys && filters == b_filters
        }
        (
            Plan::UnionAll { columns, values, .. },
            Plan::UnionAll { columns: b_columns, values: b_values, .. },
        ) => listed(columns, b_columns) && values == b_values,
        (
            Plan::LimitPer { groups, keys, skip, fetch, .. },
            Plan::LimitPer { groups: b_groups, keys: b_keys, skip: b_skip, fetch: b_fetch, .. },
        ) => groups == b_groups && keys == b_keys && skip == b_skip && fetch == b_fetch,
        (Plan::Repeat { times, .. }, Plan::Repeat { times: b_times, .. }) => times == b_times,
        (Plan::Limit { skip, fetch, .. }, Plan::Limit { skip: b_skip, fetch: b_fetch, .. }) => {
            skip == b_skip && fetch == b_fetch
        }
        (Plan::Shared { number, columns, .. }, Plan::Shared { number: b_number, columns: b_columns, .. }) => {
            number == b_number && listed(columns, b_columns)
        }
        _ => false,
    };
    let (a, b) = (a.inputs(), b.inputs());
    nodes && a.len() == b.len() && a.into_iter().zip(b).all(|(a, b)| is_same(a, b))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, optimized, text};

    fn shared(sql: &str) -> (usize, String) {
        let plan = optimized(bind(sql)).expect("optimizes");
        let text = text(&plan);
        (text.matches("Shared ").count(), text)
    }

    #[test]
    fn a_query_read_twice_is_executed_once() {
        let sql = "with s as (select b, sum(a) as total from t group by b) \
                   select b from s where total = (select max(total) from s)";
        let (count, text) = shared(sql);
        assert_eq!(count, 2, "{text}");
        // The column keeps the names its readers gave it.
        let again = optimized(optimized(bind(sql)).expect("optimizes")).expect("optimizes");
        assert_eq!(super::super::testing::text(&again), text);
    }

    #[test]
    fn what_readers_filter_differently_is_not_shared() {
        let (count, text) = shared(
            "with s as (select b, sum(a) as total from t group by b) \
             select x.b from s as x, s as y where x.b = 1 and y.b = 2 and x.total < y.total",
        );
        assert_eq!(count, 0, "{text}");
        let (count, text) = shared("select x.b from t as x join t as y on x.b = y.a");
        assert_eq!(count, 0, "{text}");
    }

    #[test]
    fn the_largest_part_in_common_is_shared() {
        let (count, text) = shared(
            "select * from (select b, count(*) as n from t group by b order by n limit 3) \
             union all select * from (select b, count(*) as n from t group by b order by n limit 3)",
        );
        assert_eq!(count, 2, "{text}");
        assert!(text.contains("Top 3"), "{text}");
    }
}
