//! Atomics, `Arc`, locks and threads, exchanged for loom's under `--cfg loom` so that lock-free code is model-checked as is.
//!
//! Owns: the exchange. Must not know: any other room.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex as LoomMutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::thread;

/// loom's mutex with parking_lot's signature (no poisoning).
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(LoomMutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(LoomMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("invariant: loom models do not panic while holding a lock")
    }
}
