//! An aggregation that is joined on its group keys is computed only for the groups the other side asks for: a semi join
//! below it keeps the rows whose keys occur there.
//!
//! The semi join reads a part of the other side a second time: the smallest that has all the keys, found by following
//! equalities. It is put in where the estimates say that this costs less than it saves. Removing all rows of a group
//! removes the group and changes no other.

use super::Rule;
use super::cardinality::{distinct, sizes};
use super::copy::{copy, with_new_ids};
use super::substitute::{Definitions, is_deterministic};
use crate::error::Result;
use crate::expr::Expr;
use crate::logical::{ColumnIds, JoinKey, JoinKind, Plan};
use std::sync::Arc;

/// What grouping a row costs, in units of reading or passing on a row.
const GROUP_COST: f64 = 3.0;
/// What looking a row up costs.
const PROBE_COST: f64 = 0.5;
/// How much more must be saved than is spent: both are guesses.
const LEAST_GAIN: f64 = 1.5;
/// The part of the groups that may be left.
const MOST_GROUPS_LEFT: f64 = 0.5;
/// Joins around an aggregation that are considered.
const MOST_BOUNDS: usize = 16;
/// Places looked at for the keys of one aggregation.
const MOST_CANDIDATES: usize = 64;

/// See the module.
pub(super) struct SemiJoinReduction;

impl Rule for SemiJoinReduction {
    fn name(&self) -> &'static str {
        "semi_join_reduction"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        Ok(reduce(plan, &[], ids))
    }
}

/// Of a plan only those rows matter whose keys (`left`, over the plan) are those of some row of `source` (`right`).
#[derive(Clone)]
struct Bound {
    keys: Vec<JoinKey>,
    source: Arc<Plan>,
}

impl Bound {
    /// With what `map` makes of the keys' left sides, as far as it makes something of any of them.
    fn map_left(&self, map: &dyn Fn(&Expr) -> Option<Expr>) -> Option<Self> {
        let keys = self.keys.iter().filter_map(|key| Some(JoinKey { left: map(&key.left)?, ..key.clone() }));
        let keys: Vec<JoinKey> = keys.collect();
        (!keys.is_empty()).then(|| Self { keys, source: Arc::clone(&self.source) })
    }
}

fn map_all(bounds: &[Bound], map: &dyn Fn(&Expr) -> Option<Expr>) -> Vec<Bound> {
    bounds.iter().filter_map(|bound| bound.map_left(map)).collect()
}

/// `expr` in terms of what the columns of `definitions` stand for.
fn defined(definitions: &Definitions<'_>, expr: &Expr) -> Option<Expr> {
    let may = definitions.cover(expr) && definitions.may_expand(expr);
    may.then(|| definitions.apply(expr.clone())).filter(is_deterministic)
}

/// Whether all columns of `expr`, at least one, are columns of `plan`.
fn is_over(expr: &Expr, plan: &Plan) -> bool {
    let columns = plan.columns();
    let (mut all, mut any) = (true, false);
    expr.for_each_column(&mut |id| {
        all &= columns.iter().any(|column| column.id == id);
        any = true;
    });
    all && any
}

