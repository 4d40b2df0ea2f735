//! Where the blocks of each partition lie: entries that are on disk themselves.
//!
//! A writer collects entries in a buffer of fixed size. When it is full they are written behind the blocks, a group for
//! each partition that has any, and each group ends in a link to the next one of its partition, which is filled in once
//! that is written. So neither writer nor reader needs memory for every block, however many there are.
//!
//! Invariants:
//! 1. The entries of a partition form a chain in the order of writing, within a group and from group to group.
//! 2. What is kept in memory of an index is the buffer, charged when it is made, and a [`Chain`] for each partition.
//! 3. Entries and links are stripes with a checksum; a chain gives as many blocks as were written, or an error.
//!
//! Must not know: what a block holds.

use super::block::{TRAILER_BYTES, damaged};
use super::checksum::{Checksum, STRIPE_BYTES};
use super::segment::{Segment, Segments};
use crate::data::BufMut;
use crate::error::Result;
use crate::mem::Account;

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

/// Words of an entry, or of a link, on disk; the last is the checksum of the others.
const WORDS: usize = STRIPE_BYTES / 8;
type Stripe = [u64; WORDS];
/// Which word of an entry in memory holds the place of the next one of its partition.
const NEXT: usize = 5;
/// Where in a word the encoding lies, above the bytes of a message.
const ENCODING_SHIFT: u32 = 56;
/// The end of a chain in memory.
const NONE: u32 = u32::MAX;
/// Tells a link from an entry.
const LINK_MAGIC: u64 = u64::from_le_bytes(*b"GRSTLINK");
/// Entries a reader looks at together.
const WINDOW_ENTRIES: usize = 8;
/// The bounds of the buffer's size.
const LEAST_BYTES: usize = 4 << 10;
const MOST_BYTES: usize = 32 << 10;

impl BlockEntry {
    /// Bytes in the file: the message as stored, filled up to whole stripes, and the trailer.
    pub(super) fn len(&self) -> u64 {
        self.stored_bytes.next_multiple_of(STRIPE_BYTES as u64) + TRAILER_BYTES as u64
    }

    fn to_words(self) -> Stripe {
        let mut words = [0; WORDS];
        words[0] = self.offset;
        words[1] = self.stored_bytes;
        words[2] = u64::from(self.rows) | u64::from(self.schema) << 32;
        words[3] = u64::from(self.segment) | u64::from(self.partition) << 32;
        words[4] = self.message_bytes | (self.encoding as u64) << ENCODING_SHIFT;
        words
    }

    fn from_words(words: &Stripe) -> Self {
        Self {
            offset: words[0],
            stored_bytes: words[1],
            rows: words[2] as u32,
            schema: (words[2] >> 32) as u32,
            segment: words[3] as u32,
            partition: (words[3] >> 32) as u32,
            message_bytes: words[4] & ((1 << ENCODING_SHIFT) - 1),
            encoding: match words[4] >> ENCODING_SHIFT {
                0 => Encoding::Plain,
                1 => Encoding::Packed,
                _ => Encoding::Lz4,
            },
        }
    }
}

/// Entries of one partition side by side, or what is left of them: from `offset` on `entries`, then a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    segment: u32,
    entries: u32,
    offset: u64,
}

impl Group {
    const NONE: Self = Self { segment: 0, entries: 0, offset: 0 };

    fn to_words(self) -> Stripe {
        let mut words = [0; WORDS];
        words[0] = LINK_MAGIC;
        words[1] = u64::from(self.segment) | u64::from(self.entries) << 32;
        words[2] = self.offset;
        words
    }

    fn from_words(words: &Stripe) -> Option<Self> {
        let (segment, entries) = (words[1] as u32, (words[1] >> 32) as u32);
        (words[0] == LINK_MAGIC).then_some(Self { segment, entries, offset: words[2] })
    }

    /// Where the link is.
    fn link(self) -> u64 {
        self.offset + u64::from(self.entries) * STRIPE_BYTES as u64
    }

