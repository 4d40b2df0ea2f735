//! One driver stack: a source, transforms and a sink with a lane's local state, moved forward step by step.
//!
//! Owns: [`Lane`]. It knows the order of calls and nothing of threads, barriers or other lanes.
//!
//! Invariants:
//! 1. A batch travels depth-first to the sink before the next one is pulled: there is no queue.
//! 2. After `Outcome::Wait` the next `step` repeats as `resume` of the operator that waited.
//! 3. Once an operator answered `Done`, nothing upstream of it is called again in this pipeline, on any lane. The
//!    operator itself is given no more input on any lane, but on other lanes it is resumed while it owes rows, and
//!    flushed.
//! 4. A lane serves requests for its memory between two calls, downstream operators first.

use super::contract::{Combine, Flow, Output, Pull};
use super::cx::{LaneCx, QueryCx};
use super::erased::{SinkLane, SourceLane, TransformLane};
use super::victim::{Victim, VictimLink};
use super::wait::Wait;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::mem::{Account, Reservation};
use crate::metrics::OperatorMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;
use std::time::Instant;

/// Where rows of a stage come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A main source.
    Source(usize),
    /// The drain of a transform.
    Drain(usize),
}

impl Origin {
    /// The first operator the rows go to.
    fn first(self) -> usize {
        match self {
            Self::Source(_) => 0,
            Self::Drain(at) => at + 1,
        }
    }
}

/// What a step ended with.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Call again.
    Again,
    /// Call again once the waker was called.
    Wait(Wait),
    /// The stage (or the combine) is over for this lane.
    End,
}

/// The next call to make.
#[derive(Debug)]
enum Next {
    Pull,
    Push(usize, Batch),
    Resume(usize),
    Flush(usize),
}

/// A lane's operators.
pub(super) struct LaneOperators {
    pub(super) sources: Vec<Box<dyn SourceLane>>,
    pub(super) transforms: Vec<Box<dyn TransformLane>>,
    pub(super) sink: Box<dyn SinkLane>,
}

/// A lane's memory. Dropped in this order: a closed account has no view left that keeps its bytes.
pub(super) struct LaneMemory {
    pub(super) victim: Victim,
    pub(super) account: Account,
    /// Stands for the lane's own small structures on the heap.
    pub(super) _heap: Reservation,
}

/// The parts of a lane and where it stands.
pub(super) struct Lane {
    // Locals, and the batch on its way, go before the account whose memory they hold.
    sources: Vec<Box<dyn SourceLane>>,
    transforms: Vec<Box<dyn TransformLane>>,
    sink: Box<dyn SinkLane>,
    next: Next,
    /// Operators before this index are over on this lane: one of them answered `Done` here.
    over: usize,
    /// Whether the lane raised the pipeline's cut since it was last asked.
    has_cut: bool,
    /// Whether the stage's source has answered `Done`.
    is_source_done: bool,
    /// Transforms that have more to emit, innermost last.
    more: Vec<usize>,
    /// The transform being flushed, once the stage's source is done.
    flushing: Option<usize>,
    pub(super) index: usize,
    query: Arc<QueryCx>,
    metrics: LaneMetrics,
    memory: LaneMemory,
}

/// Metrics of the operators, in order: sources, transforms, sink.
#[derive(Clone)]
pub(super) struct LaneMetrics {
    pub(super) sources: Vec<Arc<OperatorMetrics>>,
    pub(super) transforms: Vec<Arc<OperatorMetrics>>,
    pub(super) sink: Arc<OperatorMetrics>,
}

macro_rules! cx {
    ($lane:expr, $waker:expr, $metrics:expr) => {
        LaneCx {
            query: &$lane.query,
            account: &$lane.memory.account,
            lane: $lane.index,
            waker: $waker,
            metrics: $metrics,
        }
    };
}

