//! The directory from words to rows: after Birler, Schmidt, Fent and Neumann, "Simple, Efficient, and Robust Hash
//! Tables for Join Processing" (DaMoN 2024).
//!
//! Entries lie slot by slot in one array of exactly their number. A slot holds where its entries end, above a Bloom
//! filter of 16 bits of them, so that most words that are not there cost one load.
//!
//! Invariants:
//! 1. Slot `i` is at `slots[i + 1]`; its entries are those from the end of the slot before on, and `slots[0]` ends
//!    at 0. Slots use the top bits of a word's place ([`Spread`]), tags the low ones.
//! 2. Partitions are ranges of slots, and so ranges of entries. While the directory is made, a task writes only to
//!    entries that the counts of all tasks have set apart for it: first the places of its chunks in each partition,
//!    then a partition as a whole.

use super::direct::Extent;
use super::keys::KeyPlan;
use super::spread::Spread;
use super::store::{Chunk, row_id};
use crate::data::AtomicWords;
use crate::data::BufMut;
use crate::data::hash::prefetch;
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::{Account, Denied, size_class_bytes};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries of a partition, about: they and their slots stay in cache while they are ordered.
pub(super) const PARTITION_ROWS: usize = 32 << 10;
const MOST_PARTITION_BITS: u32 = 12;
const LEAST_SLOT_BITS: u32 = 6;
const TAG_BITS: u32 = 16;
/// Rows looked up ahead of the one at hand.
const PREFETCH_ROWS: usize = 16;
/// Entries are copied to be ordered where that takes no more than one part in so many of the memory that is left.
const COPY_SHARE: usize = 8;
/// Entries between two checks whether the query should go on.
const CHECK_ROWS: usize = 64 << 10;

/// See the module.
pub(super) struct Directory {
    /// A word and a row each.
    entries: AtomicWords,
    slots: AtomicWords,
    spread: Spread,
    /// How far a place is shifted down to be the number of a slot.
    shift: u32,
}

/// Four bits, perhaps the same, out of sixteen.
#[inline(always)]
fn tag_of(place: u64) -> u64 {
    1 << (place & 15) | 1 << (place >> 4 & 15) | 1 << (place >> 8 & 15) | 1 << (place >> 12 & 15)
}

/// Where the entries of words that may be there lie: for each such position, the first and the end.
pub(super) struct Found<'a> {
    pub(super) positions: &'a mut [u32],
    pub(super) starts: &'a mut [u32],
    pub(super) ends: &'a mut [u32],
}

