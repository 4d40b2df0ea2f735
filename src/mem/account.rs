//! What one lane or one breaker holds: a floor, slack granted ahead, and a cache of free slabs.
//!
//! Owns: [`Account`], [`Charge`].
//!
//! Invariants:
//! 1. `reserved = used + slack` at rest, and all of `reserved` is granted by the pool: bytes are charged before they
//!    are used, never after.
//! 2. While the account is open `reserved ≥ floor`: what the floor promises cannot be taken by anybody else, and a
//!    charge within it succeeds whatever other threads give back meanwhile. Hence the order in `give_back`: bytes are
//!    first claimed from `reserved`, which protects the floor, and only then taken from the slack.
//! 3. The hot path (a charge within the slack, a slab from the cache) touches no memory shared with other accounts.
//! 4. Slabs may outlive the account's handle and be dropped on any thread; the last one returns the last byte.

use super::pool::{Denied, Pool};
use super::reclaim::ConsumerId;
use super::reservation::Reservation;
use super::slab::{Evicted, Slab, SlabCache, size_class_bytes};
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use memmap2::MmapMut;

/// The memory of one lane or breaker. Its slabs keep it charged after the handle is gone.
#[derive(Debug)]
pub(crate) struct Account {
    shared: Arc<AccountShared>,
}

