//! Rows that were picked of chunks, and how they are laid out.
//!
//! Invariants:
//! 1. Laying out may be refused, and then be asked for again: nothing has changed.

use super::super::rows::{Pick, gather_column, gather_validity};
use super::rounds::{RoundSorter, Rounds};
use super::run::Chunk;
use crate::data::{
    Buf, BufMut, FlatVector, MAX_INLINE_BYTES, SHARED_BYTES, StringViews, Values, for_each_values,
    view_inline, view_len, view_of,
};
use crate::error::{Error, Result};
use crate::mem::Account;
use arrow::array::Array;
use std::ops::Range;
use std::sync::Arc;

/// How much of a merge to lay out at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// At most so many rows.
    pub(super) rows: usize,
    /// About so many bytes, but at least one row.
    pub(super) bytes: usize,
    /// Whether the keys come along, as a last column.
    pub(super) has_keys: bool,
}

/// A number of rows, and their columns.
pub(super) type Rows = (usize, Vec<FlatVector>);

/// The next rows of a merge before they are laid out. The merge may go on meanwhile.
pub(super) struct Picked {
    chunks: Vec<Arc<Chunk>>,
    rows: PickedRows,
    reads_disk: bool,
}

/// Which rows of the chunks.
pub(super) enum PickedRows {
    /// The only chunk, as it is.
    Whole,
    /// At most so many rows of the chunks, to be put in order.
    Rounds(Rounds, usize),
    /// Rows of the chunks, and how many of them are laid out already.
    Picks(Vec<Pick>, usize),
}

impl Picked {
    /// `rows` of `chunks`, which are of a merge of runs on disk or not.
    pub(super) fn new(chunks: Vec<Arc<Chunk>>, rows: PickedRows, reads_disk: bool) -> Self {
        Self { chunks, rows, reads_disk }
    }

    /// Whether they are of a merge of runs on disk.
    pub(super) fn reads_disk(&self) -> bool {
        self.reads_disk
    }

    /// Rows not laid out yet.
    pub(super) fn rows(&self) -> usize {
        match &self.rows {
            PickedRows::Whole => self.chunks.iter().map(|chunk| chunk.rows()).sum(),
            PickedRows::Rounds(rounds, most_rows) => rounds.rows().min(*most_rows),
            PickedRows::Picks(picks, taken) => picks.len() - taken,
        }
    }

    /// Lays the next of the rows out in `account`, `most_rows` at the most and fewer where memory is short; `None` when
    /// all are. After a refusal it may be called again.
    pub(super) fn next_rows(
        &mut self,
        most_rows: usize,
        sorter: &mut RoundSorter,
        account: &Account,
    ) -> Result<Option<Rows>> {
        if let PickedRows::Rounds(rounds, rows) = &mut self.rows {
            let mut picks = Vec::new();
            sorter.sort(rounds, &self.chunks, &mut picks);
            picks.truncate(*rows);
            self.rows = PickedRows::Picks(picks, 0);
        }
        let PickedRows::Picks(picks, taken) = &mut self.rows else {
            let chunk = self.chunks.pop();
            return Ok(chunk.map(|chunk| (chunk.rows(), without_keys(&chunk, false).to_vec())));
        };
        let next = &picks[*taken..];
        let rows = gather(&self.chunks, &next[..next.len().min(most_rows)], false, account)?;
        *taken += rows.as_ref().map_or(0, |(rows, _)| *rows);
        Ok(rows)
    }
}

/// The columns of a chunk.
pub(super) fn without_keys(chunk: &Chunk, has_keys: bool) -> &[FlatVector] {
    &chunk.columns()[..chunk.columns().len() - usize::from(!has_keys)]
}

