//! The run of one pipeline: its lanes, the barriers between its stages, its end.
//!
//! Owns: [`PipelineSpec`] (what to run) and `PipelineRun` (the run).
//!
//! Invariants:
//! 1. A stage starts when every lane has ended the one before; `finish` starts when every lane has combined.
//!    This is the only place that waits for all lanes.
//! 2. The sink's final tasks run on the pipeline's lanes, with their memory.
//! 3. A lane that fails or panics fails the query; the others see it at their next step and end.
//! 4. However a lane's task ends, even undone with its scheduler, its state is dropped first, then its hold on the
//!    run, then its share in the query's life.
//! 5. Nobody is woken while the barrier is locked: a wake may end tasks.

use super::checked::CheckedSink;
use super::contract::{Finish, Need, OperatorTask};
use super::cx::OpenCx;
use super::erased::{SinkBox, SinkRun, SourceBox, SourceRun, TransformBox, TransformRun};
use super::lane::{Lane, LaneFloor, LaneMemory, LaneMetrics, Outcome, StageRuns, complete};
use super::query::{Alive, QueryRun};
use super::shape::{Cut, Origin, Shape, Stages};
use super::victim::Victim;
use super::wait::{Wait, WaitReason};
use crate::error::{Error, Result};
use crate::mem::{Account, Knobs, Reservation};
use crate::metrics::OperatorMetrics;
use crate::sched::{Step, Task, TaskHandle};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A pipeline to run.
pub(crate) struct PipelineSpec {
    /// Its main sources, one stage each.
    pub(crate) sources: Vec<SourceBox>,
    /// What rows go through.
    pub(crate) transforms: Vec<TransformBox>,
    /// Who feeds whom.
    pub(crate) shape: Shape,
    /// Where they end.
    pub(crate) sink: SinkBox,
    /// The most lanes to use; 1 keeps the order of the source.
    pub(crate) max_lanes: usize,
    /// Indices of pipelines of the query that must have finished before.
    pub(crate) depends_on: Vec<usize>,
}

impl PipelineSpec {
    /// Lanes it runs with under `knobs`.
    pub(crate) fn lanes(&self, knobs: &Knobs) -> usize {
        let useful = (0..self.sources.len()).map(|at| self.source_lanes(at)).max().unwrap_or(1);
        knobs.lanes.min(self.max_lanes).min(useful).max(1)
    }

    /// Lanes that may read a source.
    fn source_lanes(&self, at: usize) -> usize {
        self.sources[at].0.max_lanes().min(self.shape.feeds[at].max_lanes).max(1)
    }

    fn stages(&self) -> Stages {
        self.shape.stages(&|at| self.transforms[at].0.has_drain())
    }

    /// What its operators are asked with: their needs are those of the lanes there are.
    fn own(&self, knobs: &Knobs) -> Knobs {
        Knobs { lanes: self.lanes(knobs), ..*knobs }
    }

    /// For each stage, what a lane needs at the most at once from then on; last, what the sink needs for its final work.
    fn lane_floors(&self, knobs: &Knobs) -> Vec<LaneFloor> {
        let knobs = &self.own(knobs);
        let source = |at: usize| self.sources[at].0.need(knobs).lane_bytes;
        let transform = |at: usize| self.transforms[at].0.need(knobs).lane_bytes;
        let sink_bytes = self.sink.0.need(knobs).lane_bytes;
        let peaks = self.stages().peaks(&source, &transform);
        let floor = |(source_bytes, transforms_bytes): (usize, usize)| LaneFloor {
            source_bytes,
            operators_bytes: transforms_bytes + sink_bytes,
        };
        peaks.into_iter().chain([(0, 0)]).map(floor).collect()
    }

    /// Floor of one lane: what its operators need, and what the lane's own small structures take on the heap.
    pub(crate) fn lane_bytes(&self, knobs: &Knobs) -> usize {
        LANE_HEAP_BYTES + self.lane_floors(knobs)[0].bytes()
    }

    /// Bytes its shared states need.
    pub(crate) fn shared_bytes(&self, knobs: &Knobs) -> usize {
        let knobs = &self.own(knobs);
        let sources = self.sources.iter().map(|s| s.0.need(knobs).shared_bytes);
        let transforms = self.transforms.iter().map(|t| t.0.need(knobs).shared_bytes);
        sources.chain(transforms).sum::<usize>() + self.sink.0.need(knobs).shared_bytes
    }

