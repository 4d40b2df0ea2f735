//! Hash aggregation, and aggregation without groups.
//!
//! Owns: [`AggregateSpec`], the sink that counts rows into groups lane by lane and the source that merges the lanes'
//! groups and emits them; and the transform that does both where rows come in clusters of a key.
//!
//! A lane keeps its own table of groups. When memory is refused it freezes the table: all groups leave as exported
//! states, partitioned by bits of their hash, and the table starts empty. In the end either every lane's table is in
//! memory, and the source merges them hash range by hash range; or all of it is in partitions, which the source
//! merges one at a time, partitioning again by further bits whatever does not fit.
//!
//! Invariants:
//! 1. Every row counts in exactly one state, and every state is in exactly one of: a lane's table, the table lanes share
//!    between clusters, a partition, the table a source lane merges into, an emitted row.
//! 2. A state's partition at every depth is a function of its group's hash alone, the same in all lanes.
//! 3. A table grows only where growth can be refused without harm: before a batch is counted, never within it.
//! 4. Spilling takes memory from the lane's account only, which no table can use up.
//! 5. Without group keys there is exactly one group, from the start, in every lane.
//!
//! Must not know: SQL, plans, where rows come from.

mod clustered;
mod counter;
mod front;
mod groups;
mod hash;
mod headroom;
mod intake;
mod interner;
mod keys;
mod packed;
mod rows;
mod sink;
mod sketch;
mod slots;
mod source;
mod spans;
mod spec;
mod spill;

#[cfg(test)]
mod tests;

pub(crate) use spec::AggregateSpec;

use crate::exec::{Handoff, SinkBox, SourceBox, TransformBox};
use std::sync::Arc;

/// The two ends of an aggregation: what takes its input, and what emits one row per group: the group keys, then the
/// aggregates. Without group keys that is one row in all.
pub(crate) fn hash_aggregate(spec: AggregateSpec) -> (SinkBox, SourceBox) {
    let plan = Arc::new(spec::Plan::new(spec));
    let handoff = Handoff::new();
    let sink = sink::HashAggregateSink::new(Arc::clone(&plan), handoff.clone());
    (SinkBox::new(sink), SourceBox::new(source::HashAggregateSource::new(plan, handoff)))
}

/// The same aggregation of batches that come in clusters of the values of the group key number `key`, an integer column.
pub(crate) fn clustered_aggregate(spec: AggregateSpec, key: usize) -> TransformBox {
    TransformBox::new(clustered::ClusteredAggregate::new(Arc::new(spec::Plan::new(spec)), key))
}