/// Lays out the first of `picks`, all of them if there is memory for that; `None` if there are none.
pub(super) fn gather(
    chunks: &[Arc<Chunk>],
    picks: &[Pick],
    has_keys: bool,
    account: &Account,
) -> Result<Option<Rows>> {
    let mut rows = picks.len();
    while rows > 0 {
        match gather_all(chunks, &picks[..rows], has_keys, account) {
            Ok(columns) => return Ok(Some((rows, columns))),
            Err(error) if rows > 1 && error.is_refusal() => rows /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn gather_all(
    chunks: &[Arc<Chunk>],
    picks: &[Pick],
    has_keys: bool,
    account: &Account,
) -> Result<Vec<FlatVector>> {
    let sources: Vec<&[FlatVector]> = chunks.iter().map(|chunk| without_keys(chunk, has_keys)).collect();
    let Some(first) = sources.first() else { return Err(Error::internal("rows without a source")) };
    let is_alike = chunks.iter().all(|chunk| chunk.mean_long_bytes().is_some());
    let column = |column: usize| match is_alike {
        true => gather_column(&sources, column, picks, account),
        false => lay_out(&sources, column, picks, account),
    };
    (0..first.len()).map(column).collect()
}

/// What rows of a chunk take.
pub(super) struct Widths {
    /// Bytes of a row, strings at the size of their views.
    row_bytes: usize,
    /// Which columns have strings.
    strings: Vec<usize>,
}

impl Widths {
    /// Of `chunk`, and of all that have the same columns.
    pub(super) fn of(chunk: &Chunk) -> Self {
        let columns = chunk.columns();
        let width_of = |values: &Values| {
            for_each_values!(
                values,
                fixed(v, V) => size_of_val(&**v) / v.len().max(1),
                bool(_b) => 1,
                view(_s) => 16,
                nested(n) => n.get_array_memory_size() / n.len().max(1),
            )
        };
        let row_bytes = columns.iter().map(|column| 1 + width_of(&column.values)).sum();
        let is_string = |at: &usize| matches!(columns[*at].values, Values::View(_));
        Self { row_bytes, strings: (0..columns.len()).filter(is_string).collect() }
    }

    /// About the bytes of a row of `chunk`, where rows are alike; never 0.
    pub(super) fn mean_bytes(&self, chunk: Option<&Chunk>) -> usize {
        (self.row_bytes + chunk.and_then(Chunk::mean_long_bytes).unwrap_or(0)).max(1)
    }

    /// `bytes` and those of the rows `rows` of `chunk`.
    pub(super) fn add(&self, bytes: usize, chunk: &Chunk, rows: Range<usize>) -> usize {
        let long = |column: &usize| {
            let column = &chunk.columns()[*column];
            rows.clone().map(|row| long_bytes(column, chunk.place(row))).sum::<usize>()
        };
        let long_bytes = match chunk.mean_long_bytes() {
            Some(mean) => mean * rows.len(),
            None => self.strings.iter().map(long).sum(),
        };
        bytes.saturating_add(self.row_bytes * rows.len() + long_bytes)
    }
}

/// Bytes of a string that are not in its view.
fn long_bytes(column: &FlatVector, row: usize) -> usize {
    match &column.values {
        Values::View(strings) => {
            Some(view_len(strings.views[row])).filter(|len| *len > MAX_INLINE_BYTES).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Column `column` of the rows `picks`. Where strings are long they are not copied.
fn lay_out(
    sources: &[&[FlatVector]],
    column: usize,
    picks: &[Pick],
    account: &Account,
) -> Result<FlatVector> {
    let of = |pick: &Pick| &sources[pick.source as usize][column];
    let long: usize = picks.iter().map(|pick| long_bytes(of(pick), pick.row as usize)).sum();
    if long < SHARED_BYTES * picks.len() {
        return gather_column(sources, column, picks, account);
    }
    let mut views = BufMut::with_len(account, picks.len())?;
    let mut buffers: Vec<Buf<u8>> = Vec::new();
    for (to, pick) in views.iter_mut().zip(picks) {
        let (vector, row) = (of(pick), pick.row as usize);
        let Values::View(from) = &vector.values else {
            return Err(Error::internal("a column of strings holds something else"));
        };
        *to = match from.get(row) {
            _ if vector.is_null(row) => view_inline(&[]),
            short if short.len() <= MAX_INLINE_BYTES => view_inline(short),
            long => {
                buffers.push(from.shared_bytes(row));
                view_of(long, buffers.len() as u32 - 1, 0)
            }
        };
    }
    let validity = gather_validity(sources, column, picks, account)?;
    let strings = StringViews { views: views.freeze(), buffers: buffers.into() };
    Ok(FlatVector { values: Values::View(strings), validity, bounds: None })
}
