//! A lane as a holder of memory that others may ask to give back.
//!
//! Owns: [`Victim`] (the lane's side) and `LaneConsumer` (what the registry knows).
//!
//! Invariants:
//! 1. A request posts a number and wakes the lane; only the lane's driver acts on it, between two calls.
//! 2. No request is lost: a number posted before the lane can be woken is found when it can.
//! 3. Once the victim is dropped the consumer holds neither bytes nor the lane, whoever still holds the consumer.

use crate::mem::{Account, AccountView, MemoryConsumer, Pool, Registration};
use crate::sched::TaskHandle;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct LaneConsumer {
    name: String,
    /// Bytes asked for and not served yet.
    asked_bytes: AtomicUsize,
    /// Bytes above the floor that the operators could not give back when they were last asked: a lane that has
    /// nothing to give must not hide one that has.
    stuck_bytes: AtomicUsize,
    link: Mutex<Link>,
}

/// What the consumer knows of a living lane.
#[derive(Default)]
struct Link {
    /// Of the lane's accounts; none once it is over.
    accounts: Vec<AccountView>,
    task: Option<TaskHandle>,
}

impl LaneConsumer {
    fn above_floor_bytes(&self) -> usize {
        self.link.lock().accounts.iter().map(AccountView::above_floor_bytes).sum()
    }
}

impl MemoryConsumer for LaneConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn used_bytes(&self) -> usize {
        self.link.lock().accounts.iter().map(AccountView::reserved_bytes).sum()
    }

    fn revocable_bytes(&self) -> usize {
        let above = self.above_floor_bytes();
        let stuck = self.stuck_bytes.fetch_min(above, Relaxed);
        above.saturating_sub(stuck)
    }

    fn request_reclaim(&self, target_bytes: usize) {
        self.asked_bytes.fetch_max(target_bytes, Relaxed);
        // Under the lock only to read: the wake may end tasks, and with them this lane. It also orders the number
        // before the slice that will look for it.
        let task = self.link.lock().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Keeps a lane registered as a possible victim while it lives.
pub(super) struct Victim {
    consumer: Arc<LaneConsumer>,
    _registration: Registration,
}

/// What wakes a victim once its task exists.
pub(super) struct VictimLink(Arc<LaneConsumer>);

impl Victim {
    /// Registers the lane that `accounts` belong to.
    pub(super) fn register(name: &str, pool: &Pool, accounts: [&Account; 2]) -> Self {
        let consumer = Arc::new(LaneConsumer {
            name: name.to_owned(),
            asked_bytes: AtomicUsize::new(0),
            stuck_bytes: AtomicUsize::new(0),
            link: Mutex::new(Link { accounts: accounts.map(Account::view).into(), task: None }),
        });
        let registration = pool.register(Arc::clone(&consumer) as _);
        accounts.iter().for_each(|account| account.ask_as(registration.id()));
        Self { consumer, _registration: registration }
    }

    /// For linking the lane's task once it is spawned.
    pub(super) fn link(&self) -> VictimLink {
        VictimLink(Arc::clone(&self.consumer))
    }

    /// Whether somebody wants memory of this lane. One relaxed load.
    pub(super) fn is_asked(&self) -> bool {
        self.consumer.asked_bytes.load(Relaxed) != 0
    }

    /// Takes the request on: the bytes wanted, 0 if none.
    pub(super) fn take_request(&self) -> usize {
        self.consumer.asked_bytes.swap(0, Relaxed)
    }

    /// Notes what a request came to.
    pub(super) fn note_served(&self, has_enough: bool) {
        let stuck = if has_enough { 0 } else { self.consumer.above_floor_bytes() };
        self.consumer.stuck_bytes.store(stuck, Relaxed);
    }
}

impl VictimLink {
    /// From now on requests wake `task`; one that came before does so now.
    pub(super) fn set(self, task: &TaskHandle) {
        {
            let mut link = self.0.link.lock();
            if link.accounts.is_empty() {
                // The lane is over already.
                return;
            }
            link.task = Some(task.clone());
        }
        if self.0.asked_bytes.load(Relaxed) != 0 {
            task.wake();
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let link = std::mem::take(&mut *self.consumer.link.lock());
        drop(link);
    }
}
