//! Entries: what a key begins with above the number of its row, as one number to sort by.
//!
//! Invariants:
//! 1. Rows of equal keys stay in the order of their numbers.
//! 2. Keys are no prefixes of each other: of two that are equal as far as an entry goes, one that ends there is equal to
//!    the other.

use super::keys::wide_prefix;
use crate::data::MAX_INLINE_BYTES;

/// Bytes of a key that stand in an entry.
pub(super) const ENTRY_KEY_BYTES: usize = 12;
const NUMBER_BITS: u32 = 32;
/// Fewer rows that begin alike are compared by all of what remains, and so are rows that are still alike after so many
/// entries.
const LEAST_ROWS_BY_ENTRY: usize = 5;
const MOST_ENTRIES: usize = 16;

/// What a key begins with, above a number of zero.
pub(super) fn entry_of(key: &[u8]) -> u128 {
    wide_prefix(key) >> NUMBER_BITS << NUMBER_BITS
}

/// As [`entry_of`], of a key that lies in its view.
pub(super) fn entry_of_view(view: u128) -> u128 {
    const {
        assert!(ENTRY_KEY_BYTES == MAX_INLINE_BYTES && NUMBER_BITS == 32, "a view is a length and a key");
    }
    view.swap_bytes() << NUMBER_BITS
}

/// An entry without its number.
pub(super) fn without_number(entry: u128) -> u128 {
    entry >> NUMBER_BITS << NUMBER_BITS
}

/// The number of an entry.
pub(super) fn number_of(entry: u128) -> usize {
    entry as u32 as usize
}

/// Sorts entries of keys that may be longer than entries are, made of what is behind their first `skip` bytes, which are
/// the same for all; `key` is the key of a number. What of the keys stands in the entries afterwards is not said. Rows that
/// begin alike get entries of the bytes that come next, so that a key, which lies anywhere, is looked at once for each of
/// its entries and not in every comparison.
pub(super) fn sort_by_keys<'a>(entries: &mut [u128], skip: usize, key: &impl Fn(usize) -> &'a [u8]) {
    sort_level(entries, skip, key, MOST_ENTRIES);
}

fn sort_level<'a>(entries: &mut [u128], skip: usize, key: &impl Fn(usize) -> &'a [u8], levels: usize) {
    entries.sort_unstable();
    let skip = skip + ENTRY_KEY_BYTES;
    for alike in entries.chunk_by_mut(|a, b| without_number(*a) == without_number(*b)) {
        if alike.len() == 1 || key(number_of(alike[0])).len() <= skip {
            continue;
        }
        let rest = |entry: u128| key(number_of(entry)).get(skip..).unwrap_or_default();
        if alike.len() < LEAST_ROWS_BY_ENTRY || levels == 1 {
            alike.sort_unstable_by(|a, b| rest(*a).cmp(rest(*b)).then(a.cmp(b)));
        } else {
            alike.iter_mut().for_each(|entry| *entry = entry_of(rest(*entry)) | number_of(*entry) as u128);
            sort_level(alike, skip, key, levels - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::view_inline;

    /// Keys that end with a byte found nowhere else, so that none is a prefix of another.
    fn keys() -> Vec<Vec<u8>> {
        let mut state = 7_u64;
        let mut keys = Vec::new();
        for row in 0..3000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = (state >> 33) as usize % 60;
            // Of two letters, the first ones mostly the same: many begin alike for a while.
            let letter =
                |at: usize| if at < 20 && row % 7 > 0 { 1 } else { 1 + (state >> (at % 60) & 1) as u8 };
            keys.push((0..len).map(letter).chain([0]).collect());
        }
        keys
    }

    #[test]
    fn keys_that_begin_alike_are_in_order_and_equal_ones_by_their_numbers() {
        let keys = keys();
        let mut entries: Vec<u128> =
            keys.iter().enumerate().map(|(row, key)| entry_of(key) | row as u128).collect();
        sort_by_keys(&mut entries, 0, &|row| &keys[row]);
        let mut expected: Vec<usize> = (0..keys.len()).collect();
        expected.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        assert_eq!(entries.into_iter().map(number_of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn keys_that_are_alike_for_long_are_compared() {
        let long = vec![5_u8; 64 << 10];
        let keys: Vec<Vec<u8>> = (0..40_u8).map(|row| [&long[..], &[row % 5, 0]].concat()).collect();
        let mut entries: Vec<u128> = (0..40).map(|row| entry_of(&keys[row]) | row as u128).collect();
        sort_by_keys(&mut entries, 0, &|row| &keys[row]);
        let expected: Vec<usize> = (0..5).flat_map(|last| (0..8).map(move |k| 5 * k + last)).collect();
        assert_eq!(entries.into_iter().map(number_of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_all_keys_begin_with_is_skipped() {
        let keys: Vec<Vec<u8>> = keys().into_iter().map(|key| [&[9; 30], &key[..]].concat()).collect();
        let mut entries: Vec<u128> =
            keys.iter().enumerate().map(|(row, key)| entry_of(&key[30..]) | row as u128).collect();
        sort_by_keys(&mut entries, 30, &|row| &keys[row]);
        let mut expected: Vec<usize> = (0..keys.len()).collect();
        expected.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        assert_eq!(entries.into_iter().map(number_of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_entry_is_the_same_from_a_key_and_from_its_view() {
        for key in [&b""[..], b"a", b"\0\x01\xff", b"twelve bytes"] {
            assert_eq!(entry_of_view(view_inline(key)), entry_of(key));
        }
    }
}
