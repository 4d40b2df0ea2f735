//! The sort-merge join, in all kinds of join that have keys, in any memory.
//!
//! Owns: [`merge_join`], which makes of a [`HashJoinSpec`] a sink for each side and one source. The sinks are those of
//! the external sort: they leave runs in the order of the keys, which are bytes that compare as the rows do. The source
//! ([`source`]) goes through both sides once, in step, on one lane.
//!
//! The sides are named as in the hash join, by what becomes of their rows: those of the probe side stream, of the build
//! side the rows of one key are held while the probe rows of that key pass. Most keys begin and end within a batch of the
//! build side, and their rows are read from where they lie. Rows of a key that reaches the end of its batch are copied
//! ([`held`]), to memory or, when that is refused, to disk; there they are read once for each batch of probe rows.
//!
//! Invariants:
//! 1. Two keys are equal if and only if their bytes are. Both sides encode them alike: with a place for null if either
//!    may be null.
//! 2. Pairs made are decided before the batch or block that their rows lie in is let go.
//! 3. A build row's fate is decided after the last probe row of its key, a probe row's after the last build row.
//! 4. A null-aware join has nulls first in its order: what it must know of the build side as a whole (is there a row, is
//!    a key null) its first row tells.
//!
//! Must not know: plans, how keys were found in a condition, why it was chosen.

mod cursor;
mod held;
mod pairs;
mod plan;
mod residual;
mod source;

#[cfg(test)]
mod tests;

pub(crate) use plan::KeyOrder;

use super::hash_join::HashJoinSpec;
use super::sort::sorted_side;
use crate::exec::{SinkBox, SourceBox};
use std::sync::Arc;

/// The ends of a join: what takes the rows of each side, and what emits those of the join, on a single lane.
pub(crate) struct MergeJoin {
    pub(crate) build: SinkBox,
    pub(crate) probe: SinkBox,
    pub(crate) source: SourceBox,
}

/// A join by the order of its keys, `orders` one for each of them.
pub(crate) fn merge_join(spec: HashJoinSpec, orders: &[KeyOrder]) -> MergeJoin {
    let (build, probe, source) = parts(spec, orders);
    MergeJoin { build, probe, source: SourceBox::new(source) }
}

fn parts(spec: HashJoinSpec, orders: &[KeyOrder]) -> (SinkBox, SinkBox, source::MergeJoinSource) {
    let plan = Arc::new(plan::Plan::new(spec, orders));
    let (build, build_side) = sorted_side(plan.build.sort_spec(), plan.build.kept.clone());
    let (probe, probe_side) = sorted_side(plan.probe.sort_spec(), plan.probe.kept.clone());
    (build, probe, source::MergeJoinSource::new(plan, build_side, probe_side))
}
