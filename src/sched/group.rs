//! Groups of tasks that share one place in the race for workers: one per query.
//!
//! Owns: [`Group`] (the handle), [`GroupCore`] (run queue, pass, members), [`GroupList`] (the groups there are).
//!
//! Invariants:
//! 1. A group is on the list from [`Group::create`] until its last handle is dropped and its last task is over.
//! 2. A group's pass is at least the virtual clock whenever a task is pushed: neither a newcomer nor a sleeper brings
//!    credit from a time it did not compete in.
//! 3. Every task that is not over is a member, so the end of the scheduler can drop those that are parked too.
//! 4. The list's lock is taken when groups come and go and when a worker sees that they did, never to wake or to run.
//!
//! Must not know: what a body does, how a worker sleeps.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::park::Announced;
use super::queue::RunQueue;
use super::stride::{Priority, nanos, raise};
use super::task::{Task, TaskCore, TaskHandle};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// The tasks of one query. Clones are handles to the same group.
///
/// A group outlives its scheduler harmlessly: what is spawned then is dropped at once.
pub struct Group(Arc<GroupCore>);

impl Group {
    /// A new group on `core`'s list, level with the group that is served now.
    pub(super) fn create(core: &Arc<Core>, priority: Priority) -> Self {
        let group = Arc::new(GroupCore {
            core: Arc::clone(core),
            queue: RunQueue::new(),
            pass: AtomicU64::new(core.clock.now()),
            is_expedited: AtomicBool::new(false),
            weight: AtomicU64::new(u64::from(priority.weight())),
            consumed_nanos: AtomicU64::new(0),
            members: Mutex::new(Members {
                handles: 1,
                closed: false,
                live: 0,
                slots: Vec::new(),
                free: Vec::new(),
            }),
        });
        core.groups.add(Arc::clone(&group));
        Self(group)
    }

    /// Starts a task; it is runnable at once.
    pub fn spawn(&self, task: Arc<dyn Task>) -> TaskHandle {
        let spawned = {
            let mut members = self.0.members.lock();
            let slot = members.reserve();
            let spawned = TaskCore::queued(Arc::clone(&self.0), slot, task);
            members.slots[slot] = Some(Arc::clone(&spawned));
            if members.closed { Err(spawned) } else { Ok(spawned) }
        };
        match spawned {
            Ok(task) => {
                self.0.push(Arc::clone(&task));
                TaskHandle::new(task)
            }
            Err(task) => {
                task.abandon();
                TaskHandle::new(task)
            }
        }
    }

    /// Gives the group another share from its next slice on.
    #[cfg(test)]
    pub fn set_priority(&self, priority: Priority) {
        self.0.weight.store(u64::from(priority.weight()), Ordering::Relaxed);
    }

    /// Serves the group before all others from now on, whatever it has consumed: a query that was cancelled only has to
    /// let go, and must wait neither as a long one nor behind those that have just come.
    pub fn expedite(&self) {
        self.0.is_expedited.store(true, Ordering::Relaxed);
    }

    /// Time workers spent in this group's slices, summed over the workers.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.0.consumed_nanos.load(Ordering::Relaxed))
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn core(&self) -> &Arc<GroupCore> {
        &self.0
    }
}

impl Clone for Group {
    fn clone(&self) -> Self {
        self.0.members.lock().handles += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let over = {
            let mut members = self.0.members.lock();
            members.handles -= 1;
            members.is_over()
        };
        if over {
            self.0.core.groups.remove(&self.0);
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("pass", &self.0.pass())
            .field("weight", &self.0.weight.load(Ordering::Relaxed))
            .field("cpu_time", &self.cpu_time())
            .finish_non_exhaustive()
    }
}

/// Who belongs to a group.
struct Members {
    handles: usize,
    /// The scheduler is gone: spawned tasks are over at once.
    closed: bool,
    live: usize,
    slots: Vec<Option<Arc<TaskCore>>>,
    free: Vec<usize>,
}

impl Members {
    /// A free slot, counted as live.
    fn reserve(&mut self) -> usize {
        self.live += 1;
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    /// Nobody can spawn any more and nothing is left to run; true once, because neither number can rise from here.
    fn is_over(&self) -> bool {
        self.handles == 0 && self.live == 0
    }
}

/// What handles, tasks and workers share of a group.
pub(super) struct GroupCore {
    core: Arc<Core>,
    queue: RunQueue<Arc<TaskCore>>,
    /// Virtual time consumed, in ticks; the runnable group with the lowest is served next.
    pass: AtomicU64,
    /// Served before all others, at pass 0.
    is_expedited: AtomicBool,
    weight: AtomicU64,
    consumed_nanos: AtomicU64,
    members: Mutex<Members>,
}

impl GroupCore {
    /// Makes a task runnable and wakes a worker for it.
    pub(super) fn push(&self, task: Arc<TaskCore>) {
        raise(&self.pass, self.core.clock.now());
        self.queue.push(task);
        match self.core.sleepers.announce() {
            Announced::Live => {}
            // The scheduler may have looked through the queue already: nobody else will.
            Announced::Stopped => self.abandon_queued(),
        }
    }