#[derive(Debug)]
pub(super) struct AccountShared {
    pool: Pool,
    floor_bytes: AtomicUsize,
    quantum_bytes: usize,
    reserved_bytes: AtomicUsize,
    slack_bytes: AtomicUsize,
    is_closed: AtomicBool,
    seen_pressure: AtomicUsize,
    /// The consumer on whose behalf the account asks others to give back; 0 if it has none.
    asker: AtomicU64,
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
            asker: AtomicU64::new(0),
            pool,
            floor_bytes: AtomicUsize::new(floor_bytes),
            quantum_bytes,
            reserved_bytes: AtomicUsize::new(floor_bytes),
            slack_bytes: AtomicUsize::new(floor_bytes),
            cache: SlabCache::new(cache_bytes),
        });
        Self { shared }
    }

    /// A slab of at least `bytes`, content unspecified. On refusal the same was done as by [`charge`](Self::charge).
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Slab, Denied> {
        if let Some(mapping) = self.shared.cache.pop(bytes) {
            return Ok(Slab::recycled(mapping, &self.shared));
        }
        self.map(bytes, false)
    }

    /// As [`alloc`](Self::alloc), all bytes zero. Fresh memory is not written for that.
    pub(crate) fn alloc_zeroed(&self, bytes: usize) -> Result<Slab, Denied> {
        if let Some(mapping) = self.shared.cache.pop(bytes) {
            let mut slab = Slab::recycled(mapping, &self.shared);
            slab.bytes_mut().fill(0);
            return Ok(slab);
        }
        self.map(bytes, true)
    }

    /// A slab that is not from the cache: one that nobody holds, or fresh memory.
    fn map(&self, bytes: usize, read_first: bool) -> Result<Slab, Denied> {
        let class_bytes = size_class_bytes(bytes);
        self.charge(class_bytes)?;
        if let Some(mapping) = self.shared.pool.take_kept(bytes) {
            let mut slab = Slab::recycled(mapping, &self.shared);
            if read_first {
                slab.bytes_mut().fill(0);
            }
            return Ok(slab);
        }
        Slab::map(class_bytes, read_first, &self.shared).ok_or_else(|| {
            self.shared.release(class_bytes);
            Denied { bytes: class_bytes }
        })
    }

    /// Makes a large slab of this account at least `bytes` long without copying it, so that only what is added has to
    /// be found; whether it could. What is added is of unspecified content. Refused as [`alloc`](Self::alloc) is.
    pub(crate) fn grow(&self, slab: &mut Slab, bytes: usize) -> Result<bool, Denied> {
        if !slab.is_growable() || !slab.is_of(&self.shared) {
            return Ok(false);
        }
        let class_bytes = size_class_bytes(bytes);
        let added = class_bytes.saturating_sub(slab.len());
        self.charge(added)?;
        let has_grown = slab.remap(class_bytes);
        if !has_grown {
            self.shared.release(added);
        }
        Ok(has_grown)
    }

    /// Charges bytes that live outside slabs. On refusal the account's own cache has been used up first, and another
    /// holder has been asked to give back; the refusal does not wait for it.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Denied> {
        let Err(_) = self.shared.charge(bytes) else { return Ok(()) };
        self.shared.evict(bytes);
        self.shared.charge(bytes).inspect_err(|denied| {
            let asker = match self.shared.asker.load(Relaxed) {
                0 => None,
                id => Some(ConsumerId(id)),
            };
            self.shared.pool.request_reclaim(denied.bytes, asker);
        })
    }

    /// Charges bytes that somebody else allocates, for as long as what is returned lives. Refused as by
    /// [`charge`](Self::charge).
    pub(crate) fn hold(&self, bytes: usize) -> Result<Charge, Denied> {
        self.charge(bytes)?;
        Ok(Charge { shared: Arc::clone(&self.shared), bytes })
    }

    /// From now on `asker` is not asked to give back what this account wants.
    pub(crate) fn ask_as(&self, asker: ConsumerId) {
        self.shared.asker.store(asker.0, Relaxed);
    }

    /// The account's figures for others to read. A view keeps its bytes granted, so it must go before the account
    /// counts as closed.
    pub(crate) fn view(&self) -> AccountView {
        AccountView { shared: Arc::clone(&self.shared) }
    }

    /// Returns bytes charged with [`charge`](Self::charge).
    #[cfg(test)]
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
    #[cfg(test)]
    pub(crate) fn spare_bytes(&self) -> usize {
        self.shared.slack_bytes.load(SeqCst) + self.shared.cache.bytes()
    }

    /// Gives back slack above the floor, and of the cached slabs what is above it; returns about how many bytes that
    /// was. Slabs cached within the floor are nobody else's gain, and would only have to be mapped again.
    pub(crate) fn trim(&self) -> usize {
        let shared = &self.shared;
        let before = shared.reserved_bytes.load(SeqCst);
        let above_floor = before.saturating_sub(shared.floor_bytes.load(SeqCst));
        shared.evict(above_floor.saturating_sub(shared.slack_bytes.load(SeqCst)));
        shared.give_back(0);
        before.saturating_sub(shared.reserved_bytes.load(SeqCst))
    }

    /// Trims if anybody's request has been refused since the last call. Cheap; meant for morsel boundaries.
    pub(crate) fn relieve(&self) {
        let pressure = self.shared.pool.pressure();
        if self.shared.seen_pressure.load(Relaxed) != pressure {
            self.shared.seen_pressure.store(pressure, Relaxed);
            self.trim();
        }
    }

    /// Ends the account for new uses, and hands out what is free of its floor. Slabs still in use keep their bytes
    /// charged until they are dropped.
    pub(crate) fn close(&self) -> Reservation {
        let shared = &self.shared;
        shared.uncache();
        let bytes = shared.take_free(shared.floor_bytes.load(SeqCst));
        shared.is_closed.store(true, SeqCst);
        Reservation::from_granted(&shared.pool, bytes)
    }

    /// Lowers the floor to `floor_bytes` and hands out what it was more; what of that is in use stays in the floor.
    /// Not to be called by two threads at a time.
    pub(crate) fn lower_floor(&self, floor_bytes: usize) -> Reservation {
        let shared = &self.shared;
        let surplus = shared.floor_bytes.load(SeqCst).saturating_sub(floor_bytes);
        shared.evict(surplus.saturating_sub(shared.slack_bytes.load(SeqCst)));
        let bytes = shared.take_free(surplus);
        shared.floor_bytes.fetch_sub(bytes, SeqCst);
        Reservation::from_granted(&shared.pool, bytes)
    }

    /// The bytes nobody else can take.
    pub(crate) fn floor_bytes(&self) -> usize {
        self.shared.floor_bytes.load(SeqCst)
    }

    /// The pool the bytes come from.
    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, SeqCst);
        // Every release is a read-modify-write of the slack: one that comes later sees that the account is closed,
        // one that came before is given back here.
        self.shared.slack_bytes.fetch_add(0, SeqCst);
        self.shared.uncache();
        self.shared.give_back(0);
    }
}

