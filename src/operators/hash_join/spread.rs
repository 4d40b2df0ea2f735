//! How words are spread over the slots of a directory: by hash, or, where one integer key's values lie close enough
//! together, by value. Tables often have their rows in the order of a key; by value the rows of both sides then go
//! through the directory, and through the build rows, from one end to the other, where by hash every row is a miss of the
//! caches.
//!
//! Invariants:
//! 1. The top bits of a word's place are its slot, the lowest 16 make its tag. A word that is not in the directory has a
//!    place like any other.
//! 2. By value no slot has more than about [`MOST_SLOT_VALUES`] values, and no partition many more rows than others
//!    ([`MOST_UNEVEN_PERCENT`]): where values lie in clusters, they are spread by hash.

use super::direct::{Extent, Order};
use super::directory::{PARTITION_ROWS, split_bits};
use super::keys::{KeyPlan, KeyShape};
use crate::data::BufMut;
use crate::data::hash::hash_word;

/// The most values that may share a slot.
const MOST_SLOT_VALUES: u64 = 64;
/// A smaller directory stays in the cache, however its rows come.
const LEAST_ROWS: usize = 2 * PARTITION_ROWS;
/// How many hundredths of the rows of a partition on average one may have, by value.
const MOST_UNEVEN_PERCENT: u64 = 150;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Words are hashes.
    Hashes,
    /// Words are keys; by their hashes.
    Keys,
    /// Words are values of one integer; in their order.
    Values(Values),
}

/// Values from `least` on, evenly over all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Values {
    order: Order,
    least: u64,
    /// Odd, for all the low bits of a place to depend on the value.
    scale: u64,
}

impl Spread {
    /// The place of a word.
    #[inline(always)]
    pub(super) fn places(self) -> impl Fn(u64) -> u64 + Copy {
        move |word| match self {
            Self::Hashes => word,
            Self::Keys => hash_word(word),
            Self::Values(Values { order, least, scale }) => {
                order.number(word).wrapping_sub(least).wrapping_mul(scale)
            }
        }
    }

    /// By hash.
    pub(super) fn by_hash(keys: &KeyPlan) -> Self {
        match keys.shape {
            KeyShape::Hashed => Self::Hashes,
            KeyShape::Packed { .. } => Self::Keys,
        }
    }

    /// As suits `rows` rows whose keys, if they have an order, have this extent.
    pub(super) fn of(keys: &KeyPlan, extent: Extent, rows: usize) -> Self {
        let by_value = || {
            let (order, (least, span)) = (keys.order()?, extent.least_and_span()?);
            let slots = 1_u64 << split_bits(rows).0;
            let is_close = rows >= LEAST_ROWS && span / MOST_SLOT_VALUES < slots;
            // Rounded down to an odd number: the greatest value's place is still below 2^64.
            is_close.then(|| Values { order, least, scale: (u64::MAX / (span + 1)).saturating_sub(1) | 1 })
        };
        by_value().map_or_else(|| Self::by_hash(keys), Self::Values)
    }

    /// Whether it gives some partition many more rows than others, as `counts` of parts of the rows say.
    pub(super) fn is_uneven(self, counts: &[BufMut<u32>]) -> bool {
        let Self::Values(_) = self else { return false };
        let partitions = counts.first().map_or(0, |counts| counts.len());
        let rows = |partition: usize| counts.iter().map(|counts| u64::from(counts[partition])).sum::<u64>();
        let (most, all) = (0..partitions).map(rows).fold((0, 0), |(most, all), n| (n.max(most), all + n));
        most * partitions as u64 * 100 > all * MOST_UNEVEN_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataType;
    use crate::mem::{Account, Pool};

    const ROWS: usize = 100_000;

    fn keys(types: &[DataType]) -> KeyPlan {
        KeyPlan::new(types.to_vec(), vec![false; types.len()])
    }

    fn extent(least: i64, greatest: i64) -> Extent {
        Extent::of_values(Order::of_bits(64), least..=greatest).expect("in order")
    }

    fn places(spread: Spread, values: impl Iterator<Item = i64>) -> Vec<u64> {
        values.map(|value| spread.places()(value as u64)).collect()
    }

    #[test]
    fn places_by_value_ascend_to_the_end() {
        for (least, greatest) in [(-500, 499_999), (0, (1 << 20) - 1), (i64::MIN, i64::MIN + 100_001)] {
            let spread = Spread::of(&keys(&[DataType::Int64]), extent(least, greatest), ROWS);
            assert!(matches!(spread, Spread::Values(_)), "{least}");
            let places = places(spread, (least..=greatest).step_by(7).chain([greatest]));
            assert!(places.is_sorted());
            let slot = |place: u64| place >> (u64::BITS - split_bits(ROWS).0);
            assert_eq!(slot(places[0]), 0);
            assert!(
                places.last().is_some_and(|&last| slot(last) >= (1 << split_bits(ROWS).0) - 2),
                "{least}"
            );
        }
        // Tags depend on all of a value.
        for greatest in 500_000..500_010 {
            let spread = Spread::of(&keys(&[DataType::Int64]), extent(0, greatest), ROWS);
            assert!(matches!(spread, Spread::Values(Values { scale, .. }) if scale % 2 == 1));
        }
    }

    #[test]
    fn keys_that_lie_apart_are_few_or_have_no_order_are_spread_by_hash() {
        let one = keys(&[DataType::Int64]);
        assert_eq!(Spread::of(&one, extent(0, 100_000_000), ROWS), Spread::Keys);
        assert_eq!(Spread::of(&one, extent(i64::MIN, i64::MAX), ROWS), Spread::Keys);
        assert_eq!(Spread::of(&one, extent(0, 1000), 1000), Spread::Keys);
        assert_eq!(Spread::of(&one, Extent::NONE, 0), Spread::Keys);
        assert_eq!(Spread::of(&keys(&[DataType::Int32, DataType::Int32]), Extent::NONE, ROWS), Spread::Keys);
        assert_eq!(Spread::of(&keys(&[DataType::Utf8]), Extent::NONE, ROWS), Spread::Hashes);
    }

    #[test]
    fn clusters_are_seen_in_counts_of_parts() {
        let account = Account::open(&Pool::new("p", 1 << 20), 0, 4096, 0).expect("nothing asked for");
        let counts = |parts: &[[u32; 4]]| -> Vec<BufMut<u32>> {
            parts.iter().map(|part| BufMut::copy_of(&account, part).expect("fits")).collect()
        };
        let by_value = Spread::of(&keys(&[DataType::Int64]), extent(0, 1_000_000), ROWS);
        assert!(!by_value.is_uneven(&counts(&[[10, 10, 20, 10], [10, 10, 4, 9]])));
        assert!(by_value.is_uneven(&counts(&[[50, 1, 1, 1], [1, 1, 1, 1]])));
        let halves = [BufMut::copy_of(&account, &[97, 1]).expect("fits")];
        assert!(by_value.is_uneven(&halves));
        assert!(!by_value.is_uneven(&[]));
        assert!(!Spread::Keys.is_uneven(&counts(&[[50, 0, 0, 0]])));
    }
}
