//! Which joins tell which scans the keys of their build side.
//!
//! A join that drops probe rows without a match publishes a filter for a key that is a column of a scan in its probe
//! subtree. The filter goes down through every operator that hands the column on unchanged and would drop the same
//! rows a little later: filters, projections, aggregations that group by it, and other joins, to both inputs where
//! their keys are equal (Yang et al., "Predicate Transfer", CIDR 2024).
//!
//! Invariants:
//! 1. A filter's scans lie in the probe subtree of its join. So the pipeline that collects never waits for one that
//!    uses what it has collected.
//! 2. A node is left without any of its rows only if all rows it would have sent on from them are dropped above.

use super::plan::{Node, PhysicalPlan, PublishedFilter};
use crate::catalog::ColumnStatistics;
use crate::expr::{ColumnId, Expr};
use crate::operators::{HashJoinKey, HashJoinKind};
use crate::scan::RuntimeFilterSpec;
use std::collections::HashMap;
use std::sync::Arc;

/// The name by which they can be left out, as an optimizer rule can.
pub(crate) const RUNTIME_FILTERS: &str = "runtime_filters";

/// Smaller scans end before a filter pays.
const LEAST_SCAN_ROWS: u64 = 8192;
/// A filter is tried if it may pass at most this share of the scan's values.
const MOST_PASSED: f64 = 0.9;

/// The plan with filters where they may pay.
pub(crate) fn add_runtime_filters(plan: &Arc<PhysicalPlan>) -> Arc<PhysicalPlan> {
    Pass::default().visit(plan, &[])
}

#[derive(Default)]
struct Pass {
    next_id: usize,
    /// Shared plans by their numbers: all their readers see the same rows.
    shared: HashMap<usize, Arc<PhysicalPlan>>,
}

/// A filter on its way down, by the column it is about.
#[derive(Clone)]
struct Wanted {
    column: ColumnId,
    filter: Arc<RuntimeFilterSpec>,
}

impl Pass {
    fn visit(&mut self, plan: &Arc<PhysicalPlan>, wanted: &[Wanted]) -> Arc<PhysicalPlan> {
        let mut node = plan.node.clone();
        match &mut node {
            Node::Scan { request, runtime_filters, .. } => {
                for Wanted { column, filter } in wanted {
                    let is_read = request.columns.iter().any(|(id, _)| id == column);
                    if is_read && !runtime_filters.iter().any(|(_, other)| other.id == filter.id) {
                        runtime_filters.push((*column, Arc::clone(filter)));
                    }
                }
            }
            Node::Values { .. } => {}
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::HashAggregate { input, .. }
            | Node::OrderedAggregate { input, .. }
            | Node::Sort { input, .. }
            | Node::LimitPer { input, .. }
            | Node::Repeat { input, .. }
            | Node::Limit { input, .. } => *input = self.visit(input, &below(plan, 0, wanted)),
            Node::UnionAll { inputs } => {
                for (at, input) in inputs.iter_mut().enumerate() {
                    *input = self.visit(input, &below(plan, at, wanted));
                }
            }
            Node::Shared { number, input } => {
                *input = match self.shared.get(number) {
                    Some(visited) => Arc::clone(visited),
                    None => {
                        let visited = self.visit(input, &[]);
                        self.shared.insert(*number, Arc::clone(&visited));
                        visited
                    }
                };
            }
            Node::HashJoin { build, probe, publishes, .. }
            | Node::SortMergeJoin { build, probe, publishes, .. } => {
                let (for_build, mut for_probe) = (below(plan, 0, wanted), below(plan, 1, wanted));
                *publishes = self.publish(plan);
                for_probe.extend(publishes.iter().map(|published| Wanted {
                    column: published.column,
                    filter: Arc::clone(&published.filter),
                }));
                *build = self.visit(build, &for_build);
                *probe = self.visit(probe, &for_probe);
            }
        }
        Arc::new(PhysicalPlan { node, ..PhysicalPlan::clone(plan) })
    }

