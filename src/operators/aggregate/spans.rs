//! Tables whose keys ascend, cut into spans of keys that no other table has.
//!
//! Where rows come in the order of their keys, each lane's table has ascending keys, and lanes have different keys but
//! where a morsel ends: to merge them by hash would move every group to find out that hardly any has a partner. Spans
//! are found by galloping from one table to the next, as in a merge of runs.
//!
//! Invariants:
//! 1. Each group of each table is in one span or in its table's shared list, once.
//! 2. The keys of a span's groups are of no other group.

use super::groups::Groups;
use crate::data::BufMut;
use crate::mem::{Account, Denied};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A span has at most so many groups, so that lanes end together.
const MOST_GROUPS: usize = 64 << 10;
/// With fewer groups in a span on average, merging by hash is no slower.
const LEAST_GROUPS: usize = 64;
const MOST_SPANS: usize = 64 << 10;

/// Groups that need no merging.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) table: usize,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// See the module.
pub(super) struct Spans {
    /// Table, start and length of each, one after the other.
    alone: BufMut<u32>,
    /// For each table, the groups whose keys other groups have, too.
    shared: Vec<BufMut<u32>>,
    most: usize,
    next: AtomicUsize,
}

/// Why there are no spans.
enum Futile {
    /// Keys do not ascend, or take turns too often.
    Mixed,
    /// There is no memory to note them.
    Denied,
}

impl From<Denied> for Futile {
    fn from(_: Denied) -> Self {
        Self::Denied
    }
}

impl Spans {
    /// The spans of `tables`, if their keys ascend and they are few.
    pub(super) fn of(tables: &[&Groups], account: &Account) -> Option<Self> {
        let narrow: Option<Vec<&[u64]>> = tables.iter().map(|table| table.keys().narrow()).collect();
        let wide = || -> Option<Vec<&[u128]>> { tables.iter().map(|table| table.keys().wide()).collect() };
        match narrow {
            Some(keys) => Self::cut(&keys, account).ok(),
            None => Self::cut(&wide()?, account).ok(),
        }
    }

    fn cut<W: Ord + Copy>(tables: &[&[W]], account: &Account) -> Result<Self, Futile> {
        if !tables.iter().all(|keys| keys.is_sorted()) {
            return Err(Futile::Mixed);
        }
        let groups: usize = tables.iter().map(|keys| keys.len()).sum();
        let most = (groups / LEAST_GROUPS).min(MOST_SPANS);
        let shared = tables.iter().map(|keys| BufMut::with_capacity(account, most.min(keys.len())));
        let mut spans = Self {
            alone: BufMut::with_capacity(account, 3 * most)?,
            shared: shared.collect::<Result<_, _>>()?,
            most,
            next: AtomicUsize::new(0),
        };
        let mut at = vec![0; tables.len()];
        loop {
            // The least key that is next in some table, and the least of the others.
            let (mut least, mut second): (Option<(usize, W)>, Option<W>) = (None, None);
            for (table, keys) in tables.iter().enumerate() {
                let Some(&key) = keys.get(at[table]) else { continue };
                match least {
                    Some((_, known)) if key >= known => second = Some(second.map_or(key, |s| s.min(key))),
                    _ => {
                        second = least.map(|(_, known)| known);
                        least = Some((table, key));
                    }
                }
            }
            let Some((table, key)) = least else { return Ok(spans) };
            let rest = &tables[table][at[table]..];
            let len = second.map_or(rest.len(), |second| gallop(rest, &second));
            if len > 0 {
                spans.push_alone(table, at[table], &rest[..len])?;
                at[table] += len;
                continue;
            }
            for (table, keys) in tables.iter().enumerate() {
                let same = keys[at[table]..].iter().take_while(|other| **other == key).count();
                spans.push_shared(table, at[table], same)?;
                at[table] += same;
            }
        }
    }

    /// Adds groups whose keys no other table has: spans, but for keys the table has several times.
    fn push_alone<W: Ord>(&mut self, table: usize, start: usize, keys: &[W]) -> Result<(), Futile> {
        let mut from = 0;
        while from < keys.len() {
            let twice = keys[from..].windows(2).position(|pair| pair[0] == pair[1]);
            let to = twice.map_or(keys.len(), |at| from + at);
            for begin in (from..to).step_by(MOST_GROUPS) {
                if self.len() == self.most {
                    return Err(Futile::Mixed);
                }
                let span = [table, start + begin, MOST_GROUPS.min(to - begin)];
                self.alone.extend_from_slice(&span.map(|part| part as u32));
            }
            from = to;
            if let Some(key) = keys.get(to) {
                let same = keys[to..].iter().take_while(|other| *other == key).count();
                self.push_shared(table, start + to, same)?;
                from += same;
            }
        }
        Ok(())
    }

