//! Ordering rows: a breaker.
//!
//! Every lane collects rows, and whenever it has a run's worth of them sorts them into a run; the source merges the
//! runs of all lanes. Rows are compared by keys of bytes ([`keys`]), so that neither sorting nor merging knows types,
//! and no key is evaluated twice: keys travel with their rows as one more column, also to disk and back.
//!
//! When memory is refused or asked for, a lane merges the runs it has into one on disk ([`spill`]) and starts anew, so
//! that a run on disk is about as large as what the lane could hold. The source merges as many runs at a time as it
//! gets memory for blocks of, two at least, and writes what it merges to disk until what is left is merged in one go.
//!
//! With a small fetch each lane keeps only rows that can be among the first: a run is cut to that many rows, runs are
//! merged before they become many, and rows behind the last row of any full run are dropped before they are copied.
//! Runs on disk and merges of them are cut to the fetch as well.
//!
//! Invariants:
//! 1. Rows of a run are in key order, rows of equal keys in the order in which the lane took them. To keep it so, only
//!    runs that are next to each other are merged.
//! 2. A run's chunks hold their rows and keys by themselves: the merge reads each chunk or block once, from first row
//!    to last, and drops it behind itself.
//! 3. With a fetch of `n`, a row is dropped only if `n` rows that do not come after it are kept somewhere.
//! 4. Rows, blocks being merged and rows being written have an account each, so that what may grow never takes the
//!    floor of what must get through. Runs keep their slabs charged after their lane has ended.
//! 5. After a refusal, either something is on disk that was in memory or fewer runs are merged at a time: so it ends.

mod consumer;
mod cursor;
mod entries;
mod keys;
mod merge;
mod picked;
mod rounds;
mod run;
mod sink;
mod sorted;
mod source;
mod spill;

pub(super) use consumer::Victim;
pub(super) use keys::{KeyEncoder, Keys, prefix};
pub(super) use run::rest_of;
pub(super) use sink::turn;
pub(super) use sorted::{Sorted, SortedRows, SortedSide};

use crate::data::DataType;
use crate::error::Error;
use crate::exec::{Handoff, SinkBox, SourceBox};
use crate::expr::{ColumnId, Expr};
use crate::mem::{Knobs, Pool};
use crate::spill::SpillWriter;
use std::sync::Arc;
use std::time::Duration;

const PAGE_BYTES: usize = 4096;
/// A guess, for floors, of what a key takes.
const KEY_BYTES: usize = 16;
/// Longer no call goes on by itself.
const SLICE: Duration = Duration::from_millis(4);

/// One key of an order.
#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    /// What to order by.
    pub(crate) expr: Expr,
    /// Whether keys have a place for null, though `expr` may never be: keys of two inputs compare only if both have.
    pub(crate) nullable: bool,
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before values, whichever way values go.
    pub(crate) nulls_first: bool,
}

/// What to sort and how.
#[derive(Clone, Debug)]
pub(crate) struct SortSpec {
    /// Columns of the input.
    pub(crate) layout: Vec<ColumnId>,
    /// Types of the columns that come out: all of the input's, but where a [`sorted_side`] leaves some out.
    pub(crate) types: Vec<DataType>,
    /// Most significant first.
    pub(crate) keys: Vec<SortKey>,
    /// Only the first so many rows are wanted.
    pub(crate) fetch: Option<u64>,
}

/// A sink that takes rows and a source that emits them in order, on a single lane.
pub(crate) fn sort(spec: SortSpec) -> (SinkBox, SourceBox) {
    let (sink, source) = pair(spec);
    (SinkBox::new(sink), SourceBox::new(source))
}

fn pair(spec: SortSpec) -> (sink::SortSink, source::SortSource) {
    let (sink, side) = side(spec, None);
    (sink, source::SortSource::new(side))
}

/// A sink that takes rows, and what reads them in order with their keys, for an operator that merges several inputs.
/// Of the rows it keeps the columns at `kept`, to which `spec.types` belong.
pub(super) fn sorted_side(spec: SortSpec, kept: Vec<usize>) -> (SinkBox, SortedSide) {
    let (sink, side) = side(spec, Some(kept));
    (SinkBox::new(sink), side)
}

fn side(spec: SortSpec, kept: Option<Vec<usize>>) -> (sink::SortSink, SortedSide) {
    let spec = Arc::new(spec);
    let handoff = Handoff::new();
    let sink = sink::SortSink::new(Arc::clone(&spec), kept, handoff.clone());
    (sink, SortedSide::new(spec, handoff))
}

impl SortSpec {
    /// The name of both halves in plans and metrics.
    fn name(&self) -> String {
        if self.fetch.is_some() { "TopN".to_owned() } else { "Sort".to_owned() }
    }

    /// Bytes of a row in flat columns, strings at the size of their view.
    pub(super) fn row_bytes(&self) -> usize {
        self.types.iter().map(DataType::value_bytes).sum()
    }

    /// The columns of a run, keys last.
    fn run_types(&self) -> Vec<DataType> {
        self.types.iter().cloned().chain([DataType::Binary]).collect()
    }

    /// Pages that any number of rows take at least: values and validity of each column.
    pub(super) fn columns_bytes(&self) -> usize {
        2 * (self.types.len() + 1) * PAGE_BYTES
    }

    /// Bytes of a block on disk. The runs of a small fetch are small, so that it needs little to get through.
    pub(super) fn block_bytes(&self, knobs: &Knobs) -> usize {
        const LEAST_BLOCK_BYTES: usize = 8 << 10;
        let row_bytes = (self.row_bytes() + KEY_BYTES * (1 + self.keys.len())) as u64;
        let fetch_bytes = self.fetch_rows().saturating_mul(row_bytes).min(knobs.block_bytes as u64);
        (fetch_bytes as usize).next_power_of_two().max(LEAST_BLOCK_BYTES).min(knobs.block_bytes)
    }

    /// Memory for one block of rows on its way to disk.
    pub(super) fn spill_floor_bytes(&self, knobs: &Knobs) -> usize {
        let block_bytes = self.block_bytes(knobs);
        SpillWriter::staging_bytes(block_bytes) * 4 / 3 + block_bytes * 3 / 2 + self.columns_bytes()
    }

    /// Memory for a block of each of two runs on their way back, and for one more while it is read and decompressed.
    pub(super) fn read_floor_bytes(&self, knobs: &Knobs) -> usize {
        4 * (self.block_bytes(knobs) * 3 / 2 + PAGE_BYTES)
    }

    /// The fetch, or what no number of rows reaches.
    fn fetch_rows(&self) -> u64 {
        self.fetch.unwrap_or(u64::MAX)
    }

    /// An error after which nothing can be tried again: a refusal becomes a budget that is too small.
    pub(super) fn made_final(&self, error: Error, pool: &Pool) -> Error {
        error.made_final(pool.limit_bytes(), &self.name())
    }
}

#[cfg(test)]
mod spill_tests;
#[cfg(test)]
mod tests;