    /// The filters a join is to publish.
    fn publish(&mut self, plan: &PhysicalPlan) -> Vec<PublishedFilter> {
        let (Node::HashJoin { kind, build, probe, keys, .. }
        | Node::SortMergeJoin { kind, build, probe, keys, .. }) = &plan.node
        else {
            return Vec::new();
        };
        // A build side that is read in order is never seen as a whole.
        let is_seen_first = !matches!(plan.node, Node::SortMergeJoin { in_order: [true, _], .. });
        if !drops_probe_rows(*kind) || !is_seen_first {
            return Vec::new();
        }
        let filter = |(at, key): (usize, &HashJoinKey)| {
            let Expr::Column { id: column, data_type, .. } = &key.probe else { return None };
            if key.null_safe || !RuntimeFilterSpec::is_possible(data_type) {
                return None;
            }
            let target =
                targets(probe, *column).into_iter().find(|target| target.is_worth(build, plan, probe))?;
            self.next_id += 1;
            let filter = Arc::new(RuntimeFilterSpec {
                id: self.next_id,
                data_type: data_type.clone(),
                range: target.statistics.int_range(),
                expected_rows: build.estimated_rows.unwrap_or(target.rows).min(target.rows),
            });
            Some(PublishedFilter { key: at, column: *column, filter })
        };
        keys.iter().enumerate().filter_map(filter).collect()
    }
}

/// A scan a filter would reach.
struct Target {
    rows: u64,
    statistics: ColumnStatistics,
}

impl Target {
    /// Whether the keys of `build` are few among the values of the scan, or the join drops many rows of `probe`.
    fn is_worth(&self, build: &PhysicalPlan, join: &PhysicalPlan, probe: &PhysicalPlan) -> bool {
        let Some(build_rows) = build.estimated_rows else { return false };
        if self.rows < LEAST_SCAN_ROWS || build_rows > self.rows {
            return false;
        }
        let values = self.statistics.distinct_count.or_else(|| {
            let range = self.statistics.int_range()?;
            u64::try_from(range.end().checked_sub(*range.start())?.checked_add(1)?).ok()
        });
        let is_few = |part: u64, of: u64| (part as f64) < of as f64 * MOST_PASSED;
        values.is_some_and(|values| is_few(build_rows, values))
            || join.estimated_rows.zip(probe.estimated_rows).is_some_and(|(join, probe)| is_few(join, probe))
    }
}

/// The scans below `plan` that a filter of its column `column` reaches.
fn targets(plan: &PhysicalPlan, column: ColumnId) -> Vec<Target> {
    if let Node::Scan { provider, request, .. } = &plan.node {
        let Some((_, at)) = request.columns.iter().find(|(id, _)| *id == column) else { return Vec::new() };
        let mut statistics = crate::catalog::TableProvider::statistics(&**provider);
        let rows = statistics.rows.unwrap_or(0);
        let is_known = *at < statistics.columns.len();
        let statistics = if is_known { statistics.columns.swap_remove(*at) } else { Default::default() };
        return vec![Target { rows, statistics }];
    }
    let inputs = plan.inputs();
    let below = |(at, input): (usize, &&Arc<PhysicalPlan>)| {
        routes(plan, at, column).into_iter().flat_map(|column| targets(input, column)).collect::<Vec<_>>()
    };
    inputs.iter().enumerate().flat_map(below).collect()
}

/// The filters that go on to input `at`.
fn below(plan: &PhysicalPlan, at: usize, wanted: &[Wanted]) -> Vec<Wanted> {
    let on = |w: &Wanted| {
        let filter = Arc::clone(&w.filter);
        routes(plan, at, w.column)
            .into_iter()
            .map(move |column| Wanted { column, filter: Arc::clone(&filter) })
    };
    wanted.iter().flat_map(on).collect()
}