    fn push_shared(&mut self, table: usize, start: usize, len: usize) -> Result<(), Futile> {
        let shared = &mut self.shared[table];
        if len > shared.capacity() - shared.len() {
            return Err(Futile::Mixed);
        }
        (start..start + len).for_each(|group| shared.push(group as u32));
        Ok(())
    }

    fn len(&self) -> usize {
        self.alone.len() / 3
    }

    /// A span nobody has taken.
    pub(super) fn take(&self) -> Option<Span> {
        let at = self.next.fetch_add(1, Relaxed);
        let parts = self.alone.chunks_exact(3).nth(at)?;
        Some(Span { table: parts[0] as usize, start: parts[1] as usize, len: parts[2] as usize })
    }

    /// For each table, groups to be merged with those of other tables, or of its own.
    pub(super) fn shared(&self) -> impl Iterator<Item = &[u32]> {
        self.shared.iter().map(|groups| &**groups)
    }
}

/// How many of the ascending `keys` are below `bound`; fast where they are few.
fn gallop<W: Ord>(keys: &[W], bound: &W) -> usize {
    let mut step = 1;
    while step < keys.len() && keys[step] < *bound {
        step *= 2;
    }
    let (from, to) = (step / 2, step.min(keys.len()));
    from + keys[from..to].partition_point(|key| key < bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    type Lists = Vec<Vec<u64>>;

    /// Spans as lists of keys, in the order they are taken, and the shared keys of each table.
    fn cut(tables: &[&[u64]]) -> Option<(Lists, Lists)> {
        let pool = Pool::new("query", 1 << 24);
        let account = Account::open(&pool, 1 << 20, 4096, 64 << 10).expect("ample");
        let spans = Spans::cut(tables, &account).ok()?;
        let alone = std::iter::from_fn(|| spans.take());
        let alone =
            alone.map(|span| tables[span.table][span.start..span.start + span.len].to_vec()).collect();
        let keys = |(table, groups): (&&[u64], &[u32])| groups.iter().map(|&g| table[g as usize]).collect();
        Some((alone, tables.iter().zip(spans.shared()).map(keys).collect()))
    }

    #[test]
    fn spans_end_where_another_table_goes_on() {
        let first: Vec<u64> = (0..=500).chain(1000..1500).collect();
        let second: Vec<u64> = (500..=999).chain([1500, 1500, 1501]).collect();
        let (alone, shared) = cut(&[&first, &second]).expect("few spans");
        let expected: [Vec<u64>; 4] =
            [(0..500).collect(), (501..=999).collect(), (1000..1500).collect(), vec![1501]];
        assert_eq!(alone, expected);
        assert_eq!(shared, [vec![500], vec![500, 1500, 1500]]);
    }

    #[test]
    fn large_spans_are_cut_for_several_lanes() {
        let keys: Vec<u64> = (0..200_000).collect();
        let (alone, shared) = cut(&[&keys, &[]]).expect("few spans");
        assert_eq!(alone.concat(), keys);
        assert!(alone.len() > 3 && shared.concat().is_empty());
    }

    #[test]
    fn keys_that_do_not_ascend_or_take_turns_have_no_spans() {
        let even: Vec<u64> = (0..10_000).map(|key| 2 * key).collect();
        let odd: Vec<u64> = even.iter().map(|key| key + 1).collect();
        let falling: Vec<u64> = (0..10_000).rev().collect();
        assert!(cut(&[&even, &odd]).is_none());
        assert!(cut(&[&even, &even]).is_none());
        assert!(cut(&[&falling]).is_none());
    }

    #[test]
    fn galloping_counts_what_is_below() {
        let keys: Vec<u64> = (0..100).map(|key| key * 3).collect();
        for bound in 0..310 {
            assert_eq!(gallop(&keys, &bound), keys.iter().filter(|key| **key < bound).count(), "{bound}");
        }
    }
}
