//! What statistics of row groups and pages prove about a filter before anything is read.
//!
//! Owns: [`Verdict`], [`ColumnRange`], [`judge`].
//!
//! Invariants:
//! 1. `NoRow` and `EveryRow` are proofs; in doubt the answer is `SomeRows`. A row passes only where the filter is
//!    true, so nulls count against `EveryRow`.
//! 2. Statistics leave NaN out, which sorts above every number: a float column has no upper bound.

use super::edge::Edge;
use super::table_file::TableFile;
use crate::data::{DataType, Scalar, Value};
use crate::expr::{ColumnId, CompareOp, Expr};
use std::cmp::Ordering;

/// What is known before rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The filter is true of none of its rows.
    NoRow,
    /// Nothing is known.
    SomeRows,
    /// The filter is true of all of its rows.
    EveryRow,
}

/// What is known of a column's values in some rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnRange<'a> {
    /// Type of the column in the table; `min` and `max` are bounds of such values.
    pub(crate) data_type: &'a DataType,
    pub(crate) min: Edge<'a>,
    pub(crate) max: Edge<'a>,
    pub(crate) null_count: Option<u64>,
    pub(crate) rows: u64,
}

impl<'a> ColumnRange<'a> {
    /// Of column `column` of the table, whose type is `data_type`, in a row group; `None` if it is nested.
    pub(crate) fn of_row_group(
        file: &'a TableFile,
        row_group: usize,
        column: usize,
        data_type: &'a DataType,
    ) -> Option<Self> {
        let footer = &file.file.footer;
        let rows = footer.row_group_rows[row_group];
        let Some(at) = file.place(column).in_file() else {
            let (min, max) = (Edge::Unknown, Edge::Unknown);
            return Some(Self { data_type, min, max, null_count: Some(rows), rows });
        };
        let layout = &footer.columns[at];
        layout.decode?;
        let chunk = footer.chunk(row_group, layout.leaves.start);
        let stored = &footer.schema[at].data_type;
        Some(Self {
            data_type,
            min: footer.edge(chunk.min).widened(stored, data_type),
            max: footer.edge(chunk.max).widened(stored, data_type),
            null_count: chunk.null_count(),
            rows,
        })
    }

    /// Least and greatest value of integers.
    pub(crate) fn ints(&self) -> Option<(i64, i64)> {
        match (self.min, self.max) {
            (Edge::Int(min), Edge::Int(max)) => Some((min.try_into().ok()?, max.try_into().ok()?)),
            (_, _) => None,
        }
    }

    fn compare(&self, edge: Edge<'_>, literal: &Scalar) -> Option<Ordering> {
        let is_same_scale = match (self.data_type, &literal.data_type) {
            (DataType::Decimal { scale, .. }, DataType::Decimal { scale: other, .. }) => scale == other,
            (a, b) => a == b,
        };
        if is_same_scale { edge.compare(literal) } else { None }
    }

    fn compare_min(&self, literal: &Scalar) -> Option<Ordering> {
        self.compare(self.min, literal)
    }

    fn compare_max(&self, literal: &Scalar) -> Option<Ordering> {
        // Invariant 2.
        if self.data_type.is_float() { None } else { self.compare(self.max, literal) }
    }

    fn is_below_min(&self, literal: &Scalar) -> bool {
        self.compare_min(literal) == Some(Ordering::Greater)
    }

    fn is_above_max(&self, literal: &Scalar) -> bool {
        self.compare_max(literal) == Some(Ordering::Less)
    }

    fn is_only(&self, literal: &Scalar) -> bool {
        self.compare_min(literal) == Some(Ordering::Equal)
            && self.compare_max(literal) == Some(Ordering::Equal)
    }

    fn verdict(&self, is_none: bool, is_every: bool) -> Verdict {
        if is_none || self.null_count == Some(self.rows) {
            Verdict::NoRow
        } else if is_every && self.null_count == Some(0) {
            Verdict::EveryRow
        } else {
            Verdict::SomeRows
        }
    }

