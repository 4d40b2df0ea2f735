//! Reading partitions back.

use super::block::{self, BlockSchema};
use super::index::BlockIndex;
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
    index: BlockIndex,
}

impl SpillFile {
    pub(super) fn new(segments: Vec<Segment>, schemas: Vec<BlockSchema>, index: BlockIndex) -> Self {
        Self { segments, schemas, index }
    }

    /// Number of blocks of `partition`; none if it was never written to.
    #[cfg(test)]
    pub(crate) fn blocks(&self, partition: u32) -> usize {
        self.index.blocks(partition)
    }

    /// Rows of `partition`.
    pub(crate) fn rows(&self, partition: u32) -> u64 {
        self.index.rows(partition)
    }

    /// Bytes of `partition` on disk.
    #[cfg(test)]
    pub(crate) fn bytes(&self, partition: u32) -> u64 {
        self.index.bytes(partition)
    }

    /// Reads `partition` from its beginning.
    pub(crate) fn reader(self: &Arc<Self>, partition: u32) -> SpillReader {
        SpillReader { next: self.index.first(partition), file: Arc::clone(self) }
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
    next: Option<u32>,
}

impl SpillReader {
    /// Bytes of the next block in memory; `None` at the end.
    #[cfg(test)]
    pub(crate) fn next_bytes(&self) -> Option<usize> {
        self.next.map(|at| self.file.index.entry(at).0.message_bytes as usize)
    }

    /// The next block, in slabs of `account`; `None` at the end. After a memory error the same call may be repeated.
    /// While a compressed block is read there is also a slab of its compressed bytes.
    ///
    /// Blocks hold no dictionaries today, so no id is taken from `_ids`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) for a damaged block; memory errors.
    pub(crate) fn next(&mut self, account: &Account, _ids: &DictionaryIds) -> Result<Option<Batch>> {
        let Some(at) = self.next else { return Ok(None) };
        let (entry, next) = self.file.index.entry(at);
        let segment = &self.file.segments[entry.segment as usize];
        let started = Instant::now();
        let mut block = BufMut::<u8>::with_len(account, entry.len() as usize)?;
        segment.read(&mut block, entry.offset)?;
        let schema = &self.file.schemas[entry.schema as usize];
        let batch = block::decode(block, &entry, schema, segment.path(), account)?;
        segment.note_time(started, false);
        self.next = next;
        Ok(Some(batch))
    }

    /// What frees the blocks from here on as a reader gets past them.
    pub(crate) fn behind(&self) -> ReadBehind {
        ReadBehind { file: Arc::clone(&self.file), next: self.next }
    }
}

/// Frees blocks on disk that were read for the last time.
#[derive(Debug)]
pub(crate) struct ReadBehind {
    file: Arc<SpillFile>,
    /// The first block not freed.
    next: Option<u32>,
}

impl ReadBehind {
    /// Nobody reads the blocks before those that `reader`, of the same partition, reads next: neither it nor any other.
    /// They are freed once there are many of them.
    pub(crate) fn advance(&mut self, reader: &SpillReader) {
        debug_assert!(Arc::ptr_eq(&self.file, &reader.file), "a reader of the same file");
        let file = Arc::clone(&self.file);
        let (mut at, mut range) = (self.next, 0..0);
        let mut segment = 0;
        while at != reader.next
            && let Some(number) = at
        {
            let (entry, next) = file.index.entry(number);
            if entry.segment != segment || entry.offset != range.end {
                self.free(segment, &range, at);
                (segment, range) = (entry.segment, entry.offset..entry.offset);
            }
            range.end += entry.len();
            at = next;
        }
        if range.end - range.start >= FREED_BYTES {
            self.free(segment, &range, at);
        }
    }

    fn free(&mut self, segment: u32, range: &Range<u64>, next: Option<u32>) {
        if !range.is_empty() {
            self.file.segments[segment as usize].free(range.clone());
        }
        self.next = next;
    }
}
