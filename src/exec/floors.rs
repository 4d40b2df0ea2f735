//! How the floors of a query's pipelines share its budget.
//!
//! Owns: [`Schedule`], [`Floors`].
//!
//! Invariants:
//! 1. Whatever the schedule, every byte that a pipeline is promised is granted before the first one starts. So none
//!    fails to start for memory, and no two queries wait for each other's floors.
//! 2. In turn, lanes of one pipeline at a time hold floors of lanes. The next one starts when the last lane has given
//!    its floor back.
//!    What a lane has no more use for in later stages it gives back before its end, but for its share of what the
//!    largest pipeline still to come needs.
//! 3. Floors of shared states are not lent on: tables and runs outlive the pipeline that made them.

use super::pipeline::PipelineSpec;
use crate::error::Result;
use crate::mem::{Knobs, Pool, Reservation, Tenant};
use parking_lot::Mutex;

/// When the pipelines of a query run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Each as soon as those it depends on have finished.
    Together,
    /// One at a time, in their order.
    InTurn,
}

impl Schedule {
    /// Together while floors leave three eighths of the budget to whoever has use for it.
    pub(super) fn fitting(pipelines: &[PipelineSpec], knobs: &Knobs, limit_bytes: usize) -> Self {
        match Self::Together.floor_bytes(pipelines, knobs) <= floor_share_bytes(limit_bytes) {
            true => Self::Together,
            false => Self::InTurn,
        }
    }

    /// What must be granted before the first pipeline starts.
    pub(super) fn floor_bytes(self, pipelines: &[PipelineSpec], knobs: &Knobs) -> usize {
        let lanes = pipelines.iter().map(|p| p.lanes_bytes(knobs));
        let lanes = match self {
            Self::Together => lanes.sum(),
            Self::InTurn => lanes.max().unwrap_or(0),
        };
        lanes + pipelines.iter().map(|p| p.shared_bytes(knobs)).sum::<usize>()
    }
}

/// What pipelines that come after one in turn need.
#[derive(Clone, Copy)]
struct Later {
    /// All lanes of the largest of them.
    lanes_bytes: usize,
    /// What must be idle while the one before runs: what its lanes do not bring back.
    idle_bytes: usize,
}

impl Later {
    fn after_each(pipelines: &[PipelineSpec], knobs: &Knobs) -> Vec<Self> {
        let (mut lanes_bytes, mut shared_bytes) = (0, 0);
        let mut all: Vec<Self> = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines.iter().rev() {
            let of_lanes = pipeline.lanes_bytes(knobs);
            all.push(Self { lanes_bytes, idle_bytes: lanes_bytes.saturating_sub(of_lanes) + shared_bytes });
            lanes_bytes = lanes_bytes.max(of_lanes);
            shared_bytes += pipeline.shared_bytes(knobs);
        }
        all.reverse();
        all
    }
}

/// The most of a budget that is made irrevocable if there is another way.
pub(super) fn floor_share_bytes(limit_bytes: usize) -> usize {
    limit_bytes / 2 + limit_bytes / 8
}

/// The floors that nobody uses at the moment.
pub(super) struct Floors {
    pub(super) schedule: Schedule,
    later: Vec<Later>,
    idle: Mutex<Reservation>,
    /// While the query runs, others may wait for its memory.
    tenant: Mutex<Option<Tenant>>,
}

impl Floors {
    /// Nothing yet.
    pub(super) fn none(schedule: Schedule, pipelines: &[PipelineSpec], knobs: &Knobs, pool: &Pool) -> Self {
        let later = match schedule {
            Schedule::Together => Vec::new(),
            Schedule::InTurn => Later::after_each(pipelines, knobs),
        };
        Self { schedule, later, idle: Mutex::new(Reservation::empty(pool)), tenant: Mutex::new(None) }
    }

    /// Takes what the query was granted.
    pub(super) fn admit(&self, granted: Reservation, tenant: Tenant) {
        self.idle.lock().merge(granted);
        *self.tenant.lock() = Some(tenant);
    }

    /// What each of so many lanes of pipeline `index` must not give away, for pipelines that come later.
    pub(super) fn kept_bytes(&self, index: usize, lanes: usize) -> usize {
        self.later.get(index).map_or(0, |later| later.lanes_bytes.div_ceil(lanes))
    }

    /// The floor of pipeline `index`, which starts. What no later one needs is let go of.
    ///
    /// # Errors
    /// Memory exceeded if something outlived a lane with the lane's memory, and the pool has nothing to replace it.
    pub(super) fn take(&self, index: usize, bytes: usize) -> Result<Reservation> {
        let mut idle = self.idle.lock();
        let missing = bytes.saturating_sub(idle.bytes());
        idle.try_grow(missing)?;
        let taken = idle.split(bytes);
        let excess = self.later.get(index).map(|later| idle.bytes().saturating_sub(later.idle_bytes));
        let excess = excess.map(|bytes| idle.split(bytes));
        drop(idle);
        drop(excess);
        Ok(taken)
    }

    /// Takes back what a lane has left of its floor.
    pub(super) fn give_back(&self, left: Reservation) {
        match self.schedule {
            Schedule::Together => drop(left),
            Schedule::InTurn => self.idle.lock().merge(left),
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        let mut idle = self.idle.lock();
        let bytes = idle.bytes();
        let all = idle.split(bytes);
        drop(idle);
        drop(all);
        // Last: whoever is woken for it finds the bytes.
        let tenant = self.tenant.lock().take();
        drop(tenant);
    }
}
