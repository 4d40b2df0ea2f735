//! Sleeping workers: an eventcount made of one word, a list and the threads' own park tokens.
//!
//! Owns: [`Sleepers`] (who sleeps, and whether the scheduler has stopped), [`Sleeper`] (one worker's bed).
//!
//! Invariants:
//! 1. `word` is `STOPPED` plus `SLEEPER` times the length of the list; the list changes only under its lock.
//! 2. A sleeper is never both on the list and signalled: whoever takes it off the list signals it under the same
//!    lock, except the sleeper itself in [`Sleepers::cancel`].
//! 3. A worker looks for work between [`Sleepers::register`] and [`Sleepers::wait`]; a producer publishes work before
//!    [`Sleepers::announce`]. Both sides put a `SeqCst` fence between their write and their read, so at least one
//!    sees the other (README.md, "No lost wake").
//! 4. `STOPPED` is final.
//!
//! Must not know: what is worth waking up for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, fence, thread};

/// Set in the word once the scheduler stops.
const STOPPED: usize = 1;
/// One registered sleeper in the word.
const SLEEPER: usize = 2;

/// Where one worker sleeps. Belongs to the thread that made it.
#[derive(Debug)]
pub(super) struct Sleeper {
    signalled: AtomicBool,
    thread: thread::Thread,
}

impl Sleeper {
    /// A bed for the calling thread.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { signalled: AtomicBool::new(false), thread: thread::current() })
    }

    /// Under the list's lock only: were it set after the lock is let go, a signal of the last sleep could end the
    /// next one and leave its entry on the list. The unpark may come late; a stray token is harmless.
    fn signal(&self) {
        // Release: what the announcer saw (the work) is seen by the worker it wakes.
        self.signalled.store(true, Ordering::Release);
    }
}

/// What an announcement met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// The workers live; one was woken if any slept.
    Live,
    /// The workers are gone or going: nobody may ever look at what was announced.
    Stopped,
}

/// The workers that have nothing to do.
#[derive(Debug)]
pub(super) struct Sleepers {
    word: AtomicUsize,
    /// The one that slept last is woken first: its cache is the warmest.
    list: Mutex<Vec<Arc<Sleeper>>>,
}

impl Sleepers {
    pub(super) fn new() -> Self {
        Self { word: AtomicUsize::new(0), list: Mutex::new(Vec::new()) }
    }

    /// Announces work published before this call: wakes one sleeper, if there is one. No lock unless one sleeps.
    pub(super) fn announce(&self) -> Announced {
        fence(Ordering::SeqCst);
        let word = self.word.load(Ordering::Relaxed);
        if word & STOPPED != 0 {
            return Announced::Stopped;
        }
        if word >= SLEEPER {
            let sleeper = {
                let mut list = self.list.lock();
                let sleeper = list.pop();
                if let Some(sleeper) = &sleeper {
                    self.word.fetch_sub(SLEEPER, Ordering::Relaxed);
                    sleeper.signal();
                }
                sleeper
            };
            if let Some(sleeper) = sleeper {
                sleeper.thread.unpark();
            }
        }
        Announced::Live
    }

    /// Stops the scheduler: wakes everybody, and every later `register` finds [`Self::is_stopped`].
    pub(super) fn stop(&self) {
        self.word.fetch_or(STOPPED, Ordering::AcqRel);
        // Pairs with the fence in `announce`: a producer that missed the flag has published before this point, so
        // that the stopping thread finds its work and drops it.
        fence(Ordering::SeqCst);
        let sleepers = {
            let mut list = self.list.lock();
            self.word.fetch_sub(SLEEPER * list.len(), Ordering::Relaxed);
            list.iter().for_each(|sleeper| sleeper.signal());
            std::mem::take(&mut *list)
        };
        for sleeper in sleepers {
            sleeper.thread.unpark();
        }
    }

    /// Whether [`Self::stop`] was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.word.load(Ordering::Acquire) & STOPPED != 0
    }

    /// First half of falling asleep. The caller looks for work once more, then calls `cancel` or `wait`.
    pub(super) fn register(&self, sleeper: &Arc<Sleeper>) {
        sleeper.signalled.store(false, Ordering::Relaxed);
        {
            let mut list = self.list.lock();
            debug_assert!(!list.iter().any(|s| Arc::ptr_eq(s, sleeper)), "a worker fell asleep twice");
            list.push(Arc::clone(sleeper));
            self.word.fetch_add(SLEEPER, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Takes a registration back. `false`: it was signalled in between, and the signal may have meant other work than
    /// what the caller found, so it must be passed on.
    pub(super) fn cancel(&self, sleeper: &Arc<Sleeper>) -> bool {
        let mut list = self.list.lock();
        let Some(at) = list.iter().position(|s| Arc::ptr_eq(s, sleeper)) else { return false };
        list.remove(at);
        self.word.fetch_sub(SLEEPER, Ordering::Relaxed);
        true
    }

    /// Whether nobody is registered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.list.lock().is_empty() && self.word.load(Ordering::Relaxed) & !STOPPED == 0
    }

    /// Second half of falling asleep: returns true once signalled, or false once it is `until`. Then the sleeper is
    /// still registered, unless it is signalled at this moment, and must be taken back.
    pub(super) fn wait(&self, sleeper: &Sleeper, until: Option<Instant>) -> bool {
        // A token left over from somebody else's use of park ends one round, not the sleep.
        while !sleeper.signalled.load(Ordering::Acquire) {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return false,
                #[cfg(not(loom))]
                Some(left) => thread::park_timeout(left),
                // In a model nothing is awaited by the clock.
                #[cfg(loom)]
                Some(_) => thread::park(),
            }
        }
        true
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_takes_one_sleeper_and_leaves_the_rest() {
        let sleepers = Sleepers::new();
        let (first, last) = (Sleeper::new(), Sleeper::new());
        sleepers.register(&first);
        sleepers.register(&last);
        assert_eq!(sleepers.announce(), Announced::Live);
        assert!(!sleepers.cancel(&last), "the one that slept last was signalled");
        assert!(sleepers.wait(&last, None));
        assert!(!sleepers.wait(&first, Some(Instant::now())), "nobody woke it");
        assert!(sleepers.cancel(&first), "the other still slept");
        assert!(sleepers.is_empty());
        assert_eq!(sleepers.announce(), Announced::Live);
    }

    #[test]
    fn stop_wakes_everybody_and_is_final() {
        let sleepers = Sleepers::new();
        let beds = [Sleeper::new(), Sleeper::new()];
        beds.iter().for_each(|bed| sleepers.register(bed));
        sleepers.stop();
        assert!(beds.iter().all(|bed| sleepers.wait(bed, None)));
        assert!(sleepers.is_stopped());
        assert_eq!(sleepers.announce(), Announced::Stopped);
        assert_eq!(sleepers.word.load(Ordering::Relaxed), STOPPED);
    }
}