    /// Where it ends.
    fn end(self) -> u64 {
        self.link() + STRIPE_BYTES as u64
    }
}

/// Words as they are on disk, with their checksum.
fn to_stripe(mut words: Stripe) -> [u8; STRIPE_BYTES] {
    words[WORDS - 1] = 0;
    let mut bytes = [0; STRIPE_BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    let mut checksum = Checksum::new();
    checksum.update(&bytes);
    bytes[STRIPE_BYTES - 8..].copy_from_slice(&checksum.finish().to_le_bytes());
    bytes
}

/// The words, if they are what was written.
fn from_stripe(bytes: &[u8; STRIPE_BYTES]) -> Option<Stripe> {
    let (words, _) = bytes.as_chunks::<8>();
    let words: Stripe = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
    (to_stripe(words) == *bytes).then_some(words)
}

/// The blocks of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: Group,
    pub(super) blocks: u32,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Chain {
    pub(super) const EMPTY: Self = Self { first: Group::NONE, blocks: 0, rows: 0, bytes: 0 };

    /// From its beginning.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { left: self.blocks, rest: self.first, window: Vec::new(), at: 0 }
    }
}

/// A chain that grows.
#[derive(Clone, Copy, Debug)]
struct Growing {
    chain: Chain,
    /// The group written last.
    last: Group,
    /// The first and the last of its entries in the buffer.
    ends: Option<(u32, u32)>,
}

/// All blocks of a writer, by partition.
#[derive(Debug)]
pub(super) struct BlockIndex {
    buffer: BufMut<u64>,
    len: usize,
    chains: Vec<Growing>,
}

impl BlockIndex {
    /// Bytes of the buffer for blocks of `block_bytes`.
    pub(super) fn buffer_bytes(block_bytes: usize) -> usize {
        (block_bytes / 4).next_power_of_two().clamp(LEAST_BYTES, MOST_BYTES)
    }

    /// No blocks.
    pub(super) fn new(block_bytes: usize, account: &Account) -> Result<Self> {
        let buffer = BufMut::with_len(account, Self::buffer_bytes(block_bytes) / 8)?;
        Ok(Self { buffer, len: 0, chains: Vec::new() })
    }

    /// Whether it must be [settled](Self::settle) before the next block.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * WORDS > self.buffer.len()
    }

    /// Appends a block to its partition. Panics if the index is full.
    pub(super) fn push(&mut self, entry: BlockEntry) {
        let at = self.len as u32;
        self.len += 1;
        let mut words = entry.to_words();
        words[NEXT] = u64::from(NONE);
        self.buffer[at as usize * WORDS..][..WORDS].copy_from_slice(&words);
        let partition = entry.partition as usize;
        if partition >= self.chains.len() {
            let none = Growing { chain: Chain::EMPTY, last: Group::NONE, ends: None };
            self.chains.resize(partition + 1, none);
        }
        let Growing { chain, ends, .. } = &mut self.chains[partition];
        chain.blocks += 1;
        chain.rows += u64::from(entry.rows);
        chain.bytes += entry.len();
        match ends {
            Some((_, last)) => {
                self.buffer[*last as usize * WORDS + NEXT] = u64::from(at);
                *last = at;
            }
            None => *ends = Some((at, at)),
        }
    }

    /// Writes the entries in the buffer behind the blocks, by way of `staging`, which has room for a stripe at least.
    /// After an error the chains are what they were.
    pub(super) fn settle(&mut self, segments: &mut Segments, staging: &mut [u8]) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        let Self { buffer, chains, .. } = self;
        let number = segments.append(|_, segment| {
            let mut to = Staged { segment, bytes: &mut *staging, len: 0 };
            for growing in chains.iter() {
                let mut at = growing.ends.map(|(first, _)| first);
                while let Some(entry) = at {
                    let mut words = stripe_at(buffer, entry);
                    let next = std::mem::take(&mut words[NEXT]) as u32;
                    to.put(&to_stripe(words))?;
                    at = Some(next).filter(|&next| next != NONE);
                }
                if growing.ends.is_some() {
                    to.put(&to_stripe(Group::NONE.to_words()))?;
                }
            }
            to.flush()
        })?;
        let mut offset = number.start;
        for growing in chains.iter_mut() {
            let Some((mut at, last)) = growing.ends.take() else { continue };
            let mut group = Group { segment: number.segment, entries: 1, offset };
            while at != last {
                at = stripe_at(buffer, at)[NEXT] as u32;
                group.entries += 1;
            }
            offset = group.end();
            let before = std::mem::replace(&mut growing.last, group);
            if before == Group::NONE {
                growing.chain.first = group;
            } else {
                segments.of(before.segment).overwrite(&to_stripe(group.to_words()), before.link())?;
            }
        }
        self.len = 0;
        Ok(())
    }

    /// What readers need, once all is settled.
    pub(super) fn into_chains(self) -> Box<[Chain]> {
        debug_assert_eq!(self.len, 0, "settled");
        self.chains.into_iter().map(|growing| growing.chain).collect()
    }
}

