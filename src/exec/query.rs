//! The run of a query: pipelines in the order of their dependencies, the first error, the end.
//!
//! Owns: [`QuerySpec`], [`QueryRun`], admission of a query's floors.
//!
//! Invariants:
//! 1. Floors of all pipelines are granted before the first one starts, so none can fail to start for memory.
//! 2. `on_end` is called exactly once, after the last lane has let go of its memory.
//! 3. A query that fails or is cancelled wakes all its parked lanes, so that they end.

use super::cx::QueryCx;
use super::lane::LaneMetrics;
use super::pipeline::{PipelineRun, PipelineSpec, lane_metrics};
use crate::error::{Error, MemoryError, Result};
use crate::mem::{Knobs, Pool, Reservation, fit_knobs};
use crate::metrics::OperatorMetrics;
use crate::sched::{Group, Step, Task, TaskHandle};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::task::Waker;

/// Pipelines of a query; dependencies point to earlier indices.
pub(crate) struct QuerySpec {
    /// The pipelines.
    pub(crate) pipelines: Vec<PipelineSpec>,
}

impl QuerySpec {
    /// Settles the knobs: the largest under which all floors fit, and at most half of the budget is irrevocable
    /// when that is possible at all.
    ///
    /// # Errors
    /// `BudgetTooSmall` if even the smallest floors do not fit the pool.
    pub(crate) fn admit(&self, most: Knobs, pool: &Pool) -> Result<Knobs> {
        let limit = pool.limit_bytes();
        let need = |knobs: &Knobs| self.pipelines.iter().map(|p| p.floor_bytes(knobs)).sum::<usize>();
        let share = limit / 2 + limit / 8;
        fit_knobs(most, share, &need).or_else(|_| fit_knobs(most, limit, &need)).map_err(|required_bytes| {
            Error::memory(MemoryError::BudgetTooSmall {
                required_bytes,
                limit_bytes: limit,
                operator: "the query's smallest plan".to_owned(),
            })
        })
    }
}

type OnEnd = Box<dyn FnOnce(Result<()>) + Send>;

/// A query in flight.
pub(crate) struct QueryRun {
    pub(super) cx: Arc<QueryCx>,
    pub(super) group: Group,
    pipelines: Vec<Pipeline>,
    /// Tasks that have not ended; the last one ends the query.
    live_tasks: AtomicUsize,
    handles: Mutex<Vec<TaskHandle>>,
    on_end: Mutex<Option<OnEnd>>,
}

struct Pipeline {
    /// Until it starts; then its operators belong to its run and are dropped with it.
    spec: Mutex<Option<PipelineSpec>>,
    depends_on: Vec<usize>,
    metrics: LaneMetrics,
    /// Dependencies that have not finished.
    blocked_by: AtomicUsize,
    floor: Mutex<Option<Reservation>>,
}

/// Opens a pipeline on a worker.
struct StartTask {
    query: Arc<QueryRun>,
    pipeline: usize,
}

