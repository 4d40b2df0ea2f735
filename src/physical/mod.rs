//! How a query is run: the physical plan, its choice, and its pipelines.
//!
//! Owns: [`PhysicalPlan`], lowering from the logical plan, the choice between hash and merge joins, runtime filters from joins to scans, cutting into pipelines,
//! EXPLAIN's text, the figures of each node.
//!
//! Invariants:
//! 1. Physical plans are immutable; everything that runs is built anew from them for each run.
//! 2. A node's `layout` names the columns of the batches it emits, by position.
//! 3. Lowering and cutting match every variant by name, so that a new operator cannot be forgotten.
//!
//! Must not know: SQL text, threads.

mod clusters;
mod explain;
mod key_range;
mod lower;
mod merge_joins;
mod ordered_aggregates;
mod pipelines;
mod plan;
mod profile;
mod runtime_filters;

pub(crate) use explain::{explain, explain_analyze};
pub(crate) use lower::{Sources, lower};
pub(crate) use merge_joins::{JoinPolicy, with_hash_joins};
pub(crate) use pipelines::pipelines;
pub(crate) use plan::{Node, PhysicalPlan};
pub(crate) use profile::Profiler;
pub(crate) use runtime_filters::{RUNTIME_FILTERS, add_runtime_filters};
