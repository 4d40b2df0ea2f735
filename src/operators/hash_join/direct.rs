//! Rows found by the value of their key: for one integer key without duplicates whose values lie close together.
//!
//! Invariants:
//! 1. Place `n` holds the row, plus 1, whose key is the `n`-th value from the least on; 0 where there is none. The last
//!    place is after all values and holds none: whatever lies outside is looked up there.
//! 2. Two places share a word and are written by different tasks, so they are only ever or-ed into it. A place found
//!    taken means that keys repeat, and the directory is good for nothing.

use super::directory::Directory;
use super::keys::KeyPlan;
use super::pairs::Hits;
use super::store::{Chunk, row_id};
use crate::data::AtomicWords;
use crate::data::hash::prefetch;
use crate::data::key_bits::low_bits;
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::Account;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Rows looked up ahead of the one at hand.
const PREFETCH_ROWS: usize = 16;
/// A directory of so few places stays in cache, however few of them are taken.
const SMALL_PLACES: u64 = 8 << 10;

/// How words of one integer key become numbers in the order of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    bias: u64,
    mask: u64,
}

impl Order {
    /// Of keys that have `bits` bits.
    pub(super) fn of_bits(bits: u32) -> Self {
        Self { bias: 1 << (bits - 1), mask: low_bits(bits) as u64 }
    }

    /// The number of a word.
    #[inline(always)]
    pub(super) fn number(self, word: u64) -> u64 {
        word.wrapping_add(self.bias) & self.mask
    }
}

/// The least and the greatest number of some rows' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    least: u64,
    greatest: u64,
}

impl Extent {
    /// Of no rows.
    pub(super) const NONE: Self = Self { least: u64::MAX, greatest: 0 };

    /// Of the rows of `chunks`.
    pub(super) fn of(chunks: &[Chunk], order: Order) -> Self {
        let words = chunks.iter().flat_map(|chunk| chunk.words.as_deref().unwrap_or_default());
        words.fold(Self::NONE, |extent, &word| {
            let number = order.number(word);
            Self { least: extent.least.min(number), greatest: extent.greatest.max(number) }
        })
    }

    /// Of values in `range`; `None` if they are none, or in another order than their numbers.
    pub(super) fn of_values(order: Order, range: RangeInclusive<i64>) -> Option<Self> {
        let (start, end) = (*range.start(), *range.end());
        let (least, greatest) = (order.number(start as u64), order.number(end as u64));
        // Exact even where it takes 64 bits.
        let span = end.wrapping_sub(start) as u64;
        (start <= end && greatest.checked_sub(least) == Some(span)).then_some(Self { least, greatest })
    }

    /// The least number, and how far from it the greatest is.
    pub(super) fn least_and_span(self) -> Option<(u64, u64)> {
        self.greatest.checked_sub(self.least).map(|span| (self.least, span))
    }

    /// Whether a directory by value takes no more than a hashed one of `rows` rows.
    pub(super) fn is_dense(self, rows: usize) -> bool {
        self.places(rows).is_some()
    }

    /// Of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) }
    }

    /// How many values it spans, if a directory of so many places takes no more than a hashed one of `rows` rows.
    fn places(self, rows: usize) -> Option<usize> {
        let values = self.greatest.checked_sub(self.least)?.checked_add(1)?;
        let bytes = values.checked_mul(size_of::<u32>() as u64)?;
        let pays = values <= SMALL_PLACES || bytes <= Directory::estimated_bytes(rows) as u64;
        pays.then(|| usize::try_from(values).ok()).flatten()
    }
}

/// See the module.
pub(super) struct DirectDirectory {
    rows: AtomicWords,
    order: Order,
    least: u64,
    values: u64,
    has_duplicates: AtomicBool,
}

impl DirectDirectory {
    /// Room for `rows` rows of this extent, if that pays and memory is granted.
    pub(super) fn new(order: Order, extent: Extent, rows: usize, account: &Account) -> Option<Self> {
        let places = extent.places(rows)?;
        // One more that stays empty.
        let words = AtomicWords::zeroed(account, places / 2 + 1).ok()?;
        let has_duplicates = AtomicBool::new(false);
        Some(Self { rows: words, order, least: extent.least, values: places as u64, has_duplicates })
    }

