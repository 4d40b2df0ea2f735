//! Tables held in memory as Arrow record batches.
//!
//! Owns: [`BatchesTable`] and its scan.
//!
//! Invariants:
//! 1. The batches belong to whoever registered them; the engine shares their buffers and does not charge them.
//! 2. A morsel is one batch of at most a full batch's rows.
//!
//! Must not know: plans, SQL text, other sources.

use crate::catalog::{TableProvider, TableStatistics};
use crate::data::{DataType, Field, Schema, from_arrow_array};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Source, SourceBox};
use crate::mem::Knobs;
use crate::scan::{RowFilter, ScanProvider, ScanRequest};
use arrow::array::RecordBatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A table of record batches.
pub(crate) struct BatchesTable {
    schema: Schema,
    batches: Arc<[RecordBatch]>,
}

impl BatchesTable {
    /// A table of `batches`, which must have the same schema.
    ///
    /// # Errors
    /// A plan error if schemas differ or there is no batch; unsupported column types.
    pub(crate) fn new(batches: Vec<RecordBatch>) -> Result<Self> {
        let Some(first) = batches.first() else {
            return Err(Error::plan("a table needs at least one record batch, to know its columns", None));
        };
        let arrow_schema = first.schema();
        if batches.iter().any(|b| b.schema().fields() != arrow_schema.fields()) {
            return Err(Error::plan("the record batches of a table must have the same schema", None));
        }
        let fields = arrow_schema.fields().iter().map(|f| {
            let data_type = DataType::from_arrow(f.data_type())?;
            Ok(Field { name: f.name().clone(), data_type, nullable: f.is_nullable() })
        });
        Ok(Self { schema: fields.collect::<Result<_>>()?, batches: batches.into() })
    }
}

impl TableProvider for BatchesTable {
    fn schema(&self) -> Schema {
        Arc::clone(&self.schema)
    }

    fn statistics(&self) -> TableStatistics {
        let rows = self.batches.iter().map(|b| b.num_rows() as u64).sum();
        TableStatistics { rows: Some(rows), columns: Vec::new() }
    }
}

impl ScanProvider for BatchesTable {
    fn scan(&self, request: ScanRequest) -> Result<SourceBox> {
        let batches = Arc::clone(&self.batches);
        let row_bytes = request.columns.iter().map(|(_, at)| self.schema[*at].data_type.value_bytes()).sum();
        Ok(SourceBox::new(BatchesScan { batches, request, row_bytes }))
    }
}

struct BatchesScan {
    batches: Arc<[RecordBatch]>,
    request: ScanRequest,
    row_bytes: usize,
}

struct Local {
    rows: RowFilter,
    /// The batch in work and its next row.
    current: Option<(usize, usize)>,
}

impl Source for BatchesScan {
    type Shared = AtomicUsize;
    type Local = Local;

    fn name(&self) -> String {
        format!("Scan {}", self.request.table)
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let filters = RowFilter::scratch_bytes(&self.request, knobs.batch_rows);
        Need { lane_bytes: knobs.batch_rows * (self.row_bytes + 8) + filters, shared_bytes: 0 }
    }

    fn max_lanes(&self) -> usize {
        self.batches.len()
    }

    fn table_rows(&self) -> u64 {
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<AtomicUsize> {
        Ok(AtomicUsize::new(0))
    }

    fn local(&self, _shared: &AtomicUsize, _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local { rows: RowFilter::new(&self.request)?, current: None })
    }

    fn pull(&self, shared: &AtomicUsize, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            cx.check()?;
            let (index, start) = match local.current.take() {
                Some(current) => current,
                None => (shared.fetch_add(1, Relaxed), 0),
            };
            let Some(batch) = self.batches.get(index) else { return Ok(Pull::Done) };
            let rows = cx.batch_rows().min(batch.num_rows() - start);
            if start + rows < batch.num_rows() {
                local.current = Some((index, start + rows));
            }
            if rows == 0 {
                continue;
            }
            cx.metrics.passed_rows.fetch_add(rows as u64, Relaxed);
            let columns = self.request.columns.iter().map(|(_, at)| {
                from_arrow_array(&batch.column(*at).slice(start, rows), &cx.query.ids, cx.account)
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            if let Some(batch) = local.rows.apply(columns, rows, cx)? {
                return Ok(Pull::Emit(batch));
            }
        }
    }
}
