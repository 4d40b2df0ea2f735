//! The hash join, in all its kinds, in any memory.
//!
//! Owns: [`HashJoinSpec`], the sink that takes the build side ([`build`], [`finish`]), the table it leaves ([`table`]:
//! rows in chunks, a directory of their keys), the transform the probe side streams through ([`probe`], [`prober`]), and
//! the drain stage in which what was spilled is joined ([`drain`]).
//!
//! A join goes through these states; without pressure only through the first and the last but one:
//!
//! ```text
//! build   Collecting ──────────────────────────▶ Making the directory ──▶ Resident (all rows in one table)
//!             │ a lane's growth is refused,             │ refused
//!             │ or its memory is wanted                 ▼
//!             └──────────▶ Spilling: every row goes to its partition on disk
//!                                │ the smallest partitions come back while memory allows
//!                                ▼
//!                          Making the directory of these ──▶ Hybrid (a table, and partitions on disk)
//!                                │ refused                      ▲
//!                                └──── keep nothing ────────────┘
//! probe   rows are answered by the table; of a Hybrid, rows of partitions on disk go to partitions of their own
//! drain   what the table owes ▶ each pair of partitions, the much smaller side of which is its build side from now on:
//!             Whole:  fits, is joined like the table
//!             Split:  does not fit, becomes pairs told apart by fresh bits
//!             Parts:  fits in a few, or does not shrink: its build rows are loaded part by part, its probe rows replayed
//!                     for each
//! ```
//!
//! Invariants:
//! 1. A build row is copied once, into a chunk of its lane, and never moved: what grows is the number of chunks. A row
//!    is known by its chunk and its place in it. Only spilling takes it from there.
//! 2. Both sides turn keys into words by the same code, from values, never from their representation; at every depth
//!    the partition of a row follows from its word alone, so that rows that match are of one pair.
//! 3. The table does not change once the build has finished, but for the flags of rows that found a match.
//! 4. Every build row is in the table or in one partition, never both, when the first probe row comes; every probe row
//!    is answered once, by all build rows it could match. An input is read once.
//! 5. What is known of the build as a whole (is it empty, is a key null) is known before the first answer.
//! 6. No refusal fails a join but that of its floor, which holds a least chunk with its directory, and what it takes to
//!    spill. A lane waits for memory only while another lane of the join that does not wait holds some.
//!
//! Must not know: plans, how keys were found in a condition.

mod build;
mod direct;
mod directory;
mod drain;
mod finish;
mod intake;
mod keys;
mod load;
mod pairs;
mod plan;
mod probe;
mod prober;
mod queue;
mod roles;
mod scatter;
mod spec;
mod split;
mod spread;
mod store;
mod table;

#[cfg(test)]
pub(super) mod tests;

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
