//! Waiting for bytes, first come first served, without a lost wake.
//!
//! Owns: [`MemoryTicket`], [`Tenant`] and the queue of a pool tree.
//!
//! Invariants:
//! 1. A queued ticket is served by whoever frees bytes: the bytes are granted *to the ticket* before its waker is
//!    called, so nobody can take them in between.
//! 2. No lost waiter: a ticket raises `waiting` before it tries once more; `shrink` lowers `granted` before it reads
//!    `waiting`. A fence stands between the two on both sides, so either the try sees the freed bytes or the freeing
//!    thread sees the ticket. A refused grant that is rolled back counts as freed.
//! 3. Strictly first in, first out: only the oldest ticket is ever served.
//! 4. A ticket can be served: more than its pool may ever hold is refused at once.
//! 5. Nobody waits unknowing for what may never come: once no tenant is left, who would give bytes back by itself, the
//!    oldest ticket is woken and finds itself stalled. The last tenant lowers the count before it reads `waiting`, a
//!    ticket raises `waiting` before it reads the count, and a fence stands between the two on both sides. Whoever is
//!    granted bytes counts as a tenant from that moment.

use super::pool::{Denied, Pool, Root};
use super::reservation::Reservation;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering::SeqCst, fence};
use std::collections::VecDeque;
use std::task::Waker;

#[derive(Debug)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    tenants: AtomicUsize,
    tickets: Mutex<VecDeque<Arc<Waiter>>>,
}

/// Stands for somebody who works with memory of the pool tree and will give it back without being asked.
#[derive(Debug)]
pub(crate) struct Tenant(Arc<Root>);

impl Tenant {
    /// One more.
    pub(crate) fn of(pool: &Pool) -> Self {
        Self::counted(pool.root())
    }

    fn counted(root: &Arc<Root>) -> Self {
        root.queue.tenants.fetch_add(1, SeqCst);
        Self(Arc::clone(root))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if self.0.queue.tenants.fetch_sub(1, SeqCst) == 1 {
            // With the fence in `MemoryTicket::new`: either the ticket meets no tenant, or this sees the ticket.
            fence(SeqCst);
            self.0.queue.serve();
        }
    }
}

#[derive(Debug)]
struct Waiter {
    pool: Pool,
    bytes: usize,
    state: Mutex<WaiterState>,
}

#[derive(Debug)]
enum WaiterState {
    Waiting(Waker),
    Granted(Reservation, Tenant),
    Taken,
}

/// A place in the queue for `bytes` of a pool. Dropping it leaves the queue; bytes granted meanwhile return.
#[derive(Debug)]
pub(crate) struct MemoryTicket {
    waiter: Arc<Waiter>,
}

impl MemoryTicket {
    /// Queues for `bytes` of `pool`; `waker` is called once they are granted to this ticket, perhaps before this
    /// returns.
    ///
    /// # Errors
    /// [`Denied`] if the pool may never hold that many: such a ticket would wait for ever, and all behind it too.
    pub(crate) fn new(pool: &Pool, bytes: usize, waker: &Waker) -> Result<Self, Denied> {
        if bytes > pool.limit_bytes() {
            return Err(Denied { bytes });
        }
        let state = Mutex::new(WaiterState::Waiting(waker.clone()));
        let waiter = Arc::new(Waiter { pool: pool.clone(), bytes, state });
        let queue = &pool.root().queue;
        {
            let mut tickets = queue.tickets.lock();
            tickets.push_back(Arc::clone(&waiter));
            queue.waiting.store(tickets.len(), SeqCst);
        }
        // Whoever keeps free slabs and slack gives them back at its next morsel boundary.
        pool.root().pressure.fetch_add(1, SeqCst);
        fence(SeqCst);
        queue.serve();
        Ok(Self { waiter })
    }

    /// The bytes, once granted, and the proof that their holder counts; `None` while the ticket waits.
    pub(crate) fn take(&self) -> Option<(Reservation, Tenant)> {
        let mut state = self.waiter.state.lock();
        match std::mem::replace(&mut *state, WaiterState::Taken) {
            WaiterState::Granted(reservation, tenant) => Some((reservation, tenant)),
            waiting @ WaiterState::Waiting(_) => {
                *state = waiting;
                None
            }
            WaiterState::Taken => None,
        }
    }

    /// Whether it is the oldest, and nobody is left who gives bytes back by himself: what is missing is held by things
    /// at rest, such as results that their reader keeps.
    pub(crate) fn is_stalled(&self) -> bool {
        let queue = &self.waiter.pool.root().queue;
        let tickets = queue.tickets.lock();
        tickets.front().is_some_and(|t| Arc::ptr_eq(t, &self.waiter)) && queue.tenants.load(SeqCst) == 0
    }
}

