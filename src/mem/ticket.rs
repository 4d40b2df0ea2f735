//! Waiting for bytes, first come first served, without a lost wake.
//!
//! Owns: [`MemoryTicket`] and the queue of a pool tree.
//!
//! Invariants:
//! 1. A queued ticket is served by whoever frees bytes: the bytes are granted *to the ticket* before its waker is
//!    called, so nobody can take them in between.
//! 2. No lost waiter: a ticket raises `waiting` before it tries once more; `shrink` lowers `granted` before it reads
//!    `waiting`. A fence stands between the two on both sides, so either the try sees the freed bytes or the freeing
//!    thread sees the ticket. A refused grant that is rolled back counts as freed.
//! 3. Strictly first in, first out: only the oldest ticket is ever served.
//! 4. A ticket can be served: more than its pool may ever hold is refused at once.

use super::pool::{Denied, Pool};
use super::reservation::Reservation;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering::SeqCst, fence};
use std::collections::VecDeque;
use std::task::Waker;

#[derive(Debug)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    tickets: Mutex<VecDeque<Arc<Waiter>>>,
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
    Granted(Reservation),
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

    /// The bytes, once granted; `None` while the ticket waits.
    pub(crate) fn take(&self) -> Option<Reservation> {
        let mut state = self.waiter.state.lock();
        match std::mem::replace(&mut *state, WaiterState::Taken) {
            WaiterState::Granted(reservation) => Some(reservation),
            waiting @ WaiterState::Waiting(_) => {
                *state = waiting;
                None
            }
            WaiterState::Taken => None,
        }
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
        Self { waiting: AtomicUsize::new(0), tickets: Mutex::new(VecDeque::new()) }
    }

    pub(super) fn is_waited(&self) -> bool {
        self.waiting.load(SeqCst) != 0
    }

    /// Grants free bytes to the oldest tickets, in order, as far as they go.
    pub(super) fn serve(&self) {
        while self.is_waited() {
            let waker = {
                let mut tickets = self.tickets.lock();
                let Some(oldest) = tickets.front() else { return };
                if !oldest.pool.add(oldest.bytes) {
                    return;
                }
                let granted = Reservation::from_granted(&oldest.pool, oldest.bytes);
                let before = std::mem::replace(&mut *oldest.state.lock(), WaiterState::Granted(granted));
                tickets.pop_front();
                self.waiting.store(tickets.len(), SeqCst);
                before
            };
            if let WaiterState::Waiting(waker) = waker {
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
        assert_eq!(first.take().expect("granted").bytes(), 60);
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
}
