//! The run queue of a group: many producers (wakers), many consumers (workers), first in first out.
//!
//! Owns: [`RunQueue`].
//!
//! Invariants:
//! 1. What was pushed is popped once.
//! 2. `push` followed by a `SeqCst` fence, and a `SeqCst` fence followed by `is_empty`, are ordered: if the fence of
//!    the push comes first, `is_empty` answers `false` until somebody pops.
//!
//! Must not know: what its items mean.

#[cfg(not(loom))]
use crossbeam::deque::{Injector, Steal};

/// A lock-free queue: crossbeam's `Injector`.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct RunQueue<T>(Injector<T>);

#[cfg(not(loom))]
impl<T> RunQueue<T> {
    pub(super) fn new() -> Self {
        Self(Injector::new())
    }

    pub(super) fn push(&self, item: T) {
        self.0.push(item);
    }

    /// The oldest item; `None` only if the queue was empty at some moment of the call.
    pub(super) fn pop(&self) -> Option<T> {
        loop {
            match self.0.steal() {
                Steal::Success(item) => return Some(item),
                Steal::Empty => return None,
                // Another worker took the one we saw: somebody made progress.
                Steal::Retry => {}
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Stands in for crossbeam's `Injector` in loom models, because crossbeam's atomics are not loom's: the models prove
/// what is built on the queue, not the queue itself.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct RunQueue<T>(crate::sync::Mutex<std::collections::VecDeque<T>>);

#[cfg(loom)]
impl<T> RunQueue<T> {
    pub(super) fn new() -> Self {
        Self(crate::sync::Mutex::new(std::collections::VecDeque::new()))
    }

    pub(super) fn push(&self, item: T) {
        self.0.lock().push_back(item);
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.0.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}