    /// Notes the rows of `chunks`, with their numbers. Stops at a key that is there already.
    pub(super) fn place<'a>(
        &self,
        chunks: impl Iterator<Item = (usize, &'a Chunk)>,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let places = self.rows.as_slice();
        for (number, chunk) in chunks {
            cx.check()?;
            if self.has_duplicates() {
                break;
            }
            for (place, &word) in chunk.words.as_deref().unwrap_or_default().iter().enumerate() {
                let at = self.order.number(word) - self.least;
                let shift = 32 * (at & 1);
                let row = u64::from(row_id(number, place)) + 1;
                let before = places[(at / 2) as usize].fetch_or(row << shift, Relaxed);
                if (before >> shift) as u32 != 0 {
                    self.has_duplicates.store(true, Relaxed);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The directory of `chunks`, whose keys have this extent, all in one go, if that pays and memory is granted.
    pub(super) fn build(
        chunks: &[Chunk],
        keys: &KeyPlan,
        extent: Extent,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Self>> {
        let Some(order) = keys.order() else { return Ok(None) };
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let Some(directory) = Self::new(order, extent, rows, account) else {
            return Ok(None);
        };
        directory.place(chunks.iter().enumerate(), cx)?;
        Ok((!directory.has_duplicates()).then_some(directory))
    }

    /// Whether it is good for nothing.
    pub(super) fn has_duplicates(&self) -> bool {
        self.has_duplicates.load(Relaxed)
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.rows.allocated_bytes()
    }

    /// Looks up the words at `positions`; returns how many are there. `hits` has room for all.
    pub(super) fn look_up(&self, words: &[u64], positions: &[u32], hits: &mut Hits<'_>) -> usize {
        let places = self.rows.as_slice();
        let place_of = |position: u32| {
            let number = self.order.number(words[position as usize]);
            number.wrapping_sub(self.least).min(self.values) as usize
        };
        let mut count = 0;
        for (k, &position) in positions.iter().enumerate() {
            if let Some(&ahead) = positions.get(k + PREFETCH_ROWS) {
                prefetch(&places[place_of(ahead) / 2]);
            }
            let at = place_of(position);
            let row = (places[at / 2].load(Relaxed) >> (32 * (at & 1))) as u32;
            // Written in any case: whether words are there is hard to predict.
            hits.positions[count] = position;
            hits.rows[count] = row.wrapping_sub(1);
            count += usize::from(row != 0);
        }
        count
    }
}

impl KeyPlan {
    /// The order of the keys' words, if there is one key and it has one.
    pub(super) fn order(&self) -> Option<Order> {
        self.single_key_bits().map(Order::of_bits)
    }

    /// The extent of the rows of `chunks`; that of none where keys have no order.
    pub(super) fn extent(&self, chunks: &[Chunk]) -> Extent {
        self.order().map_or(Extent::NONE, |order| Extent::of(chunks, order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Buf;
    use crate::mem::Pool;
    use crate::operators::testing::Harness;

    fn account() -> Account {
        Account::open(&Pool::new("p", 1 << 20), 0, 4096, 0).expect("nothing asked for")
    }

    fn chunk(keys: &[i32], account: &Account) -> Chunk {
        let words: Vec<u64> = keys.iter().map(|&key| u64::from(key as u32)).collect();
        let words: Buf<u64> = crate::data::BufMut::copy_of(account, &words).expect("fits").freeze();
        Chunk { columns: Vec::new(), words: Some(words), rows: keys.len() }
    }

    fn made(chunks: &[Chunk], account: &Account) -> Option<DirectDirectory> {
        let order = Order::of_bits(32);
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let directory = DirectDirectory::new(order, Extent::of(chunks, order), rows, account)?;
        directory.place(chunks.iter().enumerate(), &Harness::new(1 << 20).lane()).expect("not cancelled");
        Some(directory)
    }

    fn rows(directory: &DirectDirectory, keys: &[i32]) -> Vec<(u32, u32)> {
        let words: Vec<u64> = keys.iter().map(|&key| u64::from(key as u32)).collect();
        let all: Vec<u32> = (0..keys.len() as u32).collect();
        let (mut positions, mut rows) = (all.clone(), all.clone());
        let mut hits = Hits { positions: &mut positions, rows: &mut rows };
        let count = directory.look_up(&words, &all, &mut hits);
        positions.into_iter().zip(rows).take(count).collect()
    }

    #[test]
    fn keys_are_found_where_they_are_and_nowhere_else() {
        let account = account();
        let chunks = [chunk(&[-3, 4, 0], &account), chunk(&[2, -1], &account)];
        let directory = made(&chunks, &account).expect("eight values");
        assert!(!directory.has_duplicates());
        let keys = [i32::MIN, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, i32::MAX];
        let expected =
            [(2, row_id(0, 0)), (4, row_id(1, 1)), (5, row_id(0, 2)), (7, row_id(1, 0)), (9, row_id(0, 1))];
        assert_eq!(rows(&directory, &keys), expected);
    }

    #[test]
    fn all_values_of_a_type_may_lie_apart() {
        let account = account();
        assert!(made(&[chunk(&[i32::MIN, i32::MAX], &account)], &account).is_none(), "2^32 places");
        let wide = Extent { least: 0, greatest: u64::MAX };
        assert!(DirectDirectory::new(Order::of_bits(64), wide, usize::MAX >> 8, &account).is_none());
        assert!(DirectDirectory::new(Order::of_bits(64), Extent::NONE, 0, &account).is_none());
    }

    #[test]
    fn duplicates_are_seen_in_neighbours_too() {
        let account = account();
        assert!(
            made(&[chunk(&[1, 2], &account), chunk(&[3, 2], &account)], &account)
                .is_some_and(|d| d.has_duplicates())
        );
        assert!(made(&[chunk(&[1, 2, 3, 0], &account)], &account).is_some_and(|d| !d.has_duplicates()));
    }
}
