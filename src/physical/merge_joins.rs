//! Which joins are done by sorting and merging instead of hashing, and back again.
//!
//! Owns: [`JoinPolicy`], [`MergeReason`], the choice, and [`with_hash_joins`].
//!
//! Invariants:
//! 1. A merge join is chosen only where it can be run: with keys that have an order, and rows that can be spilled.
//! 2. Every merge join can be turned into the hash join it stands for.

use super::plan::{Node, PhysicalPlan};
use crate::data::{DataType, Field, PhysicalType};
use crate::expr::{ColumnId, Expr};
use crate::logical::SortKey;
use crate::operators::{HashJoinKey, HashJoinKind, KeyOrder};
use crate::scan::ColumnOrder;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A guess at the length of strings.
const STRING_BYTES: usize = 32;
/// What a row of a hash join's build side takes besides its columns.
const ENTRY_BYTES: usize = 24;

/// What joins may be done how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinPolicy {
    /// Whether a join may be a merge join.
    pub(crate) allows_merge: bool,
    /// Every join that can be is one.
    pub(crate) forces_merge: bool,
    /// Memory that all of a query has.
    pub(crate) memory_bytes: usize,
}

impl JoinPolicy {
    /// Whether going through both sides in order, on one lane, costs less than a hash join that holds `build` in memory,
    /// or on disk where it does not fit.
    fn is_streaming_cheaper(&self, build: &PhysicalPlan) -> bool {
        let width = |field: &Field| match field.data_type.physical() {
            PhysicalType::View | PhysicalType::Nested => field.data_type.value_bytes() + STRING_BYTES,
            _ => field.data_type.value_bytes(),
        };
        let row_bytes = build.fields.iter().map(width).sum::<usize>() + ENTRY_BYTES;
        let build_bytes = build.estimated_rows.map_or(0, |rows| rows.saturating_mul(row_bytes as u64));
        build_bytes > (self.memory_bytes / 4) as u64
    }
}

/// Why a join is done by merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergeReason {
    /// Neither side has to be sorted.
    BothSorted,
    /// It was asked for.
    Forced,
}

impl fmt::Display for MergeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothSorted => "both inputs are sorted",
            Self::Forced => "merge joins are asked for",
        })
    }
}

/// The merge join to be done in place of a hash join; the hash join if that is better, or all that is possible.
pub(super) fn choose(node: Node, policy: JoinPolicy) -> Node {
    let Node::HashJoin { kind, build, probe, mut keys, residual, publishes } = node else { return node };
    // What a null-aware join must know of its build side it learns from the first row.
    let nulls_first = matches!(
        kind,
        HashJoinKind::ProbeAnti { null_aware: true } | HashJoinKind::ProbeMark { null_aware: true }
    );
    let by_build = key_order(&build, &keys, |key| &key.build);
    let by_probe = key_order(&probe, &keys, |key| &key.probe);
    let may_use = |order: &KeysInOrder| {
        let has_nulls_first = order.orders.iter().all(|order| order.nulls_first);
        !nulls_first || has_nulls_first || !is_nullable(&keys[0])
    };
    let [by_build, by_probe] = [by_build, by_probe].map(|order| order.filter(may_use));
    let is_cheaper = policy.forces_merge || policy.is_streaming_cheaper(&build);
    let is_sorted = is_cheaper && by_build.is_some() && agree(by_build.as_ref(), by_probe.as_ref(), &keys);
    let is_possible = policy.allows_merge && is_possible(&build, &probe, &keys);
    let reason = match (is_possible, is_sorted, policy.forces_merge) {
        (true, true, _) => MergeReason::BothSorted,
        (true, false, true) => MergeReason::Forced,
        (false, _, _) | (_, false, false) => {
            return Node::HashJoin { kind, build, probe, keys, residual, publishes };
        }
    };
    let in_order = match (&by_build, &by_probe) {
        (Some(_), Some(_)) if is_sorted => [true, true],
        // Only one of two different orders can be the join's: that of the larger side.
        (_, Some(_)) => [false, true],
        (Some(_), None) => [true, false],
        (None, None) => [false, false],
    };
    let mut orders = vec![KeyOrder { descending: false, nulls_first }; keys.len()];
    if let Some(known) = if in_order[1] { by_probe } else { by_build } {
        keys = known.places.iter().map(|&at| keys[at].clone()).collect();
        orders = known.orders;
        // One key, not null-safe, whose nulls no row has.
        orders.iter_mut().for_each(|order| order.nulls_first |= nulls_first);
    }
    Node::SortMergeJoin { kind, build, probe, keys, orders, in_order, residual, publishes, reason }
}

/// An order of a side that is one of the keys: which key comes when, and how.
#[derive(PartialEq, Eq)]
struct KeysInOrder {
    places: Vec<usize>,
    orders: Vec<KeyOrder>,
}

