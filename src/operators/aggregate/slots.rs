//! The open-addressing directory from hashes to group numbers.
//!
//! Invariants:
//! 1. A slot is 0 (empty) or holds the upper half of the hash above the group number plus one.
//! 2. At most half the slots are taken, so that probing ends.
//! 3. Groups before `first` have no slot, and while nothing is sought no group gets one: then a key may have several
//!    groups, which whoever merges the table puts together.
//! 4. A sketch, once begun, has seen the key of every group since.

use super::hash::prefetch;
use super::sketch::Sketch;
use crate::data::BufMut;
use crate::mem::{Account, Denied};
use std::ops::Range;

/// The number of a group that is not there.
pub(super) const NO_GROUP: u32 = u32::MAX;
const TAG: u64 = 0xFFFF_FFFF_0000_0000;
/// From this size on slots are fetched ahead.
const PREFETCH_BYTES: usize = 256 << 10;
/// How many rows ahead a slot is fetched, and what its group's key is compared with.
const PREFETCH_ROWS: usize = 32;
const PREFETCH_KEY_ROWS: usize = 16;
const LEAST_SLOTS: usize = 512;
/// Groups entered between two checks: well below a millisecond.
const CHECKED_GROUPS: usize = 16 << 10;
/// The part of groups that must be keys of their own, or else keys come back. What is not looked up costs more to
/// merge than it would to find.
const MOST_REPEATS: f64 = 0.8;

/// The directory.
pub(super) struct Slots {
    slots: BufMut<u64>,
    /// The first group that is found.
    first: usize,
    /// Whether rows make new groups without a look.
    is_blind: bool,
    /// The keys of groups, to tell how many differ.
    sketch: Option<Sketch>,
}

impl Slots {
    /// No room yet.
    pub(super) const fn new() -> Self {
        Self { slots: BufMut::empty(), first: 0, is_blind: false, sketch: None }
    }

    /// Makes room for `more` groups beside the `groups` there are, whose hashes `hash` knows. Entering millions of them
    /// anew takes long: `check` is asked on the way, and after an error of its the directory is of no more use.
    pub(super) fn reserve<E: From<Denied>>(
        &mut self,
        groups: usize,
        more: usize,
        hash: impl Fn(usize) -> u64,
        account: &Account,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        let sought = (groups + more).saturating_sub(self.first);
        if self.is_blind || 2 * sought <= self.slots.len() {
            return Ok(());
        }
        let larger = (2 * sought).next_power_of_two().max(LEAST_SLOTS);
        self.slots = BufMut::zeroed(account, larger)?;
        for start in (self.first..groups).step_by(CHECKED_GROUPS) {
            self.enter(start..groups.min(start + CHECKED_GROUPS), &hash);
            check()?;
        }
        Ok(())
    }

    /// Enters groups that are not there, of which there are many: hashes are made ahead, so that slots can be fetched.
    fn enter(&mut self, groups: Range<usize>, hash: impl Fn(usize) -> u64) {
        let mut hashes = [0; PREFETCH_ROWS];
        for start in groups.clone().step_by(PREFETCH_ROWS) {
            let len = PREFETCH_ROWS.min(groups.end - start);
            for (k, to) in hashes[..len].iter_mut().enumerate() {
                *to = hash(start + k);
                prefetch(&self.slots[*to as usize & (self.slots.len() - 1)]);
            }
            for (k, &hash) in hashes[..len].iter().enumerate() {
                self.put(hash, (start + k) as u32);
            }
        }
    }

    /// Enters a group that is not there.
    #[inline(always)]
    fn put(&mut self, hash: u64, group: u32) {
        let mask = self.slots.len() - 1;
        let slots: &mut [u64] = &mut self.slots;
        let mut at = hash as usize & mask;
        while slots[at] != 0 {
            at = (at + 1) & mask;
        }
        slots[at] = hash & TAG | u64::from(group + 1);
    }

