//! Waiting for bytes that others hold and nobody has promised.
//!
//! Owns: [`Patience`].
//!
//! Invariants:
//! 1. As long as anybody of the pool tree moves on, which ends some time and then gives bytes back, patience lasts; who
//!    waits for those who wait himself gives up after [`LONGEST_STILL`].
//! 2. It lasts, too, while a client has not taken rows of the same query that are ready: how slow he is is no error of
//!    the budget. Rows of other queries do not count, for the same client may be waiting for this one.
//! 3. Moving on costs a load of a shared flag while nobody waits.

use super::pool::Pool;
use crate::sync::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long nobody may have moved on: more than a call to an operator takes, on a machine with other things to do.
const LONGEST_STILL: Duration = Duration::from_secs(2);

/// Somebody whose request was refused, and who tries again. The counters publish no data: relaxed order is enough.
#[derive(Debug)]
pub(crate) struct Patience {
    pool: Pool,
    seen: usize,
    since: Instant,
}

impl Patience {
    /// Begins now, with what was refused by `pool`.
    pub(crate) fn new(pool: &Pool) -> Self {
        let root = pool.root();
        root.impatient.fetch_add(1, Relaxed);
        let seen = root.progress.load(Relaxed);
        Self { pool: pool.clone(), seen, since: Instant::now() }
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
        self.pool.root().impatient.fetch_sub(1, Relaxed);
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
}
