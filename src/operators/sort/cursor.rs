//! Where each run of a merge stands.
//!
//! Invariants:
//! 1. A cursor has a chunk in hand, and a row of it that comes next, until its run is over.
//! 2. Rows are taken by stretches. Of the stretch that comes next, `row..end`, the last row stands for all: how its key
//!    begins is at hand.

use super::keys::WIDE_PREFIX_BYTES;
use super::run::{Chunk, Run};
use crate::data::DictionaryIds;
use crate::error::Result;
use crate::mem::Account;
use crate::spill::{ReadBehind, SpillReader};
use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk while rows of it are being laid out.
pub(super) struct Source {
    pub(super) chunk: Arc<Chunk>,
    pub(super) cursor: usize,
    /// The first row that was picked of it.
    pub(super) first_row: usize,
    /// Where the reader was before it read the chunk.
    pub(super) before: Option<SpillReader>,
}

/// A key, by its row, for comparisons.
#[derive(Clone, Copy)]
pub(super) struct KeyAt<'a> {
    chunk: &'a Chunk,
    row: usize,
    prefix: u128,
    has_rest: bool,
}

impl<'a> KeyAt<'a> {
    pub(super) fn new(chunk: &'a Chunk, row: usize) -> Self {
        let (prefix, has_rest) = chunk.prefix(row);
        Self { chunk, row, prefix, has_rest }
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let order = self.prefix.cmp(&other.prefix);
        // One that ends within its prefix equals every key of the same prefix. Few comparisons should look at whole
        // keys, which may lie scattered.
        if order.is_eq() && self.has_rest && other.has_rest {
            let rest = |key: &Self| key.chunk.key(key.row).get(WIDE_PREFIX_BYTES..).unwrap_or_default();
            return rest(self).cmp(rest(other));
        }
        order
    }
}

/// Rows that were taken of a cursor.
pub(super) struct Stretch {
    pub(super) cursor: u32,
    /// Which of the merge's sources they belong to.
    pub(super) source: u32,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Where a run stands.
pub(super) struct Cursor {
    /// What comes after `current`.
    pub(super) run: Run,
    /// `None` at the end, and before the first chunk.
    pub(super) current: Option<Arc<Chunk>>,
    /// Where the reader was before it read `current`.
    before: Option<SpillReader>,
    /// Frees what lies before `before`.
    behind: Option<ReadBehind>,
    /// The next row, and the end of its stretch.
    row: usize,
    end: usize,
    /// What the key of the stretch's last row begins with, and whether there is more of it.
    prefix: u128,
    has_rest: bool,
    /// Place of `current` among the merge's sources.
    source: u32,
}

impl Cursor {
    pub(super) fn new(run: Run) -> Self {
        let behind = run.reader.as_ref().map(SpillReader::behind);
        let (current, before) = (None, None);
        Self { run, current, before, behind, row: 0, end: 0, prefix: 0, has_rest: false, source: 0 }
    }

    /// Gets the next chunk; `current` stays empty at the end. After an error nothing has changed but that.
    pub(super) fn load(&mut self, step: usize, ids: &DictionaryIds, account: &Account) -> Result<()> {
        self.current = None;
        self.before = self.run.reader.clone();
        let chunk = match (self.run.chunks.pop_front(), &mut self.run.reader) {
            (Some(chunk), _) => Some(chunk),
            (None, Some(reader)) => {
                reader.next(account, ids)?.map(|block| Chunk::of_block(&block).map(Arc::new)).transpose()?
            }
            (None, None) => None,
        };
        self.row = std::mem::take(&mut self.run.skip);
        self.current = chunk;
        self.stretch(step);
        Ok(())
    }

    /// Begins a stretch of `step` rows, or of one where rows may be large: how many are taken is then decided by each.
    fn stretch(&mut self, step: usize) {
        if let Some(chunk) = &self.current {
            let step = chunk.mean_long_bytes().map_or(1, |_| step);
            self.end = self.row.saturating_add(step).min(chunk.rows());
            (self.prefix, self.has_rest) = chunk.prefix(self.end - 1);
        }
    }

    /// The last key of the stretch; `None` at the end of the run.
    fn last_key(&self) -> Option<KeyAt<'_>> {
        let chunk = self.current.as_deref()?;
        Some(KeyAt { chunk, row: self.end - 1, prefix: self.prefix, has_rest: self.has_rest })
    }

    /// Whether its stretch ends before that of `other`; `None` if they end alike. A run at its end comes last.
    pub(super) fn is_less(&self, other: &Self) -> Option<bool> {
        let (Some(key), Some(other_key)) = (self.last_key(), other.last_key()) else {
            return Some(self.current.is_some());
        };
        let order = key.compare(&other_key);
        (!order.is_eq()).then_some(order.is_lt())
    }

    /// Whether none of the rows of the chunk in hand was taken.
    pub(super) fn is_at_start(&self) -> bool {
        self.row == 0
    }

    /// Takes the stretch and begins the next one, of `step` rows; `None` at the end of the chunk.
    pub(super) fn take_stretch(&mut self, cursor: usize, step: usize) -> (Stretch, bool) {
        let taken = self.take_to(cursor, self.end);
        let has_more = self.current.as_ref().is_some_and(|chunk| self.row < chunk.rows());
        if has_more {
            self.stretch(step);
        }
        (taken, has_more)
    }

    /// Takes the rows of the stretch that come before `bound`, or, if `with_equal`, not after it. There is at least one
    /// that does not: the stretch's last.
    pub(super) fn take_before(
        &mut self,
        cursor: usize,
        bound: &KeyAt<'_>,
        with_equal: bool,
    ) -> Option<Stretch> {
        let chunk = self.current.as_deref()?;
        let is_before = |row: usize| match KeyAt::new(chunk, row).compare(bound) {
            Ordering::Less => true,
            Ordering::Equal => with_equal,
            Ordering::Greater => false,
        };
        let (mut low, mut high) = (self.row, self.end - 1);
        // More often than not there is none.
        if low == high || !is_before(low) {
            return None;
        }
        low += 1;
        while low < high {
            let middle = low.midpoint(high);
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(self.take_to(cursor, low))
    }

    fn take_to(&mut self, cursor: usize, to: usize) -> Stretch {
        let from = std::mem::replace(&mut self.row, to);
        self.run.rows -= (to - from) as u64;
        Stretch { cursor: cursor as u32, source: self.source, from, to }
    }

    /// Adds its chunk to the sources of the batch being made.
    pub(super) fn enlist(&mut self, cursor: usize, sources: &mut Vec<Source>) {
        self.source = sources.len() as u32;
        if let Some(chunk) = &self.current {
            let (chunk, before) = (Arc::clone(chunk), self.before.clone());
            sources.push(Source { chunk, cursor, first_row: self.row, before });
        }
    }

    /// No row before its current chunk is wanted again.
    pub(super) fn free_behind(&mut self) {
        if let (Some(behind), Some(before)) = (&mut self.behind, &self.before) {
            behind.advance(before);
        }
    }

    /// Whether the chunk in hand is in memory without being on disk, or others of its run are.
    pub(super) fn is_in_memory(&self) -> bool {
        self.run.is_in_memory() || (self.before.is_none() && self.current.is_some())
    }

    /// What is left of the run, with no block in memory.
    pub(super) fn into_run(mut self) -> Run {
        let Some(chunk) = self.current else { return self.run };
        self.run.skip = self.row;
        match self.before {
            Some(before) => self.run.reader = Some(before),
            None => self.run.chunks.push_front(chunk),
        }
        self.run
    }
}
