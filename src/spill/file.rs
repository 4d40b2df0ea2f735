//! Reading partitions back.

use super::block::{self, BlockSchema};
use super::index::{Chain, Cursor};
use super::segment::Segment;
use crate::data::{Batch, BufMut, DictionaryIds};
use crate::error::Result;
use crate::mem::Account;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What is freed at a time: a call of the file system for each block would cost more than the block is worth.
const FREED_BYTES: u64 = 1 << 20;

/// The partitions a writer has written; any number of readers on any threads. Its bytes on disk are free once it and
/// its readers are dropped.
pub(crate) struct SpillFile {
    segments: Vec<Segment>,
    schemas: Vec<BlockSchema>,
    chains: Box<[Chain]>,
}

impl SpillFile {
    pub(super) fn new(segments: Vec<Segment>, schemas: Vec<BlockSchema>, chains: Box<[Chain]>) -> Self {
        Self { segments, schemas, chains }
    }

    fn chain(&self, partition: u32) -> &Chain {
        self.chains.get(partition as usize).unwrap_or(&Chain::EMPTY)
    }

    /// Number of blocks of `partition`; none if it was never written to.
    #[cfg(test)]
    pub(crate) fn blocks(&self, partition: u32) -> usize {
        self.chain(partition).blocks as usize
    }

    /// Rows of `partition`.
    pub(crate) fn rows(&self, partition: u32) -> u64 {
        self.chain(partition).rows
    }

    /// Bytes of `partition` on disk.
    pub(crate) fn bytes(&self, partition: u32) -> u64 {
        self.chain(partition).bytes
    }

    /// Reads `partition` from its beginning.
    pub(crate) fn reader(self: &Arc<Self>, partition: u32) -> SpillReader {
        SpillReader { cursor: self.chain(partition).cursor(), file: Arc::clone(self) }
    }

    #[cfg(test)]
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpillFile({} segments)", self.segments.len())
    }
}

/// Reads the blocks of one partition in the order in which they were written. A clone goes on from the same place.
#[derive(Clone, Debug)]
pub(crate) struct SpillReader {
    file: Arc<SpillFile>,
    cursor: Cursor,
}

impl SpillReader {
    /// Bytes of the next block in memory; `None` at the end.
    #[cfg(test)]
    pub(crate) fn next_bytes(&mut self) -> Option<usize> {
        let entry = self.cursor.block(&self.file.segments).expect("readable");
        entry.map(|entry| entry.message_bytes as usize)
    }

    /// The next block, in slabs of `account`; `None` at the end. After a memory error the same call may be repeated.
    /// While a compressed block is read there is also a slab of its compressed bytes.
    ///
    /// Blocks hold no dictionaries today, so no id is taken from `_ids`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) for a damaged block; memory errors.
    pub(crate) fn next(&mut self, account: &Account, _ids: &DictionaryIds) -> Result<Option<Batch>> {
        let Some(entry) = self.cursor.block(&self.file.segments)? else { return Ok(None) };
        let segment = &self.file.segments[entry.segment as usize];
        let started = Instant::now();
        let mut block = BufMut::<u8>::with_len(account, entry.len() as usize)?;
        segment.read(&mut block, entry.offset)?;
        let schema = &self.file.schemas[entry.schema as usize];
        let batch = block::decode(block, &entry, schema, segment.path(), account)?;
        segment.note_block(started, false);
        self.cursor.pass();
        Ok(Some(batch))
    }

    /// What frees the blocks from here on as a reader gets past them.
    pub(crate) fn behind(&self) -> ReadBehind {
        ReadBehind { file: Arc::clone(&self.file), cursor: self.cursor.clone(), segment: 0, passed: 0..0 }
    }
}

/// Frees blocks on disk that were read for the last time.
#[derive(Debug)]
pub(crate) struct ReadBehind {
    file: Arc<SpillFile>,
    cursor: Cursor,
    /// Where the blocks lie that were passed and not freed.
    segment: u32,
    passed: Range<u64>,
}

impl ReadBehind {
    /// Nobody reads the blocks before those that `reader`, of the same partition, reads next: neither it nor any other.
    /// They are freed once there are many of them.
    pub(crate) fn advance(&mut self, reader: &SpillReader) {
        debug_assert!(Arc::ptr_eq(&self.file, &reader.file), "a reader of the same file");
        while self.cursor.left() > reader.cursor.left() {
            // What cannot be found stays until the file is dropped.
            let Ok(Some(entry)) = self.cursor.block(&self.file.segments) else { return };
            self.cursor.pass();
            if entry.segment != self.segment || entry.offset != self.passed.end {
                self.free();
                (self.segment, self.passed) = (entry.segment, entry.offset..entry.offset);
            }
            self.passed.end += entry.len();
        }
        if self.passed.end - self.passed.start >= FREED_BYTES {
            self.free();
        }
    }

    fn free(&mut self) {
        if !self.passed.is_empty() {
            self.file.segments[self.segment as usize].free(self.passed.clone());
            self.passed.start = self.passed.end;
        }
    }
}
