//! Wakes at a time: what a task that parked until some moment is woken by if nobody else does.
//!
//! Owns: [`Alarms`].
//!
//! Invariants:
//! 1. The worker that sets an alarm is awake. It and every other worker ring what is due after each slice and before
//!    they look for work, and none sleeps past the next alarm that it knows of. So no alarm waits much longer than a
//!    slice, and no thread is needed for them.
//! 2. An alarm wakes a task perhaps in vain: it may have been woken since.
//!
//! Must not know: what a task waits for.

#[cfg(not(loom))]
pub(super) use timed::Alarms;
#[cfg(loom)]
pub(super) use untimed::Alarms;

#[cfg(not(loom))]
mod timed {
    use crate::sync::{AtomicBool, Mutex, Ordering};
    use std::collections::BTreeMap;
    use std::task::Waker;
    use std::time::Instant;

    /// The tasks that are to be woken, by when.
    #[derive(Debug)]
    pub(in crate::sched) struct Alarms {
        /// Whether `list` has any; changes under its lock. A stale value is harmless: whoever sets an alarm looks at it
        /// himself before he sleeps.
        has_some: AtomicBool,
        list: Mutex<List>,
    }

    #[derive(Debug, Default)]
    struct List {
        /// The number tells alarms of the same moment apart.
        alarms: BTreeMap<(Instant, u64), Waker>,
        number: u64,
    }

    impl Alarms {
        pub(in crate::sched) fn new() -> Self {
            Self { has_some: AtomicBool::new(false), list: Mutex::new(List::default()) }
        }

        /// Calls `waker` at `at` or soon after.
        pub(in crate::sched) fn set(&self, at: Instant, waker: Waker) {
            let mut list = self.list.lock();
            list.number += 1;
            let number = list.number;
            list.alarms.insert((at, number), waker);
            self.has_some.store(true, Ordering::Relaxed);
        }

        /// Wakes whoever is due. A load while there is no alarm.
        pub(in crate::sched) fn ring(&self) {
            if !self.has_some.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            while let Some(waker) = self.take_due(now) {
                waker.wake();
            }
        }

        fn take_due(&self, now: Instant) -> Option<Waker> {
            let mut list = self.list.lock();
            let due = list.alarms.first_entry().filter(|first| first.key().0 <= now)?.remove();
            self.has_some.store(!list.alarms.is_empty(), Ordering::Relaxed);
            Some(due)
        }

        /// When the first alarm is due.
        pub(in crate::sched) fn next_at(&self) -> Option<Instant> {
            if !self.has_some.load(Ordering::Relaxed) {
                return None;
            }
            self.list.lock().alarms.first_key_value().map(|((at, _), _)| *at)
        }

        /// Forgets all alarms: whoever they would have woken is over.
        pub(in crate::sched) fn clear(&self) {
            let mut list = self.list.lock();
            self.has_some.store(false, Ordering::Relaxed);
            let alarms = std::mem::take(&mut list.alarms);
            drop(list);
            drop(alarms);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        use std::task::Wake;
        use std::time::Duration;

        #[derive(Default)]
        struct Counter(AtomicUsize);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        #[test]
        fn what_is_due_rings_and_the_rest_stays() {
            let alarms = Alarms::new();
            let (due, later) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
            let now = Instant::now();
            let in_an_hour = now + Duration::from_secs(3600);
            assert_eq!(alarms.next_at(), None);
            alarms.set(in_an_hour, Waker::from(Arc::clone(&later)));
            alarms.set(now, Waker::from(Arc::clone(&due)));
            alarms.set(now, Waker::from(Arc::clone(&due)));
            assert_eq!(alarms.next_at(), Some(now));
            alarms.ring();
            alarms.ring();
            assert_eq!((due.0.load(Ordering::SeqCst), later.0.load(Ordering::SeqCst)), (2, 0));
            assert_eq!(alarms.next_at(), Some(in_an_hour));
        }
    }
}

/// A model must not depend on time: no alarm ever rings.
#[cfg(loom)]
mod untimed {
    use std::task::Waker;
    use std::time::Instant;

    #[derive(Debug)]
    pub(in crate::sched) struct Alarms;

    impl Alarms {
        pub(in crate::sched) fn new() -> Self {
            Self
        }

        pub(in crate::sched) fn set(&self, _at: Instant, _waker: Waker) {}

        pub(in crate::sched) fn ring(&self) {}

        pub(in crate::sched) fn next_at(&self) -> Option<Instant> {
            None
        }

        pub(in crate::sched) fn clear(&self) {}
    }
}
