//! What an operator may use while it is called.
//!
//! Owns: [`QueryCx`] (one per query), [`OpenCx`], [`LaneCx`].

use super::resident::ResidentMeter;
use crate::data::DictionaryIds;
use crate::error::{Error, Result};
use crate::mem::{Account, Knobs, Pool, Reservation};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

/// What all operators of a query share.
#[derive(Debug)]
pub(crate) struct QueryCx {
    /// The query's pool.
    pub(crate) pool: Pool,
    /// What admission settled on.
    pub(crate) knobs: Knobs,
    /// Where breakers spill.
    pub(crate) spill: Arc<SpillDirectory>,
    /// Names for dictionaries.
    pub(crate) ids: DictionaryIds,
    /// Seeded refusal of reservations and other faults; `None` outside tests.
    pub(crate) faults: Option<Arc<super::fault::Faults>>,
    /// Memory of the process while it ran.
    pub(crate) resident: Arc<ResidentMeter>,
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
    deadline: Option<(Instant, Duration)>,
}

impl QueryCx {
    /// A query that has not started.
    pub(crate) fn new(
        pool: Pool,
        knobs: Knobs,
        spill: Arc<SpillDirectory>,
        timeout: Option<Duration>,
        faults: Option<Arc<super::fault::Faults>>,
    ) -> Self {
        Self {
            pool,
            knobs,
            spill,
            ids: DictionaryIds::default(),
            faults,
            resident: Arc::new(ResidentMeter::new()),
            stop: AtomicBool::new(false),
            error: Mutex::new(None),
            deadline: timeout.map(|limit| (Instant::now() + limit, limit)),
        }
    }

    /// Ends the query with `error`, unless it has failed already.
    pub(crate) fn fail(&self, error: Error) {
        self.error.lock().get_or_insert(error);
        self.stop.store(true, Relaxed);
    }

    /// The error the query ended with.
    pub(crate) fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    /// Whether the query has failed or was cancelled.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// When its time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|(at, _)| at)
    }

    /// Fails if the query should not go on: cancelled, failed elsewhere, or past its deadline.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some((deadline, limit)) = self.deadline
            && Instant::now() >= deadline
        {
            self.fail(Error::Timeout { limit });
        }
        if self.is_stopped() { Err(self.error().unwrap_or(Error::Cancelled)) } else { Ok(()) }
    }
}

/// What an operator may use when its run starts.
pub(crate) struct OpenCx<'a> {
    /// The query.
    pub(crate) query: &'a Arc<QueryCx>,
    /// Lanes the pipeline runs with.
    pub(crate) lanes: usize,
    /// The operator's metrics.
    pub(crate) metrics: &'a Arc<OperatorMetrics>,
    /// The operator's `Need::shared_bytes`, granted; what `open` leaves goes back to the pool.
    pub(super) floor: RefCell<Reservation>,
}

impl OpenCx<'_> {
    /// The account of the operator's shared state, with its floor of `Need::shared_bytes`. `quantum_bytes` and
    /// `cache_bytes` as for [`Account::open`].
    ///
    /// Opening one from the pool instead would count the floor twice and fail in a budget that just fits.
    #[cfg_attr(not(test), allow(dead_code, reason = "the contract is whole before every part has a user"))]
    pub(crate) fn shared_account(&self, quantum_bytes: usize, cache_bytes: usize) -> Account {
        let mut floor = self.floor.borrow_mut();
        let bytes = floor.bytes();
        Account::from_reservation(floor.split(bytes), quantum_bytes, cache_bytes)
    }

    /// A part of that memory as an account of its own, with its floor of `floor_bytes`.
    pub(crate) fn account(&self, floor_bytes: usize, quantum_bytes: usize, cache_bytes: usize) -> Account {
        let mut floor = self.floor.borrow_mut();
        debug_assert!(floor.bytes() >= floor_bytes, "more than the operator's need");
        Account::from_reservation(floor.split(floor_bytes), quantum_bytes, cache_bytes)
    }

    /// The same memory as an account for each lane, with its floor of `floor_bytes`; together they may ask for as much
    /// as `Need::shared_bytes` said.
    pub(crate) fn lane_accounts(
        &self,
        floor_bytes: usize,
        quantum_bytes: usize,
        cache_bytes: usize,
    ) -> Vec<Account> {
        let mut floor = self.floor.borrow_mut();
        debug_assert!(floor.bytes() >= self.lanes * floor_bytes, "more than the operator's need");
        let account = |_| Account::from_reservation(floor.split(floor_bytes), quantum_bytes, cache_bytes);
        (0..self.lanes).map(account).collect()
    }

    /// What a pipeline makes for an operator that needs `shared_bytes`.
    #[cfg(test)]
    pub(crate) fn granted<'a>(
        query: &'a Arc<QueryCx>,
        lanes: usize,
        metrics: &'a Arc<OperatorMetrics>,
        shared_bytes: usize,
    ) -> Result<OpenCx<'a>> {
        let mut floor = Reservation::empty(&query.pool);
        floor.try_grow(shared_bytes)?;
        Ok(OpenCx { query, lanes, metrics, floor: RefCell::new(floor) })
    }
}

/// What an operator may use when a lane calls it.
pub(crate) struct LaneCx<'a> {
    /// The query.
    pub(crate) query: &'a Arc<QueryCx>,
    /// The lane's memory: the floors of its operators, slack, recycled slabs.
    pub(crate) account: &'a Account,
    /// Index of the lane in its pipeline.
    #[cfg_attr(not(test), allow(dead_code, reason = "the contract is whole before every part has a user"))]
    pub(crate) lane: usize,
    /// Wakes the lane.
    pub(crate) waker: &'a Waker,
    /// The operator's metrics.
    pub(crate) metrics: &'a Arc<OperatorMetrics>,
}

impl LaneCx<'_> {
    /// Rows of a full batch.
    pub(crate) fn batch_rows(&self) -> usize {
        self.query.knobs.batch_rows
    }

    /// For long loops, every few thousand rows: fails if the query should not go on.
    pub(crate) fn check(&self) -> Result<()> {
        self.query.check()
    }

    /// What `error` is if nothing can be tried again: a refusal means that the query's budget is too small.
    pub(crate) fn made_final(&self, error: Error) -> Error {
        error.made_final(self.query.pool.limit_bytes(), &self.metrics.name)
    }

    /// Whether the fault injector wants the next revocable grant refused, so that the operator spills.
    pub(crate) fn must_refuse(&self) -> bool {
        self.query.faults.as_ref().is_some_and(|f| f.refuses_grant())
    }
}