/// Bytes charged to an account, until dropped; it may outlive the account's handle, as a slab may.
#[derive(Debug)]
pub(crate) struct Charge {
    shared: Arc<AccountShared>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

/// What an account holds, seen from outside.
#[derive(Debug)]
pub(crate) struct AccountView {
    pub(super) shared: Arc<AccountShared>,
}

impl AccountView {
    /// Bytes granted to the account, used or not.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.shared.reserved_bytes.load(SeqCst)
    }

    /// Bytes granted above the floor: the most it could give back.
    pub(crate) fn above_floor_bytes(&self) -> usize {
        self.reserved_bytes().saturating_sub(self.shared.floor_bytes.load(SeqCst))
    }
}

impl AccountShared {
    fn charge(&self, bytes: usize) -> Result<(), Denied> {
        loop {
            let taken = self.slack_bytes.fetch_update(SeqCst, SeqCst, |slack| slack.checked_sub(bytes));
            let Err(slack) = taken else { return Ok(()) };
            let missing = bytes - slack;
            let held = self.reserved_bytes.load(SeqCst).saturating_sub(self.floor_bytes.load(SeqCst));
            let grown = missing.max(self.quantum_bytes);
            let grown = match self.pool.try_grow_beyond(grown, held) {
                Ok(()) => grown,
                Err(_) => {
                    self.pool.try_grow_beyond(missing, held)?;
                    missing
                }
            };
            self.reserved_bytes.fetch_add(grown, SeqCst);
            self.slack_bytes.fetch_add(grown, SeqCst);
        }
    }

    pub(super) fn release(&self, bytes: usize) {
        let slack = self.slack_bytes.fetch_add(bytes, SeqCst) + bytes;
        if self.is_closed.load(SeqCst) {
            self.give_back(0);
        } else if slack > 4 * self.quantum_bytes {
            self.give_back(2 * self.quantum_bytes);
        }
    }

    /// Returns slack above `keep_bytes` to the pool, but never the floor of an open account.
    fn give_back(&self, keep_bytes: usize) {
        loop {
            let (floor, keep) = match self.is_closed.load(SeqCst) {
                true => (0, 0),
                false => (self.floor_bytes.load(SeqCst), keep_bytes),
            };
            let spare = self.slack_bytes.load(SeqCst).saturating_sub(keep);
            let part = |reserved: usize| spare.min(reserved.saturating_sub(floor));
            let claimed = self.reserved_bytes.fetch_update(SeqCst, SeqCst, |reserved| match part(reserved) {
                0 => None,
                give => Some(reserved - give),
            });
            // Nothing above the floor, or somebody else has claimed it and tries again should that fail.
            let Ok(give) = claimed.map(part) else { return };
            let taken = self.slack_bytes.fetch_update(SeqCst, SeqCst, |slack| slack.checked_sub(give));
            if taken.is_ok() {
                self.pool.shrink(give);
                return;
            }
            // Charged meanwhile.
            self.reserved_bytes.fetch_add(give, SeqCst);
        }
    }

    /// Takes up to `most` free bytes out of the account; returns how many. They stay granted.
    fn take_free(&self, most: usize) -> usize {
        let taken = self.slack_bytes.fetch_update(SeqCst, SeqCst, |slack| Some(slack - slack.min(most)));
        let bytes = taken.map_or(0, |slack| slack.min(most));
        // Less than the floor may be reserved for a moment, which `give_back` reads as nothing to give.
        self.reserved_bytes.fetch_sub(bytes, SeqCst);
        bytes
    }

    /// Gives up cached slabs of at least `bytes`, if there are so many.
    fn evict(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let Evicted { bytes, mappings } = self.cache.evict(bytes);
        mappings.into_iter().for_each(|mapping| self.give_up(mapping));
        if bytes > 0 {
            self.release(bytes);
        }
    }

    fn uncache(&self) {
        self.evict(usize::MAX);
    }

    /// Leaves a free slab to whoever needs one, or unmaps it. Its bytes are still charged here.
    fn give_up(&self, mapping: MmapMut) {
        drop(self.pool.keep(mapping));
    }