    /// The group with `hash` for which `is_equal`, or [`NO_GROUP`]. There must be slots.
    #[inline(always)]
    fn find(slots: &[u64], hash: u64, is_equal: impl Fn(u32) -> bool) -> u32 {
        let mask = slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = slots[at];
            if slot == 0 {
                return NO_GROUP;
            }
            let group = slot as u32 - 1;
            if slot & TAG == hash & TAG && is_equal(group) {
                return group;
            }
            at = (at + 1) & mask;
        }
    }

    /// The group with `hash` for which `is_equal`, or [`NO_GROUP`].
    #[inline(always)]
    pub(super) fn find_one(&self, hash: u64, is_equal: impl Fn(u32) -> bool) -> u32 {
        if self.slots.is_empty() { NO_GROUP } else { Self::find(&self.slots, hash, is_equal) }
    }

    /// Enters a group that is not there, for which room has been reserved.
    pub(super) fn put_one(&mut self, hash: u64, group: u32) {
        self.put(hash, group);
    }

    /// The group of each of `hashes`, into `ids`; indices of those without one are appended to `missing`, which has
    /// room. `is_equal(k, group)` compares the keys, and `fetch(group)` asks for what it will read.
    #[inline(always)]
    pub(super) fn find_all(
        &self,
        hashes: &[u64],
        ids: &mut [u32],
        missing: &mut BufMut<u32>,
        is_equal: impl Fn(usize, u32) -> bool,
        fetch: impl Fn(u32),
    ) {
        if self.slots.is_empty() {
            ids.fill(NO_GROUP);
            (0..hashes.len() as u32).for_each(|k| missing.push(k));
            return;
        }
        let slots: &[u64] = &self.slots;
        let fetches_ahead = size_of_val(slots) > PREFETCH_BYTES;
        let first_slot = |hash: u64| &slots[hash as usize & (slots.len() - 1)];
        for (k, (&hash, id)) in hashes.iter().zip(ids).enumerate() {
            if fetches_ahead {
                if let Some(&ahead) = hashes.get(k + PREFETCH_ROWS) {
                    prefetch(first_slot(ahead));
                }
                if let Some(&ahead) = hashes.get(k + PREFETCH_KEY_ROWS)
                    && let slot = *first_slot(ahead)
                    && slot & TAG == ahead & TAG
                    && slot != 0
                {
                    fetch(slot as u32 - 1);
                }
            }
            *id = Self::find(slots, hash, |group| is_equal(k, group));
            if *id == NO_GROUP {
                missing.push(k as u32);
            }
        }
    }

    /// Gives each of `missing` its group; `add(k)` makes a new one, `is_equal(k, group)` compares. Room for them
    /// has been reserved.
    #[inline(always)]
    pub(super) fn insert_all<C>(
        &mut self,
        hashes: &[u64],
        ids: &mut [u32],
        missing: &[u32],
        context: &mut C,
        is_equal: impl Fn(&C, usize, u32) -> bool,
        add: impl Fn(&mut C, usize) -> u32,
    ) {
        let note = |sketch: &mut Option<Sketch>, hash: u64| {
            if let Some(sketch) = sketch {
                sketch.add(hash);
            }
        };
        if self.is_blind {
            for &k in missing {
                ids[k as usize] = add(context, k as usize);
                note(&mut self.sketch, hashes[k as usize]);
            }
            return;
        }
        let slots: &mut [u64] = &mut self.slots;
        let mask = slots.len().wrapping_sub(1);
        for &k in missing {
            let k = k as usize;
            let hash = hashes[k];
            let mut at = hash as usize & mask;
            ids[k] = loop {
                let slot = slots[at];
                if slot == 0 {
                    let group = add(context, k);
                    slots[at] = hash & TAG | u64::from(group + 1);
                    note(&mut self.sketch, hash);
                    break group;
                }
                let group = slot as u32 - 1;
                if slot & TAG == hash & TAG && is_equal(context, k, group) {
                    break group;
                }
                at = (at + 1) & mask;
            };
        }
    }

    /// Begins to watch how many keys of new groups differ, unless that has begun.
    pub(super) fn begin_sketch(&mut self) {
        self.sketch.get_or_insert_with(Sketch::new);
    }

    /// Whether keys have come back that were not looked for: since the sketch was begun, groups are notably more than
    /// keys.
    pub(super) fn repeats(&self) -> bool {
        self.sketch.as_ref().is_some_and(|sketch| sketch.distinct() < MOST_REPEATS * sketch.added() as f64)
    }

    /// How many of `groups` groups are found.
    pub(super) fn found(&self, groups: usize) -> usize {
        if self.is_blind { 0 } else { groups - self.first }
    }

    /// From now on all groups are found.
    pub(super) fn look_at_all(&mut self) {
        *self = Self { sketch: self.sketch.take(), ..Self::new() };
    }

    /// From now on rows make new groups without a look at those there are.
    pub(super) fn look_away(&mut self) {
        self.slots = BufMut::empty();
        self.is_blind = true;
    }

    /// From now on groups are found again, but for the `groups` there are.
    pub(super) fn look_again(&mut self, groups: usize) {
        self.is_blind = false;
        self.first = groups;
        self.slots.fill(0);
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.slots.allocated_bytes()
    }
}