impl Lane {
    pub(super) fn new(
        operators: LaneOperators,
        index: usize,
        query: Arc<QueryCx>,
        metrics: LaneMetrics,
        memory: LaneMemory,
    ) -> Self {
        let LaneOperators { sources, transforms, sink } = operators;
        Self {
            sources,
            transforms,
            sink,
            next: Next::Pull,
            over: 0,
            has_cut: false,
            is_source_done: false,
            more: Vec::new(),
            flushing: None,
            index,
            query,
            metrics,
            memory,
        }
    }

    /// For waking the lane when its memory is wanted.
    pub(super) fn victim_link(&self) -> VictimLink {
        self.memory.victim.link()
    }

    /// Whether somebody wants memory of this lane.
    pub(super) fn is_asked(&self) -> bool {
        self.memory.victim.is_asked()
    }

    /// Serves a request for memory: free slabs first, then, while a stage runs (`origin`), its operators, downstream
    /// first, until they have given enough. Operators that are over are not called.
    pub(super) fn give_back(&mut self, origin: Option<Origin>, waker: &Waker) -> Result<()> {
        let target = self.memory.victim.take_request();
        if target == 0 {
            return Ok(());
        }
        let mut freed = self.memory.account.trim();
        if let Some(origin) = origin {
            let metrics = &self.metrics.sink;
            if freed < target && self.over <= self.transforms.len() {
                let answer = self.sink.reclaim(target - freed, &cx!(self, waker, metrics));
                freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
            }
            for at in (self.over..self.transforms.len()).rev() {
                if freed < target {
                    let metrics = &self.metrics.transforms[at];
                    let answer = self.transforms[at].reclaim(target - freed, &cx!(self, waker, metrics));
                    freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
                }
            }
            if let Origin::Source(at) = origin
                && freed < target
                && !self.is_source_done
            {
                let metrics = &self.metrics.sources[at];
                let answer = self.sources[at].reclaim(target - freed, &cx!(self, waker, metrics));
                freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
            }
            self.memory.account.trim();
        }
        self.memory.victim.note_served(freed >= target);
        Ok(())
    }

    /// Whether this lane has raised the cut since the last call: others may wait for what nobody wants any more.
    pub(super) fn take_has_cut(&mut self) -> bool {
        std::mem::take(&mut self.has_cut)
    }

    /// Gets ready for the next stage.
    pub(super) fn begin_stage(&mut self) {
        self.next = Next::Pull;
        self.more.clear();
        self.flushing = None;
        self.is_source_done = false;
    }

    /// Makes one call. `cut` is how many operators get no more input: the last of them answered `Done` on some lane.
    pub(super) fn step(&mut self, origin: Origin, cut: &AtomicUsize, waker: &Waker) -> Result<Outcome> {
        let unwanted = cut.load(SeqCst);
        if unwanted > 0 {
            self.skip(origin, unwanted);
        }
        match std::mem::replace(&mut self.next, Next::Pull) {
            Next::Pull => self.pull(origin, waker),
            Next::Push(at, batch) => self.push(at, batch, cut, waker),
            Next::Resume(at) => self.resume(at, cut, waker),
            Next::Flush(at) => self.flush(at, waker),
        }
    }

    /// Leaves out the calls that nobody wants the outcome of (invariant 3).
    fn skip(&mut self, origin: Origin, unwanted: usize) {
        // The operator that answered `Done` may still owe rows on this lane, unless it answered here.
        let first = self.over.max(unwanted - 1);
        self.more.retain(|&at| at >= first);
        self.flushing = self.flushing.map(|at| at.max(first));
        match self.next {
            Next::Push(at, _) if at < unwanted => self.unwind(),
            Next::Resume(at) if at < first => self.unwind(),
            Next::Push(..) | Next::Resume(_) | Next::Pull | Next::Flush(_) => {}
        }
        match self.next {
            Next::Pull if origin.first() < unwanted => self.next = Next::Flush(first),
            Next::Flush(at) if at < first => self.next = Next::Flush(first),
            Next::Push(..) | Next::Resume(_) | Next::Pull | Next::Flush(_) => {}
        }
    }

