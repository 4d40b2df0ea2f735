//! The run of a query: pipelines in the order of their dependencies, the first error, the end.
//!
//! Owns: [`QuerySpec`], [`QueryRun`], admission of a query: its place among those that run, then its floors.
//!
//! Invariants:
//! 1. All that its floors need is granted at once before the first pipeline starts (`floors`). A query that finds no
//!    place (`slots`), or its floors taken by others, waits its turn without a thread; if nobody runs who would give
//!    the floors back, it fails instead of waiting for ever.
//! 2. `on_end` is called exactly once, after the last task has let go of its memory. Each task holds a share in the
//!    query's life ([`Alive`]), so this is true also of tasks that are dropped undone with their scheduler.
//! 3. A query that fails or is cancelled wakes all its parked tasks, so that they end.
//! 4. A query ends well only if all its pipelines have finished.

use super::cx::QueryCx;
use super::floors::{Floors, Schedule, floor_share_bytes};
use super::lane::LaneMetrics;
use super::pipeline::{PipelineRun, PipelineSpec, lane_metrics};
use super::slots::{Slot, SlotTicket, Slots};
use crate::error::{Consumer, Error, MemoryError, Result};
use crate::mem::{Knobs, MemoryTicket, Pool, Reservation, Tenant, fit_knobs, with_more_partitions};
use crate::metrics::OperatorMetrics;
use crate::sched::{Group, Step, Task, TaskHandle};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

/// So many rows a lane has in hand at once beyond what floors reckon with, if they are wide: one that is scanned, and what
/// breakers make of it on the way to disk and back.
const ROWS_IN_HAND: usize = 16;

/// Pipelines of a query; dependencies point to earlier indices.
pub(crate) struct QuerySpec {
    /// The pipelines.
    pub(crate) pipelines: Vec<PipelineSpec>,
}

impl QuerySpec {
    /// Settles the knobs: lanes for which there is room for rows of the scans' widths, and of such knobs the largest under
    /// which the floors of pipelines that run in turn fit, and at most five eighths of the budget are irrevocable when that
    /// is possible at all. Within these five eighths there are then as many partitions as fit, and, if lanes had to be turned
    /// down, pipelines whose lanes need less than those of the largest one have more of them, as far as they fit in what
    /// that one's take.
    ///
    /// # Errors
    /// `BudgetTooSmall` if even the smallest floors do not fit the pool.
    pub(crate) fn admit(&mut self, most: Knobs, pool: &Pool) -> Result<Knobs> {
        let limit = pool.limit_bytes();
        let most = Knobs { lanes: self.lanes_with_room(most.lanes, limit), ..most };
        let share = floor_share_bytes(limit);
        let need = |knobs: &Knobs| Schedule::InTurn.floor_bytes(&self.pipelines, knobs);
        let knobs = fit_knobs(most, share, &need).or_else(|_| fit_knobs(most, limit, &need));
        let knobs = knobs.map_err(|required_bytes| {
            Error::memory(MemoryError::BudgetTooSmall {
                required_bytes,
                limit_bytes: limit,
                operator: "the query's smallest plan".to_owned(),
            })
        })?;
        let knobs = with_more_partitions(knobs, most.fan_out, share, &need);
        Ok(self.add_lanes(Knobs { lanes: most.lanes, ..knobs }, knobs.lanes, share))
    }

    /// How many lanes, at most `most`, can have rows as wide as those of all scans together in hand beside the floors.
    fn lanes_with_room(&self, most: usize, limit_bytes: usize) -> usize {
        let sources = self.pipelines.iter().flat_map(|pipeline| &pipeline.sources);
        let row_bytes = sources.map(|source| source.0.mean_row_bytes()).fold(0, usize::saturating_add);
        let room_bytes = limit_bytes - floor_share_bytes(limit_bytes);
        (room_bytes / row_bytes.saturating_mul(ROWS_IN_HAND).max(1)).clamp(1, most)
    }

