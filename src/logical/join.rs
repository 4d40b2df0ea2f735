//! Joins: which rows of two inputs meet, and what becomes of those that meet none.

use super::Column;
use crate::expr::{ColumnId, CompareOp, Expr};

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

    /// Whether left columns may be null where they are not in the left input.
    pub(crate) fn nulls_left(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Inner | Self::Left | Self::Single | Self::Semi | Self::Anti { .. } | Self::Mark { .. } => {
                false
            }
        }
    }

    /// Whether right columns may be null where they are not in the right input.
    pub(crate) fn nulls_right(&self) -> bool {
        match self {
            Self::Left | Self::Full | Self::Single => true,
            Self::Inner | Self::Semi | Self::Anti { .. } | Self::Mark { .. } => false,
        }
    }

    /// For people.
    #[cfg(test)]
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

impl JoinKey {
    /// A conjunct as a key, if it is an equality of what only one side knows with what only the other knows; else
    /// the conjunct.
    pub(crate) fn from_conjunct(
        conjunct: Expr,
        is_left: &dyn Fn(ColumnId) -> bool,
        is_right: &dyn Fn(ColumnId) -> bool,
    ) -> Result<Self, Expr> {
        let Expr::Compare { op: op @ (CompareOp::Eq | CompareOp::IsNotDistinct), left, right } = conjunct
        else {
            return Err(conjunct);
        };
        let null_safe = op == CompareOp::IsNotDistinct;
        if reads_only(&left, is_left) && reads_only(&right, is_right) {
            Ok(Self { left: *left, right: *right, null_safe })
        } else if reads_only(&left, is_right) && reads_only(&right, is_left) {
            Ok(Self { left: *right, right: *left, null_safe })
        } else {
            Err(Expr::Compare { op, left, right })
        }
    }

    /// The equality it stands for.
    pub(crate) fn into_conjunct(self) -> Expr {
        let op = if self.null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq };
        Expr::Compare { op, left: Box::new(self.left), right: Box::new(self.right) }
    }
}

/// Whether `expr` reads some column, and none but those.
fn reads_only(expr: &Expr, of: &dyn Fn(ColumnId) -> bool) -> bool {
    let (mut all, mut any) = (true, false);
    expr.for_each_column(&mut |id| {
        all &= of(id);
        any = true;
    });
    all && any
}
