//! Runs: rows collected, then sorted and laid out in order.

use super::super::rows::{Pick, RowsBuilder, gather_column};
use super::keys::{Keys, PREFIX_BYTES, prefix};
use crate::data::{Batch, BufMut, FlatVector};
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::{Account, Denied};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Rows in order, with their keys.
pub(super) struct Chunk {
    pub(super) columns: Vec<FlatVector>,
    pub(super) keys: Keys,
}

impl Chunk {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.keys.len()
    }
}

/// Chunks in order; none is empty.
#[derive(Default)]
pub(super) struct Run {
    pub(super) chunks: VecDeque<Chunk>,
}

impl Run {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.chunks.iter().map(Chunk::rows).sum()
    }

    /// The key of the last row.
    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.chunks.back().map(|chunk| chunk.keys.get(chunk.rows() - 1))
    }
}

/// Collects the rows of the next run.
pub(super) struct RunBuilder {
    rows: RowsBuilder,
    keys: Keys,
}

impl RunBuilder {
    pub(super) fn new(columns: usize, account: &Account) -> Result<Self, Denied> {
        Ok(Self { rows: RowsBuilder::new(columns), keys: Keys::new(account)? })
    }

    /// Appends `rows` (positions) of `batch`, whose keys `keys` has in the same order.
    pub(super) fn append<'a>(
        &mut self,
        batch: &Batch,
        rows: &[u32],
        keys: impl Iterator<Item = &'a [u8]> + Clone,
        account: &Account,
    ) -> Result<()> {
        self.keys.reserve(rows.len(), keys.clone().map(<[u8]>::len).sum(), account)?;
        keys.for_each(|key| self.keys.push(key));
        self.rows.append(batch, rows, account)
    }

    /// Number of rows collected.
    pub(super) fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of memory behind them.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.rows.allocated_bytes() + self.keys.allocated_bytes()
    }

    /// Sorts what was collected and lays out its first `fetch` rows; the builder is empty then.
    ///
    /// Columns are laid out one after the other and freed at once, so that for a moment there are both the rows as
    /// they came and one column of them in order, not twice all of them.
    pub(super) fn seal(&mut self, is_prefix_enough: bool, fetch: usize, cx: &LaneCx<'_>) -> Result<Run> {
        let order = self.order(is_prefix_enough, cx)?;
        let order = &order[..order.len().min(fetch)];
        let pieces = || order.chunks(cx.batch_rows().max(1));
        let mut run = Run::default();
        for piece in pieces() {
            let mut keys = Keys::new(cx.account)?;
            let key = |entry: &u128| self.keys.get(row_of(*entry));
            keys.reserve(piece.len(), piece.iter().map(|entry| key(entry).len()).sum(), cx.account)?;
            piece.iter().for_each(|entry| keys.push(key(entry)));
            run.chunks.push_back(Chunk { columns: Vec::new(), keys });
        }
        self.keys.clear();
        let mut picks = Vec::with_capacity(cx.batch_rows().min(order.len()));
        for column in self.rows.take()? {
            for (piece, chunk) in pieces().zip(&mut run.chunks) {
                cx.check()?;
                picks.clear();
                picks.extend(piece.iter().map(|entry| Pick { source: 0, row: *entry as u32 }));
                let source = std::slice::from_ref(&column);
                chunk.columns.push(gather_column(&[source], 0, &picks, cx.account)?);
            }
        }
        Ok(run)
    }

    /// The rows in order: each as its key's prefix above its number.
    fn order(&self, is_prefix_enough: bool, cx: &LaneCx<'_>) -> Result<BufMut<u128>> {
        let mut order = BufMut::with_len(cx.account, self.rows())?;
        for (row, entry) in order.iter_mut().enumerate() {
            *entry = u128::from(prefix(self.keys.get(row))) << 64 | row as u128;
        }
        if is_prefix_enough {
            order.sort_unstable();
        } else {
            let rest = |entry: u128| rest_of(self.keys.get(row_of(entry)));
            order.sort_unstable_by(|a, b| match (a >> 64).cmp(&(b >> 64)) {
                Ordering::Equal => rest(*a).cmp(rest(*b)).then(a.cmp(b)),
                unequal => unequal,
            });
        }
        Ok(order)
    }
}

fn row_of(entry: u128) -> usize {
    entry as u32 as usize
}

/// What of a key its prefix does not show. Keys are no prefixes of each other, so one that ends within its prefix
/// equals every key of the same prefix.
pub(super) fn rest_of(key: &[u8]) -> &[u8] {
    key.get(PREFIX_BYTES..).unwrap_or_default()
}
