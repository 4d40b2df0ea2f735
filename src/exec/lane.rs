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
//! 5. A lane's state of an operator exists only while the operator lives (`shape`).
//!
//! Within a stage, operators are meant by their position on the stage's path; the sink's comes after the last.

use super::checked::{CheckedSource, CheckedTransform};
use super::contract::{Combine, Flow, Output, Pull};
use super::cx::{LaneCx, QueryCx};
use super::erased::{SinkLane, SourceLane, SourceRun, TransformLane, TransformRun};
use super::query::QueryRun;
use super::shape::{Cut, Origin, Stage};
use super::victim::{Victim, VictimLink};
use super::wait::{Wait, WaitReason};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::mem::{Account, Reservation};
use crate::metrics::OperatorMetrics;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Instant;

/// What a lane whose source was refused memory asks of its own operators; they give more where that is no more work.
const OWN_RECLAIM_BYTES: usize = 1 << 20;

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

/// What a lane is promised.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneFloor {
    pub(super) source_bytes: usize,
    /// For transforms and the sink.
    pub(super) operators_bytes: usize,
}

impl LaneFloor {
    pub(super) fn bytes(self) -> usize {
        self.source_bytes + self.operators_bytes
    }
}

/// A lane's memory. The victim goes before the accounts: a closed account has no view left that keeps its bytes.
pub(super) struct LaneMemory {
    pub(super) victim: Victim,
    /// The source's. What it reads may be larger than expected, and must not take what the operators were promised.
    pub(super) source: Account,
    /// The other operators'.
    pub(super) account: Account,
    /// Stands for the lane's own small structures on the heap.
    pub(super) heap: Reservation,
    /// Gets the floor back.
    pub(super) query: Arc<QueryRun>,
}

impl Drop for LaneMemory {
    fn drop(&mut self) {
        let heap_bytes = self.heap.bytes();
        self.query.floors.give_back(self.source.close());
        self.query.floors.give_back(self.heap.split(heap_bytes));
        self.query.floors.give_back(self.account.close());
    }
}

/// The parts of a lane and where it stands.
pub(super) struct Lane {
    // Locals, and the batch on its way, go before the account whose memory they hold.
    /// The source of the stage.
    source: Option<Box<dyn SourceLane>>,
    source_number: usize,
    /// By number, those that live.
    transforms: Vec<Option<Box<dyn TransformLane>>>,
    sink: Box<dyn SinkLane>,
    next: Next,
    /// For each transform, the number of the operator its rows go to.
    next_of: Arc<[usize]>,
    /// For each operator, by number, whether it is over on this lane: it, or one downstream, answered `Done` here.
    over: Vec<bool>,
    /// How many operators of the stage's path are over on this lane.
    over_here: usize,
    /// How many operators of the stage's path get no more input, when there were so many cuts.
    unwanted: usize,
    seen_cuts: usize,
    /// Whether the lane cut something since it was last asked.
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

/// What a lane's states are made from.
pub(super) struct StageRuns {
    /// The stage's source, if rows come from one that this lane reads.
    pub(super) source: Option<Arc<dyn SourceRun>>,
    /// The transforms, with their numbers, whose life begins.
    pub(super) transforms: Vec<(usize, Arc<dyn TransformRun>)>,
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
        cx!($lane, $waker, $metrics, account)
    };
    ($lane:expr, $waker:expr, $metrics:expr, $account:ident) => {
        LaneCx {
            query: &$lane.query,
            account: &$lane.memory.$account,
            lane: $lane.index,
            waker: $waker,
            metrics: $metrics,
        }
    };
}

