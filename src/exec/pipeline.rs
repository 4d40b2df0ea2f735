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

use super::checked::{CheckedSink, CheckedSource, CheckedTransform};
use super::contract::{Finish, Need, OperatorTask};
use super::cx::OpenCx;
use super::erased::{SinkBox, SinkRun, SourceBox, TransformBox};
use super::lane::{Lane, LaneMemory, LaneMetrics, LaneOperators, Origin, Outcome, complete};
use super::query::{Alive, QueryRun};
use super::victim::Victim;
use super::wait::Wait;
use crate::error::{Error, Result};
use crate::mem::{Account, Knobs, Reservation};
use crate::metrics::OperatorMetrics;
use crate::sched::{Step, Task, TaskHandle};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A pipeline to run.
pub(crate) struct PipelineSpec {
    /// Its main sources, one stage each.
    pub(crate) sources: Vec<SourceBox>,
    /// What rows go through, in order.
    pub(crate) transforms: Vec<TransformBox>,
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
        let useful = self.sources.iter().map(|s| s.0.max_lanes()).max().unwrap_or(1);
        knobs.lanes.min(self.max_lanes).min(useful).max(1)
    }

    /// Floor of one lane: what its operators need, and what the lane's own small structures take on the heap.
    pub(crate) fn lane_bytes(&self, knobs: &Knobs) -> usize {
        let sources = self.sources.iter().map(|s| s.0.need(knobs).lane_bytes);
        let transforms = self.transforms.iter().map(|t| t.0.need(knobs).lane_bytes);
        LANE_HEAP_BYTES + sources.chain(transforms).sum::<usize>() + self.sink.0.need(knobs).lane_bytes
    }

    /// Bytes its shared states need.
    pub(crate) fn shared_bytes(&self, knobs: &Knobs) -> usize {
        let sources = self.sources.iter().map(|s| s.0.need(knobs).shared_bytes);
        let transforms = self.transforms.iter().map(|t| t.0.need(knobs).shared_bytes);
        sources.chain(transforms).sum::<usize>() + self.sink.0.need(knobs).shared_bytes
    }

    /// Bytes granted to the pipeline before the query starts.
    pub(crate) fn floor_bytes(&self, knobs: &Knobs) -> usize {
        self.lanes(knobs) * self.lane_bytes(knobs) + self.shared_bytes(knobs)
    }
}

/// Heap a lane may use outside slabs: vectors of handles, boxed states, metadata.
const LANE_HEAP_BYTES: usize = 128 << 10;
/// A lane answers `Again` after about this long, so that others get their share.
const SLICE: Duration = Duration::from_millis(2);