/// `plan`, of which only rows matter that are within all `bounds`.
fn reduce(plan: &Arc<Plan>, bounds: &[Bound], ids: &mut ColumnIds) -> Arc<Plan> {
    let mut has_groups = false;
    plan.for_each_node(&mut |node| {
        has_groups |= matches!(node, Plan::Aggregate { groups, .. } if !groups.is_empty());
    });
    if !has_groups {
        return Arc::clone(plan);
    }
    // The nearest ones come last.
    let bounds = &bounds[bounds.len().saturating_sub(MOST_BOUNDS)..];
    let node = match plan.as_ref() {
        Plan::Scan { .. } | Plan::Values { .. } => return Arc::clone(plan),
        Plan::Filter { input, conjuncts } => {
            Plan::Filter { input: reduce(input, bounds, ids), conjuncts: conjuncts.clone() }
        }
        Plan::Project { input, columns } => {
            let definitions = Definitions::of(columns);
            let bounds = map_all(bounds, &|key| defined(&definitions, key));
            Plan::Project { input: reduce(input, &bounds, ids), columns: columns.clone() }
        }
        Plan::Aggregate { input, groups, aggregates } => {
            let definitions = Definitions::of(groups);
            let bounds = map_all(bounds, &|key| defined(&definitions, key));
            let mut input = reduce(input, &bounds, ids);
            if let Some(bound) = best(&bounds, &input) {
                input = keep(&input, &bound.keys, &bound.source, ids);
            }
            Plan::Aggregate { input, groups: groups.clone(), aggregates: aggregates.clone() }
        }
        Plan::Sort { input, keys, fetch } => {
            let bounds = if fetch.is_none() { bounds } else { &[] };
            Plan::Sort { input: reduce(input, bounds, ids), keys: keys.clone(), fetch: *fetch }
        }
        Plan::Limit { input, skip, fetch } => {
            Plan::Limit { input: reduce(input, &[], ids), skip: *skip, fetch: *fetch }
        }
        Plan::Join { kind, left, right, keys, filters } => {
            let (on_left, on_right) = bounds_of_sides(kind, [left, right], keys, bounds);
            Plan::Join {
                kind: kind.clone(),
                left: reduce(left, &on_left, ids),
                right: reduce(right, &on_right, ids),
                keys: keys.clone(),
                filters: filters.clone(),
            }
        }
    };
    Arc::new(node)
}

/// What bounds the inputs of a join that is bound itself.
fn bounds_of_sides(
    kind: &JoinKind,
    [left, right]: [&Arc<Plan>; 2],
    keys: &[JoinKey],
    bounds: &[Bound],
) -> (Vec<Bound>, Vec<Bound>) {
    let equal_on_left = |e: &Expr| keys.iter().find(|key| key.right == *e).map(|key| key.left.clone());
    let equal_on_right = |e: &Expr| keys.iter().find(|key| key.left == *e).map(|key| key.right.clone());
    let own = |e: &Expr, side: &Plan| is_over(e, side).then(|| e.clone());
    // Rows of a side that meet none of the other are dropped, or come out the same without them.
    let mut on_left = match kind {
        JoinKind::Inner => map_all(bounds, &|e| own(e, left).or_else(|| equal_on_left(e))),
        JoinKind::Left
        | JoinKind::Single
        | JoinKind::Semi
        | JoinKind::Anti { .. }
        | JoinKind::Mark { .. } => map_all(bounds, &|e| own(e, left)),
        JoinKind::Full => vec![],
    };
    let mut on_right = match kind {
        JoinKind::Inner => map_all(bounds, &|e| own(e, right).or_else(|| equal_on_right(e))),
        JoinKind::Left | JoinKind::Single | JoinKind::Semi | JoinKind::Anti { null_aware: false } => {
            map_all(bounds, &equal_on_right)
        }
        JoinKind::Full | JoinKind::Anti { null_aware: true } | JoinKind::Mark { .. } => vec![],
    };
    if keys.is_empty() {
        return (on_left, on_right);
    }
    let from_left = || {
        let swap =
            |key: &JoinKey| JoinKey { left: key.right.clone(), right: key.left.clone(), ..key.clone() };
        Bound { keys: keys.iter().map(swap).collect(), source: Arc::clone(left) }
    };
    match kind {
        JoinKind::Inner | JoinKind::Semi => {
            on_left.push(Bound { keys: keys.to_vec(), source: Arc::clone(right) });
            on_right.push(from_left());
        }
        JoinKind::Left | JoinKind::Single | JoinKind::Anti { null_aware: false } => {
            on_right.push(from_left())
        }
        JoinKind::Full | JoinKind::Anti { null_aware: true } | JoinKind::Mark { .. } => {}
    }
    (on_left, on_right)
}

