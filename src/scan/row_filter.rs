//! The last step of a scan that has its columns as vectors: which rows pass, which columns go on.
//!
//! Owns: [`RowFilter`].

use super::ScanRequest;
use crate::data::{Batch, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::expr::{ColumnId, EvalCx, Evaluator, Predicate};

/// Applies the filters of a request and picks its outputs.
pub(crate) struct RowFilter {
    predicate: Option<Predicate>,
    /// Where the outputs lie among the columns read.
    outputs: Vec<usize>,
}

impl RowFilter {
    /// For rows with the columns of `request`, in its order.
    pub(crate) fn new(request: &ScanRequest) -> Result<Self> {
        let layout: Vec<ColumnId> = request.columns.iter().map(|(id, _)| *id).collect();
        let predicate = match &request.filters[..] {
            [] => None,
            filters => Some(Predicate::new(filters, &layout)?),
        };
        let position = |id: &ColumnId| {
            let position = layout.iter().position(|l| l == id);
            position.ok_or_else(|| Error::internal("a scan emits a column it does not read"))
        };
        let outputs = request.outputs.iter().map(position).collect::<Result<_>>()?;
        Ok(Self { predicate, outputs })
    }

    /// Bytes it works with on `rows` rows of `request`.
    pub(crate) fn scratch_bytes(request: &ScanRequest, rows: usize) -> usize {
        Evaluator::scratch_bytes(&request.filters, rows)
    }

    /// What passes of `rows` rows; `None` if nothing does.
    pub(crate) fn apply(
        &mut self,
        columns: Vec<Vector>,
        rows: usize,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Batch>> {
        let batch = Batch::new(columns, rows);
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let selection = match &mut self.predicate {
            Some(predicate) => predicate.select(&batch, &mut eval)?,
            None => None,
        };
        if selection.as_ref().is_some_and(|s| s.len() == 0) {
            return Ok(None);
        }
        let outputs = self.outputs.iter().map(|&at| batch.column(at).clone()).collect();
        Ok(Some(batch.with_columns(outputs).with_selection(selection)))
    }
}
