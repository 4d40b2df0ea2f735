//! Joins: which rows of two inputs meet, and what becomes of those that meet none.

use super::Column;
use crate::expr::Expr;

/// What a join makes of rows that meet and rows that do not. "Left" and "right" are its inputs.
///
/// Two rows meet if all keys are equal and all filters are true.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JoinKind {
    /// Each pair of rows that meet.
    Inner,
    /// As `Inner`, and each left row that meets none once, with nulls for the right columns.
    Left,
    /// As `Left`, and each right row that meets none once, with nulls for the left columns.
    Full,
    /// As `Left`, but a left row that meets several is an error: the right input is a scalar subquery.
    Single,
    /// Each left row that meets any; only left columns.
    Semi,
    /// Each left row that meets none; only left columns.
    Anti {
        /// As NOT IN has it: with null keys the answer may be unknown, and then the row is dropped. There is one key,
        /// not null-safe, and no filter.
        null_aware: bool,
    },
    /// Each left row, with a boolean column that says whether it meets any: true if it does, null if it does not but
    /// the answer is null for some right row, else false. The answer for a row is the conjunction of the filters,
    /// and, if null-aware, of the one key; other keys only select the rows asked about.
    Mark {
        /// The column.
        column: Column,
        /// Whether the key is part of the answer. Then there is one key, not null-safe, and no filter.
        null_aware: bool,
    },
}

impl JoinKind {
    /// Whether rows carry the right input's columns.
    pub(crate) fn emits_right(&self) -> bool {
        match self {
            Self::Inner | Self::Left | Self::Full | Self::Single => true,
            Self::Semi | Self::Anti { .. } | Self::Mark { .. } => false,
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Inner => "Inner",
            Self::Left => "Left",
            Self::Full => "Full",
            Self::Single => "Single",
            Self::Semi => "Semi",
            Self::Anti { null_aware: false } => "Anti",
            Self::Anti { null_aware: true } => "NullAwareAnti",
            Self::Mark { null_aware: false, .. } => "Mark",
            Self::Mark { null_aware: true, .. } => "NullAwareMark",
        }
    }
}

/// Two expressions of the same type that must be equal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JoinKey {
    /// Over the left input.
    pub(crate) left: Expr,
    /// Over the right input.
    pub(crate) right: Expr,
    /// Two nulls are equal, as IS NOT DISTINCT FROM has it; otherwise a null equals nothing.
    pub(crate) null_safe: bool,
}
