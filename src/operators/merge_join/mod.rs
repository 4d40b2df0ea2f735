//! The sort-merge join, in all kinds of join that have keys, in any memory.
//!
//! Owns: [`MergeJoin`], which makes of a [`HashJoinSpec`] a sink for each side and one source. The sinks are those of
//! the external sort: they leave runs in the order of the keys, which are bytes that compare as the rows do. The source
//! ([`source`]) goes through both sides once, in step, on one lane.
//!
//! A side whose source emits rows in order has no sink: the join reads that source itself ([`input`]), and rows of it are
//! neither sorted nor kept.
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
mod input;
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
use input::SideInput;
use std::sync::Arc;

/// What a side is to be.
pub(crate) enum MergeInput {
    /// Rows in any order, for a sink.
    Unsorted,
    /// The rows of a source that emits them, on one lane, in the order of the keys.
    InOrder(SourceBox),
}

/// What a join reads a side by.
pub(crate) struct MergeSide(SideInput);

/// A join being put together, side by side.
pub(crate) struct MergeJoin {
    plan: Arc<plan::Plan>,
}

impl MergeJoin {
    /// A join by the order of its keys, `orders` one for each of them.
    pub(crate) fn new(spec: HashJoinSpec, orders: &[KeyOrder]) -> Self {
        Self { plan: Arc::new(plan::Plan::new(spec, orders)) }
    }

    /// The build side, with the sink for its rows if they are to be sorted.
    pub(crate) fn build(&self, input: MergeInput) -> (Option<SinkBox>, MergeSide) {
        side(&self.plan.build, input)
    }

    /// The probe side, likewise.
    pub(crate) fn probe(&self, input: MergeInput) -> (Option<SinkBox>, MergeSide) {
        side(&self.plan.probe, input)
    }

    /// What emits the rows of the join, on a single lane.
    pub(crate) fn source(self, build: MergeSide, probe: MergeSide) -> SourceBox {
        SourceBox::new(source::MergeJoinSource::new(self.plan, build.0, probe.0))
    }
}

fn side(side: &plan::Side, input: MergeInput) -> (Option<SinkBox>, MergeSide) {
    let (spec, kept) = (side.sort_spec(), side.kept.clone());
    match input {
        MergeInput::Unsorted => {
            let (sink, side) = sorted_side(spec, kept);
            (Some(sink), MergeSide(SideInput::Sorted(side)))
        }
        MergeInput::InOrder(source) => (None, MergeSide(SideInput::Streamed { source, spec, kept })),
    }
}