/// The order of the keys that the rows of `plan` come in.
fn key_order<'a>(
    plan: &PhysicalPlan,
    keys: &'a [HashJoinKey],
    of: impl Fn(&'a HashJoinKey) -> &'a Expr,
) -> Option<KeysInOrder> {
    let columns = column_order(plan);
    if keys.is_empty() || columns.len() < keys.len() {
        return None;
    }
    let (mut places, mut orders) = (Vec::new(), Vec::new());
    for (column, order) in columns.into_iter().take(keys.len()) {
        let is_column = |key: &'a HashJoinKey| matches!(of(key), Expr::Column { id, .. } if *id == column);
        let place = (0..keys.len()).find(|at| !places.contains(at) && is_column(&keys[*at]))?;
        places.push(place);
        orders.push(order);
    }
    Some(KeysInOrder { places, orders })
}

/// Columns by which the rows of `plan` come in order, if one lane reads it.
fn column_order(plan: &PhysicalPlan) -> Vec<(ColumnId, KeyOrder)> {
    match &plan.node {
        Node::Scan { provider, request, .. } => {
            let column = |order: &ColumnOrder| {
                let (id, _) = request.columns.iter().find(|(_, at)| *at == order.column)?;
                let (descending, nulls_first) = (order.descending, order.nulls_first);
                Some((*id, KeyOrder { descending, nulls_first }))
            };
            provider.order().iter().map_while(column).collect()
        }
        Node::Sort { keys, .. } => {
            let column = |key: &SortKey| match key.expr {
                Expr::Column { id, .. } => {
                    let (descending, nulls_first) = (key.descending, key.nulls_first);
                    Some((id, KeyOrder { descending, nulls_first }))
                }
                _ => None,
            };
            keys.iter().map_while(column).collect()
        }
        Node::Values { .. }
        | Node::Filter { .. }
        | Node::Project { .. }
        | Node::HashAggregate { .. }
        | Node::OrderedAggregate { .. }
        | Node::HashJoin { .. }
        | Node::SortMergeJoin { .. }
        | Node::UnionAll { .. }
        | Node::LimitPer { .. }
        | Node::Shared { .. }
        | Node::Repeat { .. }
        | Node::Limit { .. } => Vec::new(),
    }
}

/// Whether both sides have the keys in one order; where nulls go matters only for keys that may be null.
fn agree(build: Option<&KeysInOrder>, probe: Option<&KeysInOrder>, keys: &[HashJoinKey]) -> bool {
    let (Some(build), Some(probe)) = (build, probe) else { return false };
    let same = |((at, a), b): ((&usize, &KeyOrder), &KeyOrder)| {
        a.descending == b.descending && (a.nulls_first == b.nulls_first || !is_nullable(&keys[*at]))
    };
    build.places == probe.places && build.places.iter().zip(&build.orders).zip(&probe.orders).all(same)
}

fn is_nullable(key: &HashJoinKey) -> bool {
    key.build.is_nullable() || key.probe.is_nullable()
}

fn is_possible(build: &PhysicalPlan, probe: &PhysicalPlan, keys: &[HashJoinKey]) -> bool {
    // Intervals are equal to hashing if all their parts are, and in order if they are equally long.
    let has_order = |key: &HashJoinKey| {
        let data_type = key.build.data_type();
        data_type != DataType::Interval && data_type.physical() != PhysicalType::Nested
    };
    let can_spill = |side: &PhysicalPlan| {
        side.fields.iter().all(|field| field.data_type.physical() != PhysicalType::Nested)
    };
    !keys.is_empty() && keys.iter().all(has_order) && can_spill(build) && can_spill(probe)
}

/// The same plan without merge joins: it needs less memory at least. `None` if it has none.
pub(crate) fn with_hash_joins(plan: &Arc<PhysicalPlan>) -> Option<Arc<PhysicalPlan>> {
    fn has_merge_join(plan: &PhysicalPlan) -> bool {
        matches!(plan.node, Node::SortMergeJoin { .. })
            || plan.inputs().into_iter().any(|i| has_merge_join(i))
    }
    has_merge_join(plan).then(|| rewritten(plan, &mut HashMap::new()))
}

/// Shared plans by their numbers: all their readers have the same one.
fn rewritten(plan: &Arc<PhysicalPlan>, shared: &mut HashMap<usize, Arc<PhysicalPlan>>) -> Arc<PhysicalPlan> {
    let mut node = plan.node.clone();
    match &mut node {
        Node::Scan { .. } | Node::Values { .. } => {}
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::HashAggregate { input, .. }
        | Node::OrderedAggregate { input, .. }
        | Node::Sort { input, .. }
        | Node::LimitPer { input, .. }
        | Node::Repeat { input, .. }
        | Node::Limit { input, .. } => *input = rewritten(input, shared),
        Node::UnionAll { inputs } => {
            for input in inputs {
                *input = rewritten(input, shared);
            }
        }
        Node::Shared { number, input } => {
            *input = match shared.get(number) {
                Some(done) => Arc::clone(done),
                None => {
                    let done = rewritten(input, shared);
                    shared.insert(*number, Arc::clone(&done));
                    done
                }
            };
        }
        Node::HashJoin { build, probe, .. } | Node::SortMergeJoin { build, probe, .. } => {
            *build = rewritten(build, shared);
            *probe = rewritten(probe, shared);
        }
    }
    let node = match node {
        Node::SortMergeJoin { kind, build, probe, keys, residual, publishes, .. } => {
            Node::HashJoin { kind, build, probe, keys, residual, publishes }
        }
        other => other,
    };
    Arc::new(PhysicalPlan { node, ..PhysicalPlan::clone(plan) })
}
