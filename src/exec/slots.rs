//! How many queries run at a time: places, given first come first served.
//!
//! Owns: [`Slots`], [`Slot`] (a place taken), [`SlotTicket`] (a place waited for).
//!
//! Invariants:
//! 1. At most as many slots are out as there were at the start.
//! 2. First in, first out: nobody gets a place while somebody who came earlier waits.
//! 3. A place is given *to the ticket* before its waker is called, so nobody can take it in between; a ticket that is
//!    dropped leaves the queue, or passes on the place it was given.
//!
//! Must not know: what a query is.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Waker;

/// Places for queries. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Slots {
    state: Arc<Mutex<State>>,
}

struct State {
    all: usize,
    free: usize,
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    waker: Waker,
    /// Changes once, under the lock of the slots.
    is_granted: AtomicBool,
}

/// A place; free for the next once dropped.
pub(crate) struct Slot(Slots);

/// A place in the queue.
pub(crate) struct SlotTicket {
    slots: Slots,
    waiter: Arc<Waiter>,
    is_taken: bool,
}

impl Slots {
    /// `all` places.
    pub(crate) fn new(all: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { all, free: all, waiting: VecDeque::new() })) }
    }

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Slot> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Slot(self.clone()))
    }

    /// Queues for a place; `waker` is called once it is there, perhaps before this returns.
    pub(crate) fn wait(&self, waker: Waker) -> SlotTicket {
        let waiter = Arc::new(Waiter { waker, is_granted: AtomicBool::new(false) });
        let mut state = self.state.lock();
        match state.free.checked_sub(1) {
            Some(free) => {
                state.free = free;
                waiter.is_granted.store(true, SeqCst);
            }
            None => state.waiting.push_back(Arc::clone(&waiter)),
        }
        drop(state);
        if waiter.is_granted.load(SeqCst) {
            waiter.waker.wake_by_ref();
        }
        SlotTicket { slots: self.clone(), waiter, is_taken: false }
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        let state = self.state.lock();
        state.all - state.free
    }

    /// Tickets without a place.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// A place is free: the oldest ticket gets it.
    fn give_back(&self) {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        match &next {
            Some(waiter) => waiter.is_granted.store(true, SeqCst),
            None => state.free += 1,
        }
        // Not under the lock: whoever is woken may run at once.
        drop(state);
        if let Some(waiter) = next {
            waiter.waker.wake_by_ref();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl SlotTicket {
    /// The place, once it is there; once.
    pub(crate) fn take(&mut self) -> Option<Slot> {
        if self.is_taken || !self.waiter.is_granted.load(SeqCst) {
            return None;
        }
        self.is_taken = true;
        Some(Slot(self.slots.clone()))
    }
}

impl Drop for SlotTicket {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let mut state = self.slots.state.lock();
        state.waiting.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        drop(state);
        if self.waiter.is_granted.load(SeqCst) {
            self.slots.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn waker() -> (Arc<Counter>, Waker) {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        (Arc::clone(&counter), Waker::from(counter))
    }

    #[test]
    fn the_oldest_ticket_gets_the_next_place_and_newcomers_none() {
        let slots = Slots::new(1);
        let slot = slots.try_take().expect("free");
        let ((first_woken, first), (second_woken, second)) = (waker(), waker());
        let (mut first, mut second) = (slots.wait(first), slots.wait(second));
        assert!(first.take().is_none() && second.take().is_none());
        assert_eq!((slots.taken(), slots.waiting()), (1, 2));
        drop(slot);
        assert!(slots.try_take().is_none(), "the place is the first ticket's");
        assert_eq!((first_woken.0.load(SeqCst), second_woken.0.load(SeqCst)), (1, 0));
        let slot = first.take().expect("granted");
        assert!(first.take().is_none(), "once");
        drop(first);
        drop(slot);
        drop(second.take().expect("granted"));
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }

    #[test]
    fn a_dropped_ticket_leaves_the_queue_or_passes_its_place_on() {
        let slots = Slots::new(1);
        let slot = slots.try_take().expect("free");
        let (waiting, granted) = (slots.wait(waker().1), slots.wait(waker().1));
        let mut last = slots.wait(waker().1);
        drop(waiting);
        drop(slot);
        drop(granted);
        drop(last.take().expect("it is its turn"));
        drop(last);
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
        let mut late = slots.wait(waker().1);
        assert!(late.take().is_some(), "nobody is before it");
    }

    #[test]
    fn places_are_never_more_than_there_are() {
        let slots = Slots::new(3);
        let running = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (slots, running) = (&slots, &running);
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut ticket = slots.wait(Waker::noop().clone());
                        if (round + thread) % 7 == 0 {
                            continue;
                        }
                        let slot = loop {
                            match ticket.take() {
                                Some(slot) => break slot,
                                None => std::thread::yield_now(),
                            }
                        };
                        assert!(running.fetch_add(1, SeqCst) < 3);
                        running.fetch_sub(1, SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }
}