pub(super) struct PipelineRun {
    query: Arc<QueryRun>,
    index: usize,
    stages: Vec<Origin>,
    sink: Box<dyn SinkRun>,
    /// Operators before this index get no more input: the last of them answered `Done`.
    cut: AtomicUsize,
    barrier: Mutex<Barrier>,
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

impl PipelineRun {
    /// Opens all operators of pipeline `index` and spawns its lanes. Runs on a worker.
    pub(super) fn start(
        query: &Arc<QueryRun>,
        index: usize,
        spec: &PipelineSpec,
        mut floor: Reservation,
    ) -> Result<()> {
        let cx = &query.cx;
        let knobs = &cx.knobs;
        let lanes = spec.lanes(knobs);
        let metrics = query.pipeline_metrics(index);
        let mut open_cx = |metrics, need: Need| {
            let floor = RefCell::new(floor.split(need.shared_bytes));
            OpenCx { query: cx, lanes, metrics, floor }
        };
        let sink = spec.sink.0.open(&open_cx(&metrics.sink, spec.sink.0.need(knobs)));
        let sink = sink.map_err(|e| complete(e, &metrics.sink, cx))?;
        let transforms = spec.transforms.iter().zip(&metrics.transforms);
        let transforms: Vec<_> = transforms
            .map(|(t, m)| t.0.open(&open_cx(m, t.0.need(knobs))).map_err(|e| complete(e, m, cx)))
            .collect::<Result<_>>()?;
        let sources = spec.sources.iter().zip(&metrics.sources);
        let sources: Vec<_> = sources
            .map(|(s, m)| s.0.open(&open_cx(m, s.0.need(knobs))).map_err(|e| complete(e, m, cx)))
            .collect::<Result<_>>()?;

        let drains = spec.transforms.iter().enumerate().filter(|(_, t)| t.0.has_drain());
        let stages = (0..sources.len()).map(Origin::Source).chain(drains.map(|(at, _)| Origin::Drain(at)));
        let barrier = Barrier {
            milestone: Milestone::Stage(0),
            lanes,
            arrived: 0,
            handles: Arc::new([]),
            tasks: Vec::new(),
            running_tasks: 0,
            is_finishing: false,
        };
        let run = Arc::new(Self {
            query: Arc::clone(query),
            index,
            stages: stages.collect(),
            sink,
            cut: AtomicUsize::new(0),
            barrier: Mutex::new(barrier),
        });

        let operators_bytes = spec.lane_bytes(knobs) - LANE_HEAP_BYTES;
        let limit = cx.pool.limit_bytes();
        let quantum = (limit / (64 * lanes)).clamp(4 << 10, 256 << 10);
        let cache = (limit / (4 * lanes)).min(32 << 20);
        let mut states = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let heap = floor.split(LANE_HEAP_BYTES);
            let account = Account::from_reservation(floor.split(operators_bytes), quantum, cache);
            let lane_cx = |metrics| super::cx::LaneCx {
                query: cx,
                account: &account,
                lane,
                waker: Waker::noop(),
                metrics,
            };
            let complete_with = |m: &Arc<OperatorMetrics>| {
                let m = Arc::clone(m);
                move |e| complete(e, &m, cx)
            };
            let sources = sources.iter().zip(&metrics.sources).map(|(s, m)| {
                let cx = lane_cx(m);
                s.lane(&cx).map(|l| CheckedSource::wrap(l, &cx)).map_err(complete_with(m))
            });
            let sources = sources.collect::<Result<Vec<_>>>()?;
            let transforms = transforms.iter().zip(&metrics.transforms).map(|(t, m)| {
                let cx = lane_cx(m);
                t.lane(&cx).map(|l| CheckedTransform::wrap(l, &cx)).map_err(complete_with(m))
            });
            let transforms = transforms.collect::<Result<Vec<_>>>()?;
            let sink = run.sink.lane(&lane_cx(&metrics.sink)).map_err(complete_with(&metrics.sink))?;
            let sink = CheckedSink::wrap(sink, &lane_cx(&metrics.sink));
            let operators = LaneOperators { sources, transforms, sink };
            let victim = Victim::register(&metrics.sink.name, &cx.pool, &account);
            let memory = LaneMemory { victim, account, _heap: heap };
            let lane = Lane::new(operators, lane, Arc::clone(cx), metrics.clone(), memory);
            states.push(LaneState { lane, phase: Phase::Stage(0), wait: None });
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
        self.wake_all();
    }

    fn wake_all(&self) {
        let handles = Arc::clone(&self.barrier.lock().handles);
        for handle in &*handles {
            handle.wake();
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
        let until = Instant::now() + SLICE;
        state.wait = None;
        loop {
            run.query.cx.check()?;
            if state.lane.is_asked() {
                let origin = match state.phase {
                    Phase::Stage(stage) | Phase::Arrived(stage) => Some(run.stages[stage]),
                    // The operators have been merged, or are being merged; only the lane's own slabs are left.
                    Phase::Combining | Phase::Finishing => None,
                };
                state.lane.give_back(origin, waker)?;
            }
            match state.phase {
                Phase::Stage(stage) => {
                    let outcome = state.lane.step(run.stages[stage], &run.cut, waker)?;
                    if state.lane.take_has_cut() {
                        // Some lane may wait for a read that nobody wants any more.
                        run.wake_all();
                    }
                    match outcome {
                        Outcome::Again => {}
                        Outcome::Wait(wait) => {
                            state.wait = Some(wait);
                            return Ok(Step::Parked);
                        }
                        Outcome::End if stage + 1 == run.stages.len() => state.phase = Phase::Combining,
                        Outcome::End => {
                            state.phase = Phase::Arrived(stage);
                            run.arrive(Milestone::Stage(stage + 1));
                        }
                    }
                }
                Phase::Arrived(stage) => {
                    if run.milestone() != Milestone::Stage(stage + 1) {
                        return Ok(Step::Parked);
                    }
                    state.lane.begin_stage();
                    state.phase = Phase::Stage(stage + 1);
                }
                Phase::Combining => match state.lane.combine(waker)? {
                    Outcome::Again => {}
                    Outcome::Wait(wait) => {
                        state.wait = Some(wait);
                        return Ok(Step::Parked);
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
                    Helped::Did => {}
                    Helped::Nothing => return Ok(Step::Parked),
                    Helped::Wait(wait) => {
                        state.wait = Some(wait);
                        return Ok(Step::Parked);
                    }
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
        sources: spec.sources.iter().map(|s| OperatorMetrics::new(s.0.name())).collect(),
        transforms: spec.transforms.iter().map(|t| OperatorMetrics::new(t.0.name())).collect(),
        sink: OperatorMetrics::new(spec.sink.0.name()),
    }
}
