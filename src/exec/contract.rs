//! The operator contract: three roles, each with answers that cannot be wrong for it.
//!
//! An operator object is built for one run of one pipeline and is immutable while it runs. Its `Shared` state is
//! one per run, its `Local` state one per lane. A breaker is a [`Sink`] in one pipeline and a [`Source`] in
//! another; the sink's `open` puts what both share into a [`Handoff`] that the source's `open` takes it from.

use super::cx::{LaneCx, OpenCx};
use super::wait::Wait;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::mem::Knobs;
use std::sync::{Arc, OnceLock};

/// Memory an operator must be granted before it starts; never taken from it while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes for each lane, part of the lane's account.
    pub(crate) lane_bytes: usize,
    /// Bytes for the shared state, in the account that `open` gets from `OpenCx::shared_account`.
    pub(crate) shared_bytes: usize,
}

/// What a source answers.
#[derive(Debug)]
pub(crate) enum Pull {
    /// Rows, at least one.
    Emit(Batch),
    /// Nothing now; the waker will be called.
    Wait(Wait),
    /// Nothing any more, for this lane.
    Done,
}

/// What a transform answers.
#[derive(Debug)]
pub(crate) enum Output {
    /// Everything taken was dealt with; no rows.
    NeedInput,
    /// Rows, and everything taken was dealt with.
    Emit(Batch),
    /// Rows, and more to come: call `resume` (or `flush` again, if that was the call).
    EmitMore(Batch),
    /// Nothing now; call `resume` (or `flush`) after the waker was called.
    Wait(Wait),
    /// No more input wanted on any lane, perhaps with last rows. From `flush`: drained.
    Done(Option<Batch>),
}

/// What a sink answers to rows.
#[derive(Debug)]
pub(crate) enum Flow {
    /// Everything taken was dealt with.
    NeedInput,
    /// Call `resume` after the waker was called.
    Wait(Wait),
    /// No more input wanted on any lane.
    Done,
}

/// What a sink answers to `combine`.
#[derive(Debug)]
pub(crate) enum Combine {
    /// The lane's state is merged.
    Ready,
    /// Call again after the waker was called, or at once if it was called already.
    #[cfg_attr(not(test), allow(dead_code, reason = "the contract is whole before every answer has a user"))]
    Wait(Wait),
}

