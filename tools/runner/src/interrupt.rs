//! Ctrl-C: cancels the query that runs, or tells long work to stop.
//!
//! Owns: the signal handler and who is told.
//!
//! Invariants:
//! 1. The first signal cancels; the second ends the process with the code a shell expects (130 for Ctrl-C). Where
//!    there is nothing to cancel but a wait for somebody else, so does the first.
//! 2. A query watched after the signal came is cancelled at once: none slips through between two statements.
//! 3. A process ended by a signal leaves no temporary file behind that was made known by [`Interrupt::temporary`].

use anyhow::{Context, bail};
use gristmill::QueryHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a shell adds to the number of the signal that ended a process.
const EXIT_SIGNAL: i32 = 128;
/// A folder that is written to while it is removed takes more than one try.
const REMOVALS: usize = 10;

/// Whether the user wants us to stop, and the query to cancel then. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<QueryHandle>,
    temporary: Vec<PathBuf>,
    /// Waits that nothing but the end of the process cuts short.
    waits: usize,
}

/// While it lives, a signal cancels the watched query.
pub struct Watch<'a>(&'a Shared);

/// While it lives, a signal ends the process at once.
pub struct Waiting<'a>(&'a Shared);

/// While it lives, a signal that ends the process removes the file or folder.
pub struct Temporary {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. Call once per process.
    pub fn install() -> anyhow::Result<Self> {
        let this = Self::default();
        let shared = Arc::clone(&this.0);
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install the Ctrl-C handler")?;
        let wait = move || signals.forever().for_each(|signal| shared.signal(signal));
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
        let mut state = self.0.state();
        if self.0.requested.load(SeqCst) {
            handle.cancel();
        }
        state.running = Some(handle);
        Watch(&self.0)
    }

    /// Ends the process on a signal, until the returned guard is dropped: for a read of what a person types, or the
    /// opening of a pipe that has no other end yet.
    ///
    /// # Errors
    /// If one has come already.
    pub fn waiting(&self) -> anyhow::Result<Waiting<'_>> {
        let mut state = self.0.state();
        self.check()?;
        state.waits += 1;
        Ok(Waiting(&self.0))
    }

    /// Removes the file or folder at `path` when a signal ends the process, until the returned guard is dropped.
    pub fn temporary(&self, path: &Path) -> Temporary {
        self.0.state().temporary.push(path.to_owned());
        Temporary { shared: Arc::clone(&self.0), path: path.to_owned() }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: i32) {
        // Under the lock, so that `watch` sees either the request or is seen here.
        let state = self.state();
        if self.requested.swap(true, SeqCst) || state.waits > 0 {
            state.temporary.iter().for_each(|path| remove(path));
            std::process::exit(EXIT_SIGNAL + signal);
        }
        if let Some(handle) = &state.running {
            handle.cancel();
        }
    }
}

/// Removes a file or folder as far as it can: nobody is left to be told.
fn remove(path: &Path) {
    for _ in 0..REMOVALS {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if removed.is_ok() || !path.exists() {
            return;
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.state().running = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waits -= 1;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.shared.state().temporary.retain(|path| *path != self.path);
    }
}
