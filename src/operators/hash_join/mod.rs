//! The hash join, in all its kinds.
//!
//! Owns: [`HashJoinSpec`], the sink that takes the build side ([`build`]), the table it leaves ([`table`]: rows in
//! chunks, a directory of their keys), and the transform the probe side streams through ([`probe`]).
//!
//! Invariants:
//! 1. A build row is copied once, into a chunk of its lane, and never moved: what grows is the number of chunks. A row
//!    is known by its chunk and its place in it.
//! 2. Both sides turn keys into words by the same code, from values, never from their representation.
//! 3. The table does not change once the build has finished, but for the flags of rows that found a match.
//!
//! Must not know: plans, how keys were found in a condition.

mod build;
mod directory;
mod keys;
mod pairs;
mod plan;
mod probe;
mod spec;
mod store;
mod table;

#[cfg(test)]
mod tests;

pub(crate) use spec::{HashJoinKey, HashJoinKind, HashJoinSpec};

use crate::exec::{Handoff, SinkBox, TransformBox};
use std::sync::Arc;

/// The two ends of a join: what takes the build side, and what probe rows go through.
pub(crate) fn hash_join(spec: HashJoinSpec) -> (SinkBox, TransformBox) {
    let plan = Arc::new(plan::Plan::new(spec));
    let handoff = Handoff::new();
    let sink = build::HashJoinBuild::new(Arc::clone(&plan), handoff.clone());
    (SinkBox::new(sink), TransformBox::new(probe::HashJoinProbe::new(plan, handoff)))
}