    /// Floors of all its lanes.
    pub(crate) fn lanes_bytes(&self, knobs: &Knobs) -> usize {
        self.lanes(knobs) * self.lane_bytes(knobs)
    }
}

/// Heap a lane may use outside slabs: vectors of handles, boxed states, metadata.
const LANE_HEAP_BYTES: usize = 128 << 10;
/// A lane answers `Again` after about this long, so that others get their share.
const SLICE: Duration = Duration::from_millis(2);

pub(super) struct PipelineRun {
    query: Arc<QueryRun>,
    index: usize,
    stages: Stages,
    /// Sources and transforms that live, or have not begun to.
    upstream: Mutex<Upstream>,
    sink: Box<dyn SinkRun>,
    floors: LaneFloors,
    cut: Cut,
    barrier: Mutex<Barrier>,
}

/// What a lane's floor must be.
struct LaneFloors {
    /// From each stage on, and at last for the sink's final work.
    of_stages: Vec<LaneFloor>,
    /// What a lane keeps granted for pipelines that come later.
    kept_bytes: usize,
}

/// What the lanes' states are made from.
struct Upstream {
    sources: Vec<Option<Arc<dyn SourceRun>>>,
    transforms: Vec<Option<Arc<dyn TransformRun>>>,
}

struct Barrier {
    milestone: Milestone,
    lanes: usize,
    arrived: usize,
    handles: Arc<[TaskHandle]>,
    tasks: Vec<OperatorTask>,
    running_tasks: usize,
    is_finishing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Milestone {
    Stage(usize),
    Finish,
    Over,
}

/// Where a lane stands.
enum Phase {
    /// Makes its states for a stage.
    Opening(usize),
    /// Runs a stage.
    Stage(usize),
    /// Has ended a stage; waits for the others.
    Arrived(usize),
    /// Merges into the sink.
    Combining,
    /// Has combined; helps to finish.
    Finishing,
}

/// A lane as the scheduler sees it.
struct LaneTask {
    // In the order in which they go (invariant 4).
    state: Mutex<Option<LaneState>>,
    run: Arc<PipelineRun>,
    _alive: Alive,
}

struct LaneState {
    lane: Lane,
    phase: Phase,
    /// Keeps what the lane waits for registered.
    wait: Option<Wait>,
}

impl LaneState {
    /// Leaves the worker until what `wait` is for, or its time, has come.
    fn park(&mut self, wait: Wait) -> Step {
        let until = wait.until();
        self.wait = Some(wait);
        until.map_or(Step::Parked, Step::ParkedUntil)
    }
}

impl PipelineRun {
    /// Opens all operators of pipeline `index` and spawns its lanes. Runs on a worker.
    pub(super) fn start(
        query: &Arc<QueryRun>,
        index: usize,
        spec: &PipelineSpec,
        mut floor: Reservation,
    ) -> Result<()> {
        let cx = &query.cx;
        let knobs = &spec.own(&cx.knobs);
        let lanes = knobs.lanes;
        let metrics = query.pipeline_metrics(index);
        let mut open_cx = |metrics, need: Need| {
            let floor = RefCell::new(floor.split(need.shared_bytes));
            OpenCx { query: cx, lanes, metrics, floor }
        };
        let sink = spec.sink.0.open(&open_cx(&metrics.sink, spec.sink.0.need(knobs)));
        let sink = sink.map_err(|e| complete(e, &metrics.sink, cx))?;
        let transforms = spec.transforms.iter().zip(&metrics.transforms);
        let transforms: Vec<_> = transforms
            .map(|(t, m)| {
                let opened = t.0.open(&open_cx(m, t.0.need(knobs)));
                opened.map(|run| Some(Arc::from(run))).map_err(|e| complete(e, m, cx))
            })
            .collect::<Result<_>>()?;
        let sources = spec.sources.iter().zip(&metrics.sources);
        let sources: Vec<_> = sources
            .map(|(s, m)| {
                let opened = s.0.open(&open_cx(m, s.0.need(knobs)));
                opened.map(|run| Some(Arc::from(run))).map_err(|e| complete(e, m, cx))
            })
            .collect::<Result<_>>()?;

        let mut stages = spec.stages();
        for stage in &mut stages.list {
            if let Origin::Source(at) = stage.origin {
                stage.max_lanes = spec.source_lanes(at);
            }
        }
        let barrier = Barrier {
            milestone: Milestone::Stage(0),
            lanes,
            arrived: 0,
            handles: Arc::new([]),
            tasks: Vec::new(),
            running_tasks: 0,
            is_finishing: false,
        };
        let of_stages = spec.lane_floors(knobs);
        let kept_bytes = query.floors.kept_bytes(index, lanes).saturating_sub(LANE_HEAP_BYTES);
        let first = of_stages[0];
        let run = Arc::new(Self {
            query: Arc::clone(query),
            index,
            stages,
            upstream: Mutex::new(Upstream { sources, transforms }),
            sink,
            floors: LaneFloors { of_stages, kept_bytes },
            cut: Cut::new(spec.transforms.len()),
            barrier: Mutex::new(barrier),
        });

        let next_of: Arc<[usize]> = spec.shape.next.clone().into();
        let limit = cx.pool.limit_bytes();
        let quantum = (limit / (64 * lanes)).clamp(4 << 10, 256 << 10);
        let cache = (limit / (4 * lanes)).min(32 << 20);
        let mut states = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let heap = floor.split(LANE_HEAP_BYTES);
            let mut account =
                |floor_bytes| Account::from_reservation(floor.split(floor_bytes), quantum, cache);
            let (source, account) = (account(first.source_bytes), account(first.operators_bytes));
            let sink_cx = super::cx::LaneCx {
                query: cx,
                account: &account,
                lane,
                waker: Waker::noop(),
                metrics: &metrics.sink,
            };
            let sink = run.sink.lane(&sink_cx).map_err(|e| complete(e, &metrics.sink, cx))?;
            let sink = CheckedSink::wrap(sink, &sink_cx);
            let victim = Victim::register(&metrics.sink.name, &cx.pool, [&source, &account]);
            let memory = LaneMemory { victim, source, account, heap, query: Arc::clone(query) };
            let next_of = Arc::clone(&next_of);
            let lane = Lane::new(sink, next_of, lane, Arc::clone(cx), metrics.clone(), memory);
            states.push(LaneState { lane, phase: Phase::Opening(0), wait: None });
        }
        drop(floor);

