//! What is left to join once the probe side has ended: pairs of partitions, for lanes to take.
//!
//! Invariants:
//! 1. A row is in one item, of which one lane takes care; what it cannot hold it leaves as smaller items.
//! 2. A lane is active while it holds memory for build rows. A lane that is refused memory waits only if another is
//!    active, and holds nothing then: the last active lane never waits, and has all the memory there is.
//! 3. Whoever stops being active wakes those who wait.
//! 4. A lane that was refused memory and finds no other active is the sole one: nobody takes an item until it shares again
//!    or leaves. So a refusal it gets then is that of a pair too large for all the memory, and not of a race.

use super::load::Part;
use super::split::Split;
use crate::exec::{Wait, WaitReason};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::task::Waker;

/// A partition of both sides.
pub(super) struct Pair {
    pub(super) build: Part,
    pub(super) probe: Part,
    /// What tells it apart from others.
    pub(super) split: Split,
    /// Whether splitting it further would not make it much smaller.
    pub(super) is_skewed: bool,
    /// Whether `build` are rows of the planned probe side, and the other way around.
    pub(super) is_reversed: bool,
}

impl Pair {
    /// The same rows with their roles reversed. Nothing is known of the skew of what is the build side now.
    pub(super) fn reversed(self) -> Self {
        let Self { build, probe, split, is_skewed: _, is_reversed } = self;
        Self { build: probe, probe: build, split, is_skewed: false, is_reversed: !is_reversed }
    }
}

/// A piece of work.
pub(super) enum Item {
    Pair(Pair),
    /// Build rows that come out as they are: no key finds them.
    Unkeyed(Part),
}

/// Items and lanes.
pub(super) struct Queue {
    state: Mutex<State>,
}

struct State {
    items: VecDeque<Item>,
    active: usize,
    /// Times that a lane became active.
    taken: u64,
    /// Whether the one active lane wants no other.
    is_sole: bool,
    waiting: Vec<Waker>,
}

/// A moment in which a lane was the only active one.
#[derive(Clone, Copy)]
pub(super) struct Alone(u64);

/// What a lane is to do.
pub(super) enum Next {
    Item(Item),
    /// Others may leave something.
    Wait(Wait),
    Over,
}

impl Queue {
    /// Nothing to do; `lanes` lanes are active.
    pub(super) fn new(lanes: usize) -> Self {
        let state =
            State { items: VecDeque::new(), active: lanes, taken: 0, is_sole: false, waiting: Vec::new() };
        Self { state: Mutex::new(state) }
    }

    /// Adds items.
    pub(super) fn extend(&self, items: impl Iterator<Item = Item>) {
        self.state.lock().items.extend(items);
    }

    /// The next item; the lane is active with it until it [leaves](Self::leave) or [requeues](Self::requeue) it.
    pub(super) fn take(&self, waker: &Waker) -> Next {
        let mut state = self.state.lock();
        if state.is_sole {
            return Next::Wait(state.wait(waker));
        }
        if let Some(item) = state.items.pop_front() {
            state.active += 1;
            state.taken += 1;
            return Next::Item(item);
        }
        if state.active == 0 {
            return Next::Over;
        }
        Next::Wait(state.wait(waker))
    }

    /// The lane holds nothing any more.
    pub(super) fn leave(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.active -= 1;
            state.is_sole = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(Waker::wake_by_ref);
    }

    /// This moment, if no other lane is active.
    pub(super) fn alone(&self) -> Option<Alone> {
        let state = self.state.lock();
        (state.active == 1).then_some(Alone(state.taken))
    }

    /// Makes the lane the sole one if no other was active since then; says whether it is.
    pub(super) fn stay_alone(&self, since: Alone) -> bool {
        let mut state = self.state.lock();
        state.is_sole = state.active == 1 && state.taken == since.0;
        state.is_sole
    }

    /// The lane, if it was the sole one, is so no longer.
    pub(super) fn share(&self) {
        let waiting = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.is_sole) {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(Waker::wake_by_ref);
    }

    /// Puts `pair` back until another lane has left; if there is none, gives it back to what is the sole lane now.
    pub(super) fn requeue(&self, pair: Pair, waker: &Waker) -> Result<Wait, Box<Pair>> {
        let mut state = self.state.lock();
        if state.active <= 1 {
            state.is_sole = true;
            return Err(Box::new(pair));
        }
        state.active -= 1;
        state.items.push_front(Item::Pair(pair));
        Ok(state.wait(waker))
    }
}

impl State {
    fn wait(&mut self, waker: &Waker) -> Wait {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        Wait::registered(WaitReason::Memory, ())
    }
}