    /// The end of a slab: cached, or unmapped and no longer charged.
    pub(super) fn take_back(&self, mapping: MmapMut) {
        let bytes = mapping.len();
        let kept = if self.is_closed.load(SeqCst) { Err(mapping) } else { self.cache.push(mapping) };
        match kept {
            Err(mapping) => {
                self.give_up(mapping);
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
        self.cache.evict(usize::MAX);
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
            (0..96).map(|_| b.alloc(4096).expect("256 KiB of floor, 128 KiB beside")).collect();
        assert!(b.alloc(4096).is_err(), "the rest is a's floor, and spared");
        assert!(a.alloc(512 << 10).is_ok());
        drop(held);
        drop((a, b));
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn a_lowered_floor_is_handed_out_but_for_what_is_in_use() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 512 << 10, 4096, 0).expect("fits");
        let held = account.alloc(384 << 10).expect("within the floor");
        let surplus = account.lower_floor(64 << 10);
        assert_eq!((surplus.bytes(), account.floor_bytes()), (128 << 10, 384 << 10));
        assert_eq!(pool.granted_bytes(), 512 << 10, "what was handed out is still granted");
        drop(held);
        let rest = account.lower_floor(64 << 10);
        assert_eq!((rest.bytes(), account.floor_bytes()), (320 << 10, 64 << 10));
        drop((surplus, rest));
        assert_eq!(pool.granted_bytes(), 64 << 10);
        assert!(account.alloc(64 << 10).is_ok());
        assert_eq!(account.lower_floor(1 << 20).bytes(), 0, "a floor is never raised");
        drop(account);
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
    fn large_slabs_grow_by_what_is_added() {
        let pool = Pool::new("p", 16 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let other = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut small = account.alloc(4096).expect("fits");
        assert!(!account.grow(&mut small, 8192).expect("not asked for"), "small ones are cheaper copied");
        drop(small);
        let mut slab = account.alloc(4 << 20).expect("fits");
        slab.bytes_mut()[(4 << 20) - 1] = 7;
        assert!(!other.grow(&mut slab, 8 << 20).expect("not asked for"), "it is not the other's");
        assert!(account.grow(&mut slab, 12 << 20).expect("12 of 16 MiB"), "it would not fit beside itself");
        assert_eq!(slab.len(), 12 << 20);
        assert_eq!((slab.bytes()[(4 << 20) - 1], slab.bytes()[(12 << 20) - 1]), (7, 0));
        assert!(account.grow(&mut slab, 17 << 20).is_err());
        assert_eq!((slab.len(), slab.bytes()[(4 << 20) - 1]), (12 << 20, 7));
        drop((slab, account, other));
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn a_closed_account_hands_out_what_is_free_of_its_floor() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 64 << 10, 4096, 64 << 10).expect("fits");
        let kept = account.alloc(16 << 10).expect("fits");
        drop(account.alloc(32 << 10).expect("fits"));
        let floor = account.close();
        assert_eq!(floor.bytes(), 48 << 10, "without what is in use, with what was cached");
        drop(account);
        assert_eq!(pool.granted_bytes(), 64 << 10);
        drop(kept);
        assert_eq!(pool.granted_bytes(), 48 << 10);
        drop(floor);
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn pressure_empties_caches() {
        let pool = Pool::new("p", 1 << 20);
        let a = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        let b = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        drop(a.alloc(768 << 10).expect("fits"));
        assert!(b.alloc(256 << 10).is_err());
        a.relieve();
        assert!(b.alloc(256 << 10).is_ok());
    }

    #[test]
    fn the_last_part_is_for_those_who_hold_little() {
        let pool = Pool::new("p", 1 << 20);
        let large = Account::open(&pool, 256 << 10, 4096, 0).expect("fits");
        let small = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut held: Vec<Slab> = std::iter::from_fn(|| large.alloc(32 << 10).ok()).collect();
        assert_eq!(pool.available_bytes(), 128 << 10, "an eighth");
        held.extend((0..2).map(|_| small.alloc(32 << 10).expect("half of what is spared")));
        assert!(small.alloc(4096).is_err(), "it does not hold little any more");
        let other = Account::open(&pool, 0, 4096, 0).expect("fits");
        held.push(other.alloc(64 << 10).expect("the other half"));
        assert_eq!(pool.available_bytes(), 0);
        drop((held, large, small, other));
        assert_eq!(pool.granted_bytes(), 0);
    }
}
