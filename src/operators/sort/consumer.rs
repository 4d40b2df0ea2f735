//! Sorted rows as reclaim sees them.

use crate::mem::{Account, MemoryConsumer, Pool, Registration};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct RunsConsumer {
    name: String,
    used_bytes: AtomicUsize,
    requested_bytes: AtomicUsize,
}

impl MemoryConsumer for RunsConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn revocable_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn request_reclaim(&self, target_bytes: usize) {
        self.requested_bytes.fetch_max(target_bytes, Relaxed);
    }
}

/// Keeps rows in memory registered as something that can be spilled.
pub(in crate::operators) struct Victim {
    consumer: Arc<RunsConsumer>,
    registration: Registration,
}

impl Victim {
    /// Registers rows that take nothing yet.
    pub(in crate::operators) fn register(name: String, pool: &Pool) -> Self {
        let consumer =
            RunsConsumer { name, used_bytes: AtomicUsize::new(0), requested_bytes: AtomicUsize::new(0) };
        let consumer = Arc::new(consumer);
        let registration = pool.register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        Self { consumer, registration }
    }

    /// What `account` wants is not asked of these rows.
    pub(in crate::operators) fn exempt(&self, account: &Account) {
        account.ask_as(self.registration.id());
    }

    /// Says what could be spilled.
    pub(in crate::operators) fn publish(&self, bytes: usize) {
        self.consumer.used_bytes.store(bytes, Relaxed);
    }

    /// Takes a request on; whether there was one.
    pub(in crate::operators) fn take_request(&self) -> bool {
        self.consumer.requested_bytes.load(Relaxed) > 0 && self.consumer.requested_bytes.swap(0, Relaxed) > 0
    }
}