impl Lane {
    pub(super) fn new(
        sink: Box<dyn SinkLane>,
        next_of: Arc<[usize]>,
        index: usize,
        query: Arc<QueryCx>,
        metrics: LaneMetrics,
        memory: LaneMemory,
    ) -> Self {
        let transforms = metrics.transforms.len();
        Self {
            source: None,
            source_number: 0,
            transforms: (0..transforms).map(|_| None).collect(),
            sink,
            next: Next::Pull,
            next_of,
            over: vec![false; transforms + 1],
            over_here: 0,
            unwanted: 0,
            seen_cuts: 0,
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

    /// Serves a request for memory: free slabs first, then, unless they are done, its operators, downstream first,
    /// until they have given enough. Operators that are over are not called.
    pub(super) fn give_back(&mut self, has_operators: bool, waker: &Waker) -> Result<()> {
        let target = self.memory.victim.take_request();
        if target == 0 {
            return Ok(());
        }
        let mut freed = self.memory.account.trim() + self.memory.source.trim();
        if has_operators {
            freed += self.reclaim(target.saturating_sub(freed), true, waker)?;
            self.memory.account.trim();
            self.memory.source.trim();
        }
        self.memory.victim.note_served(freed >= target);
        Ok(())
    }

    /// Has the operators that are not over give back `target` bytes, downstream first, until they have given enough; what
    /// they gave.
    fn reclaim(&mut self, target: usize, includes_source: bool, waker: &Waker) -> Result<usize> {
        let mut freed = 0;
        let metrics = &self.metrics.sink;
        if freed < target && !self.over[self.transforms.len()] {
            let answer = self.sink.reclaim(target - freed, &cx!(self, waker, metrics));
            freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
        }
        for at in (0..self.transforms.len()).rev() {
            if freed < target
                && !self.over[at]
                && let Some(transform) = &mut self.transforms[at]
            {
                let metrics = &self.metrics.transforms[at];
                let answer = transform.reclaim(target - freed, &cx!(self, waker, metrics));
                freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
            }
        }
        if let Some(source) = &mut self.source
            && includes_source
            && freed < target
            && !self.is_source_done
        {
            let metrics = &self.metrics.sources[self.source_number];
            let answer = source.reclaim(target - freed, &cx!(self, waker, metrics, source));
            freed += answer.map_err(|e| complete(e, metrics, &self.query))?;
        }
        Ok(freed)
    }

    /// Whether this lane has raised the cut since the last call: others may wait for what nobody wants any more.
    pub(super) fn take_has_cut(&mut self) -> bool {
        std::mem::take(&mut self.has_cut)
    }

    /// Gives back what of the floor no operator needs any more; up to `kept_bytes` stay the query's for later pipelines.
    pub(super) fn lower_floor(&self, needed: LaneFloor, kept_bytes: usize) {
        let LaneMemory { source, account, query, .. } = &self.memory;
        let mut surplus = source.lower_floor(needed.source_bytes);
        surplus.merge(account.lower_floor(needed.operators_bytes));
        let floor_bytes = source.floor_bytes() + account.floor_bytes();
        let kept = kept_bytes.saturating_sub(floor_bytes).min(surplus.bytes());
        query.floors.give_back(surplus.split(kept));
    }

    /// Gets ready for `stage`: makes the states whose life begins.
    pub(super) fn begin_stage(
        &mut self,
        stage: &Stage,
        runs: StageRuns,
        cut: &Cut,
        waker: &Waker,
    ) -> Result<()> {
        for (at, run) in runs.transforms {
            let metrics = &self.metrics.transforms[at];
            let cx = cx!(self, waker, metrics);
            let transform = run.lane(&cx).map_err(|e| complete(e, metrics, &self.query))?;
            self.transforms[at] = Some(CheckedTransform::wrap(transform, &cx));
        }
        self.next = Next::Pull;
        self.more.clear();
        self.flushing = None;
        self.over_here = stage.path.iter().take_while(|&&at| self.over[at]).count();
        if self.over[self.transforms.len()] {
            self.over_here = stage.path.len() + 1;
        }
        self.look_for_cuts(stage, cut);
        self.is_source_done = true;
        if let (Origin::Source(at), Some(run), 0) = (stage.origin, runs.source, self.unwanted) {
            let metrics = &self.metrics.sources[at];
            let cx = cx!(self, waker, metrics, source);
            let source = run.lane(&cx).map_err(|e| complete(e, metrics, &self.query))?;
            self.source = Some(CheckedSource::wrap(source, &cx));
            self.source_number = at;
            self.is_source_done = false;
        }
        Ok(())
    }

    /// Lets go of the source and of the transforms that `is_over` says do not live on.
    pub(super) fn end_stage(&mut self, is_over: impl Fn(usize) -> bool) {
        self.source = None;
        for (at, transform) in self.transforms.iter_mut().enumerate() {
            if is_over(at) {
                *transform = None;
            }
        }
    }

    fn look_for_cuts(&mut self, stage: &Stage, cut: &Cut) {
        self.seen_cuts = cut.count();
        self.unwanted = cut.unwanted(&stage.path);
    }

    /// Makes one call. `cut` holds the operators that answered `Done` on some lane.
    pub(super) fn step(&mut self, stage: &Stage, cut: &Cut, waker: &Waker) -> Result<Outcome> {
        if cut.count() != self.seen_cuts {
            self.look_for_cuts(stage, cut);
        }
        if self.unwanted > 0 {
            self.skip(self.unwanted);
        }
        match std::mem::replace(&mut self.next, Next::Pull) {
            Next::Pull => self.pull(stage, waker),
            Next::Push(at, batch) => self.push(at, batch, stage, cut, waker),
            Next::Resume(at) => self.resume(at, stage, cut, waker),
            Next::Flush(at) => self.flush(at, stage, waker),
        }
    }

    /// Leaves out the calls that nobody wants the outcome of (invariant 3).
    fn skip(&mut self, unwanted: usize) {
        // The operator that answered `Done` may still owe rows on this lane, unless it answered here.
        let first = self.over_here.max(unwanted - 1);
        self.more.retain(|&at| at >= first);
        self.flushing = self.flushing.map(|at| at.max(first));
        match self.next {
            Next::Push(at, _) if at < unwanted => self.unwind(),
            Next::Resume(at) if at < first => self.unwind(),
            Next::Push(..) | Next::Resume(_) | Next::Pull | Next::Flush(_) => {}
        }
        match self.next {
            Next::Pull => self.next = Next::Flush(first),
            Next::Flush(at) if at < first => self.next = Next::Flush(first),
            Next::Push(..) | Next::Resume(_) | Next::Flush(_) => {}
        }
    }

    fn pull(&mut self, stage: &Stage, waker: &Waker) -> Result<Outcome> {
        self.memory.account.relieve();
        self.memory.source.relieve();
        let started = Instant::now();
        let (metrics, answer) = match stage.origin {
            Origin::Source(at) => {
                let metrics = &self.metrics.sources[at];
                (metrics, live(&mut self.source)?.pull(&cx!(self, waker, metrics, source)))
            }
            Origin::Drain(at) => {
                let metrics = &self.metrics.transforms[at];
                (metrics, live(&mut self.transforms[at])?.drain(&cx!(self, waker, metrics)))
            }
        };
        note_time(metrics, started);
        match answer.map_err(|e| complete(e, metrics, &self.query))? {
            Pull::Emit(batch) => {
                note_rows(metrics, &batch);
                self.next = Next::Push(0, batch);
                Ok(Outcome::Again)
            }
            Pull::Wait(wait) => {
                note_wait(metrics, &wait);
                // What the lane itself holds comes before what others do, who are asked already: nobody else would ask
                // it while it waits.
                let is_refused =
                    wait.reason() == WaitReason::Memory && matches!(stage.origin, Origin::Source(_));
                if is_refused && self.reclaim(OWN_RECLAIM_BYTES, false, waker)? > 0 {
                    return Ok(Outcome::Again);
                }
                Ok(Outcome::Wait(wait))
            }
            Pull::Done => {
                self.is_source_done = true;
                self.next = Next::Flush(0);
                Ok(Outcome::Again)
            }
        }
    }

    fn push(&mut self, at: usize, batch: Batch, stage: &Stage, cut: &Cut, waker: &Waker) -> Result<Outcome> {
        let started = Instant::now();
        let rows = batch.rows() as u64;
        let Some(&number) = stage.path.get(at) else {
            let metrics = &self.metrics.sink;
            metrics.rows_in.fetch_add(rows, Relaxed);
            let answer = self.sink.push(batch, &cx!(self, waker, metrics));
            note_time(metrics, started);
            let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
            return Ok(self.after_sink(answer, stage, cut));
        };
        let metrics = &self.metrics.transforms[number];
        metrics.rows_in.fetch_add(rows, Relaxed);
        let answer = live(&mut self.transforms[number])?.push(batch, &cx!(self, waker, metrics));
        note_time(metrics, started);
        let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
        Ok(self.after_transform(at, answer, stage, cut))
    }

    fn resume(&mut self, at: usize, stage: &Stage, cut: &Cut, waker: &Waker) -> Result<Outcome> {
        let started = Instant::now();
        let Some(&number) = stage.path.get(at) else {
            let metrics = &self.metrics.sink;
            let answer = self.sink.resume(&cx!(self, waker, metrics));
            note_time(metrics, started);
            let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
            return Ok(self.after_sink(answer, stage, cut));
        };
        let metrics = &self.metrics.transforms[number];
        let answer = live(&mut self.transforms[number])?.resume(&cx!(self, waker, metrics));
        note_time(metrics, started);
        let answer = answer.map_err(|e| complete(e, metrics, &self.query))?;
        Ok(self.after_transform(at, answer, stage, cut))
    }

    fn after_sink(&mut self, answer: Flow, stage: &Stage, cut: &Cut) -> Outcome {
        match answer {
            Flow::NeedInput => self.unwind(),
            Flow::Wait(wait) => {
                note_wait(&self.metrics.sink, &wait);
                self.next = Next::Resume(stage.path.len());
                return Outcome::Wait(wait);
            }
            Flow::Done => {
                self.cut(stage.path.len(), stage, cut);
                self.unwind();
            }
        }
        Outcome::Again
    }

    fn after_transform(&mut self, at: usize, answer: Output, stage: &Stage, cut: &Cut) -> Outcome {
        match answer {
            Output::NeedInput => self.unwind(),
            Output::Emit(batch) => self.emit(at, batch, stage),
            Output::EmitMore(batch) => {
                self.more.push(at);
                self.emit(at, batch, stage);
            }
            Output::Wait(wait) => {
                note_wait(&self.metrics.transforms[stage.path[at]], &wait);
                self.next = Next::Resume(at);
                return Outcome::Wait(wait);
            }
            Output::Done(last) => {
                self.cut(at, stage, cut);
                match last {
                    Some(batch) => self.emit(at, batch, stage),
                    None => self.unwind(),
                }
            }
        }
        Outcome::Again
    }

    fn flush(&mut self, at: usize, stage: &Stage, waker: &Waker) -> Result<Outcome> {
        let Some(&number) = stage.path.get(at) else { return Ok(Outcome::End) };
        self.flushing = Some(at);
        let metrics = &self.metrics.transforms[number];
        let started = Instant::now();
        let answer = live(&mut self.transforms[number])?.flush(&cx!(self, waker, metrics));
        note_time(metrics, started);
        match answer.map_err(|e| complete(e, metrics, &self.query))? {
            Output::NeedInput | Output::Done(None) => self.next = Next::Flush(at + 1),
            // There may be more: `unwind` comes back to this flush.
            Output::Emit(batch) | Output::EmitMore(batch) => self.emit(at, batch, stage),
            Output::Done(Some(batch)) => {
                self.flushing = Some(at + 1);
                self.emit(at, batch, stage);
            }
            Output::Wait(wait) => {
                note_wait(metrics, &wait);
                self.next = Next::Flush(at);
                return Ok(Outcome::Wait(wait));
            }
        }
        Ok(Outcome::Again)
    }

    fn emit(&mut self, at: usize, batch: Batch, stage: &Stage) {
        note_rows(&self.metrics.transforms[stage.path[at]], &batch);
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
    fn cut(&mut self, at: usize, stage: &Stage, cut: &Cut) {
        let operator = stage.path.get(at).copied().unwrap_or(self.transforms.len());
        cut.close(operator);
        self.has_cut = true;
        self.over_here = self.over_here.max(at + 1);
        self.over[operator] = true;
        for upstream in (0..operator).rev() {
            self.over[upstream] |= self.over[self.next_of[upstream]];
        }
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
                note_wait(metrics, &wait);
                Ok(Outcome::Wait(wait))
            }
        }
    }

    /// What the sink's final work may use.
    pub(super) fn sink_cx<'a>(&'a self, waker: &'a Waker) -> LaneCx<'a> {
        cx!(self, waker, &self.metrics.sink)
    }
}

/// The state of an operator that lives.
fn live<T: ?Sized>(slot: &mut Option<Box<T>>) -> Result<&mut T> {
    slot.as_deref_mut().ok_or_else(|| Error::internal("an operator is called outside of its life"))
}

pub(super) fn note_time(metrics: &OperatorMetrics, started: Instant) {
    metrics.busy_nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
}

fn note_wait(metrics: &OperatorMetrics, wait: &Wait) {
    metrics.waits.fetch_add(1, Relaxed);
    match wait.reason() {
        WaitReason::Memory => _ = metrics.memory_waits.fetch_add(1, Relaxed),
        WaitReason::Queue => _ = metrics.queue_waits.fetch_add(1, Relaxed),
        WaitReason::Turn | WaitReason::Fault => {}
    }
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
