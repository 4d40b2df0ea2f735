//! A bar on the terminal while a query takes long.
//!
//! Owns: [`QueryProgress`].
//!
//! Invariants:
//! 1. There is a bar only where standard error is a terminal, and only once a query has taken a second.
//! 2. Nothing of it is left when [`QueryProgress`] is dropped.
//!
//! Must not know: what the query is, where its rows go.

use bytesize::ByteSize;
use gristmill::QueryHandle;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// A query that takes less has no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a bar moves.
const EVERY: Duration = Duration::from_millis(100);
/// Parts a bar has.
const STEPS: u64 = 1000;

/// Shows how far a query is, until dropped.
pub struct QueryProgress(Option<Drawing>);

struct Drawing {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl QueryProgress {
    /// Watches the query of `handle`; `title` stands before the bar. Does nothing where nobody would see it.
    pub fn of(title: impl Into<String>, handle: QueryHandle) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = mpsc::channel();
        let title = title.into();
        let draw = move || draw(title, &handle, &stopped, ProgressDrawTarget::stderr, PATIENCE);
        // A query without its bar is still a query.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(draw);
        Self(thread.ok().map(|thread| Drawing { stop, thread }))
    }

    /// Takes the bar off the terminal, for something else to be printed there.
    pub fn clear(&mut self) {
        if let Some(Drawing { stop, thread }) = self.0.take() {
            drop(stop);
            // A panic in there has been printed; the query does not care.
            drop(thread.join());
        }
    }
}

impl Drop for QueryProgress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Moves a bar until `stopped` hangs up, and clears it.
fn draw(
    title: String,
    handle: &QueryHandle,
    stopped: &Receiver<()>,
    target: impl Fn() -> ProgressDrawTarget,
    patience: Duration,
) {
    if stopped.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::with_draw_target(Some(STEPS), target());
    let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {percent:>3}%  {elapsed}  {msg}");
    bar.set_style(style.expect("the template is well-formed"));
    bar.set_prefix(title);
    loop {
        bar.set_position((handle.progress() * STEPS as f64) as u64);
        bar.set_message(message(handle));
        if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    bar.finish_and_clear();
}

/// Memory and spilled bytes; all is read at 100 %, but sorting and merging may go on.
fn message(handle: &QueryHandle) -> String {
    let metrics = handle.metrics();
    let memory = ByteSize(metrics.peak_granted_bytes as u64);
    match metrics.spilled_bytes {
        0 => format!("memory {memory}"),
        spilled => format!("memory {memory}, spilled {}", ByteSize(spilled)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn a_bar_is_drawn_once_a_query_takes_long_and_ends_with_it() {
        let session = gristmill::Engine::builder().threads(1).build().expect("starts").session();
        let mut stream = session.query("select 1").expect("plans").stream().expect("starts");
        let handle = stream.handle();
        let bars = AtomicUsize::new(0);
        let hidden = || {
            bars.fetch_add(1, SeqCst);
            ProgressDrawTarget::hidden()
        };

        let (stop, stopped) = mpsc::channel::<()>();
        drop(stop);
        draw("quick".into(), &handle, &stopped, hidden, Duration::from_secs(60));
        assert_eq!(bars.load(SeqCst), 0, "a bar for a query that has ended");

        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (handle, hidden) = (&handle, &hidden);
            scope.spawn(move || draw("long".into(), handle, &stopped, hidden, Duration::ZERO));
            while bars.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(stream.by_ref().all(|batch| batch.is_ok()));
            drop(stop);
        });
        assert_eq!(bars.load(SeqCst), 1);
        assert!(message(&handle).starts_with("memory "));
    }
}