        // Held so that no lane reaches the barrier before all handles are in it.
        let mut barrier = run.barrier.lock();
        let mut links = Vec::with_capacity(lanes);
        let handles = states.into_iter().map(|state| {
            links.push(state.lane.victim_link());
            let task = LaneTask {
                state: Mutex::new(Some(state)),
                run: Arc::clone(&run),
                _alive: Alive::share(query),
            };
            query.group.spawn(Arc::new(task))
        });
        let handles: Arc<[TaskHandle]> = handles.collect();
        barrier.handles = Arc::clone(&handles);
        drop(barrier);
        for (link, handle) in links.into_iter().zip(&*handles) {
            link.set(handle);
        }
        query.keep_handles(&handles);
        Ok(())
    }

    /// A lane has ended its stage (or combined).
    fn arrive(&self, next: Milestone) {
        {
            let mut barrier = self.barrier.lock();
            barrier.arrived += 1;
            if barrier.arrived < barrier.lanes {
                return;
            }
            barrier.arrived = 0;
            barrier.milestone = next;
        }
        self.let_go(next);
        self.wake_all();
    }

    /// Drops what does not live on: no lane has a state of it any more.
    fn let_go(&self, next: Milestone) {
        let is_over = |last: usize| match next {
            Milestone::Stage(stage) => last < stage,
            Milestone::Finish | Milestone::Over => true,
        };
        let mut upstream = self.upstream.lock();
        let lives = upstream.transforms.iter_mut().zip(&self.stages.lives);
        let transforms: Vec<_> =
            lives.filter(|(_, life)| is_over(*life.end())).map(|(t, _)| t.take()).collect();
        let mut sources = Vec::new();
        for (at, stage) in self.stages.list.iter().enumerate() {
            if let Origin::Source(number) = stage.origin
                && is_over(at)
            {
                sources.push(upstream.sources[number].take());
            }
        }
        // Not under the lock: a drop may wake others.
        drop(upstream);
        drop((transforms, sources));
    }

