//! What one lane or one breaker holds: a floor, slack granted ahead, and a cache of free slabs.
//!
//! Owns: [`Account`].
//!
//! Invariants:
//! 1. `reserved = used + slack` at rest, and all of `reserved` is granted by the pool: bytes are charged before they
//!    are used, never after.
//! 2. While the account is open `reserved ≥ floor`: what the floor promises cannot be taken by anybody else.
//! 3. The hot path (a charge within the slack, a slab from the cache) touches no memory shared with other accounts.
//! 4. Slabs may outlive the account's handle and be dropped on any thread; the last one returns the last byte.

use super::pool::{Denied, Pool};
use super::reservation::Reservation;
use super::slab::{Slab, SlabCache, size_class_bytes};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering::SeqCst};
use memmap2::MmapMut;

/// The memory of one lane or breaker. Its slabs keep it charged after the handle is gone.
#[derive(Debug)]
pub(crate) struct Account {
    shared: Arc<AccountShared>,
}

#[derive(Debug)]
pub(super) struct AccountShared {
    pool: Pool,
    floor_bytes: usize,
    quantum_bytes: usize,
    reserved_bytes: AtomicUsize,
    slack_bytes: AtomicUsize,
    is_closed: AtomicBool,
    seen_pressure: AtomicUsize,
    cache: SlabCache,
}

impl Account {
    /// Opens an account with an irrevocable floor.
    ///
    /// `quantum_bytes` is what it asks of the pool at a time, `cache_bytes` how much free slab memory it may keep.
    pub(crate) fn open(
        pool: &Pool,
        floor_bytes: usize,
        quantum_bytes: usize,
        cache_bytes: usize,
    ) -> Result<Self, Denied> {
        let mut floor = Reservation::empty(pool);
        floor.try_grow(floor_bytes)?;
        Ok(Self::from_reservation(floor, quantum_bytes, cache_bytes))
    }

    /// Opens an account whose floor has been granted already.
    pub(crate) fn from_reservation(floor: Reservation, quantum_bytes: usize, cache_bytes: usize) -> Self {
        let (pool, floor_bytes) = floor.into_granted();
        let shared = Arc::new(AccountShared {
            is_closed: AtomicBool::new(false),
            seen_pressure: AtomicUsize::new(pool.pressure()),
            pool,
            floor_bytes,
            quantum_bytes,
            reserved_bytes: AtomicUsize::new(floor_bytes),
            slack_bytes: AtomicUsize::new(floor_bytes),
            cache: SlabCache::new(cache_bytes),
        });
        Self { shared }
    }

    /// A slab of at least `bytes`, content unspecified. On refusal the account's own cache has been emptied first.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Slab, Denied> {
        if let Some(mapping) = self.shared.cache.pop(bytes) {
            return Ok(Slab::recycled(mapping, &self.shared));
        }
        let class_bytes = size_class_bytes(bytes);
        self.charge(class_bytes)?;
        Slab::map(class_bytes, &self.shared).ok_or_else(|| {
            self.shared.release(class_bytes);
            Denied { bytes: class_bytes }
        })
    }

    /// Charges bytes that live outside slabs. On refusal the account's own cache has been emptied first.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Denied> {
        self.shared.charge(bytes).or_else(|_| {
            self.shared.uncache();
            self.shared.charge(bytes)
        })
    }

    /// Returns bytes charged with [`charge`](Self::charge).
    pub(crate) fn release(&self, bytes: usize) {
        self.shared.release(bytes);
    }

    /// Bytes in use: charged, cached slabs not counted.
    pub(crate) fn used_bytes(&self) -> usize {
        let held =
            self.shared.reserved_bytes.load(SeqCst).saturating_sub(self.shared.slack_bytes.load(SeqCst));
        held.saturating_sub(self.shared.cache.bytes())
    }

    /// Bytes it may use without asking anybody: what is left of floor and slack, and its cached slabs.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.shared.slack_bytes.load(SeqCst) + self.shared.cache.bytes()
    }

    /// Gives back cached slabs and slack above the floor.
    pub(crate) fn trim(&self) {
        self.shared.uncache();
        self.shared.give_back(0);
    }

    /// Trims if anybody's request has been refused since the last call. Cheap; meant for morsel boundaries.
    pub(crate) fn relieve(&self) {
        let pressure = self.shared.pool.pressure();
        if self.shared.seen_pressure.swap(pressure, SeqCst) != pressure {
            self.trim();
        }
    }

    /// The pool the bytes come from.
    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, SeqCst);
        self.trim();
    }
}