/// A piece of a sink's final work, run by any worker, all before the pipeline counts as finished.
pub(crate) type OperatorTask = Box<dyn FnOnce(&LaneCx<'_>) -> Result<()> + Send>;

/// What a sink answers to `finish`.
pub(crate) enum Finish {
    /// What depends on it may start.
    Ready,
    /// Run these in parallel, then call `finish` again.
    Tasks(Vec<OperatorTask>),
    #[cfg_attr(not(test), allow(dead_code, reason = "the contract is whole before every answer has a user"))]
    /// Call again after the waker was called.
    Wait(Wait),
}

/// Produces batches.
pub(crate) trait Source: Send + Sync + 'static {
    /// State of the run.
    type Shared: Send + Sync + 'static;
    /// State of a lane.
    type Local: Send + 'static;

    /// The name in plans and metrics, such as `Scan lineitem`.
    fn name(&self) -> String;
    /// Memory it must have to make progress whatever others hold.
    fn need(&self, knobs: &Knobs) -> Need;
    /// The most lanes that could have work.
    fn max_lanes(&self) -> usize {
        usize::MAX
    }
    /// What a scan weighs in its query's progress: the rows of its table, which it counts in `passed_rows` of its
    /// metrics as it goes. 0 for what is no scan.
    fn table_rows(&self) -> u64 {
        0
    }
    /// About the bytes of a row of a scan, 0 if that is not known. Needs reckon with a guess at the length of strings: where
    /// they are much longer, fewer lanes have room for them.
    fn mean_row_bytes(&self) -> usize {
        0
    }
    /// Starts the run.
    fn open(&self, cx: &OpenCx<'_>) -> Result<Self::Shared>;
    /// Starts a lane.
    fn local(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<Self::Local>;
    /// The next rows of this lane.
    fn pull(&self, shared: &Self::Shared, local: &mut Self::Local, cx: &LaneCx<'_>) -> Result<Pull>;
    /// Gives back up to `target_bytes` of revocable memory; returns the bytes given back.
    fn reclaim(
        &self,
        _shared: &Self::Shared,
        _local: &mut Self::Local,
        _target_bytes: usize,
        _cx: &LaneCx<'_>,
    ) -> Result<usize> {
        Ok(0)
    }
}

/// Turns batches into batches.
pub(crate) trait Transform: Send + Sync + 'static {
    /// State of the run.
    type Shared: Send + Sync + 'static;
    /// State of a lane.
    type Local: Send + 'static;

    /// The name in plans and metrics.
    fn name(&self) -> String;
    /// Memory it must have to make progress whatever others hold.
    fn need(&self, knobs: &Knobs) -> Need;
    /// Starts the run.
    fn open(&self, cx: &OpenCx<'_>) -> Result<Self::Shared>;
    /// Starts a lane.
    fn local(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<Self::Local>;
    /// Takes a batch.
    fn push(
        &self,
        shared: &Self::Shared,
        local: &mut Self::Local,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Output>;
    /// Goes on after `EmitMore` or `Wait`.
    fn resume(&self, _shared: &Self::Shared, _local: &mut Self::Local, _cx: &LaneCx<'_>) -> Result<Output> {
        Ok(Output::NeedInput)
    }
    /// Called when the lane has no more input in this stage, until it answers `Done` or `NeedInput`.
    fn flush(&self, _shared: &Self::Shared, _local: &mut Self::Local, _cx: &LaneCx<'_>) -> Result<Output> {
        Ok(Output::Done(None))
    }
    /// A further stage of the pipeline over this operator's shared state, run when every lane has flushed: spilled
    /// probe partitions, unmatched build rows. Whether there is one is fixed before the run.
    fn has_drain(&self) -> bool {
        false
    }
    /// The next rows of the drain stage, for this lane.
    fn drain(&self, _shared: &Self::Shared, _local: &mut Self::Local, _cx: &LaneCx<'_>) -> Result<Pull> {
        Ok(Pull::Done)
    }
    /// Gives back up to `target_bytes` of revocable memory; returns the bytes given back.
    fn reclaim(
        &self,
        _shared: &Self::Shared,
        _local: &mut Self::Local,
        _target_bytes: usize,
        _cx: &LaneCx<'_>,
    ) -> Result<usize> {
        Ok(0)
    }
}

/// Takes batches and keeps what they amount to.
pub(crate) trait Sink: Send + Sync + 'static {
    /// State of the run.
    type Shared: Send + Sync + 'static;
    /// State of a lane.
    type Local: Send + 'static;

    /// The name in plans and metrics.
    fn name(&self) -> String;
    /// Memory it must have to make progress whatever others hold.
    fn need(&self, knobs: &Knobs) -> Need;
    /// Starts the run.
    fn open(&self, cx: &OpenCx<'_>) -> Result<Self::Shared>;
    /// Starts a lane.
    fn local(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<Self::Local>;
    /// Takes a batch.
    fn push(
        &self,
        shared: &Self::Shared,
        local: &mut Self::Local,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow>;
    /// Goes on after `Wait`.
    fn resume(&self, _shared: &Self::Shared, _local: &mut Self::Local, _cx: &LaneCx<'_>) -> Result<Flow> {
        Ok(Flow::NeedInput)
    }
    /// Merges the lane's state into the shared one; called until `Ready`.
    fn combine(&self, shared: &Self::Shared, local: &mut Self::Local, cx: &LaneCx<'_>) -> Result<Combine>;
    /// Ends the run once every lane has combined; called until `Ready`.
    fn finish(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<Finish>;
    /// Gives back up to `target_bytes` of revocable memory of a lane; returns the bytes given back.
    fn reclaim(
        &self,
        _shared: &Self::Shared,
        _local: &mut Self::Local,
        _target_bytes: usize,
        _cx: &LaneCx<'_>,
    ) -> Result<usize> {
        Ok(0)
    }
}

/// Carries a breaker's shared state from the pipeline that fills it to the one that reads it.
pub(crate) struct Handoff<T>(Arc<OnceLock<Arc<T>>>);

impl<T> Clone for Handoff<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Handoff<T> {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Fills it, once.
    pub(crate) fn put(&self, shared: Arc<T>) -> Result<()> {
        self.0.set(shared).map_err(|_| Error::internal("a breaker was opened twice"))
    }

    /// What was put.
    pub(crate) fn get(&self) -> Result<Arc<T>> {
        self.0.get().cloned().ok_or_else(|| Error::internal("a breaker is read before it was filled"))
    }
}
