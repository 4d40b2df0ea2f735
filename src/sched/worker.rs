//! A worker: chooses a group, runs a slice of one of its tasks, pays for it, and sleeps when there is nothing to do.
//!
//! Owns: [`Worker`] and its loop.
//!
//! Invariants:
//! 1. A worker sleeps only after it looked for work with its sleeper registered.
//! 2. Every slice is measured and charged to its group, whatever it ended with.
//! 3. A worker outlives every panic of a body.
//! 4. A task keeps its worker over slices only while no runnable group has a lower pass and, if its own group has
//!    others waiting, for [`MAX_STREAK`] slices.
//!
//! Must not know: what a body does.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::group::{GroupCore, Snapshot};
use super::park::Sleeper;
use super::task::{Running, Step, TaskCore};

/// Slices a task runs in a row while others of its group wait: long enough for the caches, short enough for a lane
/// that was woken to be cancelled in time.
pub(super) const MAX_STREAK: usize = 4;

/// One thread's share of the scheduler.
pub(super) struct Worker {
    core: Arc<Core>,
    index: usize,
    sleeper: Arc<Sleeper>,
    groups: Snapshot,
}

impl Worker {
    /// The worker `index` on the calling thread.
    pub(super) fn new(core: Arc<Core>, index: usize) -> Self {
        Self { core, index, sleeper: Sleeper::new(), groups: Snapshot::new() }
    }

    /// Works until the scheduler stops.
    pub(super) fn work(mut self) {
        while let Some(task) = self.next() {
            if let Some(task) = task.begin() {
                self.run(task);
            }
        }
        // One that was set in the last slice would keep its task, which is over.
        self.core.alarms.clear();
    }

    /// The next task, after sleeping for it if need be; `None` once the scheduler has stopped.
    pub(super) fn next(&mut self) -> Option<Arc<TaskCore>> {
        while !self.core.sleepers.is_stopped() {
            self.core.alarms.ring();
            let found = self.pick().or_else(|| self.doze());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Sleeps until there may be something to do; returns a task that turned up while falling asleep.
    pub(super) fn doze(&mut self) -> Option<Arc<TaskCore>> {
        self.core.sleepers.register(&self.sleeper);
        let found = self.pick();
        if found.is_none()
            && !self.core.sleepers.is_stopped()
            && self.core.sleepers.wait(&self.sleeper, self.core.alarms.next_at())
        {
            return None;
        }
        if !self.core.sleepers.cancel(&self.sleeper) {
            // The signal may have meant other work than what was found.
            self.pass_on();
        }
        found
    }

    /// Wakes another worker if there is still something to run.
    fn pass_on(&mut self) {
        if self.groups.current(&self.core.groups).iter().any(|group| group.is_runnable()) {
            // If the scheduler has stopped, all are awake already.
            let _ = self.core.sleepers.announce();
        }
    }

    /// Takes a task of the runnable group with the lowest pass.
    pub(super) fn pick(&mut self) -> Option<Arc<TaskCore>> {
        loop {
            let groups = self.groups.current(&self.core.groups);
            // Workers start at different groups so that a tie does not send all of them to the same one.
            let (before, from) = groups.split_at(self.index % groups.len().max(1));
            let (pass, group) = lowest(from.iter().chain(before))?;
            // `None`: others emptied the queue since; look again at what is left.
            if let Some(task) = group.pop() {
                self.core.clock.advance(pass);
                return Some(task);
            }
        }
    }

    /// Runs slices of a task until it is over, parks, or makes way for another.
    pub(super) fn run(&mut self, mut task: Running) {
        let mut streak = 0;
        loop {
            let stopwatch = Stopwatch::start();
            let ended = task.slice(self.index);
            task.group().charge(stopwatch.elapsed());
            streak += 1;
            self.core.alarms.ring();
            task = match ended {
                Ok(Step::Again) => task,
                Ok(Step::Parked) => match task.park() {
                    Some(task) => task,
                    None => return,
                },
                Ok(Step::ParkedUntil(at)) => {
                    let waker = task.waker();
                    match task.park() {
                        Some(task) => task,
                        None => return self.core.alarms.set(at, waker),
                    }
                }
                Ok(Step::Done) => return task.finish(),
                Err(message) => return task.fail(message),
            };
            if !self.keeps(task.group(), streak) {
                return task.requeue();
            }
            if !task.stay() {
                return task.finish();
            }
        }
    }

    /// Whether a task of `group` may have this worker for another slice.
    pub(super) fn keeps(&mut self, group: &GroupCore, streak: usize) -> bool {
        if self.core.sleepers.is_stopped() || (streak >= MAX_STREAK && group.is_runnable()) {
            return false;
        }
        let pass = group.pass();
        let keeps = match lowest(self.groups.current(&self.core.groups).iter()) {
            Some((lowest, _)) => pass <= lowest,
            None => true,
        };
        if keeps {
            self.core.clock.advance(pass);
        }
        keeps
    }
}

/// The runnable group with the lowest pass, the first of several, and its pass.
fn lowest<'a>(groups: impl Iterator<Item = &'a Arc<GroupCore>>) -> Option<(u64, &'a GroupCore)> {
    groups
        .filter(|group| group.is_runnable())
        .map(|group| (group.pass(), &**group))
        .min_by_key(|(pass, _)| *pass)
}

/// Measures a slice. Workers do not block, so the wall clock is the CPU time as far as the host lets the thread run,
/// and costs a tenth of asking the kernel.
struct Stopwatch(#[cfg(not(loom))] std::time::Instant);

#[cfg(not(loom))]
impl Stopwatch {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A model must not depend on time: every slice takes none.
#[cfg(loom)]
impl Stopwatch {
    fn start() -> Self {
        Self()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}
