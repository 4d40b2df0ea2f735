//! Rows of a partition on their way back from disk.
//!
//! Invariants:
//! 1. A reader gives each row once, in batches of at most the rows asked for; what could not be used is put back.
//! 2. What is loaded leaves room for its directory: nothing else is asked of the account meanwhile.

use super::directory::Directory;
use super::roles::Roles;
use super::store::{Chunk, ChunkBuilder, FIRST_CHUNK_ROWS};
use crate::data::{Batch, BufMut, FlatVector, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::mem::Account;
use crate::spill::{SpillFile, SpillReader};
use std::sync::Arc;

/// A partition: of several files one each.
#[derive(Clone)]
pub(super) struct Part {
    files: Vec<Arc<SpillFile>>,
    partition: u32,
}

impl Part {
    /// Partition `partition` of `files`.
    pub(super) fn new(files: &[Arc<SpillFile>], partition: u32) -> Self {
        let files = files.iter().filter(|file| file.rows(partition) > 0).cloned().collect();
        Self { files, partition }
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows(self.partition)).sum()
    }

    /// Bytes on disk.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes(self.partition)).sum()
    }
}

/// Reads a partition. A clone goes on from the same place.
#[derive(Clone)]
pub(super) struct PartitionReader {
    part: Part,
    reader: Option<SpillReader>,
    /// A block of which rows from the second value on are still to be given.
    block: Option<(Batch, usize)>,
    rows_left: u64,
}

impl PartitionReader {
    /// A reader at the beginning of `part`.
    pub(super) fn new(part: Part) -> Self {
        let rows_left = part.rows();
        Self { part, reader: None, block: None, rows_left }
    }

    /// Whether all rows have been given.
    pub(super) fn is_at_end(&self) -> bool {
        self.rows_left == 0
    }

    /// The next rows, at most `most`, in memory of the lane; `None` at the end.
    pub(super) fn next(&mut self, most: usize, cx: &LaneCx<'_>) -> Result<Option<Batch>> {
        while self.rows_left > 0 {
            let Some((block, start)) = self.block.take() else {
                self.block = self.next_block(cx)?.map(|block| (block, 0));
                if self.block.is_none() {
                    return Err(Error::internal("a partition ends before its rows"));
                }
                continue;
            };
            let len = most.min(block.rows() - start);
            let rows =
                if len == block.rows() { block.clone() } else { block.slice(start, len, cx.account)? };
            if start + len < block.rows() {
                self.block = Some((block, start + len));
            }
            self.rows_left -= len as u64;
            return Ok(Some(rows));
        }
        Ok(None)
    }

    /// Puts `batch` back, which must be what was given last, or the end of it.
    fn put_back(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<()> {
        let rows = batch.rows();
        self.rows_left += rows as u64;
        self.block = match self.block.take() {
            // They are the rows before those not given yet.
            Some((block, start)) => Some((block, start - rows)),
            None => Some((batch.compact(cx.account)?, 0)),
        };
        Ok(())
    }

    fn next_block(&mut self, cx: &LaneCx<'_>) -> Result<Option<Batch>> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(block) = reader.next(cx.account, &cx.query.ids)?
            {
                return Ok(Some(block));
            }
            let Some(file) = self.part.files.pop() else { return Ok(None) };
            self.reader = Some(file.reader(self.part.partition));
        }
    }
}

/// How many rows to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// As many as memory allows.
    Memory,
    /// And at most so many.
    Rows(usize),
}

/// Columns of spilled rows, and their words if they have any.
pub(super) fn split_word(batch: &Batch, has_words: bool) -> Result<(Vec<Vector>, &[u64])> {
    let mut columns = batch.columns().to_vec();
    if !has_words {
        return Ok((columns, &[]));
    }
    columns.pop();
    match batch.columns().last() {
        Some(Vector::Flat(FlatVector { values: Values::U64(words), .. })) => Ok((columns, words)),
        _ => Err(Error::internal("a spilled row comes back without its word")),
    }
}

/// Build rows that come next, as chunks in `account`. No rows mean that not even the first fits.
pub(super) fn load(
    roles: &Roles,
    rows: &mut PartitionReader,
    limit: Limit,
    account: &Account,
    cx: &LaneCx<'_>,
) -> Result<Vec<Chunk>> {
    let mut chunks = ChunkBuilder::new(roles.stored_types.len(), roles.has_keys());
    let mut room = Room::NONE;
    let mut most = cx.batch_rows();
    let mut positions = BufMut::<u32>::with_len(cx.account, most)?;
    positions.iter_mut().zip(0..).for_each(|(to, row)| *to = row);
    loop {
        cx.check()?;
        let left = match limit {
            Limit::Memory => most,
            Limit::Rows(rows) => most.min(rows.saturating_sub(chunks.rows())),
        };
        if left == 0 {
            return chunks.take();
        }
        let Some(batch) = rows.next(left, cx)? else { return chunks.take() };
        let mut missing = &positions[..batch.rows()];
        let fits = if roles.has_keys() && !room.make(chunks.rows() + batch.rows(), account) {
            false
        } else {
            let (columns, words) = split_word(&batch, roles.has_keys())?;
            let columns = Batch::new(columns, batch.rows());
            chunks.append(&columns, words, &mut missing, account)?.is_ok()
        };
        if fits {
            continue;
        }
        let taken = batch.rows() - missing.len();
        let len = missing.len();
        let rest = if taken == 0 { batch } else { batch.slice(taken, len, cx.account)? };
        rows.put_back(rest, cx)?;
        if chunks.rows() > 0 || len == 1 {
            return chunks.take();
        }
        room = Room::NONE;
        most = len.div_ceil(2);
    }
}

/// Keeps memory for the directory of the rows being loaded.
struct Room {
    rows: usize,
    /// Never read.
    held: BufMut<u8>,
}

impl Room {
    const NONE: Self = Self { rows: 0, held: BufMut::empty() };

    /// Whether there is room for the directory of `rows` rows.
    fn make(&mut self, rows: usize, account: &Account) -> bool {
        if rows > self.rows {
            let larger = rows.max(self.rows + self.rows / 4).max(FIRST_CHUNK_ROWS);
            self.held = BufMut::empty();
            // More than is needed at once if that can be had.
            for rows in [larger, rows] {
                if let Ok(held) = BufMut::with_capacity(account, Directory::estimated_bytes(rows)) {
                    (self.rows, self.held) = (rows, held);
                    return true;
                }
            }
            self.rows = 0;
            return false;
        }
        true
    }
}
