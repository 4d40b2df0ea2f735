//! One task: its state machine, its body while it is not done, its wakers.
//!
//! Owns: [`Step`], [`Task`] (the contract), [`TaskCore`] and the transitions of [`State`], [`TaskHandle`].
//!
//! Invariants:
//! 1. A task sits in its run queue exactly while `Queued` and is run by exactly one worker while `Running` or
//!    `Notified`. Only the wake that turns `Idle` into `Queued`, and the worker that turns `Running` or `Notified`
//!    into `Queued`, push it.
//! 2. A wake is never a plain load: even one that changes nothing is a read-modify-write, so that the slice that
//!    follows sees what the waker wrote before it woke.
//! 3. `Done` is final, and the body is dropped by then, except that a scheduler being dropped from inside a slice
//!    leaves that one body to its worker.
//! 4. No lock of this room is held while a body runs or is dropped: both may wake, spawn, or drop a group.
//!
//! Must not know: how a worker chooses, what a body does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};

use super::group::GroupCore;
use crate::sync::{AtomicU8, Mutex, Ordering};
use std::time::Instant;

/// What a task's slice ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do now.
    Again,
    /// Nothing to do until the waker is called.
    Parked,
    /// Nothing to do until the waker is called, or it is that late.
    ParkedUntil(Instant),
    /// Nothing to do any more; the task is dropped.
    Done,
}

/// A piece of work that runs in slices, on any worker, on one at a time.
pub trait Task: Send + Sync + 'static {
    /// Runs one slice, a few milliseconds at most, without blocking.
    ///
    /// Who answers [`Step::Parked`] has put a clone of `waker` where somebody will call it; a wake that raced with
    /// the slice runs the task again, and some wakes are in vain. `worker` is the index of the worker, below the number of
    /// workers.
    fn run(&self, worker: usize, waker: &Waker) -> Step;

    /// A panic with `message` escaped `run`; the task is dropped after this call and never run again.
    fn panicked(&self, message: String);
}

/// Where a task is in its life. README.md has the diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Parked: waits for a wake.
    Idle,
    /// In the run queue of its group.
    Queued,
    /// On a worker.
    Running,
    /// On a worker, and woken since its slice began.
    Notified,
    /// Over.
    Done,
}

impl State {
    const ALL: [Self; 5] = [Self::Idle, Self::Queued, Self::Running, Self::Notified, Self::Done];
}

/// A [`State`] that changes by compare-and-swap alone.
#[derive(Debug)]
struct AtomicState(AtomicU8);

impl AtomicState {
    fn new(state: State) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    fn get(&self) -> State {
        State::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }

    /// Moves from the current state `s` to `next(s)`, always as one acquiring and releasing read-modify-write even
    /// if they are equal (invariant 2). Returns the state it left; `Err` with the state where `next` has no answer.
    fn step(&self, next: impl Fn(State) -> Option<State>) -> Result<State, State> {
        let of = |raw: u8| State::ALL[usize::from(raw)];
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |raw| next(of(raw)).map(|s| s as u8))
            .map(of)
            .map_err(of)
    }
}

/// The scheduler's side of a task; the wakers point here.
pub(super) struct TaskCore {
    state: AtomicState,
    group: Arc<GroupCore>,
    /// The key of this task among its group's members.
    member: usize,
    /// `None` once over. Only the worker that runs the task and the end of the scheduler take this lock, so it is
    /// never contended in a running engine; a mutex rather than an `UnsafeCell` because the few nanoseconds per slice
    /// would buy an `unsafe`.
    body: Mutex<Option<Arc<dyn Task>>>,
}

impl TaskCore {
    /// A task about to be pushed.
    pub(super) fn queued(group: Arc<GroupCore>, member: usize, body: Arc<dyn Task>) -> Arc<Self> {
        Arc::new(Self { state: AtomicState::new(State::Queued), group, member, body: Mutex::new(Some(body)) })
    }

    #[cfg(test)]
    fn is_done(&self) -> bool {
        self.state.get() == State::Done
    }

    /// Takes a task popped from a queue onto the calling worker; `None` if it was abandoned meanwhile.
    pub(super) fn begin(self: Arc<Self>) -> Option<Running> {
        let begun = self.state.step(|state| match state {
            State::Queued => Some(State::Running),
            State::Idle | State::Running | State::Notified | State::Done => None,
        });
        debug_assert!(matches!(begun, Ok(_) | Err(State::Done)), "a {begun:?} task was in a run queue");
        begun.ok()?;
        let body = self.body.lock().clone()?;
        let waker = Waker::from(Arc::clone(&self));
        Some(Running { core: self, body, waker })
    }

    /// Ends the task without running it: the scheduler is gone. A body on a worker is dropped by that worker.
    pub(super) fn abandon(&self) {
        let body = self.body.lock().take();
        self.end(body);
    }