impl Directory {
    /// The directory of `chunks`, whose keys have this extent, all in one go, in `account`.
    pub(super) fn build(
        chunks: &[Chunk],
        keys: &KeyPlan,
        extent: Extent,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<Self> {
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let bits = split_bits(rows).1;
        let mut spread = Spread::of(keys, extent, rows);
        let mut counts = [count(chunks.iter(), spread, bits, account, cx)?];
        if spread.is_uneven(&counts) {
            spread = Spread::by_hash(keys);
            counts = [count(chunks.iter(), spread, bits, account, cx)?];
        }
        let builder = DirectoryBuilder::new(&mut counts, spread, rows, account)?;
        builder.scatter(chunks.iter().enumerate(), &mut counts[0], cx)?;
        let mut partitions = builder.tasks().into_iter().flatten();
        partitions.try_for_each(|partition| builder.order(partition, account, cx))?;
        Ok(builder.finish())
    }

    /// About the bytes that making one for `rows` rows takes.
    pub(super) fn estimated_bytes(rows: usize) -> usize {
        let (slot_bits, partition_bits) = split_bits(rows);
        let counts = size_class_bytes(size_of::<u32>() << partition_bits);
        let next = size_class_bytes(size_of::<u32>() << (slot_bits - partition_bits));
        size_class_bytes(rows * 16) + size_class_bytes(((1 << slot_bits) + 1) * 8) + counts + next
    }

    /// Entry `at`: its word and its row.
    #[inline(always)]
    pub(super) fn entry(&self, at: usize) -> (u64, u32) {
        let entry = &self.entries.as_slice()[2 * at..2 * at + 2];
        (entry[0].load(Relaxed), entry[1].load(Relaxed) as u32)
    }

    /// Asks for entry `at`, which will be read soon.
    #[inline(always)]
    pub(super) fn fetch_entry(&self, at: usize) {
        if let Some(entry) = self.entries.as_slice().get(2 * at) {
            prefetch(entry);
        }
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.entries.allocated_bytes() + self.slots.allocated_bytes()
    }

    /// Looks up the words at `positions`; returns how many of them may be there. `found` has room for all.
    pub(super) fn look_up(&self, words: &[u64], positions: &[u32], found: &mut Found<'_>) -> usize {
        let place_of = self.spread.places();
        let slots = self.slots.as_slice();
        let mut count = 0;
        for (k, &position) in positions.iter().enumerate() {
            if let Some(&ahead) = positions.get(k + PREFETCH_ROWS) {
                prefetch(&slots[(place_of(words[ahead as usize]) >> self.shift) as usize]);
            }
            let place = place_of(words[position as usize]);
            let slot = (place >> self.shift) as usize;
            let word = slots[slot + 1].load(Relaxed);
            let tag = tag_of(place);
            // Written in any case: whether words are there is hard to predict.
            found.positions[count] = position;
            found.starts[count] = (slots[slot].load(Relaxed) >> TAG_BITS) as u32;
            found.ends[count] = (word >> TAG_BITS) as u32;
            count += usize::from(word & tag == tag);
        }
        count
    }
}

/// A directory in the making.
pub(super) struct DirectoryBuilder {
    directory: Directory,
    slot_bits: u32,
    partition_bits: u32,
    /// Where each partition's entries begin, and the end.
    starts: Vec<usize>,
}

/// How `rows` rows are split: bits of slots, of partitions.
pub(super) fn split_bits(rows: usize) -> (u32, u32) {
    let slot_bits = rows.next_power_of_two().ilog2().max(LEAST_SLOT_BITS);
    let partitions = (rows / PARTITION_ROWS).next_power_of_two().ilog2();
    (slot_bits, partitions.min(MOST_PARTITION_BITS).min(slot_bits))
}

#[inline(always)]
fn partition_of(place: u64, bits: u32) -> usize {
    // Shifted twice, for bits may be 0.
    (place >> 1 >> (u64::BITS - 1 - bits)) as usize
}

/// Counts the rows of `chunks` in each of `2^bits` partitions.
pub(super) fn count<'a>(
    chunks: impl Iterator<Item = &'a Chunk>,
    spread: Spread,
    bits: u32,
    account: &Account,
    cx: &LaneCx<'_>,
) -> Result<BufMut<u32>> {
    let place_of = spread.places();
    let mut counts = BufMut::zeroed(account, 1 << bits)?;
    for chunk in chunks {
        cx.check()?;
        let counts: &mut [u32] = &mut counts;
        for &word in chunk.words.as_deref().unwrap_or_default() {
            counts[partition_of(place_of(word), bits)] += 1;
        }
    }
    Ok(counts)
}

impl DirectoryBuilder {
    /// Room for all rows counted, in `account`. Turns each count into the place of the first of its rows.
    pub(super) fn new(
        counts: &mut [BufMut<u32>],
        spread: Spread,
        rows: usize,
        account: &Account,
    ) -> Result<Self, Denied> {
        let (slot_bits, partition_bits) = split_bits(rows);
        let mut starts = Vec::with_capacity((1 << partition_bits) + 1);
        let mut next = 0;
        for partition in 0..1 << partition_bits {
            starts.push(next as usize);
            for counts in &mut *counts {
                let count = counts[partition];
                counts[partition] = next;
                next += count;
            }
        }
        starts.push(next as usize);
        let directory = Directory {
            entries: AtomicWords::with_len(account, 2 * rows)?,
            slots: AtomicWords::with_len(account, (1 << slot_bits) + 1)?,
            spread,
            shift: u64::BITS - slot_bits,
        };
        directory.slots.as_slice()[0].store(0, Relaxed);
        Ok(Self { directory, slot_bits, partition_bits, starts })
    }

    /// Ranges of partitions for tasks of about equal size.
    pub(super) fn tasks(&self) -> Vec<Range<usize>> {
        let mut tasks = Vec::new();
        let mut start = 0;
        for end in 1..self.starts.len() {
            let is_last = end + 1 == self.starts.len();
            if is_last || self.starts[end] - self.starts[start] >= 2 * PARTITION_ROWS {
                tasks.push(start..end);
                start = end;
            }
        }
        tasks
    }

