//! Waiting for bytes that others hold and nobody has promised.
//!
//! Owns: [`Patience`].
//!
//! Invariants:
//! 1. As long as anybody of the pool tree moves on, which ends some time and then gives bytes back, patience lasts; who
//!    waits for those who wait himself gives up after [`LONGEST_STILL`].
//! 2. It lasts, too, while a client has not taken rows of the same query that are ready: how slow he is is no error of
//!    the budget. Rows of other queries do not count, for the same client may be waiting for this one.
//! 3. Moving on costs a load of a shared flag while nobody waits, and so does giving bytes back.
//! 4. Who listens is woken, the one that has waited longest first, once his pool could grant what he was refused. It is not
//!    kept for him: whoever moves on meanwhile may free more. He looks again by himself from time to time, so it does no
//!    harm if a wake comes late.

use super::pool::Pool;
use crate::sync::{AtomicUsize, Mutex, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long nobody may have moved on: more than a call to an operator takes, on a machine with other things to do.
const LONGEST_STILL: Duration = Duration::from_secs(2);

/// Somebody whose request was refused, and who tries again. The counters publish no data: relaxed order is enough.
#[derive(Debug)]
pub(crate) struct Patience {
    pool: Pool,
    /// Those who have waited longer have lower ones.
    number: usize,
    seen: usize,
    since: Instant,
}

/// Those who want to know when bytes are given back.
#[derive(Debug)]
pub(super) struct Bell {
    listening: AtomicUsize,
    /// By number.
    listeners: Mutex<Vec<Listener>>,
    next_number: AtomicUsize,
}

#[derive(Debug)]
struct Listener {
    number: usize,
    pool: Pool,
    bytes: usize,
    waker: Waker,
}

impl Bell {
    pub(super) fn new() -> Self {
        let listeners = Mutex::new(Vec::new());
        Self { listening: AtomicUsize::new(0), listeners, next_number: AtomicUsize::new(0) }
    }

    /// Bytes were given back.
    pub(super) fn ring(&self) {
        if self.listening.load(Relaxed) == 0 {
            return;
        }
        let mut listeners = self.listeners.lock();
        let told: Vec<_> = listeners.extract_if(.., |l| l.pool.available_bytes() >= l.bytes).collect();
        self.listening.store(listeners.len(), Relaxed);
        drop(listeners);
        told.into_iter().for_each(|listener| listener.waker.wake());
    }

    fn listen(&self, listener: Listener) {
        let mut listeners = self.listeners.lock();
        let at = listeners.partition_point(|l| l.number < listener.number);
        match listeners.get_mut(at) {
            Some(own) if own.number == listener.number => *own = listener,
            _ => listeners.insert(at, listener),
        }
        self.listening.store(listeners.len(), Relaxed);
    }

    fn forget(&self, number: usize) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.number != number);
        self.listening.store(listeners.len(), Relaxed);
    }
}

impl Patience {
    /// Begins now, with what was refused by `pool`.
    pub(crate) fn new(pool: &Pool) -> Self {
        let root = pool.root();
        root.impatient.fetch_add(1, Relaxed);
        let seen = root.progress.load(Relaxed);
        let number = root.bell.next_number.fetch_add(1, Relaxed);
        Self { pool: pool.clone(), number, seen, since: Instant::now() }
    }

    /// Has `waker` called once `bytes` could be granted, perhaps in vain. Where they could be now, something else is in the
    /// way, as a ticket or that more is wanted than the last piece: then once there is more than now.
    pub(crate) fn listen(&self, bytes: usize, waker: &Waker) {
        let (pool, waker) = (self.pool.clone(), waker.clone());
        let bytes = pool.wanted_bytes(bytes).max(pool.available_bytes().saturating_add(1));
        self.pool.root().bell.listen(Listener { number: self.number, pool, bytes, waker });
    }

    /// Whether nobody has moved on for so long that there is nothing to wait for.
    pub(crate) fn is_over(&mut self) -> bool {
        let progress = self.pool.root().progress.load(Relaxed);
        if progress != self.seen || self.pool.has_untaken() {
            (self.seen, self.since) = (progress, Instant::now());
        }
        self.since.elapsed() >= LONGEST_STILL
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        let root = self.pool.root();
        root.impatient.fetch_sub(1, Relaxed);
        root.bell.forget(self.number);
    }
}

impl Pool {
    /// Somebody who works with memory of this pool has done a piece of it, other than to ask for memory in vain.
    pub(crate) fn note_progress(&self) {
        let root = self.root();
        if root.impatient.load(Relaxed) > 0 {
            root.progress.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_while_others_move_on() {
        let pool = Pool::new("p", 100);
        let (mut waiting, mut other) = (Patience::new(&pool), Patience::new(&pool.child("q", 50)));
        let start = Instant::now();
        while start.elapsed() < LONGEST_STILL * 5 / 4 {
            pool.note_progress();
            assert!(!waiting.is_over());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!other.is_over(), "it has not looked before");
        while !waiting.is_over() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Less a sleep, since which nobody has moved on.
        assert!(start.elapsed() >= LONGEST_STILL * 17 / 8);
        pool.set_untaken(true);
        assert!(!waiting.is_over(), "a client is awaited");
        drop((waiting, other));
        pool.note_progress();
        let progress = pool.root().progress.load(Relaxed);
        pool.note_progress();
        assert_eq!(pool.root().progress.load(Relaxed), progress, "nobody waits");
    }

    #[test]
    fn who_listens_is_told_of_enough_bytes_and_the_first_first() {
        struct Told(usize, std::sync::Arc<Mutex<Vec<usize>>>);
        impl std::task::Wake for Told {
            fn wake(self: std::sync::Arc<Self>) {
                self.1.lock().push(self.0);
            }
        }
        let told = std::sync::Arc::new(Mutex::new(Vec::new()));
        let waker = |number| Waker::from(std::sync::Arc::new(Told(number, std::sync::Arc::clone(&told))));
        let pool = Pool::new("p", 100);
        pool.try_grow(100).expect("fits");
        let waiting: Vec<_> = (0..3).map(|_| Patience::new(&pool)).collect();
        waiting[2].listen(10, &waker(2));
        waiting[1].listen(60, &waker(1));
        waiting[0].listen(10, &waker(7));
        waiting[0].listen(10, &waker(0));
        pool.shrink(9);
        assert!(told.lock().is_empty());
        pool.shrink(1);
        assert_eq!(*told.lock(), [0, 2], "by age, each once");
        pool.shrink(50);
        assert_eq!(*told.lock(), [0, 2, 1]);
        waiting[0].listen(10, &waker(5));
        assert_eq!(told.lock().len(), 3, "what there was did not help");
        pool.shrink(1);
        assert_eq!(*told.lock(), [0, 2, 1, 5]);
        waiting[1].listen(70, &waker(8));
        drop(waiting);
        pool.shrink(39);
        assert_eq!(told.lock().len(), 4, "who is gone is not told");
    }
}