impl QueryRun {
    /// Grants the floors and starts what depends on nothing.
    ///
    /// # Errors
    /// A memory error if the floors are not to be had now.
    pub(crate) fn start(
        spec: QuerySpec,
        cx: Arc<QueryCx>,
        group: Group,
        on_end: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Arc<Self>> {
        let mut pipelines = Vec::with_capacity(spec.pipelines.len());
        for spec in spec.pipelines {
            let mut floor = Reservation::empty(&cx.pool);
            floor.try_grow(spec.floor_bytes(&cx.knobs)).map_err(|denied| {
                Error::memory(MemoryError::Exceeded {
                    required_bytes: denied.bytes,
                    limit_bytes: cx.pool.limit_bytes(),
                    operator: "starting the query".to_owned(),
                    top_consumers: cx.pool.top_consumers(3),
                })
            })?;
            pipelines.push(Pipeline {
                metrics: lane_metrics(&spec),
                blocked_by: AtomicUsize::new(spec.depends_on.len()),
                floor: Mutex::new(Some(floor)),
                depends_on: spec.depends_on.clone(),
                spec: Mutex::new(Some(spec)),
            });
        }
        let run = Arc::new(Self {
            cx,
            group,
            pipelines,
            // One for this call, so that nothing ends before everything has started.
            live_tasks: AtomicUsize::new(1),
            handles: Mutex::new(Vec::new()),
            on_end: Mutex::new(Some(Box::new(on_end))),
        });
        for (index, pipeline) in run.pipelines.iter().enumerate() {
            if pipeline.depends_on.is_empty() {
                Self::spawn_start(&run, index);
            }
        }
        Self::task_over(&run);
        Ok(run)
    }

    /// A handle that cancels the query and does not keep it.
    pub(crate) fn downgrade(run: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(run)
    }

    /// Ends the query with `error` unless it has failed already, and wakes everything that waits.
    pub(crate) fn fail(&self, error: Error) {
        self.cx.fail(error);
        self.group.expedite();
        for handle in self.handles.lock().iter() {
            handle.wake();
        }
    }

    /// The query's context.
    pub(crate) fn cx(&self) -> &Arc<QueryCx> {
        &self.cx
    }

    /// Metrics of all operators, pipeline by pipeline, upstream first.
    pub(crate) fn operators(&self) -> Vec<Vec<Arc<OperatorMetrics>>> {
        let of = |p: &Pipeline| {
            let upstream = p.metrics.sources.iter().chain(&p.metrics.transforms).cloned();
            upstream.chain([Arc::clone(&p.metrics.sink)]).collect()
        };
        self.pipelines.iter().map(of).collect()
    }

    pub(super) fn pipeline_metrics(&self, index: usize) -> LaneMetrics {
        self.pipelines[index].metrics.clone()
    }

    pub(super) fn keep_handle(&self, handle: &TaskHandle) {
        let mut handles = self.handles.lock();
        handles.push(handle.clone());
        if self.cx.is_stopped() {
            handle.wake();
        }
    }

    pub(super) fn tasks_spawned(&self, count: usize) {
        self.live_tasks.fetch_add(count, SeqCst);
    }

    fn spawn_start(run: &Arc<Self>, pipeline: usize) {
        run.tasks_spawned(1);
        run.group.spawn(Arc::new(StartTask { query: Arc::clone(run), pipeline }));
    }

    /// Starts what only waited for `finished`.
    pub(super) fn pipeline_finished(run: &Arc<Self>, finished: usize) {
        for (index, pipeline) in run.pipelines.iter().enumerate() {
            let edges = pipeline.depends_on.iter().filter(|&&d| d == finished).count();
            if edges > 0 && pipeline.blocked_by.fetch_sub(edges, SeqCst) == edges {
                Self::spawn_start(run, index);
            }
        }
    }

    pub(super) fn task_over(run: &Arc<Self>) {
        if run.live_tasks.fetch_sub(1, SeqCst) != 1 {
            return;
        }
        run.handles.lock().clear();
        for pipeline in &run.pipelines {
            pipeline.floor.lock().take();
            pipeline.spec.lock().take();
        }
        let on_end = run.on_end.lock().take();
        if let Some(on_end) = on_end {
            on_end(run.cx.error().map_or(Ok(()), Err));
        }
    }
}

impl Task for StartTask {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        let pipeline = &self.query.pipelines[self.pipeline];
        let parts = pipeline.floor.lock().take().zip(pipeline.spec.lock().take());
        let started = match parts {
            _ if self.query.cx.is_stopped() => Ok(()),
            Some((floor, spec)) => PipelineRun::start(&self.query, self.pipeline, &spec, floor),
            None => Err(Error::internal("a pipeline was started twice")),
        };
        if let Err(error) = started {
            self.query.fail(error);
        }
        QueryRun::task_over(&self.query);
        Step::Done
    }

    fn panicked(&self, message: String) {
        self.query.fail(Error::internal(format!("a worker panicked: {message}")));
        QueryRun::task_over(&self.query);
    }
}