    /// Gives each pipeline as many lanes as fit where the largest has `least_lanes`, if floors then fit `share_bytes`, else
    /// that many; the knobs with the most lanes of any.
    fn add_lanes(&mut self, most: Knobs, least_lanes: usize, share_bytes: usize) -> Knobs {
        let least = Knobs { lanes: least_lanes, ..most };
        if least_lanes == most.lanes {
            return least;
        }
        let largest_bytes = self.pipelines.iter().map(|p| p.lanes_bytes(&least)).max().unwrap_or(0);
        let before: Vec<usize> = self.pipelines.iter().map(|p| p.max_lanes).collect();
        for pipeline in &mut self.pipelines {
            let fits =
                |lanes: &usize| pipeline.lanes_bytes(&Knobs { lanes: *lanes, ..most }) <= largest_bytes;
            let lanes = (least_lanes..=most.lanes).rev().find(fits).unwrap_or(least_lanes);
            pipeline.max_lanes = pipeline.max_lanes.min(lanes);
        }
        let lanes = self.pipelines.iter().map(|p| p.lanes(&most)).max().unwrap_or(least_lanes);
        let more = Knobs { lanes, ..most };
        if Schedule::InTurn.floor_bytes(&self.pipelines, &more) <= share_bytes {
            return more;
        }
        for (pipeline, max_lanes) in self.pipelines.iter_mut().zip(before) {
            pipeline.max_lanes = max_lanes;
        }
        least
    }
}

type OnEnd = Box<dyn FnOnce(Result<()>) + Send>;

/// A query in flight.
pub(crate) struct QueryRun {
    pub(super) cx: Arc<QueryCx>,
    pub(super) group: Group,
    pub(super) floors: Floors,
    /// What all floors together take.
    floors_bytes: usize,
    /// Its place among the queries that run, once it has one.
    slot: Mutex<Option<Slot>>,
    pipelines: Vec<Pipeline>,
    /// Pipelines that have not finished.
    unfinished: AtomicUsize,
    /// Shares in the query's life; whoever drops the last one ends it.
    shares: AtomicUsize,
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
    /// What it takes of the query's floors when it starts.
    floor_bytes: usize,
}

/// A share in the life of a query. Its task drops it after everything else.
pub(super) struct Alive(Arc<QueryRun>);

impl Alive {
    /// One more share; the caller holds one, so the query cannot end meanwhile.
    pub(super) fn share(query: &Arc<QueryRun>) -> Self {
        query.shares.fetch_add(1, SeqCst);
        Self(Arc::clone(query))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.0.shares.fetch_sub(1, SeqCst) == 1 {
            self.0.end();
        }
    }
}

/// Waits for what a query must have before it starts.
struct AdmitTask {
    waits_for: Mutex<Admission>,
    alive: Alive,
}

/// What a query that has not started waits for.
enum Admission {
    /// Nothing: it is over, or has not been told yet.
    Nothing,
    /// A place among those that run.
    Slot(SlotTicket),
    /// Its floors.
    Floors(MemoryTicket),
}

/// Opens a pipeline on a worker.
struct StartTask {
    pipeline: usize,
    alive: Alive,
}