impl Drop for MemoryTicket {
    fn drop(&mut self) {
        let queue = &self.waiter.pool.root().queue;
        {
            let mut tickets = queue.tickets.lock();
            tickets.retain(|t| !Arc::ptr_eq(t, &self.waiter));
            queue.waiting.store(tickets.len(), SeqCst);
        }
        // Whatever was granted returns here, outside the queue's lock, because returning bytes takes that lock.
        let granted = self.take();
        drop(granted);
        queue.serve();
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        let tickets = Mutex::new(VecDeque::new());
        Self { waiting: AtomicUsize::new(0), tenants: AtomicUsize::new(0), tickets }
    }

    pub(super) fn is_waited(&self) -> bool {
        self.waiting.load(SeqCst) != 0
    }

    /// Grants free bytes to the oldest tickets, in order, as far as they go; wakes the next if it is stalled.
    pub(super) fn serve(&self) {
        while self.is_waited() {
            let mut tickets = self.tickets.lock();
            let Some(oldest) = tickets.front() else { return };
            let mut state = oldest.state.lock();
            if !oldest.pool.add(oldest.bytes) {
                let stalled = match &*state {
                    WaiterState::Waiting(waker) if self.tenants.load(SeqCst) == 0 => Some(waker.clone()),
                    WaiterState::Waiting(_) | WaiterState::Granted(..) | WaiterState::Taken => None,
                };
                drop(state);
                drop(tickets);
                if let Some(waker) = stalled {
                    waker.wake();
                }
                return;
            }
            let granted = Reservation::from_granted(&oldest.pool, oldest.bytes);
            let tenant = Tenant::counted(oldest.pool.root());
            let before = std::mem::replace(&mut *state, WaiterState::Granted(granted, tenant));
            drop(state);
            tickets.pop_front();
            self.waiting.store(tickets.len(), SeqCst);
            drop(tickets);
            if let WaiterState::Waiting(waker) = before {
                waker.wake();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize as Count;
    use std::task::Wake;

    struct Counter(Count);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_oldest_ticket_is_served_first_and_newcomers_queue_behind() {
        let pool = Pool::new("p", 100);
        let mut held = Reservation::empty(&pool);
        held.try_grow(100).expect("fits");
        let _at_work = Tenant::of(&pool);
        let counter = Arc::new(Counter(Count::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let first = MemoryTicket::new(&pool, 60, &waker).expect("possible");
        let second = MemoryTicket::new(&pool, 10, &waker).expect("possible");
        held.shrink(30);
        assert!(first.take().is_none() && second.take().is_none());
        assert!(pool.try_grow(1).is_err(), "a newcomer must not overtake");
        assert!(pool.try_grow(0).is_ok(), "nothing is always to be had");
        held.shrink(30);
        assert_eq!(counter.0.load(SeqCst), 1);
        assert_eq!(first.take().expect("granted").0.bytes(), 60);
        assert!(second.take().is_some(), "the first one's bytes came back and served the second");
        drop(held);
        assert_eq!(pool.granted_bytes(), 0);
    }

    #[test]
    fn a_dropped_ticket_does_not_block_the_next() {
        let pool = Pool::new("p", 100);
        let mut held = Reservation::empty(&pool);
        held.try_grow(90).expect("fits");
        let first = MemoryTicket::new(&pool, 60, Waker::noop()).expect("possible");
        let second = MemoryTicket::new(&pool, 10, Waker::noop()).expect("possible");
        assert!(second.take().is_none());
        drop(first);
        assert!(second.take().is_some());
    }

    #[test]
    fn a_ticket_that_could_never_be_served_is_refused_at_once() {
        let pool = Pool::new("engine", 100).child("query", 50);
        assert_eq!(MemoryTicket::new(&pool, 51, Waker::noop()).err(), Some(Denied { bytes: 51 }));
        assert!(pool.try_grow(50).is_ok(), "nobody waits");
        pool.shrink(50);
    }

    #[test]
    fn a_ticket_is_stalled_once_nobody_is_left_who_gives_bytes_back() {
        let pool = Pool::new("p", 100);
        let mut kept = Reservation::empty(&pool);
        kept.try_grow(60).expect("fits");
        let tenants = [Tenant::of(&pool), Tenant::of(&pool)];
        let counter = Arc::new(Counter(Count::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let first = MemoryTicket::new(&pool, 60, &waker).expect("possible");
        let second = MemoryTicket::new(&pool, 30, &waker).expect("possible");
        assert!(!first.is_stalled() && !second.is_stalled());
        drop(tenants);
        assert_eq!(counter.0.load(SeqCst), 1, "the oldest is told");
        assert!(first.is_stalled() && !second.is_stalled());
        drop(first);
        let granted = second.take().expect("30 are free");
        let third = MemoryTicket::new(&pool, 30, &waker).expect("possible");
        assert!(!third.is_stalled(), "the second works");
        drop(granted);
        assert!(third.take().is_some());
        drop(third);
        drop(kept);
        assert_eq!(pool.granted_bytes(), 0);
    }
}