    fn pull(&mut self, origin: Origin, waker: &Waker) -> Result<Outcome> {
        self.memory.account.relieve();
        let started = Instant::now();
        let (metrics, answer) = match origin {
            Origin::Source(at) => {
                let metrics = &self.metrics.sources[at];
                (metrics, self.sources[at].pull(&cx!(self, waker, metrics)))
            }
            Origin::Drain(at) => {
                let metrics = &self.metrics.transforms[at];
                (metrics, self.transforms[at].drain(&cx!(self, waker, metrics)))
            }
        };
        note_time(metrics, started);
        match answer.map_err(|e| complete(e, metrics, &self.query))? {
            Pull::Emit(batch) => {
                note_rows(metrics, &batch);
                self.next = Next::Push(origin.first(), batch);
                Ok(Outcome::Again)
            }
            Pull::Wait(wait) => {
                metrics.waits.fetch_add(1, Relaxed);
                Ok(Outcome::Wait(wait))
            }
            Pull::Done => {
                self.is_source_done = true;
                self.next = Next::Flush(origin.first());
                Ok(Outcome::Again)
            }
        }
    }

    fn push(&mut self, at: usize, batch: Batch, cut: &AtomicUsize, waker: &Waker) -> Result<Outcome> {
        let started = Instant::now();
        let rows = batch.rows() as u64;
        if at == self.transforms.len() {
            let metrics = &self.metrics.sink;
            metrics.rows_in.fetch_add(rows, Relaxed);
            let answer = self.sink.push(batch, &cx!(self, waker, metrics));
            note_time(metrics, started);
            let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
            return Ok(self.after_sink(answer, cut));
        }
        let metrics = &self.metrics.transforms[at];
        metrics.rows_in.fetch_add(rows, Relaxed);
        let answer = self.transforms[at].push(batch, &cx!(self, waker, metrics));
        note_time(metrics, started);
        let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
        Ok(self.after_transform(at, answer, cut))
    }

    fn resume(&mut self, at: usize, cut: &AtomicUsize, waker: &Waker) -> Result<Outcome> {
        let started = Instant::now();
        if at == self.transforms.len() {
            let metrics = &self.metrics.sink;
            let answer = self.sink.resume(&cx!(self, waker, metrics));
            note_time(metrics, started);
            let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
            return Ok(self.after_sink(answer, cut));
        }
        let metrics = &self.metrics.transforms[at];
        let answer = self.transforms[at].resume(&cx!(self, waker, metrics));
        note_time(metrics, started);
        let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
        Ok(self.after_transform(at, answer, cut))
    }

    fn after_sink(&mut self, answer: Flow, cut: &AtomicUsize) -> Outcome {
        match answer {
            Flow::NeedInput => self.unwind(),
            Flow::Wait(wait) => {
                self.metrics.sink.waits.fetch_add(1, Relaxed);
                self.next = Next::Resume(self.transforms.len());
                return Outcome::Wait(wait);
            }
            Flow::Done => {
                self.cut(self.transforms.len(), cut);
                self.unwind();
            }
        }
        Outcome::Again
    }

    fn after_transform(&mut self, at: usize, answer: Output, cut: &AtomicUsize) -> Outcome {
        match answer {
            Output::NeedInput => self.unwind(),
            Output::Emit(batch) => self.emit(at, batch),
            Output::EmitMore(batch) => {
                self.more.push(at);
                self.emit(at, batch);
            }
            Output::Wait(wait) => {
                self.metrics.transforms[at].waits.fetch_add(1, Relaxed);
                self.next = Next::Resume(at);
                return Outcome::Wait(wait);
            }
            Output::Done(last) => {
                self.cut(at, cut);
                match last {
                    Some(batch) => self.emit(at, batch),
                    None => self.unwind(),
                }
            }
        }
        Outcome::Again
    }

