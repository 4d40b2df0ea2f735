//! What a hash join is to do.

use crate::data::DataType;
use crate::expr::{ColumnId, Expr};
use std::ops::RangeInclusive;

/// Whose rows a join emits. The build side is in the table, the probe side streams past it.
///
/// Two rows match if all keys are equal and the residual is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashJoinKind {
    /// Each pair that matches.
    Inner,
    /// And probe rows without a match, with nulls for the build columns.
    ProbeOuter,
    /// And build rows without a match, with nulls for the probe columns.
    BuildOuter,
    /// And both.
    FullOuter,
    /// As `ProbeOuter`, but a second match of a probe row is an error: the build side is a scalar subquery.
    ProbeSingle,
    /// Probe rows that have a match; no build columns.
    ProbeSemi,
    /// Probe rows that have none; no build columns.
    ProbeAnti {
        /// As NOT IN has it: nothing passes if a build key is null; a null probe key passes only if the build side is
        /// empty. One key, not null-safe, and no residual.
        null_aware: bool,
    },
    /// All probe rows, with a boolean column at the end: true if there is a match, null if there is none but the
    /// answer is null for some build row, else false. The answer for a build row is the residual, and, if null-aware,
    /// the one key; other keys only select the build rows asked about.
    ProbeMark {
        /// Whether the key is part of the answer. Then there is one key, not null-safe, and no residual.
        null_aware: bool,
    },
    /// Build rows that have a match; no probe columns.
    BuildSemi,
    /// Build rows that have none; no probe columns.
    BuildAnti,
}

/// Two expressions of one type that must be equal.
#[derive(Clone, Debug)]
pub(crate) struct HashJoinKey {
    /// Over the build side.
    pub(crate) build: Expr,
    /// Over the probe side.
    pub(crate) probe: Expr,
    /// Two nulls are equal; otherwise a null equals nothing.
    pub(crate) null_safe: bool,
}

/// A join. Without keys every pair is a candidate: a cross join, or with a residual a nested-loop join.
pub(crate) struct HashJoinSpec {
    pub(crate) kind: HashJoinKind,
    /// Columns of build batches.
    pub(crate) build_layout: Vec<ColumnId>,
    pub(crate) build_types: Vec<DataType>,
    /// Columns of probe batches.
    pub(crate) probe_layout: Vec<ColumnId>,
    pub(crate) probe_types: Vec<DataType>,
    pub(crate) keys: Vec<HashJoinKey>,
    /// Conjuncts over columns of both sides.
    pub(crate) residual: Vec<Expr>,
    /// Columns to emit, of either side; of a mark join the mark, which neither side has, is last.
    pub(crate) output: Vec<ColumnId>,
    /// About how many build rows there are, if anything is known of it.
    pub(crate) expected_build_rows: Option<u64>,
    /// Least and greatest value of the build side's only key, if it is an integer and anything is known of it. A hint: there
    /// may be others.
    pub(crate) expected_key_range: Option<RangeInclusive<i64>>,
}
