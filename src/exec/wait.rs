//! Why a lane cannot go on right now.

use super::cx::LaneCx;
use crate::mem::{MemoryTicket, Patience};
use std::any::Any;
use std::time::{Duration, Instant};

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitReason {
    /// Bytes of memory.
    Memory,
    /// Room in, or rows from, a bounded queue.
    Queue,
    /// Nothing: others get their turn in a long piece of work without rows.
    Turn,
    /// The fault injector made it up.
    Fault,
}

/// A promise that the lane's waker will be called. Holds the ticket that keeps it registered.
pub(crate) struct Wait {
    reason: WaitReason,
    /// When the lane is to be woken if nobody else does.
    until: Option<Instant>,
    _ticket: Box<dyn Any + Send>,
}

impl Wait {
    /// Waits for the bytes of `ticket`. The operator keeps its own handle to take them later.
    #[allow(dead_code, reason = "the contract is whole before every part has a user")]
    pub(crate) fn memory(ticket: &std::sync::Arc<MemoryTicket>) -> Self {
        Self { reason: WaitReason::Memory, until: None, _ticket: Box::new(std::sync::Arc::clone(ticket)) }
    }

    /// What it waits for.
    pub(crate) fn reason(&self) -> WaitReason {
        self.reason
    }

    /// When to go on at the latest, though nobody has called the waker.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Waits for something that has registered the lane's waker already; `registered` is its proof.
    pub(crate) fn registered(reason: WaitReason, registered: impl Any + Send) -> Self {
        Self { reason, until: None, _ticket: Box::new(registered) }
    }
}

/// Tries that follow one another at once, before others are waited for: a refusal may be over when the lane's turn comes
/// again.
const TRIES_AT_ONCE: u32 = 3;
/// How long to wait at first if nobody frees what is wanted, and how often that is doubled, up to 16 ms: what frees bytes
/// within the lane's own accounts is not told, nor when patience is over.
const FIRST_LOOK: Duration = Duration::from_micros(500);
const MOST_DOUBLINGS: u32 = 5;

/// What somebody knows of his waits for memory that was refused and nobody has promised; he tries again after each.
#[derive(Debug, Default)]
pub(crate) struct Retry(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    patience: Patience,
    tries: u32,
}

impl Retry {
    /// The wait before the next try, for `bytes` that were refused, 0 if that is not known; `None` once there is nothing
    /// to wait for (see [`Patience`]).
    pub(crate) fn wait(&mut self, bytes: usize, cx: &LaneCx<'_>) -> Option<Wait> {
        let new = || Waiting { patience: Patience::new(&cx.query.pool), tries: 0 };
        let Waiting { patience, tries } = self.0.get_or_insert_with(new);
        if patience.is_over() {
            return None;
        }
        *tries += 1;
        if *tries <= TRIES_AT_ONCE {
            cx.waker.wake_by_ref();
            return Some(Wait::registered(WaitReason::Memory, ()));
        }
        if bytes > 0 {
            patience.listen(bytes, cx.waker);
        }
        let doublings = (*tries - TRIES_AT_ONCE - 1).min(MOST_DOUBLINGS);
        let until = Instant::now() + FIRST_LOOK * (1 << doublings);
        Some(Wait { reason: WaitReason::Memory, until: Some(until), _ticket: Box::new(()) })
    }

    /// A try was successful: a later refusal is another matter.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wait({:?})", self.reason)
    }
}
