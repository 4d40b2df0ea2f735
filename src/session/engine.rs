//! The engine: what all its sessions share.

use super::Session;
use super::builder::{EngineBuilder, TestKnobs, optional_rules};
use super::tables::Holdings;
use crate::exec::Slots;
use crate::mem::Pool;
use crate::optimizer;
use crate::physical::JoinPolicy;
use crate::sched::Scheduler;
use crate::spill::SpillDirectory;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(super) struct EngineInner {
    pub(super) scheduler: Scheduler,
    pub(super) pool: Pool,
    /// What registered tables hold as long as they are.
    pub(super) holdings: Holdings,
    pub(super) spill: SpillDirectory,
    pub(super) slots: Slots,
    pub(super) threads: usize,
    pub(super) max_concurrent_queries: usize,
    pub(super) optimizer: optimizer::OptimizerSettings,
    pub(super) joins: JoinPolicy,
    /// Whether scans may leave out what statistics rule out.
    pub(super) prunes: bool,
    /// What sessions that do not say take.
    pub(super) batch_rows: Option<usize>,
    pub(super) spill_partitions: Option<usize>,
    pub(super) testing: TestKnobs,
    /// Queries started: each has its own luck with injected faults.
    pub(super) started_queries: AtomicU64,
}

/// Workers, memory and a spill directory that all its sessions share.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<EngineInner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("threads", &self.inner.threads)
            .field("memory_limit", &self.memory_limit())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Settings to build one from.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Names of the optimizer rules that may be left out ([`EngineBuilder::disabled_optimizers`]), in the order they run.
    pub fn optional_rules() -> impl Iterator<Item = &'static str> {
        optional_rules()
    }

    /// A session without tables.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.inner))
    }

    /// The most bytes it may hold.
    pub fn memory_limit(&self) -> usize {
        self.inner.pool.limit_bytes()
    }

    /// Bytes granted at this moment, to running queries, their results and table metadata. Up to an eighth of the limit, and
    /// 64 MiB, may stay mapped beside them, for whoever asks next.
    pub fn memory_used(&self) -> usize {
        self.inner.pool.granted_bytes()
    }

    /// The most bytes that were ever granted at a time, with what stayed mapped.
    pub fn memory_peak(&self) -> usize {
        self.inner.pool.peak_bytes()
    }

    /// Bytes of the temporary directory in use at this moment, by all queries.
    pub fn temp_directory_used(&self) -> u64 {
        self.inner.spill.used_bytes()
    }

    /// Queries that run at this moment.
    pub fn running_queries(&self) -> usize {
        self.inner.slots.taken()
    }

    /// Queries that wait for their turn ([`EngineBuilder::max_concurrent_queries`]).
    pub fn waiting_queries(&self) -> usize {
        self.inner.slots.waiting()
    }
}
