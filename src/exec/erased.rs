//! Operators behind one type each, so that pipelines can be built at run time.
//!
//! One blanket adapter per role: an erased operator opens into an erased run, which makes erased lanes. A lane
//! object bundles operator, shared and local state, so nothing is downcast.

use super::checked::CheckedSource;
use super::contract::{Combine, Finish, Flow, Need, Output, Pull, Sink, Source, Transform};
use super::cx::{LaneCx, OpenCx};
use crate::data::Batch;
use crate::error::Result;
use crate::mem::Knobs;
use std::cell::RefCell;
use std::sync::Arc;

/// A source of any type.
pub(crate) struct SourceBox(pub(super) Box<dyn ErasedSource>);
/// A transform of any type.
pub(crate) struct TransformBox(pub(super) Box<dyn ErasedTransform>);
/// A sink of any type.
pub(crate) struct SinkBox(pub(super) Box<dyn ErasedSink>);

impl SourceBox {
    /// Erases `source`.
    pub(crate) fn new<S: Source>(source: S) -> Self {
        Self(Box::new(Arc::new(source)))
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        self.0.name()
    }

    /// Memory it needs.
    pub(crate) fn need(&self, knobs: &Knobs) -> Need {
        self.0.need(knobs)
    }

    /// Starts a run of a source that is read by an operator, on one lane of its and in its memory: the operator's need
    /// includes the source's.
    pub(crate) fn open_inner(&self, cx: &OpenCx<'_>) -> Result<InnerRun> {
        let shared_bytes = self.need(&cx.query.knobs).shared_bytes;
        let floor = RefCell::new(cx.floor.borrow_mut().split(shared_bytes));
        self.0.open(&OpenCx { query: cx.query, lanes: 1, metrics: cx.metrics, floor }).map(InnerRun)
    }
}

/// A run of a source within an operator.
pub(crate) struct InnerRun(Box<dyn SourceRun>);

/// Its lane.
pub(crate) struct InnerLane(Box<dyn SourceLane>);

impl InnerRun {
    /// Starts the lane.
    pub(crate) fn lane(&self, cx: &LaneCx<'_>) -> Result<InnerLane> {
        Ok(InnerLane(CheckedSource::wrap(self.0.lane(cx)?, cx)))
    }
}

impl InnerLane {
    /// As [`Source::pull`].
    pub(crate) fn pull(&mut self, cx: &LaneCx<'_>) -> Result<Pull> {
        self.0.pull(cx)
    }

    /// As [`Source::reclaim`].
    pub(crate) fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.0.reclaim(target_bytes, cx)
    }
}

impl TransformBox {
    /// Erases `transform`.
    pub(crate) fn new<T: Transform>(transform: T) -> Self {
        Self(Box::new(Arc::new(transform)))
    }
}

impl SinkBox {
    /// Erases `sink`.
    pub(crate) fn new<S: Sink>(sink: S) -> Self {
        Self(Box::new(Arc::new(sink)))
    }
}

