//! Rows on their way to disk, by partition.
//!
//! Invariants:
//! 1. The partition of a row follows from its word and from how many bits its ancestors were told apart by, on both
//!    sides and in every lane.
//! 2. Partitions use bits that the directory does not: the rows of one are spread over all slots.
//! 3. A spilled row is its columns and its word; without keys only its columns, and all rows are of one partition.
//!    Build rows that no key finds are of the partition after the last.

use super::keys::KeyPlan;
use super::plan::Plan;
use super::store::Chunk;
use crate::data::hash::hash_word;
use crate::data::{Batch, BufMut, DataType, FlatVector, Scalar, Selection, Value, Values, Vector};
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::Knobs;
use crate::spill::{SpillFile, SpillWriter};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bits that partitions of partitions may spend in all.
const MOST_BITS: u32 = 48;
/// So few cost next to nothing, and estimates are often too low.
const LEAST_PARTITIONS: u64 = 16;
/// Makes the bits of partitions others than those of slots.
const SALT: u64 = 0x8CB9_2BA7_2F3D_8DD7;
/// The most rows ordered by partition at a time.
const MOST_ORDERED_ROWS: usize = 1 << 16;

/// How rows are told apart: `used_bits` bits are the same in all of them, `bits` more tell their partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) used_bits: u32,
    pub(super) bits: u32,
}

impl Split {
    /// The partitions of a join as a whole, in a budget of `limit_bytes`: as many as it takes that each lane can hold one,
    /// if there are as many build rows as expected. More would make blocks smaller for nothing.
    pub(super) fn first(plan: &Plan, knobs: &Knobs, limit_bytes: usize) -> Self {
        if !plan.has_keys() {
            return Self { used_bits: 0, bits: 0 };
        }
        // Floors take up to half of the budget, or a little more.
        let lane_bytes = (limit_bytes / (2 * knobs.lanes)).max(1) as u64;
        let wanted = plan.expected_build_bytes().map_or(u64::MAX, |bytes| bytes / lane_bytes);
        let most = knobs.fan_out.max(2) as u64;
        let partitions = wanted.min(most).next_power_of_two().clamp(LEAST_PARTITIONS.min(most), most);
        Self { used_bits: 0, bits: partitions.ilog2() }
    }

    /// The partitions of one of its partitions; `None` if there are no bits left to tell them apart.
    pub(super) fn next(self) -> Option<Self> {
        let used_bits = self.used_bits + self.bits;
        (self.bits > 0 && used_bits + self.bits <= MOST_BITS).then_some(Self { used_bits, ..self })
    }

    /// How many partitions there are.
    pub(super) fn partitions(self) -> usize {
        1 << self.bits
    }

    /// Partitions of partitions of... how deep these are, from 1.
    pub(super) fn depth(self) -> u32 {
        self.used_bits.checked_div(self.bits).unwrap_or(0) + 1
    }

    /// Where build rows go that no key finds.
    pub(super) fn unkeyed(self) -> u32 {
        1 << self.bits
    }

    /// The partition of a row whose word has this hash.
    #[inline(always)]
    pub(super) fn partition_of(self, hash: u64) -> usize {
        let mixed = hash_word(hash ^ SALT);
        // Shifted twice, for bits may be 0.
        (mixed << self.used_bits >> 1 >> (u64::BITS - 1 - self.bits)) as usize
    }
}

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
        let hasher = keys.hasher();
        let step = ordered_rows(&self.schema, knobs);
        for start in (0..chunk.rows).step_by(step) {
            cx.check()?;
            let rows = start..chunk.rows.min(start + step);
            let partition = |row: usize| self.split.partition_of(hasher(words[row]));
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
