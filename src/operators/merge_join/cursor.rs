//! Where one side stands: the batch in hand, and the next row of it.

use super::super::sort::{prefix, rest_of};
use super::input::{BatchKeys, Next, NextRows, SideRows};
use crate::data::key_bits::resize;
use crate::data::{BufMut, FlatVector};
use crate::error::Result;
use crate::exec::{LaneCx, Wait};
use crate::mem::Account;
use std::cmp::Ordering;

/// Rows of one side.
pub(super) struct SideBatch {
    /// Kept columns.
    pub(super) columns: Vec<FlatVector>,
    keys: BatchKeys,
    pub(super) rows: usize,
}

impl SideBatch {
    /// The key of a row.
    pub(super) fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }
}

/// One side on its way.
pub(super) struct Cursor {
    pub(super) input: SideRows,
    pub(super) batch: Option<SideBatch>,
    /// The next row of the batch.
    pub(super) row: usize,
    /// Whether there are no more batches after this one.
    pub(super) is_over: bool,
    /// Of each key of the batch what is compared first.
    prefixes: BufMut<u64>,
}

impl Cursor {
    pub(super) fn new(input: SideRows) -> Self {
        Self { input, batch: None, row: 0, is_over: false, prefixes: BufMut::empty() }
    }

    /// Whether there is a row in hand.
    pub(super) fn has_row(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| self.row < batch.rows)
    }

    /// Lets the batch go and gets the next one; without one `is_over`.
    pub(super) fn load(&mut self, spill: &Account, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        self.batch = None;
        self.row = 0;
        let NextRows { columns, keys, rows } = match self.input.next(spill, cx)? {
            Next::Rows(rows) => rows,
            Next::Wait(wait) => return Ok(Some(wait)),
            Next::End => {
                self.is_over = true;
                return Ok(None);
            }
        };
        resize(&mut self.prefixes, rows, cx.account)?;
        for (row, to) in self.prefixes.iter_mut().enumerate() {
            *to = prefix(keys.get(row));
        }
        self.batch = Some(SideBatch { columns, keys, rows });
        Ok(None)
    }

    /// The key of a row of the batch.
    pub(super) fn key(&self, row: usize) -> Key<'_> {
        let bytes = self.batch.as_ref().map_or(&[][..], |batch| batch.keys.get(row));
        Key { prefix: self.prefixes[row], bytes }
    }

    /// The first row from `start` on whose key is not that of `start`.
    pub(super) fn end_of_key(&self, start: usize) -> usize {
        let rows = self.batch.as_ref().map_or(0, |batch| batch.rows);
        let key = self.key(start);
        (start + 1..rows).find(|&row| !self.key(row).cmp(&key).is_eq()).unwrap_or(rows)
    }

    /// The first row from `start` on whose key is not less than `key`, knowing that that of `start` is: by steps that
    /// double, then by halves.
    pub(super) fn skip_less(&self, start: usize, key: &Key<'_>) -> usize {
        let rows = self.batch.as_ref().map_or(0, |batch| batch.rows);
        let is_less = |row: usize| self.key(row).cmp(key).is_lt();
        let (mut less, mut step) = (start, 1);
        while less + step < rows && is_less(less + step) {
            less += step;
            step *= 2;
        }
        let mut end = rows.min(less + step);
        while less + 1 < end {
            let middle = less + (end - less) / 2;
            if is_less(middle) {
                less = middle;
            } else {
                end = middle;
            }
        }
        end
    }
}

/// A key, and its first bytes as a number.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    prefix: u64,
    pub(super) bytes: &'a [u8],
}

impl<'a> Key<'a> {
    /// A key that was copied.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { prefix: prefix(bytes), bytes }
    }

    #[inline(always)]
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| rest_of(self.bytes).cmp(rest_of(other.bytes)))
    }
}