impl AccountShared {
    fn charge(&self, bytes: usize) -> Result<(), Denied> {
        loop {
            let taken = self.slack_bytes.fetch_update(SeqCst, SeqCst, |slack| slack.checked_sub(bytes));
            let Err(slack) = taken else { return Ok(()) };
            let missing = bytes - slack;
            let grown = missing.max(self.quantum_bytes);
            let grown = match self.pool.try_grow(grown) {
                Ok(()) => grown,
                Err(_) => {
                    self.pool.try_grow(missing)?;
                    missing
                }
            };
            self.reserved_bytes.fetch_add(grown, SeqCst);
            self.slack_bytes.fetch_add(grown, SeqCst);
        }
    }

    fn release(&self, bytes: usize) {
        let slack = self.slack_bytes.fetch_add(bytes, SeqCst) + bytes;
        if self.is_closed.load(SeqCst) {
            self.give_back(0);
        } else if slack > 4 * self.quantum_bytes {
            self.give_back(2 * self.quantum_bytes);
        }
    }

    /// Returns slack above `keep_bytes` to the pool, but never the floor of an open account.
    fn give_back(&self, keep_bytes: usize) {
        let slack = self.slack_bytes.load(SeqCst);
        let floor = if self.is_closed.load(SeqCst) { 0 } else { self.floor_bytes };
        let spare = slack.saturating_sub(keep_bytes);
        let give = spare.min(self.reserved_bytes.load(SeqCst).saturating_sub(floor));
        if give == 0 || self.slack_bytes.compare_exchange(slack, slack - give, SeqCst, SeqCst).is_err() {
            // Whoever moved the slack meanwhile gives back in turn.
            return;
        }
        let lowered = self.reserved_bytes.fetch_update(SeqCst, SeqCst, |reserved| {
            reserved.checked_sub(give).filter(|&rest| rest >= floor)
        });
        match lowered {
            Ok(_) => self.pool.shrink(give),
            Err(_) => _ = self.slack_bytes.fetch_add(give, SeqCst),
        }
    }

    fn uncache(&self) {
        let freed = self.cache.clear();
        if freed > 0 {
            self.release(freed);
        }
    }

    /// The end of a slab: cached, or unmapped and no longer charged.
    pub(super) fn take_back(&self, mapping: MmapMut) {
        let bytes = mapping.len();
        let kept = if self.is_closed.load(SeqCst) { Err(mapping) } else { self.cache.push(mapping) };
        match kept {
            Err(mapping) => {
                drop(mapping);
                self.release(bytes);
            }
            // The handle may have closed and emptied the cache just before the push.
            Ok(()) if self.is_closed.load(SeqCst) => self.uncache(),
            Ok(()) => {}
        }
    }
}

impl Drop for AccountShared {
    fn drop(&mut self) {
        self.cache.clear();
        self.pool.shrink(self.reserved_bytes.load(SeqCst));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_kept_for_its_account() {
        let pool = Pool::new("p", 1 << 20);
        let a = Account::open(&pool, 512 << 10, 4096, 0).expect("fits");
        let b = Account::open(&pool, 256 << 10, 4096, 0).expect("fits");
        let held: Vec<Slab> =
            (0..128).map(|_| b.alloc(4096).expect("256 KiB of floor, 256 KiB beside")).collect();
        assert!(b.alloc(4096).is_err(), "the rest is a's floor");
        assert!(a.alloc(512 << 10).is_ok());
        drop(held);
        drop((a, b));
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn slabs_are_recycled_and_outlive_their_account() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        let mut slab = account.alloc(5000).expect("fits");
        assert_eq!(slab.len(), 8192);
        slab.bytes_mut()[0] = 7;
        drop(slab);
        let again = account.alloc(8000).expect("cached");
        assert_eq!(again.bytes()[0], 7, "recycled, not mapped anew");
        drop(account);
        assert_eq!(pool.granted_bytes(), 8192);
        drop(again);
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn pressure_empties_caches() {
        let pool = Pool::new("p", 64 << 10);
        let a = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        let b = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        drop(a.alloc(64 << 10).expect("fits"));
        assert!(b.alloc(4096).is_err());
        a.relieve();
        assert!(b.alloc(4096).is_ok());
    }
}