/// Columns of input `at` by which rows may be dropped there, if rows of `plan` are dropped by `column` (invariant 2).
fn routes(plan: &PhysicalPlan, at: usize, column: ColumnId) -> Vec<ColumnId> {
    let as_column = |expr: &Expr| match expr {
        Expr::Column { id, .. } => Some(*id),
        _ => None,
    };
    let expression = |list: &[Expr]| {
        let position = plan.layout.iter().position(|id| *id == column)?;
        list.get(position).and_then(as_column)
    };
    match &plan.node {
        Node::Scan { .. } | Node::Values { .. } => Vec::new(),
        Node::Filter { .. } | Node::Sort { fetch: None, .. } | Node::Repeat { .. } => vec![column],
        Node::UnionAll { inputs } => {
            let position = plan.layout.iter().position(|id| *id == column);
            position.and_then(|position| inputs[at].layout.get(position)).copied().into_iter().collect()
        }
        // A group goes as a whole.
        Node::LimitPer { groups, .. } if groups.iter().any(|e| as_column(e) == Some(column)) => vec![column],
        // Other readers want other rows.
        Node::LimitPer { .. } | Node::Shared { .. } => Vec::new(),
        // Which rows are the first depends on all.
        Node::Sort { fetch: Some(_), .. } | Node::Limit { .. } => Vec::new(),
        Node::Project { expressions, .. } => expression(expressions).into_iter().collect(),
        // Without its rows a group is not there, and it would be dropped.
        Node::HashAggregate { groups, .. } | Node::OrderedAggregate { groups, .. } => {
            expression(groups).into_iter().collect()
        }
        Node::HashJoin { kind, build, probe, keys, .. }
        | Node::SortMergeJoin { kind, build, probe, keys, .. } => {
            let is_of_build = build.layout.contains(&column);
            let is_input_of = |side: &PhysicalPlan| side.layout.contains(&column);
            let (own, wants_build) = (if at == 0 { build } else { probe }, at == 0);
            if is_input_of(own) {
                return if keeps(*kind, wants_build) { vec![column] } else { Vec::new() };
            }
            if !keeps(*kind, is_of_build) || !may_lose(*kind, wants_build) {
                return Vec::new();
            }
            // The same value on the other side, by a key.
            let other = |key: &HashJoinKey| {
                let (from, to) =
                    if wants_build { (&key.probe, &key.build) } else { (&key.build, &key.probe) };
                (!key.null_safe && as_column(from) == Some(column)).then(|| as_column(to)).flatten()
            };
            keys.iter().filter_map(other).collect()
        }
    }
}

/// Whether a probe row without a match adds nothing to the result.
fn drops_probe_rows(kind: HashJoinKind) -> bool {
    match kind {
        HashJoinKind::Inner
        | HashJoinKind::ProbeSemi
        | HashJoinKind::BuildOuter
        | HashJoinKind::BuildSemi
        | HashJoinKind::BuildAnti => true,
        HashJoinKind::ProbeOuter
        | HashJoinKind::FullOuter
        | HashJoinKind::ProbeSingle
        | HashJoinKind::ProbeAnti { .. }
        | HashJoinKind::ProbeMark { .. } => false,
    }
}

/// Whether every emitted row with a value from this side stands for a row of it, and dropping that row drops no other.
fn keeps(kind: HashJoinKind, build: bool) -> bool {
    match kind {
        HashJoinKind::Inner | HashJoinKind::ProbeSemi | HashJoinKind::BuildSemi => true,
        HashJoinKind::BuildOuter | HashJoinKind::BuildAnti => build,
        HashJoinKind::ProbeOuter
        | HashJoinKind::ProbeSingle
        | HashJoinKind::ProbeAnti { .. }
        | HashJoinKind::ProbeMark { .. } => !build,
        HashJoinKind::FullOuter => false,
    }
}

/// Whether rows of this side matter only to rows of the other side that have an equal key.
fn may_lose(kind: HashJoinKind, build: bool) -> bool {
    match kind {
        HashJoinKind::Inner | HashJoinKind::ProbeSemi | HashJoinKind::BuildSemi => true,
        HashJoinKind::BuildOuter | HashJoinKind::BuildAnti => !build,
        HashJoinKind::ProbeOuter
        | HashJoinKind::ProbeSingle
        | HashJoinKind::ProbeAnti { null_aware: false } => build,
        // Whether there is any row, or a null, counts as well.
        HashJoinKind::ProbeAnti { null_aware: true }
        | HashJoinKind::ProbeMark { .. }
        | HashJoinKind::FullOuter => false,
    }
}