/// Adapter traits: operator, run, lane for each role.
pub(super) trait ErasedSource: Send + Sync {
    fn name(&self) -> String;
    fn need(&self, knobs: &Knobs) -> Need;
    fn max_lanes(&self) -> usize;
    fn table_rows(&self) -> u64;
    fn mean_row_bytes(&self) -> usize;
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn SourceRun>>;
}
pub(super) trait SourceRun: Send + Sync {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn SourceLane>>;
}
pub(super) trait SourceLane: Send {
    fn pull(&mut self, cx: &LaneCx<'_>) -> Result<Pull>;
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize>;
}
pub(super) trait ErasedTransform: Send + Sync {
    fn name(&self) -> String;
    fn need(&self, knobs: &Knobs) -> Need;
    fn has_drain(&self) -> bool;
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn TransformRun>>;
}
pub(super) trait TransformRun: Send + Sync {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn TransformLane>>;
}
pub(super) trait TransformLane: Send {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Output>;
    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Output>;
    fn flush(&mut self, cx: &LaneCx<'_>) -> Result<Output>;
    fn drain(&mut self, cx: &LaneCx<'_>) -> Result<Pull>;
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize>;
}
pub(super) trait ErasedSink: Send + Sync {
    fn name(&self) -> String;
    fn need(&self, knobs: &Knobs) -> Need;
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn SinkRun>>;
}
pub(super) trait SinkRun: Send + Sync {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn SinkLane>>;
    fn finish(&self, cx: &LaneCx<'_>) -> Result<Finish>;
}
pub(super) trait SinkLane: Send {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Flow>;
    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Flow>;
    fn combine(&mut self, cx: &LaneCx<'_>) -> Result<Combine>;
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize>;
}

/// An operator with the shared state of a run.
struct Run<O, S> {
    operator: Arc<O>,
    shared: Arc<S>,
}

/// The same with a lane's local state.
struct Lane<O, S, L> {
    operator: Arc<O>,
    shared: Arc<S>,
    local: L,
}

impl<S: Source> ErasedSource for Arc<S> {
    fn name(&self) -> String {
        S::name(self)
    }
    fn need(&self, knobs: &Knobs) -> Need {
        S::need(self, knobs)
    }
    fn max_lanes(&self) -> usize {
        S::max_lanes(self)
    }
    fn table_rows(&self) -> u64 {
        S::table_rows(self)
    }
    fn mean_row_bytes(&self) -> usize {
        S::mean_row_bytes(self)
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn SourceRun>> {
        let shared = Arc::new(S::open(self, cx)?);
        Ok(Box::new(Run { operator: Self::clone(self), shared }))
    }
}

impl<S: Source> SourceRun for Run<S, S::Shared> {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn SourceLane>> {
        let local = self.operator.local(&self.shared, cx)?;
        Ok(Box::new(Lane { operator: Arc::clone(&self.operator), shared: Arc::clone(&self.shared), local }))
    }
}

impl<S: Source> SourceLane for Lane<S, S::Shared, S::Local> {
    fn pull(&mut self, cx: &LaneCx<'_>) -> Result<Pull> {
        self.operator.pull(&self.shared, &mut self.local, cx)
    }
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.operator.reclaim(&self.shared, &mut self.local, target_bytes, cx)
    }
}

impl<T: Transform> ErasedTransform for Arc<T> {
    fn name(&self) -> String {
        T::name(self)
    }
    fn need(&self, knobs: &Knobs) -> Need {
        T::need(self, knobs)
    }
    fn has_drain(&self) -> bool {
        T::has_drain(self)
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn TransformRun>> {
        let shared = Arc::new(T::open(self, cx)?);
        Ok(Box::new(Run { operator: Self::clone(self), shared }))
    }
}

impl<T: Transform> TransformRun for Run<T, T::Shared> {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn TransformLane>> {
        let local = self.operator.local(&self.shared, cx)?;
        Ok(Box::new(Lane { operator: Arc::clone(&self.operator), shared: Arc::clone(&self.shared), local }))
    }
}

impl<T: Transform> TransformLane for Lane<T, T::Shared, T::Local> {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        self.operator.push(&self.shared, &mut self.local, batch, cx)
    }
    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Output> {
        self.operator.resume(&self.shared, &mut self.local, cx)
    }
    fn flush(&mut self, cx: &LaneCx<'_>) -> Result<Output> {
        self.operator.flush(&self.shared, &mut self.local, cx)
    }
    fn drain(&mut self, cx: &LaneCx<'_>) -> Result<Pull> {
        self.operator.drain(&self.shared, &mut self.local, cx)
    }
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.operator.reclaim(&self.shared, &mut self.local, target_bytes, cx)
    }
}

impl<S: Sink> ErasedSink for Arc<S> {
    fn name(&self) -> String {
        S::name(self)
    }
    fn need(&self, knobs: &Knobs) -> Need {
        S::need(self, knobs)
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<Box<dyn SinkRun>> {
        let shared = Arc::new(S::open(self, cx)?);
        Ok(Box::new(Run { operator: Self::clone(self), shared }))
    }
}

impl<S: Sink> SinkRun for Run<S, S::Shared> {
    fn lane(&self, cx: &LaneCx<'_>) -> Result<Box<dyn SinkLane>> {
        let local = self.operator.local(&self.shared, cx)?;
        Ok(Box::new(Lane { operator: Arc::clone(&self.operator), shared: Arc::clone(&self.shared), local }))
    }
    fn finish(&self, cx: &LaneCx<'_>) -> Result<Finish> {
        self.operator.finish(&self.shared, cx)
    }
}

impl<S: Sink> SinkLane for Lane<S, S::Shared, S::Local> {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Flow> {
        self.operator.push(&self.shared, &mut self.local, batch, cx)
    }
    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Flow> {
        self.operator.resume(&self.shared, &mut self.local, cx)
    }
    fn combine(&mut self, cx: &LaneCx<'_>) -> Result<Combine> {
        self.operator.combine(&self.shared, &mut self.local, cx)
    }
    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.operator.reclaim(&self.shared, &mut self.local, target_bytes, cx)
    }
}