    /// What a lane needs for the states of a stage.
    fn runs(&self, stage: usize, lane: usize) -> StageRuns {
        let Stages { list, lives } = &self.stages;
        let upstream = self.upstream.lock();
        let begin = lives.iter().enumerate().filter(|(_, life)| *life.start() == stage);
        let transforms =
            begin.filter_map(|(at, _)| Some((at, Arc::clone(upstream.transforms[at].as_ref()?))));
        let source = match list[stage].origin {
            Origin::Source(at) if lane < list[stage].max_lanes => upstream.sources[at].clone(),
            Origin::Source(_) | Origin::Drain(_) => None,
        };
        StageRuns { source, transforms: transforms.collect() }
    }

    /// A lane has nothing more to do in a stage.
    fn end_stage(&self, stage: usize, state: &mut LaneState) {
        let next = stage + 1;
        state.lane.end_stage(|at| *self.stages.lives[at].end() < next);
        if next == self.stages.list.len() {
            state.lane.lower_floor(self.floors.of_stages[next], self.floors.kept_bytes);
            state.phase = Phase::Combining;
        } else {
            state.phase = Phase::Arrived(stage);
            self.arrive(Milestone::Stage(next));
        }
    }

    fn wake_all(&self) {
        let handles = Arc::clone(&self.barrier.lock().handles);
        for handle in &*handles {
            handle.wake();
        }
    }

    /// Giving others a turn is a piece of work done; other waits are not.
    fn note_wait(&self, wait: &Wait) {
        match wait.reason() {
            WaitReason::Turn => self.query.cx.pool.note_progress(),
            WaitReason::Memory | WaitReason::Queue | WaitReason::Fault => {}
        }
    }

    fn milestone(&self) -> Milestone {
        self.barrier.lock().milestone
    }

    /// Runs final tasks while there are some, and `finish` when there are none. One call's worth.
    fn help_finish(&self, state: &LaneState, waker: &Waker) -> Result<Helped> {
        let task = {
            let mut barrier = self.barrier.lock();
            if barrier.milestone == Milestone::Over {
                return Ok(Helped::Over);
            }
            match barrier.tasks.pop() {
                Some(task) => {
                    barrier.running_tasks += 1;
                    Some(task)
                }
                None if barrier.running_tasks > 0 || barrier.is_finishing => return Ok(Helped::Nothing),
                None => {
                    barrier.is_finishing = true;
                    None
                }
            }
        };
        let cx = state.lane.sink_cx(waker);
        let started = Instant::now();
        if let Some(task) = task {
            let outcome = task(&cx);
            super::lane::note_time(cx.metrics, started);
            let was_last = {
                let mut barrier = self.barrier.lock();
                barrier.running_tasks -= 1;
                barrier.running_tasks == 0 && barrier.tasks.is_empty()
            };
            if was_last {
                self.wake_all();
            }
            outcome.map_err(|e| complete(e, cx.metrics, cx.query))?;
            return Ok(Helped::Did);
        }
        let outcome = self.sink.finish(&cx);
        super::lane::note_time(cx.metrics, started);
        let outcome = outcome.map_err(|e| complete(e, cx.metrics, cx.query))?;
        let helped = {
            let mut barrier = self.barrier.lock();
            barrier.is_finishing = false;
            match outcome {
                Finish::Ready => {
                    barrier.milestone = Milestone::Over;
                    Helped::Over
                }
                Finish::Tasks(tasks) => {
                    barrier.tasks = tasks;
                    Helped::Did
                }
                Finish::Wait(wait) => return Ok(Helped::Wait(wait)),
            }
        };
        self.wake_all();
        if matches!(helped, Helped::Over) {
            QueryRun::pipeline_finished(&self.query, self.index);
        }
        Ok(helped)
    }
}

impl Drop for PipelineRun {
    /// The last lane is gone.
    fn drop(&mut self) {
        if self.barrier.get_mut().milestone == Milestone::Over {
            QueryRun::pipeline_left(&self.query, self.index);
        }
    }
}

