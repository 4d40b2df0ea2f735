//! Runs of fake operators: what is called when, what becomes of rows, errors, memory.

mod failures;
mod fakes;
mod memory;
mod order;
mod stress;
mod trees;

use self::fakes::World;
use super::fault::{FaultConfig, Faults};
use super::{PipelineSpec, QueryCx, QueryRun, QuerySpec, Shape, SinkBox, SourceBox, TransformBox};
use crate::error::{Error, Result};
use crate::mem::{Knobs, Pool};
use crate::sched::{Priority, Scheduler, SchedulerConfig};
use crate::spill::SpillDirectory;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Nothing here takes a tenth of this on its own.
const PATIENCE: Duration = Duration::from_secs(30);

fn scheduler(threads: usize) -> Scheduler {
    Scheduler::new(SchedulerConfig { threads, ..SchedulerConfig::default() }).expect("threads can be started")
}

/// How to run a query.
#[derive(Clone)]
struct Setup {
    workers: usize,
    lanes: usize,
    limit_bytes: usize,
    timeout: Option<Duration>,
    faults: FaultConfig,
}

impl Default for Setup {
    fn default() -> Self {
        let faults = FaultConfig::default();
        Self { workers: 1, lanes: 1, limit_bytes: 64 << 20, timeout: None, faults }
    }
}

impl Setup {
    fn lanes(workers: usize, lanes: usize) -> Self {
        Self { workers, lanes, ..Self::default() }
    }

    fn cx(&self, pool: &Pool) -> Arc<QueryCx> {
        let knobs = Knobs { lanes: self.lanes, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
        let faults = (self.faults != FaultConfig::default()).then(|| Arc::new(Faults::new(self.faults)));
        Arc::new(QueryCx::new(pool.clone(), knobs, spill_directory(), self.timeout, faults))
    }
}

fn spill_directory() -> Arc<SpillDirectory> {
    Arc::new(SpillDirectory::new(None, 1 << 30))
}

/// A query in flight and what it will end with.
struct Running {
    run: Option<Arc<QueryRun>>,
    ended: Receiver<(Result<()>, usize, usize)>,
    is_over: Arc<AtomicBool>,
}

/// Starts `pipelines` in a pool of their own within `engine`.
fn start(
    pipelines: Vec<PipelineSpec>,
    setup: &Setup,
    world: &World,
    engine: &Pool,
    scheduler: &Scheduler,
) -> Result<Running> {
    let (send, ended) = channel();
    let pool = engine.child("query", setup.limit_bytes);
    let cx = setup.cx(&pool);
    let live = world.live();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let on_end = move |outcome| {
        over.store(true, SeqCst);
        // The receiver is gone once a test has failed.
        let _ = send.send((outcome, pool.granted_bytes(), live()));
    };
    let run = QueryRun::start(QuerySpec { pipelines }, cx, scheduler.group(Priority::DEFAULT), on_end)?;
    Ok(Running { run: Some(run), ended, is_over })
}

impl Running {
    fn run(&self) -> &Arc<QueryRun> {
        self.run.as_ref().expect("not ended")
    }

    /// Whether it has ended, or does within a moment.
    fn is_over(&self) -> bool {
        std::thread::sleep(Duration::from_millis(30));
        self.is_over_now()
    }

    fn is_over_now(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// Waits for the end, and checks that it left nothing and comes once.
    fn end(mut self) -> Result<()> {
        let (outcome, granted, live) = self.ended.recv_timeout(PATIENCE).expect("the query ends, once");
        assert_eq!(live, 0, "states are dropped before the query ends; it ended with {outcome:?}");
        assert_eq!(granted, 0, "memory is back before the query ends; it ended with {outcome:?}");
        self.run = None;
        assert!(self.ended.recv_timeout(PATIENCE).is_err(), "a query ends once");
        outcome
    }
}

/// Runs `pipelines` alone.
fn run(pipelines: Vec<PipelineSpec>, setup: &Setup, world: &World) -> Result<()> {
    let scheduler = scheduler(setup.workers);
    let engine = Pool::new("engine", setup.limit_bytes);
    start(pipelines, setup, world, &engine, &scheduler)?.end()
}

fn pipeline(source: SourceBox, transforms: Vec<TransformBox>, sink: SinkBox) -> PipelineSpec {
    let shape = Shape::chain(1, transforms.len());
    PipelineSpec {
        sources: vec![source],
        transforms,
        shape,
        sink,
        max_lanes: usize::MAX,
        depends_on: Vec::new(),
    }
}

fn assert_internal(outcome: Result<()>, part: &str) {
    match outcome {
        Err(Error::Internal(message)) => assert!(message.contains(part), "{message:?} lacks {part:?}"),
        other => panic!("{other:?} is no internal error with {part:?}"),
    }
}