/// The bound that is likely to save most for the input of an aggregation; `None` if none is worth its cost, or one is
/// in place.
fn best(bounds: &[Bound], input: &Arc<Plan>) -> Option<Bound> {
    let mut candidates = vec![];
    for bound in bounds.iter().filter(|bound| !bound.keys.iter().any(|key| is_bounded(input, &key.left))) {
        collect(&bound.source, bound.keys.clone(), &mut candidates);
    }
    let valued = candidates.into_iter().filter_map(|bound| Some((saving(&bound, input)?, bound)));
    valued.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, bound)| bound)
}

/// Whether a semi join on `key` is below `plan`.
fn is_bounded(plan: &Plan, key: &Expr) -> bool {
    match plan {
        Plan::Scan { .. } | Plan::Values { .. } | Plan::Limit { .. } => false,
        Plan::Filter { input, .. } | Plan::Sort { input, .. } => is_bounded(input, key),
        Plan::Project { input, columns } => {
            defined(&Definitions::of(columns), key).is_some_and(|key| is_bounded(input, &key))
        }
        Plan::Aggregate { input, groups, .. } => {
            defined(&Definitions::of(groups), key).is_some_and(|key| is_bounded(input, &key))
        }
        Plan::Join { kind, left, right, keys, .. } => {
            let is_here = *kind == JoinKind::Semi && keys.iter().any(|own| own.left == *key);
            is_here || [left, right].into_iter().any(|side| is_over(key, side) && is_bounded(side, key))
        }
    }
}

/// The plans in `source` whose rows have all the values the keys have there.
fn collect(source: &Arc<Plan>, keys: Vec<JoinKey>, out: &mut Vec<Bound>) {
    if keys.is_empty() || out.len() >= MOST_CANDIDATES {
        return;
    }
    if is_repeatable(source) {
        out.push(Bound { keys: keys.clone(), source: Arc::clone(source) });
    }
    let mapped = |map: &dyn Fn(&Expr) -> Option<Expr>| {
        let keys = keys.iter().filter_map(|key| Some(JoinKey { right: map(&key.right)?, ..key.clone() }));
        keys.collect::<Vec<_>>()
    };
    match source.as_ref() {
        Plan::Scan { .. } | Plan::Values { .. } => {}
        Plan::Filter { input, .. } | Plan::Sort { input, .. } | Plan::Limit { input, .. } => {
            collect(input, keys, out);
        }
        Plan::Project { input, columns } => {
            let definitions = Definitions::of(columns);
            collect(input, mapped(&|e| defined(&definitions, e)), out);
        }
        Plan::Aggregate { input, groups, .. } => {
            let definitions = Definitions::of(groups);
            collect(input, mapped(&|e| defined(&definitions, e)), out);
        }
        Plan::Join { kind, left, right, keys: equal, .. } => {
            let own = |e: &Expr, side: &Plan| is_over(e, side).then(|| e.clone());
            let on_left = |e: &Expr| equal.iter().find(|key| key.right == *e).map(|key| key.left.clone());
            let on_right = |e: &Expr| equal.iter().find(|key| key.left == *e).map(|key| key.right.clone());
            match kind {
                JoinKind::Inner => {
                    collect(left, mapped(&|e| own(e, left).or_else(|| on_left(e))), out);
                    collect(right, mapped(&|e| own(e, right).or_else(|| on_right(e))), out);
                }
                JoinKind::Semi => {
                    collect(left, mapped(&|e| own(e, left)), out);
                    collect(right, mapped(&on_right), out);
                }
                JoinKind::Left | JoinKind::Single | JoinKind::Anti { .. } | JoinKind::Mark { .. } => {
                    collect(left, mapped(&|e| own(e, left)), out);
                }
                JoinKind::Full => {}
            }
        }
    }
}

