//! What the build leaves to the probe.

use super::direct::DirectDirectory;
use super::directory::Directory;
use super::load::Part;
use super::split::Split;
use super::store::{Store, chunk_of, place_of};
use crate::data::AtomicWords;
use crate::mem::{Account, Denied, Registration};
use crate::spill::SpillFile;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Build rows, the way to find them, and which of them found a match.
pub(super) struct Table {
    pub(super) store: Store,
    /// None without keys: every row is a candidate.
    pub(super) lookup: Option<Lookup>,
    /// Rows that may have a match; others are stored only to come out without one.
    pub(super) lookup_rows: usize,
    /// Rows of the build side, stored or not.
    pub(super) build_rows: usize,
    /// Whether a row has a null key that equals nothing.
    pub(super) has_null_key: bool,
    pub(super) flags: Option<Flags>,
    /// The next chunk to drain.
    pub(super) next_chunk: AtomicUsize,
    /// What is not in memory.
    pub(super) spilled: Option<Arc<Spilled>>,
    /// Names the table in memory errors.
    pub(super) _registration: Option<Registration>,
}

/// The way to the rows of a key.
pub(super) enum Lookup {
    /// By its word's hash, or what comes close to its value.
    Hashed(Directory),
    /// By its value.
    Direct(DirectDirectory),
}

impl Lookup {
    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Self::Hashed(directory) => directory.allocated_bytes(),
            Self::Direct(directory) => directory.allocated_bytes(),
        }
    }
}

/// Build rows on disk.
pub(super) struct Spilled {
    pub(super) split: Split,
    pub(super) files: Vec<Arc<SpillFile>>,
    /// For each partition, whether probe rows must wait for its rows; else these are in memory, or there are none.
    pub(super) waits: Vec<bool>,
}

impl Spilled {
    /// The partitions of `files`, none of them in memory.
    pub(super) fn new(split: Split, files: Vec<Arc<SpillFile>>) -> Self {
        let mut spilled = Self { split, files, waits: Vec::new() };
        spilled.waits = (0..split.partitions()).map(|partition| spilled.rows(partition) > 0).collect();
        spilled
    }

    /// Rows of `partition`.
    pub(super) fn rows(&self, partition: usize) -> u64 {
        self.files.iter().map(|file| file.rows(partition as u32)).sum()
    }

    /// How many partitions probe rows wait for.
    pub(super) fn waiting(&self) -> usize {
        self.waits.iter().filter(|waits| **waits).count()
    }

    /// Where the rows of `partition` are.
    pub(super) fn part(&self, partition: usize) -> Part {
        Part::new(&self.files, partition as u32)
    }
}

/// A bit for each stored row.
pub(super) struct Flags {
    bits: AtomicWords,
    /// The word each chunk begins at.
    starts: Vec<usize>,
}

impl Flags {
    /// No row of chunks of `chunk_rows` rows has a match.
    pub(super) fn new(chunk_rows: impl Iterator<Item = usize>, account: &Account) -> Result<Self, Denied> {
        let mut starts = Vec::new();
        let mut words = 0;
        for rows in chunk_rows {
            starts.push(words);
            words += rows.div_ceil(64);
        }
        Ok(Self { bits: AtomicWords::zeroed(account, words)?, starts })
    }

    /// Row `row` has a match.
    #[inline]
    pub(super) fn set(&self, row: u32) {
        self.bits.set_bit(self.starts[chunk_of(row)] * 64 + place_of(row));
    }

    /// For the rows of `chunk` from `place` to the end of its word, from the lowest bit on, whether what is known of
    /// them is `has_match`.
    #[inline]
    pub(super) fn word(&self, chunk: usize, place: usize, has_match: bool) -> u64 {
        let word = self.bits.as_slice()[self.starts[chunk] + place / 64].load(Relaxed);
        (if has_match { word } else { !word }) >> (place % 64)
    }
}
