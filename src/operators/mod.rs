//! The operators that pipelines are made of.
//!
//! Owns: one file or folder for each operator, and the functions that make them: plans know no operator's type.
//!
//! Invariants:
//! 1. An operator that keeps rows copies them into its own slabs, so that no page or batch of a source stays alive
//!    because a few of its rows are kept.
//! 2. What an operator holds is charged to an account before it is used, and it says what it needs at least.
//!
//! Must not know: plans, SQL text, how pipelines are cut and run.

mod aggregate;
mod changes;
mod collect_keys;
mod filter;
mod hash_join;
mod held;
mod limit;
mod limit_per;
mod materialize;
mod merge_join;
mod ordered_aggregate;
mod project;
mod repeat;
mod result;
mod rows;
mod sort;
mod values;

#[cfg(test)]
mod testing;

pub(crate) use aggregate::{AggregateSpec, clustered_aggregate, hash_aggregate};
pub(crate) use collect_keys::collect_keys;
pub(crate) use filter::filter;
pub(crate) use hash_join::{HashJoinKey, HashJoinKind, HashJoinSpec, hash_join};
pub(crate) use limit::limit;
pub(crate) use limit_per::limit_per;
pub(crate) use materialize::{Reader, materialize};
pub(crate) use merge_join::{KeyOrder, MergeInput, MergeJoin};
pub(crate) use ordered_aggregate::{OrderedAggregateSpec, OrderedCall, ordered_aggregate};
pub(crate) use project::project;
pub(crate) use repeat::repeat;
pub(crate) use result::{ResultQueue, result_sink};
pub(crate) use sort::{SortKey, SortSpec, sort};
pub(crate) use values::values;
