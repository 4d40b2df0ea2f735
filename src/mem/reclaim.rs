//! Who could give memory back, and whom to ask.
//!
//! Owns: [`MemoryConsumer`], the registry of a pool tree, the choice of a victim.
//!
//! Invariants:
//! 1. A request only posts a number; the consumer's own worker acts on it at its next morsel boundary.
//! 2. Only a registered consumer is chosen; one that deregisters just then may still be asked, and ignores it.
//! 3. No consumer is called while the registry is locked: it may wake tasks, drop others, or deregister.

use super::pool::Pool;
use crate::error::Consumer;
use crate::sync::Mutex;
// Not loom's: only the standard one can hold a trait object, and the registry is behind a lock anyway.
use std::sync::Arc;

/// Something that holds memory of a pool and may be asked to give some back.
///
/// The engine's breakers implement it; an embedder's own caches may, to take part in the engine's budget.
pub trait MemoryConsumer: Send + Sync {
    /// A name for error messages and metrics.
    fn name(&self) -> &str;
    /// Bytes held now.
    fn used_bytes(&self) -> usize;
    /// Bytes it could give back (by spilling or dropping) if asked.
    fn revocable_bytes(&self) -> usize;
    /// Asks it to give back about `target_bytes`, soon and from its own thread. Must not block or free in place.
    fn request_reclaim(&self, target_bytes: usize);
}

/// Tells the consumers of a pool tree apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerId(pub(super) u64);

pub(super) struct Registry {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    last_id: u64,
    all: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    id: ConsumerId,
    pool: Pool,
    consumer: Arc<dyn MemoryConsumer>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

/// Keeps a consumer registered; dropping it ends that.
pub(crate) struct Registration {
    pool: Pool,
    id: ConsumerId,
}

impl Registration {
    /// Names the consumer where it asks for memory itself.
    pub(crate) fn id(&self) -> ConsumerId {
        self.id
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::new(Entries::default()) }
    }
}

impl Pool {
    /// Registers `consumer` as a possible victim of reclaim; its bytes are of this pool.
    pub(crate) fn register(&self, consumer: Arc<dyn MemoryConsumer>) -> Registration {
        let mut entries = self.root().registry.entries.lock();
        entries.last_id += 1;
        let id = ConsumerId(entries.last_id);
        entries.all.push(Entry { id, pool: self.clone(), consumer });
        Registration { pool: self.clone(), id }
    }

    /// Asks consumers other than `asker` to give back `bytes` together: those with most revocable bytes first, among
    /// those whose bytes count in the pool that refuses. Returns whether anybody was asked.
    pub(crate) fn request_reclaim(&self, bytes: usize, asker: Option<ConsumerId>) -> bool {
        let tight = self.tightest(self.wanted_bytes(bytes));
        let mut victims: Vec<_> = self
            .consumers()
            .into_iter()
            .filter(|entry| Some(entry.id) != asker && entry.pool.is_within(tight))
            .map(|entry| (entry.consumer.revocable_bytes(), entry.consumer))
            .filter(|(revocable, _)| *revocable > 0)
            .collect();
        victims.sort_by_key(|(revocable, _)| std::cmp::Reverse(*revocable));
        let mut missing = bytes;
        for (revocable, victim) in &victims {
            if missing == 0 {
                break;
            }
            let part = missing.min(*revocable);
            victim.request_reclaim(part);
            missing -= part;
        }
        !victims.is_empty()
    }

    /// The largest holders, largest first, for error messages.
    pub(crate) fn top_consumers(&self, count: usize) -> Vec<Consumer> {
        let mut top: Vec<Consumer> = self
            .consumers()
            .iter()
            .map(|e| Consumer { name: e.consumer.name().to_owned(), used_bytes: e.consumer.used_bytes() })
            .collect();
        top.sort_by_key(|c| std::cmp::Reverse(c.used_bytes));
        top.truncate(count);
        top
    }

    fn consumers(&self) -> Vec<Entry> {
        self.root().registry.entries.lock().all.clone()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let removed = {
            let mut entries = self.pool.root().registry.entries.lock();
            let at = entries.all.iter().position(|entry| entry.id == self.id);
            at.map(|at| entries.all.swap_remove(at))
        };
        // Outside the lock: this may be the last hold on the consumer.
        drop(removed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    struct Cache {
        name: &'static str,
        revocable_bytes: usize,
        asked_bytes: AtomicUsize,
    }

    impl Cache {
        fn new(name: &'static str, revocable_bytes: usize) -> Arc<Self> {
            Arc::new(Self { name, revocable_bytes, asked_bytes: AtomicUsize::new(0) })
        }

        fn asked(&self) -> usize {
            self.asked_bytes.swap(0, SeqCst)
        }
    }

    impl MemoryConsumer for Cache {
        fn name(&self) -> &str {
            self.name
        }
        fn used_bytes(&self) -> usize {
            self.revocable_bytes
        }
        fn revocable_bytes(&self) -> usize {
            self.revocable_bytes
        }
        fn request_reclaim(&self, target_bytes: usize) {
            self.asked_bytes.fetch_add(target_bytes, SeqCst);
        }
    }

    #[test]
    fn the_largest_other_holders_are_asked() {
        let pool = Pool::new("engine", 100);
        let (small, large) = (Cache::new("small", 10), Cache::new("large", 20));
        let small_registered = pool.register(Arc::clone(&small) as _);
        let large_registered = pool.register(Arc::clone(&large) as _);
        assert!(pool.request_reclaim(5, None));
        assert_eq!((small.asked(), large.asked()), (0, 5));
        assert!(pool.request_reclaim(7, Some(large_registered.id())));
        assert_eq!((small.asked(), large.asked()), (7, 0));
        assert_eq!(pool.top_consumers(1)[0].name, "large");
        assert!(pool.request_reclaim(25, None));
        assert_eq!((small.asked(), large.asked()), (5, 20), "one alone has not enough");
        drop(large_registered);
        assert!(pool.request_reclaim(1, None));
        assert_eq!((small.asked(), large.asked()), (1, 0));
        drop(small_registered);
        assert!(!pool.request_reclaim(1, None));
    }

    #[test]
    fn nobody_is_asked_in_vain() {
        let engine = Pool::new("engine", 100);
        let (a, b) = (engine.child("a", 10), engine.child("b", 100));
        let (of_a, of_b) = (Cache::new("a", 1), Cache::new("b", 50));
        let _registered = (a.register(Arc::clone(&of_a) as _), b.register(Arc::clone(&of_b) as _));
        a.try_grow(10).expect("fits");
        assert!(a.request_reclaim(5, None));
        assert_eq!(
            (of_a.asked(), of_b.asked()),
            (1, 0),
            "what b gives back cannot help a past its own limit"
        );
        b.try_grow(85).expect("fits");
        assert!(b.request_reclaim(10, None));
        assert_eq!((of_a.asked(), of_b.asked()), (0, 10), "the engine's limit is everybody's");
        a.shrink(10);
        b.shrink(85);
    }
}
