//! Ctrl-C: cancels the query that runs, or tells long work to stop.
//!
//! Owns: the signal handler and who is told.
//!
//! Invariants:
//! 1. The first signal cancels; the second ends the process with code 130, as a shell expects.
//! 2. A query watched after the signal came is cancelled at once: none slips through between two statements.

use anyhow::{Context, bail};
use gristmill::QueryHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// Exit code of a process ended by SIGINT.
const EXIT_SIGINT: i32 = 130;

/// Whether the user wants us to stop, and the query to cancel then. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    running: Mutex<Option<QueryHandle>>,
}

/// While it lives, a signal cancels the watched query.
pub struct Watch<'a>(&'a Shared);

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. Call once per process.
    pub fn install() -> anyhow::Result<Self> {
        let this = Self::default();
        let shared = Arc::clone(&this.0);
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install the Ctrl-C handler")?;
        let wait = move || signals.forever().for_each(|_| shared.signal());
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(wait)
            .context("cannot start the Ctrl-C thread")?;
        Ok(this)
    }

    /// An error once a signal has come. Long work calls it between steps.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.requested.load(SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Cancels the query of `handle` on a signal, until the returned guard is dropped.
    pub fn watch(&self, handle: QueryHandle) -> Watch<'_> {
        let mut running = self.0.running();
        if self.0.requested.load(SeqCst) {
            handle.cancel();
        }
        *running = Some(handle);
        Watch(&self.0)
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, Option<QueryHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        // Under the lock, so that `watch` sees either the request or is seen here.
        let running = self.running();
        if self.requested.swap(true, SeqCst) {
            std::process::exit(EXIT_SIGINT);
        }
        if let Some(handle) = running.as_ref() {
            handle.cancel();
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *self.0.running() = None;
    }
}
