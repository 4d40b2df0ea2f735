//! Reading a provided table, part by part.
//!
//! Owns: [`ProvidedScan`].
//!
//! Invariants:
//! 1. A lane holds one batch of a provider at a time. It stays charged until its last row has been copied.
//! 2. Everything of the provider is called within [`ProvidedScan::guarded`], so that its panic is an error.

use super::TableProvider;
use crate::data::{DataType, PhysicalType, copy_arrow_array};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Source};
use crate::mem::{Charge, Knobs};
use crate::scan::{RowFilter, ScanRequest};
use arrow::array::{Array, AsArray, RecordBatch, RecordBatchReader};
use arrow::datatypes::{self as arrow_types, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) struct ProvidedScan {
    provider: Arc<dyn TableProvider>,
    request: ScanRequest,
    /// What a batch's columns must be.
    fields: Vec<FieldRef>,
    partitions: usize,
    rows: u64,
    row_bytes: usize,
    /// What is held of a batch, and copied of it besides fixed widths.
    held_bytes: usize,
    strings_bytes: usize,
}

pub(super) struct Local {
    rows: RowFilter,
    partition: usize,
    reader: Option<Box<dyn RecordBatchReader + Send>>,
    held: Option<Held>,
}

/// A provider's batch, and how far it has been copied.
struct Held {
    batch: RecordBatch,
    next_row: usize,
    _charge: Charge,
}

impl ProvidedScan {
    pub(super) fn new(
        provider: Arc<dyn TableProvider>,
        schema: &SchemaRef,
        types: &[DataType],
        request: ScanRequest,
    ) -> Self {
        let held_bytes = provider.batch_bytes();
        let has_strings = types.iter().any(|t| t.physical() == PhysicalType::View);
        Self {
            fields: request.columns.iter().map(|(_, at)| Arc::clone(&schema.fields()[*at])).collect(),
            partitions: provider.partitions().max(1),
            rows: provider.rows().unwrap_or(0),
            row_bytes: types.iter().map(DataType::value_bytes).sum(),
            held_bytes,
            strings_bytes: if has_strings { held_bytes } else { 0 },
            provider,
            request,
        }
    }

    /// Calls the provider, whose panic is an error.
    fn guarded<T>(&self, partition: usize, call: impl FnOnce() -> Result<T, ArrowError>) -> Result<T> {
        let place = || format!("table '{}', part {partition}", self.request.table);
        // What a panic leaves half done is the provider's; nothing of it is called again by this query's lane.
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ArrowError::ExternalError(error))) => Err(match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => Error::value(format!("{}: {error}", place())),
            }),
            Ok(Err(error)) => Err(Error::value(format!("{}: {error}", place()))),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                let text = text.unwrap_or("without a message");
                Err(Error::value(format!("{}: its provider panicked: {text}", place())))
            }
        }
    }

    fn open_reader(&self, partition: usize) -> Result<Box<dyn RecordBatchReader + Send>> {
        let projection: Vec<usize> = self.request.columns.iter().map(|(_, at)| *at).collect();
        self.guarded(partition, || self.provider.scan(partition, &projection))
    }

    /// Refuses a batch that is not what the schema promised.
    fn check(&self, batch: &RecordBatch, partition: usize) -> Result<()> {
        let wrong = |what: String| {
            Error::value(format!("table '{}', part {partition}: a batch has {what}", self.request.table))
        };
        if batch.num_columns() != self.fields.len() {
            return Err(wrong(format!("{} columns, not {}", batch.num_columns(), self.fields.len())));
        }
        for (column, field) in batch.columns().iter().zip(&self.fields) {
            let (name, given) = (field.name(), column.data_type());
            if given != field.data_type() {
                let expected = field.data_type();
                return Err(wrong(format!(
                    "column '{name}' of type {given}, but its schema says {expected}"
                )));
            }
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(wrong(format!("nulls in column '{name}', which its schema says has none")));
            }
        }
        Ok(())
    }

    /// The next batch of the lane's part, or of the next part nobody reads; `None` at the end of all.
    fn next_batch(
        &self,
        next: &AtomicUsize,
        local: &mut Local,
        cx: &LaneCx<'_>,
    ) -> Result<Option<RecordBatch>> {
        loop {
            cx.check()?;
            let Some(reader) = &mut local.reader else {
                local.partition = next.fetch_add(1, Relaxed);
                if local.partition >= self.partitions {
                    return Ok(None);
                }
                local.reader = Some(self.open_reader(local.partition)?);
                continue;
            };
            match self.guarded(local.partition, || reader.next().transpose())? {
                Some(batch) => return Ok(Some(batch)),
                None => local.reader = None,
            }
        }
    }
}

impl Source for ProvidedScan {
    type Shared = AtomicUsize;
    type Local = Local;

    fn name(&self) -> String {
        format!("Scan {}", self.request.table)
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let copied = knobs.batch_rows * (self.row_bytes + 8) + self.strings_bytes;
        let filters = RowFilter::scratch_bytes(&self.request, knobs.batch_rows);
        Need { lane_bytes: self.held_bytes + copied + filters, shared_bytes: 0 }
    }

    fn max_lanes(&self) -> usize {
        self.partitions
    }

    fn table_rows(&self) -> u64 {
        self.rows
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<AtomicUsize> {
        Ok(AtomicUsize::new(0))
    }

    fn local(&self, _shared: &AtomicUsize, _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local { rows: RowFilter::new(&self.request)?, partition: 0, reader: None, held: None })
    }

    fn pull(&self, shared: &AtomicUsize, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            let Some(held) = &mut local.held else {
                let Some(batch) = self.next_batch(shared, local, cx)? else { return Ok(Pull::Done) };
                self.check(&batch, local.partition)?;
                let charge = cx.account.hold(batch_bytes(&batch))?;
                local.held = Some(Held { batch, next_row: 0, _charge: charge });
                continue;
            };
            let (start, all) = (held.next_row, held.batch.num_rows());
            let rows = cx.batch_rows().min(all - start);
            if rows == 0 {
                local.held = None;
                continue;
            }
            cx.check()?;
            held.next_row += rows;
            cx.metrics.passed_rows.fetch_add(rows as u64, Relaxed);
            let columns = held.batch.columns().iter();
            let columns = columns
                .map(|column| copy_arrow_array(&column.slice(start, rows), &cx.query.ids, cx.account))
                .collect::<Result<Vec<_>>>()?;
            if held.next_row == all {
                local.held = None;
            }
            if let Some(batch) = local.rows.apply(columns, rows, cx)? {
                return Ok(Pull::Emit(batch));
            }
        }
    }
}

/// Bytes of a batch's rows. Slices of something larger count for what they show: the rest is there without the query.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let column_bytes = |column: &Arc<dyn Array>| {
        let views = column.len() * size_of::<u128>();
        match column.data_type() {
            arrow_types::DataType::Utf8View => views + column.as_string_view().total_buffer_bytes_used(),
            arrow_types::DataType::BinaryView => views + column.as_binary_view().total_buffer_bytes_used(),
            _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
        }
    };
    batch.columns().iter().map(column_bytes).sum()
}
