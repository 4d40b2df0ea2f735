//! The thread-per-core scheduler: workers, groups that share them fairly, tasks that park and are woken.
//!
//! Owns: [`Scheduler`], [`Group`] (one per query), [`Task`] and [`TaskHandle`]. README.md in this folder has the state
//! diagram, the argument that no wake is lost, and the argument for fairness.
//!
//! Invariants:
//! 1. A task runs on one worker at a time and never after it is done, panicked, or its scheduler was dropped.
//! 2. A wake that happens after a task decided to park runs it again; a worker does not sleep while a task is queued.
//! 3. Every runnable group is served; its share follows its priority, which decays with the time it consumed.
//! 4. A panic of a task ends that task and nothing else.
//! 5. No globals and no thread-locals: schedulers in one process do not know of each other.
//! 6. Once a scheduler is dropped it holds no body of any task, parked ones included.
//!
//! Must not know: batches, operators, the content of queries. Uses `error` and `sync` only.

mod alarms;
mod group;
mod park;
mod queue;
mod stride;
mod task;
mod worker;

#[cfg(test)]
#[cfg(not(loom))]
mod fairness_tests;
#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod stress_tests;

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use self::alarms::Alarms;
use self::group::GroupList;
use self::park::Sleepers;
use self::stride::{Stride, VirtualClock};
use self::worker::Worker;
use crate::error::{Error, Result};
use crate::sync::thread;

pub use self::group::Group;
pub use self::stride::Priority;
pub use self::task::{Step, Task, TaskHandle};

/// How to build a [`Scheduler`].
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Number of workers, at least one.
    pub threads: usize,
    /// The workers' threads are named `<name>-<index>`; Linux shows the first 15 bytes.
    pub name: String,
    /// How long a task should run before it answers [`Step::Again`]; a hint, never enforced. A group keeps its full
    /// priority for ten slices on every worker.
    pub slice: Duration,
}

impl Default for SchedulerConfig {
    /// One worker for each processor the process may use, slices of 2 ms.
    fn default() -> Self {
        let threads = available_parallelism().map_or(1, usize::from);
        Self { threads, name: "gristmill".to_owned(), slice: Duration::from_millis(2) }
    }
}

/// What workers, groups and tasks share.
struct Core {
    sleepers: Sleepers,
    alarms: Alarms,
    groups: GroupList,
    clock: VirtualClock,
    stride: Stride,
}

impl Core {
    fn new(threads: usize, slice: Duration) -> Arc<Self> {
        Arc::new(Self {
            sleepers: Sleepers::new(),
            alarms: Alarms::new(),
            groups: GroupList::new(),
            clock: VirtualClock::new(),
            stride: Stride::new(threads, slice),
        })
    }

    /// The workers return after the slice they are in. Idempotent.
    fn stop(&self) {
        self.sleepers.stop();
    }

    /// After `stop`: ends every task there is.
    fn close(&self) {
        for group in self.groups.take().iter() {
            group.close();
        }
        self.alarms.clear();
    }
}

/// A set of worker threads.
///
/// Dropping it stops the workers after the slices they are in and drops every task that is not done, without a call:
/// who waits for a task of a scheduler that may be dropped learns of it from the task's `Drop`. The drop waits for the
/// workers; a worker that drops its own scheduler, from inside a task, is not waited for but detached, and ends after
/// its slice.
pub struct Scheduler {
    core: Arc<Core>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Scheduler {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`Error::Plan`] if `config` asks for no thread or for a name that cannot be one; [`Error::Io`] if a thread
    /// cannot be started, after those that were have ended.
    pub fn new(config: SchedulerConfig) -> Result<Self> {
        let SchedulerConfig { threads, name, slice } = config;
        if threads == 0 {
            return Err(Error::plan("threads is 0, but the engine needs at least 1 to run a query", None));
        }
        if name.contains('\0') {
            return Err(Error::plan(
                format!("{name:?} cannot name threads; use a name without zero bytes"),
                None,
            ));
        }
        let core = Core::new(threads, slice);
        let mut scheduler = Self { core, workers: Vec::with_capacity(threads) };
        for index in 0..threads {
            let name = format!("{name}-{index}");
            let core = Arc::clone(&scheduler.core);
            let worker = thread::Builder::new()
                .name(name.clone())
                .spawn(move || Worker::new(core, index).work())
                .map_err(|source| Error::io("cannot start thread", name, source))?;
            scheduler.workers.push(worker);
        }
        Ok(scheduler)
    }

    /// A new group, one per query; it is gone once all its handles are dropped and its tasks are over.
    pub fn group(&self, priority: Priority) -> Group {
        Group::create(&self.core, priority)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.core.stop();
        let this = thread::current().id();
        for worker in self.workers.drain(..) {
            if worker.thread().id() != this {
                // A worker contains every panic of a task; were it to panic itself, the others must still be joined.
                let _ = worker.join();
            }
        }
        self.core.close();
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("threads", &self.workers.len()).finish_non_exhaustive()
    }
}