/// Whether `plan` has the same rows, or more, each time it is evaluated, and aggregates nothing.
fn is_repeatable(plan: &Plan) -> bool {
    let mut repeatable = true;
    plan.for_each_node(&mut |node| {
        repeatable &= match node {
            Plan::Scan { .. }
            | Plan::Values { .. }
            | Plan::Filter { .. }
            | Plan::Project { .. }
            | Plan::Join { .. } => true,
            Plan::Sort { fetch, .. } => fetch.is_none(),
            Plan::Aggregate { .. } | Plan::Limit { .. } => false,
        };
        node.for_each_expr(&mut |e| repeatable &= is_deterministic(e));
    });
    repeatable
}

/// What a semi join with `bound` below an aggregation of `input` is likely to save; `None` if not enough.
fn saving(bound: &Bound, input: &Plan) -> Option<f64> {
    let input_rows = sizes(input)?.rows;
    let source_rows = sizes(&bound.source)?.rows;
    let (mut groups, mut wanted) = (1.0, 1.0);
    for key in &bound.keys {
        groups *= distinct(&key.left, input).unwrap_or(input_rows).max(1.0);
        wanted *= distinct(&key.right, &bound.source).unwrap_or(source_rows).max(1.0);
    }
    let left = (wanted.min(source_rows) / groups.min(input_rows).max(1.0)).min(1.0);
    if left > MOST_GROUPS_LEFT {
        return None;
    }
    let saved = (1.0 - left) * (GROUP_COST * input_rows + rows_joined(input)?);
    let probed = sizes(place(input, &bound.keys))?.rows;
    let spent = PROBE_COST * probed + rows_read(&bound.source)? + rows_joined(&bound.source)?;
    (saved > LEAST_GAIN * spent).then_some(saved - spent)
}

/// Rows that the joins of `plan` are given.
fn rows_joined(plan: &Plan) -> Option<f64> {
    let mut total = Some(0.0);
    plan.for_each_node(&mut |node| {
        if let Plan::Join { left, right, .. } = node {
            total = total.and_then(|total| Some(total + sizes(left)?.rows + sizes(right)?.rows));
        }
    });
    total
}

/// Rows that the scans of `plan` look at.
fn rows_read(plan: &Plan) -> Option<f64> {
    let mut total = Some(0.0);
    plan.for_each_node(&mut |node| {
        if let Plan::Scan { provider, .. } = node {
            total = total.zip(provider.statistics().rows).map(|(total, rows)| total + rows as f64);
        }
    });
    total
}

/// The innermost plan that all `keys` can be read from.
fn place<'a>(plan: &'a Plan, keys: &[JoinKey]) -> &'a Plan {
    let inputs = plan.inputs();
    match inputs.into_iter().find(|input| keys.iter().all(|key| is_over(&key.left, input))) {
        Some(input) => place(input, keys),
        None => plan,
    }
}

/// `plan` with only the rows whose keys occur in `source`: a semi join as far down as filters and projections let it.
/// From there the ordering of joins takes it on.
fn keep(plan: &Arc<Plan>, keys: &[JoinKey], source: &Arc<Plan>, ids: &mut ColumnIds) -> Arc<Plan> {
    match plan.as_ref() {
        Plan::Filter { input, conjuncts } => {
            return Arc::new(Plan::Filter {
                input: keep(input, keys, source, ids),
                conjuncts: conjuncts.clone(),
            });
        }
        Plan::Project { input, columns } => {
            let definitions = Definitions::of(columns);
            let below = keys
                .iter()
                .map(|key| Some(JoinKey { left: defined(&definitions, &key.left)?, ..key.clone() }))
                .collect::<Option<Vec<_>>>();
            if let Some(below) = below {
                let input = keep(input, &below, source, ids);
                return Arc::new(Plan::Project { input, columns: columns.clone() });
            }
        }
        Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Join { .. }
        | Plan::Limit { .. } => {}
    }
    let (right, renamed) = copy(source, ids);
    let keys =
        keys.iter().map(|key| JoinKey { right: with_new_ids(key.right.clone(), &renamed), ..key.clone() });
    let keys = keys.collect();
    Arc::new(Plan::Join { kind: JoinKind::Semi, left: Arc::clone(plan), right, keys, filters: vec![] })
}

