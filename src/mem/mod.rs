//! Who may hold how many bytes, and the slabs the bytes live in.
//!
//! Owns: the accountant ([`Pool`] tree, [`Reservation`]), memory tickets, lane and breaker [`Account`]s with their
//! floors and slab caches, [`Slab`]s and those kept for whoever needs one next, the [`Patience`] of who is refused, and the
//! registry of [`MemoryConsumer`]s that reclaim picks victims from.
//!
//! Invariants:
//! 1. `granted ≤ limit` in every pool at every instant; there is no overcommit.
//! 2. A child's bytes are counted in all its ancestors.
//! 3. Dropping every reservation, account and slab brings `granted` back to where it was.
//! 4. An account's floor, once granted, stays granted until the account is dropped.
//! 5. Bytes that are freed go to the oldest ticket first; while one waits, newcomers are refused.
//! 6. Free slabs that no account holds are granted to the topmost pool, and go to whoever asks for their bytes.
//! 7. The last part of a pool is not granted to accounts that hold much of it beyond their floors.
//!
//! Must not know: what the bytes mean; batches, operators, threads.

mod account;
mod patience;
mod plan;
mod pool;
mod reclaim;
mod reservation;
mod slab;
mod ticket;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod random_tests;

pub(crate) use account::{Account, AccountView, Charge};
pub(crate) use patience::Patience;
pub(crate) use plan::{Knobs, fit_knobs, with_more_partitions};
pub use pool::Pool;
pub(crate) use pool::{Denied, RefusalHook, refused};
pub use reclaim::MemoryConsumer;
pub(crate) use reclaim::Registration;
pub use reservation::Reservation;
pub(crate) use slab::{Slab, size_class_bytes};
pub(crate) use ticket::{MemoryTicket, Tenant};
