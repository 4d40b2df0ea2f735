//! One string or blob per group, its bytes owned.
//!
//! Invariants:
//! 1. A view holds its length in the low 32 bits; up to 12 bytes lie in it as in [`crate::data`]'s views, more lie in
//!    the heap from the offset in its high 64 bits on.
//! 2. `live_bytes` is the sum of the lengths of long values; the rest of the heap is garbage, dropped when it grows.

use super::states::States;
use crate::data::{BufMut, MAX_INLINE_BYTES, Values, ViewBuilder, view_bytes, view_inline, view_len};
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied};

/// A value per group, the empty one at first.
pub(crate) struct ByteStates {
    views: States<u128>,
    heap: BufMut<u8>,
    live_bytes: usize,
}

impl ByteStates {
    /// No groups.
    pub(crate) fn new() -> Self {
        Self { views: States::new(), heap: BufMut::empty(), live_bytes: 0 }
    }

    /// Makes room for `groups` groups.
    pub(crate) fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.views.resize(groups, 0, account)
    }

    /// Makes room for setting values of `bytes` bytes together.
    pub(crate) fn reserve(&mut self, bytes: usize, account: &Account) -> Result<(), Denied> {
        if self.heap.len() + bytes <= self.heap.capacity() {
            return Ok(());
        }
        let mut heap = BufMut::with_capacity(account, (self.live_bytes + bytes).max(2 * self.live_bytes))?;
        for view in self.views.iter_mut().filter(|view| view_len(**view) > MAX_INLINE_BYTES) {
            let value = &self.heap[offset(*view)..][..view_len(*view)];
            let moved = long_view(value, heap.len());
            heap.extend_from_slice(value);
            *view = moved;
        }
        self.heap = heap;
        Ok(())
    }

    /// The value of a group.
    #[inline]
    pub(crate) fn get(&self, group: usize) -> &[u8] {
        let view = &self.views[group];
        let len = view_len(*view);
        if len <= MAX_INLINE_BYTES { view_bytes(view, &[]) } else { &self.heap[offset(*view)..][..len] }
    }

    /// Sets the value of a group; room for its bytes has been reserved. Panics otherwise.
    pub(crate) fn set(&mut self, group: usize, value: &[u8]) {
        let old = self.views[group];
        let old_bytes = if view_len(old) > MAX_INLINE_BYTES { view_len(old) } else { 0 };
        self.live_bytes -= old_bytes;
        if value.len() <= MAX_INLINE_BYTES {
            self.views[group] = view_inline(value);
            return;
        }
        self.live_bytes += value.len();
        let at = if value.len() <= old_bytes {
            self.heap[offset(old)..][..value.len()].copy_from_slice(value);
            offset(old)
        } else {
            self.heap.extend_from_slice(value);
            self.heap.len() - value.len()
        };
        self.views[group] = long_view(value, at);
    }

    /// The values of `groups`, copied.
    pub(crate) fn gather(&self, groups: GroupSet<'_>, account: &Account) -> Result<Values, Denied> {
        let mut builder = ViewBuilder::new(account, groups.len())?;
        for i in 0..groups.len() {
            builder.push(account, self.get(groups.group(i)))?;
        }
        Ok(Values::View(builder.freeze()))
    }

    /// Forgets all groups and their memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes of memory behind it.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.views.allocated_bytes() + self.heap.allocated_bytes()
    }
}

fn offset(view: u128) -> usize {
    (view >> 64) as usize
}

fn long_view(value: &[u8], offset: usize) -> u128 {
    value.len() as u128 | (offset as u128) << 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn values_survive_replacement_and_compaction() {
        let pool = Pool::new("p", 4 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut states = ByteStates::new();
        states.resize(10, &account).expect("fits");
        let mut expected = vec![Vec::new(); 10];
        for round in 0..500usize {
            let group = round * 7 % 10;
            let value = vec![round as u8; round * 13 % 90];
            states.reserve(value.len(), &account).expect("fits");
            states.set(group, &value);
            expected[group] = value;
            assert!((0..10).all(|g| states.get(g) == expected[g]), "round {round}");
        }
        assert!(states.allocated_bytes() < 64 << 10, "garbage is dropped");
    }
}