    /// Puts the rows of `chunks`, with their numbers, into their partitions. `places` are where they go.
    pub(super) fn scatter<'a>(
        &self,
        chunks: impl Iterator<Item = (usize, &'a Chunk)>,
        places: &mut [u32],
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let place_of = self.directory.spread.places();
        let entries = self.directory.entries.as_slice();
        for (number, chunk) in chunks {
            cx.check()?;
            for (row, &word) in chunk.words.as_deref().unwrap_or_default().iter().enumerate() {
                let next = &mut places[partition_of(place_of(word), self.partition_bits)];
                put(entries, *next as usize, (word, u64::from(row_id(number, row))));
                *next += 1;
            }
        }
        Ok(())
    }

    /// Orders the entries of a partition by slot, and fills the slots.
    pub(super) fn order(&self, partition: usize, account: &Account, cx: &LaneCx<'_>) -> Result<()> {
        let place_of = self.directory.spread.places();
        let slots_bits = self.slot_bits - self.partition_bits;
        let first_slot = partition << slots_bits;
        let slots = &self.directory.slots.as_slice()[first_slot + 1..first_slot + 1 + (1 << slots_bits)];
        let (start, end) = (self.starts[partition], self.starts[partition + 1]);
        let entries = &self.directory.entries.as_slice()[2 * start..2 * end];
        let shift = self.directory.shift;
        let slot_of = |place: u64| (place >> shift) as usize - first_slot;

        let mut next = BufMut::<u32>::zeroed(account, slots.len())?;
        let next: &mut [u32] = &mut next;
        slots.iter().for_each(|slot| slot.store(0, Relaxed));
        for at in 0..end - start {
            if at % CHECK_ROWS == 0 {
                cx.check()?;
            }
            let place = place_of(entries[2 * at].load(Relaxed));
            let slot = slot_of(place);
            next[slot] += 1;
            slots[slot].store(slots[slot].load(Relaxed) | tag_of(place), Relaxed);
        }
        let mut before = 0;
        for (next, slot) in next.iter_mut().zip(slots) {
            let count = std::mem::replace(next, before);
            before += count;
            let tags = slot.load(Relaxed);
            slot.store((start as u64 + u64::from(before)) << TAG_BITS | tags, Relaxed);
        }
        match copy_of(entries, account) {
            Some(copy) => {
                for (at, entry) in copy.as_chunks::<2>().0.iter().enumerate() {
                    if at % CHECK_ROWS == 0 {
                        cx.check()?;
                    }
                    let next = &mut next[slot_of(place_of(entry[0]))];
                    put(entries, *next as usize, (entry[0], entry[1]));
                    *next += 1;
                }
                Ok(())
            }
            None => {
                let slot_end = |slot: usize| (slots[slot].load(Relaxed) >> TAG_BITS) as usize - start;
                order_in_place(entries, next, |word| slot_of(place_of(word)), slot_end, cx)
            }
        }
    }

    /// The directory, once all partitions are ordered.
    pub(super) fn finish(self) -> Directory {
        self.directory
    }
}

/// A copy of `entries`, if it can be had without leaving others short.
fn copy_of(entries: &[AtomicU64], account: &Account) -> Option<BufMut<u64>> {
    if account.pool().available_bytes() / COPY_SHARE < size_class_bytes(size_of_val(entries)) {
        return None;
    }
    let mut copy = BufMut::with_len(account, entries.len()).ok()?;
    copy.iter_mut().zip(entries).for_each(|(to, from)| *to = from.load(Relaxed));
    Some(copy)
}

/// Swaps each entry to the next free place of its slot, until the slots are full one after the other.
fn order_in_place(
    entries: &[AtomicU64],
    next: &mut [u32],
    slot_of: impl Fn(u64) -> usize,
    slot_end: impl Fn(usize) -> usize,
    cx: &LaneCx<'_>,
) -> Result<()> {
    let mut steps = 0;
    for slot in 0..next.len() {
        let slot_end = slot_end(slot);
        while (next[slot] as usize) < slot_end {
            steps += 1;
            if steps % CHECK_ROWS == 0 {
                cx.check()?;
            }
            let at = next[slot] as usize;
            let entry = get(entries, at);
            let target = slot_of(entry.0);
            if target != slot {
                let to = next[target] as usize;
                put(entries, at, get(entries, to));
                put(entries, to, entry);
            }
            next[target] += 1;
        }
    }
    Ok(())
}

#[inline(always)]
fn get(entries: &[AtomicU64], at: usize) -> (u64, u64) {
    (entries[2 * at].load(Relaxed), entries[2 * at + 1].load(Relaxed))
}

#[inline(always)]
fn put(entries: &[AtomicU64], at: usize, (word, row): (u64, u64)) {
    entries[2 * at].store(word, Relaxed);
    entries[2 * at + 1].store(row, Relaxed);
}