    fn flush(&mut self, at: usize, waker: &Waker) -> Result<Outcome> {
        if at >= self.transforms.len() {
            return Ok(Outcome::End);
        }
        self.flushing = Some(at);
        let metrics = &self.metrics.transforms[at];
        let started = Instant::now();
        let answer = self.transforms[at].flush(&cx!(self, waker, metrics));
        note_time(metrics, started);
        match answer.map_err(|e| complete(e, metrics, &self.query))? {
            Output::NeedInput | Output::Done(None) => self.next = Next::Flush(at + 1),
            // There may be more: `unwind` comes back to this flush.
            Output::Emit(batch) | Output::EmitMore(batch) => self.emit(at, batch),
            Output::Done(Some(batch)) => {
                self.flushing = Some(at + 1);
                self.emit(at, batch);
            }
            Output::Wait(wait) => {
                metrics.waits.fetch_add(1, Relaxed);
                self.next = Next::Flush(at);
                return Ok(Outcome::Wait(wait));
            }
        }
        Ok(Outcome::Again)
    }

    fn emit(&mut self, at: usize, batch: Batch) {
        note_rows(&self.metrics.transforms[at], &batch);
        self.next = Next::Push(at + 1, batch);
    }

    /// Goes back to the innermost operator that has more, else to the flush, else to the source.
    fn unwind(&mut self) {
        self.next = match (self.more.pop(), self.flushing) {
            (Some(at), _) => Next::Resume(at),
            (None, Some(at)) => Next::Flush(at),
            (None, None) => Next::Pull,
        };
    }

    /// Operator `at` wants no more: nothing before it is called again.
    fn cut(&mut self, at: usize, cut: &AtomicUsize) {
        cut.fetch_max(at + 1, SeqCst);
        self.has_cut = true;
        self.over = self.over.max(at + 1);
        self.more.retain(|&upstream| upstream > at);
        if self.flushing.is_some_and(|flushing| flushing <= at) {
            self.flushing = Some(at + 1);
        }
    }

    /// Merges the lane into the sink's shared state; call until `End`.
    pub(super) fn combine(&mut self, waker: &Waker) -> Result<Outcome> {
        let metrics = &self.metrics.sink;
        let started = Instant::now();
        let answer = self.sink.combine(&cx!(self, waker, metrics));
        note_time(metrics, started);
        match answer.map_err(|e| complete(e, metrics, &self.query))? {
            Combine::Ready => Ok(Outcome::End),
            Combine::Wait(wait) => {
                metrics.waits.fetch_add(1, Relaxed);
                Ok(Outcome::Wait(wait))
            }
        }
    }

    /// What the sink's final work may use.
    pub(super) fn sink_cx<'a>(&'a self, waker: &'a Waker) -> LaneCx<'a> {
        cx!(self, waker, &self.metrics.sink)
    }
}

pub(super) fn note_time(metrics: &OperatorMetrics, started: Instant) {
    metrics.busy_nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
}

fn note_rows(metrics: &OperatorMetrics, batch: &Batch) {
    metrics.rows_out.fetch_add(batch.rows() as u64, Relaxed);
    metrics.batches_out.fetch_add(1, Relaxed);
}

/// Adds to a memory error what only the driver knows.
pub(super) fn complete(mut error: Error, metrics: &OperatorMetrics, query: &QueryCx) -> Error {
    use crate::error::MemoryError;
    if let Error::Memory(memory) = &mut error
        && let MemoryError::Exceeded { limit_bytes, operator, top_consumers, .. } = &mut **memory
        && operator.is_empty()
    {
        operator.clone_from(&metrics.name);
        *limit_bytes = query.pool.limit_bytes();
        *top_consumers = query.pool.top_consumers(3);
    }
    error
}
