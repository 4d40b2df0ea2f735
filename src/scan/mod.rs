//! What every kind of table must offer to be read.
//!
//! Owns: [`ScanRequest`], [`ScanProvider`], [`RowFilter`], [`ColumnOrder`], and the [`RuntimeFilter`]s that joins give to
//! scans while a query runs.
//!
//! Invariants:
//! 1. A scan applies all filters of its request exactly; nobody filters again.
//! 2. A scan emits exactly the columns of `outputs`, in that order.
//! 3. A scan that is asked for clusters emits no batch without one. The clusters of a run have no value in common that is
//!    strictly within one of them, and a lane emits the batches of one before those of the next.
//!
//! Must not know: plans, SQL text, the other operators.

mod row_filter;
mod runtime_filter;

pub(crate) use row_filter::RowFilter;
pub(crate) use runtime_filter::{RuntimeFilter, RuntimeFilterSpec};

use crate::catalog::TableProvider;
use crate::error::Result;
use crate::exec::SourceBox;
use crate::expr::{ColumnId, Expr};
use std::sync::Arc;

/// What to read of a table.
#[derive(Clone, Debug)]
pub(crate) struct ScanRequest {
    /// The table's name, for messages and metrics.
    pub(crate) table: String,
    /// Every column outputs or filters speak of, with its index in the table's schema.
    pub(crate) columns: Vec<(ColumnId, usize)>,
    /// Columns to emit, in order; may be empty (then batches carry only row counts).
    pub(crate) outputs: Vec<ColumnId>,
    /// All must be true of an emitted row.
    pub(crate) filters: Vec<Expr>,
    /// Rows these drop need not be emitted; a scan may use them or not.
    pub(crate) runtime_filters: Vec<(ColumnId, Arc<RuntimeFilter>)>,
    /// Whether what statistics say of values may decide what is read.
    pub(crate) prunes: bool,
    /// The column by whose values batches are to be of clusters, one that the table is clustered by.
    pub(crate) clustered_by: Option<ColumnId>,
}

/// How the values of one column ascend or descend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnOrder {
    /// The column, by its place in the schema.
    pub(crate) column: usize,
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before values.
    pub(crate) nulls_first: bool,
}

/// A table that can be read.
pub(crate) trait ScanProvider: TableProvider {
    /// A source for one run of a scan.
    fn scan(&self, request: ScanRequest) -> Result<SourceBox>;
    /// The order of a scan's rows on a single lane, most significant column first; empty if none is known.
    fn order(&self) -> &[ColumnOrder] {
        &[]
    }
    /// Whether scans can hand out rows in clusters of this column's values, and are no slower for it.
    fn is_clustered_by(&self, _column: usize) -> bool {
        false
    }
}
