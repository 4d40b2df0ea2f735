//! Why a lane cannot go on right now.

use crate::mem::MemoryTicket;
use std::any::Any;

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitReason {
    /// Bytes of memory.
    #[allow(dead_code, reason = "the contract is whole before every part has a user")]
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

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wait({:?})", self.reason)
    }
}
