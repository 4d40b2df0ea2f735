//! Which joins are done by sorting and merging instead of hashing, and back again.
//!
//! Owns: [`JoinPolicy`], [`MergeReason`], the choice, and [`with_hash_joins`].
//!
//! Invariants:
//! 1. A merge join is chosen only where it can be run: with keys that have an order, and rows that can be spilled.
//! 2. Every merge join can be turned into the hash join it stands for.

use super::plan::{Node, PhysicalPlan};
use crate::data::{DataType, PhysicalType};
use crate::operators::{HashJoinKey, HashJoinKind, KeyOrder};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What joins may be done how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinPolicy {
    /// Whether a join may be a merge join.
    pub(crate) allows_merge: bool,
    /// Every join that can be is one.
    pub(crate) forces_merge: bool,
}

/// Why a join is done by merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergeReason {
    /// It was asked for.
    Forced,
}

impl fmt::Display for MergeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forced => "merge joins are asked for",
        })
    }
}

/// The merge join to be done in place of a hash join; the hash join if that is better, or all that is possible.
pub(super) fn choose(node: Node, policy: JoinPolicy) -> Node {
    let Node::HashJoin { kind, build, probe, keys, residual, publishes } = node else { return node };
    let reason = match is_possible(&build, &probe, &keys) && policy.allows_merge && policy.forces_merge {
        true => MergeReason::Forced,
        false => return Node::HashJoin { kind, build, probe, keys, residual, publishes },
    };
    // What a null-aware join must know of its build side it learns from the first row.
    let nulls_first = matches!(
        kind,
        HashJoinKind::ProbeAnti { null_aware: true } | HashJoinKind::ProbeMark { null_aware: true }
    );
    let orders = vec![KeyOrder { descending: false, nulls_first }; keys.len()];
    Node::SortMergeJoin { kind, build, probe, keys, orders, residual, publishes, reason }
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