/// What helping to finish came to.
enum Helped {
    Did,
    Nothing,
    Wait(Wait),
    Over,
}

impl LaneTask {
    /// Steps until the slice is over, the lane waits, or it has ended.
    fn advance(&self, state: &mut LaneState, waker: &Waker) -> Result<Step> {
        let run = &self.run;
        let now = Instant::now();
        run.query.cx.resident.sample(now);
        let until = now + SLICE;
        state.wait = None;
        loop {
            run.query.cx.check()?;
            if state.lane.is_asked() {
                let has_operators = match state.phase {
                    Phase::Opening(_) | Phase::Stage(_) | Phase::Arrived(_) => true,
                    // The operators have been merged, or are being merged; only the lane's own slabs are left.
                    Phase::Combining | Phase::Finishing => false,
                };
                state.lane.give_back(has_operators, waker)?;
            }
            match state.phase {
                Phase::Opening(at) => {
                    let stage = &run.stages.list[at];
                    let lane = &mut state.lane;
                    lane.lower_floor(run.floors.of_stages[at], run.floors.kept_bytes);
                    lane.begin_stage(stage, run.runs(at, lane.index), &run.cut, waker)?;
                    if lane.index < stage.max_lanes {
                        state.phase = Phase::Stage(at);
                    } else {
                        run.end_stage(at, state);
                    }
                }
                Phase::Stage(at) => {
                    let outcome = state.lane.step(&run.stages.list[at], &run.cut, waker)?;
                    if state.lane.take_has_cut() {
                        // Some lane may wait for a read that nobody wants any more.
                        run.wake_all();
                    }
                    match outcome {
                        Outcome::Again => run.query.cx.pool.note_progress(),
                        Outcome::Wait(wait) => {
                            run.note_wait(&wait);
                            return Ok(state.park(wait));
                        }
                        Outcome::End => run.end_stage(at, state),
                    }
                }
                Phase::Arrived(stage) => {
                    if run.milestone() != Milestone::Stage(stage + 1) {
                        return Ok(Step::Parked);
                    }
                    state.phase = Phase::Opening(stage + 1);
                }
                Phase::Combining => match state.lane.combine(waker)? {
                    Outcome::Again => run.query.cx.pool.note_progress(),
                    Outcome::Wait(wait) => {
                        run.note_wait(&wait);
                        return Ok(state.park(wait));
                    }
                    Outcome::End => {
                        state.phase = Phase::Finishing;
                        run.arrive(Milestone::Finish);
                    }
                },
                Phase::Finishing if matches!(run.milestone(), Milestone::Stage(_)) => {
                    return Ok(Step::Parked);
                }
                Phase::Finishing => match run.help_finish(state, waker)? {
                    Helped::Did => run.query.cx.pool.note_progress(),
                    Helped::Nothing => return Ok(Step::Parked),
                    Helped::Wait(wait) => return Ok(state.park(wait)),
                    Helped::Over => return Ok(Step::Done),
                },
            }
            if Instant::now() >= until {
                return Ok(Step::Again);
            }
        }
    }
}

impl Task for LaneTask {
    fn run(&self, _worker: usize, waker: &Waker) -> Step {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else { return Step::Done };
        let step = match self.advance(state, waker) {
            Ok(step) => step,
            Err(error) => {
                self.run.query.fail(error);
                Step::Done
            }
        };
        if step == Step::Done {
            // Here, so that a panic in a drop is a panic of this task.
            *guard = None;
        }
        step
    }

    fn panicked(&self, message: String) {
        self.run.query.fail(Error::internal(format!("a worker panicked: {message}")));
    }
}

/// Names of a pipeline's operators as metrics.
pub(super) fn lane_metrics(spec: &PipelineSpec) -> LaneMetrics {
    LaneMetrics {
        sources: spec
            .sources
            .iter()
            .map(|s| OperatorMetrics::of_scan(s.0.name(), s.0.table_rows()))
            .collect(),
        transforms: spec.transforms.iter().map(|t| OperatorMetrics::new(t.0.name())).collect(),
        sink: OperatorMetrics::new(spec.sink.0.name()),
    }
}