    fn judge_compare(&self, op: CompareOp, literal: &Scalar) -> Verdict {
        use Ordering::{Equal, Greater, Less};
        let (min, max) = (self.compare_min(literal), self.compare_max(literal));
        match op {
            CompareOp::IsDistinct => Verdict::SomeRows,
            CompareOp::IsNotDistinct if literal.is_null() => Verdict::SomeRows,
            _ if literal.is_null() => Verdict::NoRow,
            CompareOp::Lt => self.verdict(matches!(min, Some(Equal | Greater)), max == Some(Less)),
            CompareOp::LtEq => self.verdict(min == Some(Greater), matches!(max, Some(Less | Equal))),
            CompareOp::Gt => self.verdict(matches!(max, Some(Equal | Less)), min == Some(Greater)),
            CompareOp::GtEq => self.verdict(max == Some(Less), matches!(min, Some(Greater | Equal))),
            CompareOp::Eq | CompareOp::IsNotDistinct => {
                self.verdict(self.is_below_min(literal) || self.is_above_max(literal), self.is_only(literal))
            }
            CompareOp::NotEq => {
                self.verdict(self.is_only(literal), self.is_below_min(literal) || self.is_above_max(literal))
            }
        }
    }
}

/// What the statistics that `range` gives prove about `filter`.
pub(crate) fn judge<'a>(filter: &Expr, range: &dyn Fn(ColumnId) -> Option<ColumnRange<'a>>) -> Verdict {
    let column = |e: &Expr| match e {
        Expr::Column { id, .. } => range(*id),
        _ => None,
    };
    match filter {
        Expr::Literal(scalar) if scalar.value == Value::Boolean(true) => Verdict::EveryRow,
        Expr::Literal(_) => Verdict::NoRow,
        Expr::And(list) => {
            list.iter().map(|e| judge(e, range)).fold(Verdict::EveryRow, |a, b| match (a, b) {
                (Verdict::NoRow, _) | (_, Verdict::NoRow) => Verdict::NoRow,
                (Verdict::EveryRow, Verdict::EveryRow) => Verdict::EveryRow,
                (Verdict::SomeRows, _) | (_, Verdict::SomeRows) => Verdict::SomeRows,
            })
        }
        Expr::Or(list) => list.iter().map(|e| judge(e, range)).fold(Verdict::NoRow, |a, b| match (a, b) {
            (Verdict::EveryRow, _) | (_, Verdict::EveryRow) => Verdict::EveryRow,
            (Verdict::NoRow, Verdict::NoRow) => Verdict::NoRow,
            (Verdict::SomeRows, _) | (_, Verdict::SomeRows) => Verdict::SomeRows,
        }),
        Expr::Compare { op, left, right } => match (&**left, &**right) {
            (e, Expr::Literal(literal)) => {
                column(e).map_or(Verdict::SomeRows, |r| r.judge_compare(*op, literal))
            }
            (Expr::Literal(literal), e) => {
                column(e).map_or(Verdict::SomeRows, |r| r.judge_compare(op.swapped(), literal))
            }
            (_, _) => Verdict::SomeRows,
        },
        Expr::InList { operand, list } => column(operand).map_or(Verdict::SomeRows, |r| {
            let is_outside = |v: &Scalar| v.is_null() || r.is_below_min(v) || r.is_above_max(v);
            r.verdict(list.iter().all(is_outside), list.iter().any(|v| r.is_only(v)))
        }),
        Expr::IsNull(operand) => column(operand).map_or(Verdict::SomeRows, |r| match r.null_count {
            Some(0) => Verdict::NoRow,
            Some(nulls) if nulls == r.rows => Verdict::EveryRow,
            Some(_) | None => Verdict::SomeRows,
        }),
        Expr::Not(operand) => match &**operand {
            // Never null, so its negation is exact.
            inner @ Expr::IsNull(_) => match judge(inner, range) {
                Verdict::NoRow => Verdict::EveryRow,
                Verdict::SomeRows => Verdict::SomeRows,
                Verdict::EveryRow => Verdict::NoRow,
            },
            _ => Verdict::SomeRows,
        },
        Expr::Column { .. }
        | Expr::Arithmetic { .. }
        | Expr::Negate(_)
        | Expr::Like { .. }
        | Expr::Case { .. }
        | Expr::Cast { .. }
        | Expr::Call { .. } => Verdict::SomeRows,
    }
}