#[cfg(test)]
mod tests {
    use super::super::filter_pushdown::FilterPushdown;
    use super::super::testing::{FakeCatalog, FakeTable, bind_over, field, text};
    use super::*;
    use crate::catalog::{ColumnStatistics, TableStatistics};
    use crate::data::DataType;

    /// `big(k, g, v)` of a million rows and a hundred thousand keys; `small(k, s)` of a thousand rows, one a key;
    /// `wide(k)` of a row for each key of `big`.
    fn catalog() -> FakeCatalog {
        let table = |rows: u64, columns: &[(&str, u64)]| {
            let distinct =
                |n: u64| ColumnStatistics { distinct_count: Some(n), ..ColumnStatistics::default() };
            Arc::new(FakeTable {
                fields: columns.iter().map(|(name, _)| field(name, DataType::Int64, true)).collect(),
                statistics: TableStatistics {
                    rows: Some(rows),
                    columns: columns.iter().map(|(_, n)| distinct(*n)).collect(),
                },
            })
        };
        FakeCatalog(vec![
            ("big", table(1_000_000, &[("k", 100_000), ("g", 10), ("v", 1000)])),
            ("small", table(1_000, &[("k", 1_000), ("s", 100)])),
            ("wide", table(100_000, &[("k", 100_000)])),
        ])
    }

    fn reduced(sql: &str) -> String {
        let mut plan = bind_over(&catalog(), sql);
        let mut ids = ColumnIds::after(&plan);
        for rule in [&FilterPushdown as &dyn Rule, &SemiJoinReduction] {
            plan = rule.apply(&plan, &mut ids).expect("applies");
        }
        let once = text(&plan);
        let twice = SemiJoinReduction.apply(&plan, &mut ids).expect("applies");
        assert_eq!(text(&twice), once, "{sql}, the second time");
        once
    }

    const SUMS: &str = "(select k, g, sum(v) as total from big group by k, g) as sums";

    #[test]
    fn groups_nobody_asks_for_are_not_computed() {
        let plan = reduced(&format!("select total from small join {SUMS} on small.k = sums.k where s = 3"));
        let reduced = "        SemiJoin: k#2 = k#6\n          Scan big: [k#2, g, v]\n          \
                       Scan small: [k#6, s#7] filters=[(s#7 = 3)]\n";
        assert!(plan.ends_with(reduced), "{plan}");
    }

    #[test]
    fn equalities_lead_to_the_smallest_table_that_has_the_keys() {
        let sql = format!(
            "select total from wide join small on wide.k = small.k join {SUMS} on wide.k = sums.k where s = 3"
        );
        let plan = reduced(&sql);
        assert_eq!(plan.matches("SemiJoin").count(), 1, "{plan}");
        assert_eq!(plan.matches("Scan small").count(), 2, "{plan}");
        assert_eq!(plan.matches("Scan wide").count(), 1, "{plan}");
    }

    #[test]
    fn joins_that_keep_most_groups_or_all_rows_reduce_nothing() {
        for sql in [
            format!("select total from wide join {SUMS} on wide.k = sums.k"),
            format!("select total from {SUMS} left join small on small.k = sums.k"),
            format!("select total from {SUMS} full join small on small.k = sums.k"),
            // The sum is no group key.
            format!("select total from {SUMS} join small on small.k = sums.total"),
            // Rows that a limit picks may be others the second time.
            format!(
                "select total from (select * from small limit 3) as few join {SUMS} on few.k = sums.total"
            ),
            "select total from small join (select sum(v) as total from big) on small.k = total".to_owned(),
        ] {
            let plan = reduced(&sql);
            assert!(!plan.contains("SemiJoin"), "{sql}\n{plan}");
        }
    }

    #[test]
    fn the_missing_side_of_an_outer_join_is_reduced() {
        let plan = reduced(&format!("select total from small left join {SUMS} on small.k = sums.k"));
        assert_eq!(plan.matches("SemiJoin").count(), 1, "{plan}");
    }
}