    pub(super) fn pop(&self) -> Option<Arc<TaskCore>> {
        self.queue.pop()
    }

    pub(super) fn is_runnable(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn pass(&self) -> u64 {
        if self.is_expedited.load(Ordering::Relaxed) { 0 } else { self.pass.load(Ordering::Relaxed) }
    }

    /// Pays for a slice.
    pub(super) fn charge(&self, slice: Duration) {
        let slice = nanos(slice);
        let consumed = self.consumed_nanos.fetch_add(slice, Ordering::Relaxed);
        let ticks = self.core.stride.ticks(slice, self.weight.load(Ordering::Relaxed), consumed);
        // A default group at its floor takes 9,000 years of CPU time to wrap.
        self.pass.fetch_add(ticks, Ordering::Relaxed);
    }

    /// A member is over.
    pub(super) fn leave(self: &Arc<Self>, slot: usize) {
        let (task, over) = {
            let mut members = self.members.lock();
            members.live -= 1;
            members.free.push(slot);
            (members.slots[slot].take(), members.is_over())
        };
        // Outside the lock: this may be the last hold on the task, and the task holds the group.
        drop(task);
        if over {
            self.core.groups.remove(self);
        }
    }

    /// The scheduler is gone: ends every task, and every later one at its spawn.
    pub(super) fn close(&self) {
        let tasks: Vec<_> = {
            let mut members = self.members.lock();
            members.closed = true;
            members.slots.iter().flatten().cloned().collect()
        };
        for task in tasks {
            task.abandon();
        }
        self.abandon_queued();
    }

    fn abandon_queued(&self) {
        while let Some(task) = self.queue.pop() {
            task.abandon();
        }
    }
}

/// The groups there are, as a slice that workers keep until the epoch moves.
pub(super) struct GroupList {
    epoch: AtomicU64,
    groups: Mutex<Arc<[Arc<GroupCore>]>>,
}

impl GroupList {
    pub(super) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), groups: Mutex::new(Arc::new([])) }
    }

    fn add(&self, group: Arc<GroupCore>) {
        self.change(|groups| groups.iter().cloned().chain([group]).collect());
    }

    fn remove(&self, group: &Arc<GroupCore>) {
        self.change(|groups| groups.iter().filter(|g| !Arc::ptr_eq(g, group)).cloned().collect());
    }

    /// Empties the list and returns what was on it.
    pub(super) fn take(&self) -> Arc<[Arc<GroupCore>]> {
        self.change(|_| Arc::new([]))
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn len(&self) -> usize {
        self.groups.lock().len()
    }

    /// Replaces the list and returns the old one, which the caller drops after the lock.
    fn change(&self, new: impl FnOnce(&[Arc<GroupCore>]) -> Arc<[Arc<GroupCore>]>) -> Arc<[Arc<GroupCore>]> {
        let mut groups = self.groups.lock();
        let new = new(&groups);
        // Under the lock, so that a list and its epoch are read together.
        self.epoch.fetch_add(1, Ordering::Release);
        std::mem::replace(&mut *groups, new)
    }
}

/// A worker's copy of the list.
pub(super) struct Snapshot {
    epoch: u64,
    groups: Arc<[Arc<GroupCore>]>,
}

impl Snapshot {
    pub(super) fn new() -> Self {
        Self { epoch: 0, groups: Arc::new([]) }
    }

    /// The groups there are now; one load unless they changed.
    pub(super) fn current(&mut self, list: &GroupList) -> &[Arc<GroupCore>] {
        if list.epoch.load(Ordering::Acquire) != self.epoch {
            let groups = list.groups.lock();
            let groups = (list.epoch.load(Ordering::Relaxed), Arc::clone(&groups));
            (self.epoch, self.groups) = groups;
        }
        &self.groups
    }
}
