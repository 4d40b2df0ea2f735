//! Rows on their way to disk, by partition.
//!
//! Invariants:
//! 1. A spilled row is its columns and its word; without keys only its columns, and all rows are of one partition.
//!    Build rows that no key finds are of the partition after the last.

use super::keys::KeyPlan;
use super::split::Split;
use super::store::Chunk;
use crate::data::{Batch, BufMut, DataType, FlatVector, Scalar, Selection, Value, Values, Vector};
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::Knobs;
use crate::spill::{SpillFile, SpillWriter};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most rows ordered by partition at a time.
const MOST_ORDERED_ROWS: usize = 1 << 16;

/// Writes chunks of rows to the partitions of one split. For one lane.
pub(super) struct Scatter {
    split: Split,
    /// Types of what is written: the columns, and the word.
    schema: Vec<DataType>,
    has_words: bool,
    writer: Option<SpillWriter>,
}

impl Scatter {
    /// Nothing written. Rows have columns of `types`.
    pub(super) fn new(types: &[DataType], has_words: bool, split: Split) -> Self {
        let word = has_words.then_some(DataType::UInt64);
        Self { split, schema: types.iter().cloned().chain(word).collect(), has_words, writer: None }
    }

    /// Whether anything was written.
    pub(super) fn has_spilled(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes the rows of `chunk`.
    pub(super) fn put(&mut self, chunk: &Chunk, keys: &KeyPlan, cx: &LaneCx<'_>) -> Result<()> {
        let knobs = &cx.query.knobs;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(cx.query.spill.writer(&self.schema, cx.account, knobs.block_bytes)?),
        };
        let mut columns: Vec<Vector> = chunk.columns.iter().cloned().map(Vector::Flat).collect();
        let Some(words) = chunk.words.as_ref().filter(|_| self.has_words) else {
            if self.has_words {
                let value = Scalar { data_type: DataType::UInt64, value: Value::Int(0) };
                columns.push(Vector::Constant { value, len: chunk.rows });
            }
            let partition = if self.has_words { self.split.unkeyed() } else { 0 };
            return writer.write(partition, &Batch::new(columns, chunk.rows), cx.account);
        };
        columns.push(Vector::Flat(FlatVector::new(Values::U64(words.clone()))));
        let batch = Batch::new(columns, chunk.rows);
        let partition_of = self.split.partitioner(keys);
        let step = ordered_rows(&self.schema, knobs);
        for start in (0..chunk.rows).step_by(step) {
            cx.check()?;
            let rows = start..chunk.rows.min(start + step);
            let partition = |row: usize| partition_of(words[row]);
            let mut ordered = BufMut::<u32>::with_len(cx.account, rows.len())?;
            let mut starts = vec![0; self.split.partitions() + 1];
            rows.clone().for_each(|row| starts[partition(row) + 1] += 1);
            for at in 1..starts.len() {
                starts[at] += starts[at - 1];
            }
            // Each start moves to its partition's end, which is the next one's start.
            for row in rows {
                let at = &mut starts[partition(row)];
                ordered[*at] = row as u32;
                *at += 1;
            }
            let ordered = ordered.freeze();
            let mut start = 0;
            for (partition, &end) in starts[..self.split.partitions()].iter().enumerate() {
                let rows = Selection::new(ordered.slice(start, end - start));
                writer.write(partition as u32, &batch.clone().with_selection(Some(rows)), cx.account)?;
                start = end;
            }
        }
        Ok(())
    }

    /// Ends writing: the file, if anything was written.
    pub(super) fn finish(&mut self, cx: &LaneCx<'_>) -> Result<Option<Arc<SpillFile>>> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        cx.metrics.counter("spill_bytes").fetch_add(writer.written_bytes(), Relaxed);
        cx.metrics.counter("spill_depth").fetch_max(self.split.depth().into(), Relaxed);
        writer.finish().map(|file| Some(Arc::new(file)))
    }
}

/// Rows of types `schema` that are ordered by partition at a time: a block for each, if they are even.
pub(super) fn ordered_rows(schema: &[DataType], knobs: &Knobs) -> usize {
    let row_bytes = 8 + schema.iter().map(|t| t.value_bytes() + 1).sum::<usize>();
    (knobs.fan_out * knobs.block_bytes / row_bytes).clamp(1024, MOST_ORDERED_ROWS)
}
