//! x
pub mod error;
pub mod metrics;
pub mod sched;
pub(crate) mod sync;
