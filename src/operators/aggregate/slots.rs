//! The open-addressing directory from hashes to group numbers.
//!
//! Invariants:
//! 1. A slot is 0 (empty) or holds the upper half of the hash above the group number plus one.
//! 2. At most half the slots are taken, so that probing ends.
//! 3. Groups before `first` have no slot, and while nothing is sought no group gets one: then a key may have several
//!    groups, which whoever merges the table puts together.

use super::hash::prefetch;
use crate::data::BufMut;
use crate::mem::{Account, Denied};

/// The number of a group that is not there.
pub(super) const NO_GROUP: u32 = u32::MAX;
const TAG: u64 = 0xFFFF_FFFF_0000_0000;
/// From this size on slots are fetched ahead.
const PREFETCH_BYTES: usize = 256 << 10;
const PREFETCH_ROWS: usize = 16;
const LEAST_SLOTS: usize = 512;

/// The directory.
pub(super) struct Slots {
    slots: BufMut<u64>,
    /// The first group that is found.
    first: usize,
    /// Whether rows make new groups without a look.
    is_blind: bool,
}

impl Slots {
    /// No room yet.
    pub(super) const fn new() -> Self {
        Self { slots: BufMut::empty(), first: 0, is_blind: false }
    }

    /// Makes room for `groups` groups, of which those already there have `hashes`.
    pub(super) fn reserve(
        &mut self,
        groups: usize,
        hashes: impl Iterator<Item = u64>,
        account: &Account,
    ) -> Result<(), Denied> {
        let sought = groups.saturating_sub(self.first);
        if self.is_blind || 2 * sought <= self.slots.len() {
            return Ok(());
        }
        let larger = (2 * sought).next_power_of_two().max(LEAST_SLOTS);
        let mut slots = Self { slots: BufMut::zeroed(account, larger)?, ..*self };
        for (group, hash) in hashes.enumerate().skip(self.first) {
            slots.put(hash, group as u32);
        }
        *self = slots;
        Ok(())
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

    /// The group of each of `hashes`, into `ids`; indices of those without one are appended to `missing`, which has
    /// room. `is_equal(k, group)` compares the keys.
    #[inline(always)]
    pub(super) fn find_all(
        &self,
        hashes: &[u64],
        ids: &mut [u32],
        missing: &mut BufMut<u32>,
        is_equal: impl Fn(usize, u32) -> bool,
    ) {
        if self.slots.is_empty() {
            ids.fill(NO_GROUP);
            (0..hashes.len() as u32).for_each(|k| missing.push(k));
            return;
        }
        let slots: &[u64] = &self.slots;
        let fetches_ahead = size_of_val(slots) > PREFETCH_BYTES;
        for (k, (&hash, id)) in hashes.iter().zip(ids).enumerate() {
            if fetches_ahead && let Some(&ahead) = hashes.get(k + PREFETCH_ROWS) {
                prefetch(&slots[ahead as usize & (slots.len() - 1)]);
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
        if self.is_blind {
            missing.iter().for_each(|&k| ids[k as usize] = add(context, k as usize));
            return;
        }
        for &k in missing {
            let k = k as usize;
            let mut group = Self::find(&self.slots, hashes[k], |group| is_equal(context, k, group));
            if group == NO_GROUP {
                group = add(context, k);
                self.put(hashes[k], group);
            }
            ids[k] = group;
        }
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
