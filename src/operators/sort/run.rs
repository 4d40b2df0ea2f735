//! Runs: rows collected, sorted, and kept in memory or on disk.

use super::super::rows::RowsBuilder;
use super::entries::{ENTRY_KEY_BYTES, entry_of, entry_of_view, number_of, sort_by_keys, without_number};
use super::keys::{PREFIX_BYTES, WIDE_PREFIX_BYTES, wide_prefix};
use crate::data::{
    Batch, Buf, BufMut, FlatVector, MAX_INLINE_BYTES, StringViews, Values, Vector, ViewBuilder, view_len,
};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};
use crate::spill::SpillReader;
use arrow::array::Array;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Rows in order; the last column holds their keys.
#[derive(Debug)]
pub(super) struct Chunk {
    columns: Vec<FlatVector>,
    keys: StringViews,
    /// Where in the columns each row lies, where they do not lie in order.
    order: Option<Order>,
    rows: usize,
    /// Bytes of the strings of a row that are not in their views, on average; `None` if that says little about a row.
    mean_long_bytes: Option<usize>,
}

/// Rows in another order than they lie.
#[derive(Debug)]
pub(super) struct Order {
    /// For each row where it lies, below what its key begins with if `has_whole_keys`.
    entries: Buf<u128>,
    /// Whether entries hold all of every key.
    has_whole_keys: bool,
}

/// Strings are about alike if none takes more bytes than this.
const ALIKE_BYTES: usize = 256;

impl Chunk {
    /// The rows of `columns`, or those that `order` names.
    pub(super) fn new(columns: Vec<FlatVector>, order: Option<Order>) -> Result<Self> {
        let Some(FlatVector { values: Values::View(keys), .. }) = columns.last() else {
            return Err(Error::internal("sorted rows without their keys"));
        };
        let rows = order.as_ref().map_or(keys.len(), |order| order.entries.len());
        let mean_long_bytes = mean_long_bytes(&columns);
        Ok(Self { keys: keys.clone(), columns, order, rows, mean_long_bytes })
    }

    /// Rows read back from a spill block.
    pub(super) fn of_block(batch: &Batch) -> Result<Self> {
        let flat = |column: &Vector| match column {
            Vector::Flat(flat) => Ok(flat.clone()),
            Vector::Constant { .. } | Vector::Dict { .. } => {
                Err(Error::internal("a spilled column is not flat"))
            }
        };
        Self::new(batch.columns().iter().map(flat).collect::<Result<_>>()?, None)
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, keys last.
    pub(super) fn columns(&self) -> &[FlatVector] {
        &self.columns
    }

    /// About the bytes that the strings of a row take beside their views, of any row; `None` if rows differ in that.
    pub(super) fn mean_long_bytes(&self) -> Option<usize> {
        self.mean_long_bytes
    }

    /// About the bytes of memory behind it.
    fn allocated_bytes(&self) -> usize {
        let bytes = |column: &FlatVector| match &column.values {
            Values::View(strings) => {
                strings.buffers.iter().map(|b| b.len()).sum::<usize>() + strings.len() * 16
            }
            Values::Nested(array) => array.get_array_memory_size(),
            values => values.len() * 8,
        };
        self.columns.iter().map(bytes).sum()
    }

    /// Whether the columns hold the rows and nothing else, in order.
    pub(super) fn is_in_place(&self) -> bool {
        self.order.is_none()
    }

    /// Where in the columns row `row` lies.
    pub(super) fn place(&self, row: usize) -> usize {
        self.order.as_ref().map_or(row, |order| number_of(order.entries[row]))
    }

    /// The key of row `row`.
    pub(super) fn key(&self, row: usize) -> &[u8] {
        self.keys.get(self.place(row))
    }

    /// The key of the row that lies at `place`.
    pub(super) fn key_at(&self, place: usize) -> &[u8] {
        self.keys.get(place)
    }

    /// Whether every key is no longer than what an entry has of it, as far as that is known without looking at them.
    pub(super) fn has_whole_keys(&self) -> bool {
        match &self.order {
            Some(order) => order.has_whole_keys,
            None => self.keys.buffers.is_empty(),
        }
    }

    /// Calls `push` for each of the rows `rows` with what its key begins with behind the first `skip` bytes, above a
    /// number of zero, and with where it lies.
    pub(super) fn entries(&self, rows: Range<usize>, skip: usize, mut push: impl FnMut(u128, usize)) {
        match &self.order {
            Some(Order { entries, has_whole_keys: true }) if skip == 0 => {
                entries[rows].iter().for_each(|entry| push(without_number(*entry), number_of(*entry)));
            }
            Some(Order { entries, .. }) => {
                let places = entries[rows].iter().map(|entry| number_of(*entry));
                places.for_each(|place| push(entry_of(&self.keys.get(place)[skip..]), place));
            }
            None => rows.for_each(|place| match self.keys.views[place] {
                view if skip == 0 && view_len(view) <= MAX_INLINE_BYTES => push(entry_of_view(view), place),
                _ => push(entry_of(&self.keys.get(place)[skip..]), place),
            }),
        }
    }

    /// The [`wide_prefix`] of the key of row `row`, and whether there is more of it.
    pub(super) fn prefix(&self, row: usize) -> (u128, bool) {
        match &self.order {
            // Keys lie scattered: they are looked at only if they must be.
            Some(Order { entries, has_whole_keys: true }) => (without_number(entries[row]), false),
            None if view_len(self.keys.views[row]) <= MAX_INLINE_BYTES => {
                (entry_of_view(self.keys.views[row]), false)
            }
            Some(_) | None => {
                let key = self.key(row);
                (wide_prefix(key), key.len() > WIDE_PREFIX_BYTES)
            }
        }
    }
}

/// Rows in order: chunks in memory, or blocks on disk. It can be put away half read.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) chunks: VecDeque<Arc<Chunk>>,
    /// Where to go on after the chunks.
    pub(super) reader: Option<SpillReader>,
    /// Rows of the first chunk or block that were taken already.
    pub(super) skip: usize,
    /// Rows that are left.
    pub(super) rows: u64,
}