impl QueryRun {
    /// [`start_in`](Self::start_in) with places for all.
    #[cfg(test)]
    pub(crate) fn start(
        spec: QuerySpec,
        cx: Arc<QueryCx>,
        group: Group,
        on_end: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Arc<Self>> {
        Self::start_in(&Slots::new(usize::MAX), spec, cx, group, on_end)
    }

    /// Starts what depends on nothing once the query has a place among `slots` and its floors are granted: at once, or
    /// when its turn has come if other queries hold them. Does not block. `on_end` is called from a worker, or from
    /// whoever drops the scheduler.
    ///
    /// # Errors
    /// `BudgetTooSmall` if the floors are more than the pool may ever hold; then `on_end` is not called.
    pub(crate) fn start_in(
        slots: &Slots,
        spec: QuerySpec,
        cx: Arc<QueryCx>,
        group: Group,
        on_end: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Arc<Self>> {
        let limit_bytes = cx.pool.limit_bytes();
        let schedule = Schedule::fitting(&spec.pipelines, &cx.knobs, limit_bytes);
        let required_bytes = schedule.floor_bytes(&spec.pipelines, &cx.knobs);
        let floors = Floors::none(schedule, &spec.pipelines, &cx.knobs, &cx.pool);
        let pipelines = spec.pipelines.into_iter().map(|spec| Pipeline {
            metrics: lane_metrics(&spec),
            blocked_by: AtomicUsize::new(spec.depends_on.len()),
            floor_bytes: spec.lanes_bytes(&cx.knobs) + spec.shared_bytes(&cx.knobs),
            depends_on: spec.depends_on.clone(),
            spec: Mutex::new(Some(spec)),
        });
        let pipelines: Vec<Pipeline> = pipelines.collect();
        if required_bytes > limit_bytes {
            let operator = "starting the query".to_owned();
            return Err(Error::memory(MemoryError::BudgetTooSmall { required_bytes, limit_bytes, operator }));
        }
        let run = Arc::new(Self {
            floors,
            floors_bytes: required_bytes,
            slot: Mutex::new(None),
            cx,
            group,
            unfinished: AtomicUsize::new(pipelines.len()),
            pipelines,
            shares: AtomicUsize::new(0),
            handles: Mutex::new(Vec::new()),
            on_end: Mutex::new(Some(Box::new(on_end))),
        });
        // Nothing ends before everything has started.
        let alive = Alive::share(&run);
        match slots.try_take() {
            Some(slot) => {
                *run.slot.lock() = Some(slot);
                match run.try_floors() {
                    Some((floors, tenant)) => Self::admitted(&run, floors, tenant),
                    None => Self::queue(&run, |waker| run.wait_for_floors(waker)),
                }
            }
            None => Self::queue(&run, |waker| Admission::Slot(slots.wait(waker.clone()))),
        }
        drop(alive);
        Ok(run)
    }

    /// Takes a place among those who wait for what `wait` asks for. The place is taken here, so that queries start in
    /// order.
    fn queue(run: &Arc<Self>, wait: impl FnOnce(&Waker) -> Admission) {
        let task =
            Arc::new(AdmitTask { waits_for: Mutex::new(Admission::Nothing), alive: Alive::share(run) });
        let handle = run.group.spawn(Arc::clone(&task) as _);
        let waits_for = wait(&handle.waker());
        *task.waits_for.lock() = waits_for;
        // The task may have looked for it in vain.
        handle.wake();
        run.keep_handles(&[handle]);
    }

    fn try_floors(&self) -> Option<(Reservation, Tenant)> {
        // First, so that nobody finds the bytes gone and no one who has them.
        let tenant = Tenant::of(&self.cx.pool);
        let mut floors = Reservation::empty(&self.cx.pool);
        floors.try_grow(self.floors_bytes).ok()?;
        Some((floors, tenant))
    }

    /// The error of a query whose floors are held by what no query will give back.
    fn stalled(&self) -> Error {
        let pool = &self.cx.pool;
        let used_bytes = pool.limit_bytes().saturating_sub(pool.available_bytes());
        let name = "tables and the results of other queries that are still held".to_owned();
        Error::memory(MemoryError::Exceeded {
            required_bytes: self.floors_bytes,
            limit_bytes: pool.limit_bytes(),
            operator: "starting the query".to_owned(),
            top_consumers: vec![Consumer { name, used_bytes }],
        })
    }

    /// Queues for the floors, and asks others to make room.
    fn wait_for_floors(&self, waker: &Waker) -> Admission {
        let pool = &self.cx.pool;
        match MemoryTicket::new(pool, self.floors_bytes, waker) {
            Ok(ticket) => {
                pool.request_reclaim(self.floors_bytes, None);
                Admission::Floors(ticket)
            }
            Err(denied) => {
                self.fail(denied.into());
                Admission::Nothing
            }
        }
    }

    /// Starts the first pipelines.
    fn admitted(run: &Arc<Self>, floors: Reservation, tenant: Tenant) {
        run.floors.admit(floors, tenant);
        match run.floors.schedule {
            Schedule::Together => {
                for (index, pipeline) in run.pipelines.iter().enumerate() {
                    if pipeline.depends_on.is_empty() {
                        Self::spawn_start(run, index);
                    }
                }
            }
            Schedule::InTurn if run.pipelines.is_empty() => {}
            Schedule::InTurn => Self::spawn_start(run, 0),
        }
    }

    /// A handle that cancels the query and does not keep it.
    pub(crate) fn downgrade(run: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(run)
    }

    /// Ends the query with `error` unless it has failed already, and wakes everything that waits.
    pub(crate) fn fail(&self, error: Error) {
        self.cx.fail(error);
        self.group.expedite();
        // Not under the lock: a wake may end tasks, and with the last one the query.
        let handles = self.handles.lock().clone();
        for handle in &handles {
            handle.wake();
        }
    }

    /// What its floors take.
    pub(crate) fn floors_bytes(&self) -> usize {
        self.floors_bytes
    }

    /// When the query's time is over. A lane that is parked does not look at the clock: whoever waits for the query's
    /// rows calls [`expire`](Self::expire) then.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.cx.deadline()
    }

    /// Fails the query if its time is over.
    pub(crate) fn expire(&self) {
        if let Err(error) = self.cx.check() {
            self.fail(error);
        }
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

    /// Wakes `handles` when the query fails.
    pub(super) fn keep_handles(&self, handles: &[TaskHandle]) {
        self.handles.lock().extend_from_slice(handles);
        if self.cx.is_stopped() {
            for handle in handles {
                handle.wake();
            }
        }
    }

    fn spawn_start(run: &Arc<Self>, pipeline: usize) {
        run.group.spawn(Arc::new(StartTask { pipeline, alive: Alive::share(run) }));
    }

    /// Starts what only waited for `finished`.
    pub(super) fn pipeline_finished(run: &Arc<Self>, finished: usize) {
        run.unfinished.fetch_sub(1, SeqCst);
        for scan in &run.pipelines[finished].metrics.sources {
            // What nobody wanted was not read.
            scan.passed_rows.fetch_max(scan.table_rows, SeqCst);
        }
        if run.floors.schedule == Schedule::InTurn {
            return;
        }
        for (index, pipeline) in run.pipelines.iter().enumerate() {
            let edges = pipeline.depends_on.iter().filter(|&&d| d == finished).count();
            if edges > 0 && pipeline.blocked_by.fetch_sub(edges, SeqCst) == edges {
                Self::spawn_start(run, index);
            }
        }
    }

    /// A pipeline that has finished has given its lanes' floors back.
    pub(super) fn pipeline_left(run: &Arc<Self>, index: usize) {
        if run.floors.schedule == Schedule::InTurn && index + 1 < run.pipelines.len() {
            Self::spawn_start(run, index + 1);
        }
    }

    /// Every task is over: lets go of what has not started, and reports.
    fn end(&self) {
        let handles = std::mem::take(&mut *self.handles.lock());
        drop(handles);
        for pipeline in &self.pipelines {
            let unstarted = pipeline.spec.lock().take();
            drop(unstarted);
        }
        self.floors.clear();
        // Whoever is next starts before the client learns of the end.
        let slot = self.slot.lock().take();
        drop(slot);
        let outcome = match self.cx.error() {
            Some(error) => Err(error),
            None if self.unfinished.load(SeqCst) == 0 => Ok(()),
            // The scheduler was dropped with tasks undone.
            None => Err(Error::Cancelled),
        };
        let on_end = self.on_end.lock().take();
        if let Some(on_end) = on_end {
            on_end(outcome);
        }
    }
}

impl Task for AdmitTask {
    fn run(&self, _worker: usize, waker: &Waker) -> Step {
        let query = &self.alive.0;
        let mut waits_for = self.waits_for.lock();
        if query.cx.check().is_err() {
            *waits_for = Admission::Nothing;
            return Step::Done;
        }
        if let Admission::Slot(ticket) = &mut *waits_for {
            let Some(slot) = ticket.take() else { return Step::Parked };
            *query.slot.lock() = Some(slot);
            if let Some((floors, tenant)) = query.try_floors() {
                QueryRun::admitted(query, floors, tenant);
                return Step::Done;
            }
            // Wakes this task again, should the bytes be there already.
            *waits_for = query.wait_for_floors(waker);
        }
        match &*waits_for {
            Admission::Floors(ticket) => match ticket.take() {
                Some((floors, tenant)) => {
                    QueryRun::admitted(query, floors, tenant);
                    Step::Done
                }
                None if ticket.is_stalled() => {
                    *waits_for = Admission::Nothing;
                    query.fail(query.stalled());
                    Step::Done
                }
                None => Step::Parked,
            },
            Admission::Slot(_) | Admission::Nothing => Step::Parked,
        }
    }

    fn panicked(&self, message: String) {
        self.alive.0.fail(Error::internal(format!("a worker panicked: {message}")));
    }
}

impl Task for StartTask {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        let query = &self.alive.0;
        let pipeline = &query.pipelines[self.pipeline];
        let spec = pipeline.spec.lock().take();
        let started = match spec {
            _ if query.cx.is_stopped() => Ok(()),
            Some(spec) => {
                let floor = query.floors.take(self.pipeline, pipeline.floor_bytes);
                floor.and_then(|floor| PipelineRun::start(query, self.pipeline, &spec, floor))
            }
            None => Err(Error::internal("a pipeline was started twice")),
        };
        if let Err(error) = started {
            query.fail(error);
        }
        Step::Done
    }

    fn panicked(&self, message: String) {
        self.alive.0.fail(Error::internal(format!("a worker panicked: {message}")));
    }
}
