//! Why a lane cannot go on right now.

use super::cx::LaneCx;
use crate::mem::{MemoryTicket, Patience};
use std::any::Any;

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
    _ticket: Box<dyn Any + Send>,
}

impl Wait {
    /// Waits for the bytes of `ticket`. The operator keeps its own handle to take them later.
    #[allow(dead_code, reason = "the contract is whole before every part has a user")]
    pub(crate) fn memory(ticket: &std::sync::Arc<MemoryTicket>) -> Self {
        Self { reason: WaitReason::Memory, _ticket: Box::new(std::sync::Arc::clone(ticket)) }
    }

    /// What it waits for.
    pub(crate) fn reason(&self) -> WaitReason {
        self.reason
    }

    /// Waits for something that has registered the lane's waker already; `registered` is its proof.
    pub(crate) fn registered(reason: WaitReason, registered: impl Any + Send) -> Self {
        Self { reason, _ticket: Box::new(registered) }
    }
}

/// What somebody knows of his waits for memory that was refused and nobody has promised; he tries again after each.
#[derive(Debug, Default)]
pub(crate) struct Retry(Option<Patience>);

impl Retry {
    /// The wait before the next try; `None` once there is nothing to wait for (see [`Patience`]).
    pub(crate) fn wait(&mut self, cx: &LaneCx<'_>) -> Option<Wait> {
        if self.0.get_or_insert_with(|| Patience::new(&cx.query.pool)).is_over() {
            return None;
        }
        cx.waker.wake_by_ref();
        Some(Wait::registered(WaitReason::Memory, ()))
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