impl Run {
    /// A run in memory.
    pub(super) fn of_chunks(chunks: VecDeque<Arc<Chunk>>) -> Self {
        let rows = chunks.iter().map(|chunk| chunk.rows() as u64).sum();
        Self { chunks, reader: None, skip: 0, rows }
    }

    /// A run on disk.
    pub(super) fn of_file(reader: SpillReader, rows: u64) -> Self {
        Self { chunks: VecDeque::new(), reader: Some(reader), skip: 0, rows }
    }

    /// Whether it holds memory.
    pub(super) fn is_in_memory(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// About the bytes of memory it holds.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.allocated_bytes()).sum()
    }

    /// The key of the last row, of a run in memory.
    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.chunks.back().map(|chunk| chunk.key(chunk.rows() - 1))
    }
}

/// Collects the rows of the next run.
pub(super) struct RunBuilder {
    rows: RowsBuilder,
    keys: ViewBuilder,
    /// Of each row its key's first bytes above its number.
    order: BufMut<u128>,
    /// Of the longest key.
    key_bytes: usize,
}

impl RunBuilder {
    pub(super) fn new(columns: usize, account: &Account) -> Result<Self, Denied> {
        let keys = ViewBuilder::new(account, 0)?;
        Ok(Self { rows: RowsBuilder::new(columns), keys, order: BufMut::empty(), key_bytes: 0 })
    }

    /// Appends the rows `positions` of `batch`, with their `keys` in the same order; all of them or, after an error,
    /// none.
    pub(super) fn append<'a>(
        &mut self,
        batch: &Batch,
        positions: &[u32],
        keys: impl Iterator<Item = &'a [u8]>,
        account: &Account,
    ) -> Result<()> {
        let before = self.rows();
        let outcome = self.try_append(batch, positions, keys, account);
        if outcome.is_err() {
            self.rows.expect_rows(0);
            self.order.set_len(before);
            self.keys.truncate(before);
            self.rows.truncate(before);
        }
        outcome
    }

    fn try_append<'a>(
        &mut self,
        batch: &Batch,
        positions: &[u32],
        keys: impl Iterator<Item = &'a [u8]>,
        account: &Account,
    ) -> Result<()> {
        self.order.reserve(account, self.rows() + positions.len())?;
        for key in keys {
            self.keys.push(account, key)?;
        }
        self.rows.append(batch, positions, account)?;
        for row in self.rows()..self.keys.len() {
            let key = self.keys.get(row);
            self.key_bytes = self.key_bytes.max(key.len());
            self.order.push(entry_of(key) | row as u128);
        }
        Ok(())
    }

    /// Number of rows collected.
    pub(super) fn rows(&self) -> usize {
        self.order.len()
    }

    /// Bytes of memory behind them.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.rows.allocated_bytes() + self.keys.allocated_bytes() + self.order.allocated_bytes()
    }

    /// Sorts what was collected; the first `fetch` rows are a run, and the builder is empty. This needs no memory: the
    /// rows stay where they are.
    pub(super) fn sort(&mut self, fetch: u64, account: &Account) -> Result<Run> {
        let mut order = std::mem::replace(&mut self.order, BufMut::empty());
        let keys = std::mem::replace(&mut self.keys, ViewBuilder::new(account, 0)?).freeze();
        let has_whole_keys = std::mem::take(&mut self.key_bytes) <= ENTRY_KEY_BYTES;
        if has_whole_keys {
            order.sort_unstable();
        } else {
            sort_by_keys(&mut order, 0, &|place| keys.get(place));
        }
        order.set_len(order.len().min(usize::try_from(fetch).unwrap_or(usize::MAX)));
        let mut columns = self.rows.take()?;
        // The next run is about as long.
        self.rows.expect_rows(order.len());
        columns.push(FlatVector::new(Values::View(keys)));
        let chunk = Chunk::new(columns, Some(Order { entries: order.freeze(), has_whole_keys }))?;
        Ok(Run::of_chunks(VecDeque::from([Arc::new(chunk)])))
    }
}

fn mean_long_bytes(columns: &[FlatVector]) -> Option<usize> {
    let mut mean = 0;
    for column in columns {
        let Values::View(strings) = &column.values else { continue };
        let mut long_bytes = 0;
        let mut longest = 0;
        for view in strings.views.iter() {
            let len = view_len(*view);
            longest = longest.max(len);
            long_bytes += if len > MAX_INLINE_BYTES { len } else { 0 };
        }
        if longest > ALIKE_BYTES {
            return None;
        }
        mean += long_bytes.div_ceil(strings.len().max(1));
    }
    Some(mean)
}

/// What of a key its prefix does not show. Keys are no prefixes of each other, so one that ends within its prefix
/// equals every key of the same prefix.
pub(in crate::operators) fn rest_of(key: &[u8]) -> &[u8] {
    key.get(PREFIX_BYTES..).unwrap_or_default()
}
