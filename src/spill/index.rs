//! Where the blocks of each partition lie.
//!
//! Invariants:
//! 1. The blocks of a partition form a chain in the order of writing, from `first` to `last`.
//! 2. The index is charged: its entries live in slabs of one page, so that growing it never copies and needs one
//!    page for some hundred blocks.

use super::block::TRAILER_BYTES;
use super::checksum::STRIPE_BYTES;
use crate::data::BufMut;
use crate::mem::{Account, Denied};

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockEntry {
    /// Partition it belongs to.
    pub(super) partition: u32,
    /// Which of the writer's segments it lies in.
    pub(super) segment: u32,
    /// Where in the segment it begins.
    pub(super) offset: u64,
    /// Bytes of its message.
    pub(super) message_bytes: u64,
    /// Bytes of the message as stored: fewer if it is compressed.
    pub(super) stored_bytes: u64,
    /// Its rows.
    pub(super) rows: u32,
    /// Which of the writer's physical schemas it has.
    pub(super) schema: u32,
    /// How its message is stored.
    pub(super) encoding: Encoding,
}

/// How a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Plain = 0,
    /// With its columns packed.
    Packed = 1,
    /// As one LZ4 block.
    Lz4 = 2,
}

impl BlockEntry {
    /// Bytes in the file: the message as stored, filled up to whole stripes, and the trailer.
    pub(super) fn len(&self) -> u64 {
        self.stored_bytes.next_multiple_of(STRIPE_BYTES as u64) + TRAILER_BYTES as u64
    }
}

/// Where in a word the encoding lies, above the bytes of a message.
const ENCODING_SHIFT: u32 = 56;
/// The end of a chain.
const NONE: u32 = u32::MAX;
const ENTRY_WORDS: usize = 6;
const PAGE_WORDS: usize = 4096 / 8;
const PAGE_ENTRIES: usize = PAGE_WORDS / ENTRY_WORDS;

/// The blocks of one partition.
#[derive(Clone, Copy, Debug)]
struct Chain {
    first: u32,
    last: u32,
    blocks: u32,
    rows: u64,
    bytes: u64,
}

impl Chain {
    const EMPTY: Self = Self { first: NONE, last: NONE, blocks: 0, rows: 0, bytes: 0 };
}

/// All blocks of a writer, by partition.
#[derive(Debug, Default)]
pub(super) struct BlockIndex {
    pages: Vec<BufMut<u64>>,
    len: u32,
    chains: Vec<Chain>,
}

impl BlockIndex {
    /// Makes room for `blocks` more, so that [`push`](Self::push) cannot fail after a block was written.
    pub(super) fn reserve(&mut self, blocks: usize, account: &Account) -> Result<(), Denied> {
        while self.len as usize + blocks > self.pages.len() * PAGE_ENTRIES {
            self.pages.push(BufMut::with_len(account, PAGE_WORDS)?);
        }
        Ok(())
    }

    /// Appends a block to its partition; room was reserved.
    pub(super) fn push(&mut self, entry: BlockEntry) {
        let at = self.len;
        self.len += 1;
        let words = self.words_mut(at);
        words[0] = entry.offset;
        words[1] = entry.stored_bytes;
        words[5] = entry.message_bytes | (entry.encoding as u64) << ENCODING_SHIFT;
        words[2] = u64::from(entry.rows) | u64::from(entry.schema) << 32;
        words[3] = u64::from(entry.segment) | u64::from(entry.partition) << 32;
        words[4] = u64::from(NONE);
        let partition = entry.partition as usize;
        if partition >= self.chains.len() {
            self.chains.resize(partition + 1, Chain::EMPTY);
        }
        let chain = &mut self.chains[partition];
        chain.blocks += 1;
        chain.rows += u64::from(entry.rows);
        chain.bytes += entry.len();
        let before = std::mem::replace(&mut chain.last, at);
        if before == NONE {
            chain.first = at;
        } else {
            self.words_mut(before)[4] = u64::from(at);
        }
    }

    /// The number of the first block of `partition`.
    pub(super) fn first(&self, partition: u32) -> Option<u32> {
        Some(self.chain(partition).first).filter(|&at| at != NONE)
    }

    /// Block number `at`, and the number of the next one of its partition.
    pub(super) fn entry(&self, at: u32) -> (BlockEntry, Option<u32>) {
        let start = at as usize % PAGE_ENTRIES * ENTRY_WORDS;
        let words = &self.pages[at as usize / PAGE_ENTRIES][start..start + ENTRY_WORDS];
        let entry = BlockEntry {
            offset: words[0],
            stored_bytes: words[1],
            message_bytes: words[5] & ((1 << ENCODING_SHIFT) - 1),
            encoding: match words[5] >> ENCODING_SHIFT {
                0 => Encoding::Plain,
                1 => Encoding::Packed,
                _ => Encoding::Lz4,
            },
            rows: words[2] as u32,
            schema: (words[2] >> 32) as u32,
            segment: words[3] as u32,
            partition: (words[3] >> 32) as u32,
        };
        (entry, Some(words[4] as u32).filter(|&next| next != NONE))
    }

    /// Number of blocks of `partition`.
    #[cfg(test)]
    pub(super) fn blocks(&self, partition: u32) -> usize {
        self.chain(partition).blocks as usize
    }

    /// Rows of `partition`.
    pub(super) fn rows(&self, partition: u32) -> u64 {
        self.chain(partition).rows
    }

    /// Bytes of `partition` in the files.
    #[cfg(test)]
    pub(super) fn bytes(&self, partition: u32) -> u64 {
        self.chain(partition).bytes
    }

    fn chain(&self, partition: u32) -> &Chain {
        self.chains.get(partition as usize).unwrap_or(&Chain::EMPTY)
    }

    fn words_mut(&mut self, at: u32) -> &mut [u64] {
        let start = at as usize % PAGE_ENTRIES * ENTRY_WORDS;
        &mut self.pages[at as usize / PAGE_ENTRIES][start..start + ENTRY_WORDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn chains_keep_the_order_of_writing() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut index = BlockIndex::default();
        for i in 0..1000u32 {
            index.reserve(1, &account).expect("fits");
            let (partition, offset) = (i * 7 % 5, u64::from(i) << 33);
            let (message_bytes, stored_bytes) = (u64::from(i) + 1, 1);
            let (segment, rows, schema) = (i / 9, i, i % 3);
            let encoding = [Encoding::Plain, Encoding::Packed, Encoding::Lz4][schema as usize];
            index.push(BlockEntry {
                partition,
                segment,
                offset,
                message_bytes,
                stored_bytes,
                rows,
                schema,
                encoding,
            });
        }
        for partition in 0..7 {
            let mut at = index.first(partition);
            let mut seen = Vec::new();
            while let Some(number) = at {
                let (entry, next) = index.entry(number);
                assert_eq!((entry.partition, entry.segment), (partition, entry.rows / 9));
                assert_eq!((entry.offset, entry.schema), (u64::from(entry.rows) << 33, entry.rows % 3));
                assert_eq!(entry.encoding as u32, entry.schema);
                assert_eq!((entry.message_bytes, entry.stored_bytes), (u64::from(entry.rows) + 1, 1));
                seen.push(entry.rows);
                at = next;
            }
            let expected: Vec<u32> = (0..1000).filter(|i| i * 7 % 5 == partition).collect();
            assert_eq!(seen, expected);
            assert_eq!(index.blocks(partition), expected.len());
            assert_eq!(index.rows(partition), expected.iter().map(|&r| u64::from(r)).sum::<u64>());
            assert_eq!(index.bytes(partition), expected.len() as u64 * 128);
        }
    }
}