    /// Drops the body, then reports the task over, once.
    fn end(&self, body: Option<Arc<dyn Task>>) {
        // A body that panics when dropped has nobody left to tell.
        let _ = contain(|| drop(body));
        let ended = self.state.step(|state| match state {
            State::Idle | State::Queued | State::Running | State::Notified => Some(State::Done),
            State::Done => None,
        });
        if ended.is_ok() {
            self.group.leave(self.member);
        }
    }
}

impl Wake for TaskCore {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = self.state.step(|state| match state {
            State::Idle | State::Queued => Some(State::Queued),
            State::Running | State::Notified => Some(State::Notified),
            State::Done => None,
        });
        if woken == Ok(State::Idle) {
            self.group.push(Arc::clone(self));
        }
    }
}

/// A task on a worker.
pub(super) struct Running {
    core: Arc<TaskCore>,
    body: Arc<dyn Task>,
    waker: Waker,
}

impl Running {
    pub(super) fn group(&self) -> &GroupCore {
        &self.core.group
    }

    /// Tells tasks apart.
    #[cfg(all(test, not(loom)))]
    pub(super) fn id(&self) -> usize {
        self.core.member
    }

    /// What wakes it.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Runs one slice. `Err` is the message of a panic.
    pub(super) fn slice(&self, worker: usize) -> Result<Step, String> {
        contain(|| self.body.run(worker, &self.waker))
    }

    /// After `Again`: stays on this worker. Wakes so far are answered by the slice to come. `false` if abandoned.
    pub(super) fn stay(&self) -> bool {
        self.core.state.step(on_worker(State::Running)).is_ok()
    }

    /// After `Again`: back into the queue of its group.
    pub(super) fn requeue(self) {
        let Self { core, body, waker } = self;
        // The queue must not be the only thing that keeps a body alive that the end of the scheduler has let go.
        drop(waker);
        if core.state.step(on_worker(State::Queued)).is_ok() {
            let _ = contain(|| drop(body));
            let group = Arc::clone(&core.group);
            group.push(core);
        } else {
            core.end(Some(body));
        }
    }

    /// After `Parked`: leaves the worker, unless a wake came since the slice began, which gives the task back with
    /// the wake used up.
    pub(super) fn park(self) -> Option<Self> {
        let parked = self.core.state.step(|state| match state {
            State::Running => Some(State::Idle),
            State::Notified => Some(State::Running),
            State::Idle | State::Queued | State::Done => None,
        });
        match parked {
            Ok(State::Notified) => Some(self),
            Ok(State::Running) => {
                // The core keeps the body; only if it was abandoned just now is this the last hold on it.
                let _ = contain(|| drop(self.body));
                None
            }
            Ok(State::Idle | State::Queued | State::Done) | Err(_) => {
                self.finish();
                None
            }
        }
    }

    /// After `Done`, or once abandoned.
    pub(super) fn finish(self) {
        let Self { core, body, waker } = self;
        drop(waker);
        // The core's own hold goes first so that the drop of `body` is the last and is contained.
        let held = core.body.lock().take();
        let _ = contain(|| drop(held));
        core.end(Some(body));
    }

    /// After a panic: tells the body, then lets it go.
    pub(super) fn fail(self, message: String) {
        // A panic inside `panicked` has nobody left to tell; the worker must live on.
        let _ = contain(|| self.body.panicked(message));
        self.finish();
    }
}

/// The transition of a task that is on the calling worker and not abandoned.
fn on_worker(to: State) -> impl Fn(State) -> Option<State> {
    move |state| match state {
        State::Running | State::Notified => Some(to),
        State::Idle | State::Queued | State::Done => None,
    }
}

/// Runs foreign code so that its panic ends here, as a message.
///
/// Unwind safety: a body is never run again after it panicked, and what it shares with others is its own business.
fn contain<R>(foreign: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(|payload| {
        let message = if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_owned()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "a panic without a message".to_owned()
        };
        // A payload may panic when dropped; leaking it is the only answer that surely ends.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        message
    })
}

/// A spawned task as its owner sees it. Dropping it does not end the task.
#[derive(Clone)]
pub struct TaskHandle(Arc<TaskCore>);

impl TaskHandle {
    pub(super) fn new(core: Arc<TaskCore>) -> Self {
        Self(core)
    }

    /// Runs the task again if it is parked, or right after its slice if it is in one. Harmless once done.
    pub fn wake(&self) {
        self.0.wake_by_ref();
    }

    /// A waker that does the same as [`Self::wake`].
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    /// Whether the task is over: done, panicked, or dropped together with its scheduler.
    #[cfg(test)]
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHandle").field("state", &self.0.state.get()).finish_non_exhaustive()
    }
}
