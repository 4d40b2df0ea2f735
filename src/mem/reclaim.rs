//! Who could give memory back, and whom to ask.
//!
//! Owns: [`MemoryConsumer`], the registry of a pool tree, the choice of a victim.
//!
//! Invariants:
//! 1. A request only posts a number; the consumer's own worker acts on it at its next morsel boundary.
//! 2. A consumer is asked only while it is registered.

use super::pool::Pool;
use crate::error::Consumer;
use crate::sync::{Arc, Mutex};

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

pub(super) struct Registry {
    consumers: Mutex<Vec<Arc<dyn MemoryConsumer>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

/// Keeps a consumer registered; dropping it ends that.
pub(crate) struct Registration {
    pool: Pool,
    consumer: Arc<dyn MemoryConsumer>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { consumers: Mutex::new(Vec::new()) }
    }
}

impl Pool {
    /// Registers `consumer` as a possible victim of reclaim.
    pub(crate) fn register(&self, consumer: Arc<dyn MemoryConsumer>) -> Registration {
        self.root().registry.consumers.lock().push(Arc::clone(&consumer));
        Registration { pool: self.clone(), consumer }
    }

    /// Asks the holder of the most revocable bytes in the whole tree, other than `asker`, for `bytes`.
    /// Returns whether anybody was asked.
    pub(crate) fn request_reclaim(&self, bytes: usize, asker: Option<&Registration>) -> bool {
        let consumers = self.root().registry.consumers.lock();
        let victim = consumers
            .iter()
            .filter(|c| asker.is_none_or(|a| !Arc::ptr_eq(&a.consumer, c)))
            .map(|c| (c.revocable_bytes(), c))
            .filter(|(revocable, _)| *revocable > 0)
            .max_by_key(|(revocable, _)| *revocable);
        if let Some((_, victim)) = victim {
            victim.request_reclaim(bytes);
        }
        victim.is_some()
    }

    /// The largest holders, largest first, for error messages.
    pub(crate) fn top_consumers(&self, count: usize) -> Vec<Consumer> {
        let consumers = self.root().registry.consumers.lock();
        let mut top: Vec<Consumer> = consumers
            .iter()
            .map(|c| Consumer { name: c.name().to_owned(), used_bytes: c.used_bytes() })
            .collect();
        top.sort_by_key(|c| std::cmp::Reverse(c.used_bytes));
        top.truncate(count);
        top
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut consumers = self.pool.root().registry.consumers.lock();
        consumers.retain(|c| !Arc::ptr_eq(c, &self.consumer));
    }
}