fn stripe_at(buffer: &[u64], at: u32) -> Stripe {
    std::array::from_fn(|word| buffer[at as usize * WORDS + word])
}

/// Stripes on their way to a segment.
struct Staged<'a> {
    segment: &'a mut Segment,
    bytes: &'a mut [u8],
    len: usize,
}

impl Staged<'_> {
    fn put(&mut self, stripe: &[u8; STRIPE_BYTES]) -> Result<()> {
        if self.len + STRIPE_BYTES > self.bytes.len() {
            self.flush()?;
        }
        self.bytes[self.len..self.len + STRIPE_BYTES].copy_from_slice(stripe);
        self.len += STRIPE_BYTES;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.segment.append(&self.bytes[..std::mem::take(&mut self.len)])
    }
}

/// A place in a chain.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// Blocks not passed yet.
    left: u32,
    /// What is to be read of the group in work.
    rest: Group,
    /// Entries that were read, of which those from `at` on are not passed yet.
    window: Vec<BlockEntry>,
    at: usize,
}

impl Cursor {
    /// Blocks not passed yet.
    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// The block it is at; `None` at the end.
    pub(super) fn block(&mut self, segments: &[Segment]) -> Result<Option<BlockEntry>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.at == self.window.len() {
            self.read(segments)?;
        }
        Ok(Some(self.window[self.at]))
    }

    /// Passes the block it is at, which was asked for.
    pub(super) fn pass(&mut self) {
        self.left -= 1;
        self.at += 1;
    }

    fn read(&mut self, segments: &[Segment]) -> Result<()> {
        let group = self.rest;
        let segment = &segments[group.segment as usize];
        let broken = || damaged(segment.path(), group.offset, "its entry in the index does not match");
        let entries = WINDOW_ENTRIES.min(group.entries as usize);
        let is_last = entries == group.entries as usize;
        let mut bytes = [0; (WINDOW_ENTRIES + 1) * STRIPE_BYTES];
        let bytes = &mut bytes[..(entries + usize::from(is_last)) * STRIPE_BYTES];
        segment.read(bytes, group.offset)?;
        let (stripes, _) = bytes.as_chunks::<STRIPE_BYTES>();
        // Before anything is changed: after an error it can be tried again.
        let mut words = [[0; WORDS]; WINDOW_ENTRIES + 1];
        for (to, stripe) in words.iter_mut().zip(stripes) {
            *to = from_stripe(stripe).ok_or_else(broken)?;
        }
        let rest = match is_last {
            true => Group::from_words(&words[entries]).ok_or_else(broken)?,
            false => Group {
                offset: group.offset + (entries * STRIPE_BYTES) as u64,
                entries: group.entries - entries as u32,
                ..group
            },
        };
        if entries == 0 || (rest.entries == 0) != (entries as u32 == self.left) {
            return Err(broken());
        }
        self.window.clear();
        self.window.extend(words[..entries].iter().map(BlockEntry::from_words));
        (self.rest, self.at) = (rest, 0);
        Ok(())
    }
}
