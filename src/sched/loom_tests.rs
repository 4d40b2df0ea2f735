//! Models of the room's races, every interleaving within four preemptions. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib sched::loom_ --target-dir target/loom`.
//!
//! The code under test is the real one except for the run queue's inside (see `queue.rs`) and the clock.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::group::Group;
use super::stride::Priority;
use super::task::{Step, Task};
use super::worker::Worker;
use super::{Core, Scheduler, SchedulerConfig};
use crate::sync::{Mutex, thread};

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Three miss the late signal.
    builder.preemption_bound = Some(4);
    builder.check(model);
}

const SLICE: Duration = Duration::from_millis(2);

/// Runs everything that is runnable, without sleeping.
fn drain(worker: &mut Worker) {
    while let Some(task) = worker.pick() {
        if let Some(task) = task.begin() {
            worker.run(task);
        }
    }
}

/// Sleeps for one task and runs it; `false` if the scheduler stopped instead.
fn work_once(core: &Arc<Core>, index: usize) -> bool {
    let mut worker = Worker::new(Arc::clone(core), index);
    match worker.next() {
        Some(task) => {
            if let Some(task) = task.begin() {
                worker.run(task);
            }
            true
        }
        None => false,
    }
}

fn end(core: &Core) {
    core.stop();
    core.close();
}

/// Done once it sees the flag, parked until then. The flag is relaxed: only the wake can order it.
struct UntilFlag {
    flag: Arc<AtomicBool>,
}

impl Task for UntilFlag {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        if self.flag.load(Ordering::Relaxed) { Step::Done } else { Step::Parked }
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

/// Parks with its waker in a slot, as a wait list would.
struct UntilSlot {
    slot: Arc<Mutex<(bool, Option<Waker>)>>,
}

impl Task for UntilSlot {
    fn run(&self, _worker: usize, waker: &Waker) -> Step {
        let mut slot = self.slot.lock();
        if slot.0 {
            return Step::Done;
        }
        slot.1 = Some(waker.clone());
        Step::Parked
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

/// Counts its slices in a plain cell: loom fails if two overlap or one does not see the last.
struct Exclusive {
    slices: UnsafeCell<usize>,
    finish: Arc<AtomicBool>,
}

// SAFETY: `slices` is touched only by `run`, which the scheduler never calls twice at once; that is what is tested.
unsafe impl Sync for Exclusive {}

impl Task for Exclusive {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        self.slices.with_mut(|slices| {
            // SAFETY: loom's cell has just checked that no other access overlaps.
            unsafe { *slices += 1 }
        });
        if self.finish.load(Ordering::Relaxed) { Step::Done } else { Step::Parked }
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

struct Once(Arc<AtomicUsize>);

impl Task for Once {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        self.0.fetch_add(1, Ordering::Relaxed);
        Step::Done
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

#[test]
fn a_wake_at_any_moment_of_a_slice_is_answered() {
    check(|| {
        let core = Core::new(1, SLICE);
        let mut worker = Worker::new(Arc::clone(&core), 0);
        let group = Group::create(&core, Priority::DEFAULT);
        let flag = Arc::new(AtomicBool::new(false));
        let handle = group.spawn(Arc::new(UntilFlag { flag: Arc::clone(&flag) }));
        let wake = handle.clone();
        let waker = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            wake.wake();
        });
        drain(&mut worker);
        waker.join().unwrap();
        drain(&mut worker);
        assert!(handle.is_done(), "the wake was lost");
        end(&core);
    });
}

#[test]
fn a_parked_waker_wakes_a_sleeping_worker() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let slot = Arc::new(Mutex::new((false, None::<Waker>)));
        let handle = group.spawn(Arc::new(UntilSlot { slot: Arc::clone(&slot) }));
        let worker = {
            let (core, handle) = (Arc::clone(&core), handle.clone());
            thread::spawn(move || {
                while !handle.is_done() {
                    assert!(work_once(&core, 0));
                }
            })
        };
        let waker = {
            let mut slot = slot.lock();
            slot.0 = true;
            slot.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        worker.join().unwrap();
        assert!(handle.is_done());
        end(&core);
    });
}

#[test]
fn a_worker_falling_asleep_sees_a_new_group_and_its_task() {
    check(|| {
        let core = Core::new(1, SLICE);
        let worker = {
            let core = Arc::clone(&core);
            thread::spawn(move || assert!(work_once(&core, 0)))
        };
        let ran = Arc::new(AtomicUsize::new(0));
        let handle = Group::create(&core, Priority::DEFAULT).spawn(Arc::new(Once(Arc::clone(&ran))));
        worker.join().unwrap();
        assert!(handle.is_done());
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        end(&core);
    });
}

#[test]
fn two_tasks_wake_two_workers() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let workers = [0, 1].map(|index| {
            let core = Arc::clone(&core);
            // Each leaves after one task: a signal used up for the wrong one leaves the other asleep for good.
            thread::spawn(move || assert!(work_once(&core, index)))
        });
        let ran = Arc::new(AtomicUsize::new(0));
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), 2);
        end(&core);
    });
}

#[test]
fn a_signal_used_up_by_a_worker_that_found_other_work_is_passed_on() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let ran = Arc::new(AtomicUsize::new(0));
        // Announced to nobody: both workers had looked before it came and are about to register.
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        let workers = [0, 1].map(|index| {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let mut worker = Worker::new(core, index);
                let task = worker.doze().or_else(|| worker.next()).expect("two tasks for two workers");
                worker.run(task.begin().expect("nothing is abandoned yet"));
            })
        });
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), 2);
        end(&core);
    });
}

#[test]
fn a_late_signal_does_not_end_the_next_sleep() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let worker = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let mut worker = Worker::new(Arc::clone(&core), 0);
                for _ in 0..2 {
                    let task = worker.doze().or_else(|| worker.next()).expect("there are two tasks");
                    worker.run(task.begin().expect("nothing is abandoned yet"));
                }
                assert!(core.sleepers.is_empty(), "a worker that is awake is on the list");
            })
        };
        let ran = Arc::new(AtomicUsize::new(0));
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        group.spawn(Arc::new(Once(Arc::clone(&ran))));
        worker.join().unwrap();
        end(&core);
    });
}

#[test]
fn a_task_never_runs_on_two_workers_at_once() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let finish = Arc::new(AtomicBool::new(false));
        let handle =
            group.spawn(Arc::new(Exclusive { slices: UnsafeCell::new(0), finish: Arc::clone(&finish) }));
        let other = {
            let core = Arc::clone(&core);
            thread::spawn(move || drain(&mut Worker::new(core, 1)))
        };
        let waker = {
            let handle = handle.clone();
            thread::spawn(move || {
                handle.wake();
                finish.store(true, Ordering::Relaxed);
                handle.wake();
            })
        };
        let mut worker = Worker::new(Arc::clone(&core), 0);
        drain(&mut worker);
        other.join().unwrap();
        waker.join().unwrap();
        drain(&mut worker);
        assert!(handle.is_done());
        end(&core);
    });
}

#[test]
fn a_stop_wakes_a_worker_falling_asleep() {
    check(|| {
        let core = Core::new(1, SLICE);
        let worker = {
            let core = Arc::clone(&core);
            thread::spawn(move || assert!(!work_once(&core, 0)))
        };
        core.stop();
        worker.join().unwrap();
        core.close();
    });
}

#[test]
fn a_wake_that_races_with_the_end_leaves_nothing_behind() {
    check(|| {
        let core = Core::new(1, SLICE);
        let group = Group::create(&core, Priority::DEFAULT);
        let flag = Arc::new(AtomicBool::new(false));
        let handle = group.spawn(Arc::new(UntilFlag { flag: Arc::clone(&flag) }));
        drain(&mut Worker::new(Arc::clone(&core), 0));
        let weak = Arc::downgrade(&core);
        let waker = {
            let handle = handle.clone();
            thread::spawn(move || handle.wake())
        };
        end(&core);
        waker.join().unwrap();
        assert!(handle.is_done());
        assert_eq!(Arc::strong_count(&flag), 1, "the body is still held");
        drop((group, handle, core));
        assert!(weak.upgrade().is_none(), "a queue holds a task that holds the queue");
    });
}

#[test]
fn a_scheduler_dropped_at_any_moment_drops_its_tasks() {
    check(|| {
        let config = SchedulerConfig { threads: 1, name: "loom".to_owned(), slice: SLICE };
        let scheduler = Scheduler::new(config).unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let handle = scheduler.group(Priority::DEFAULT).spawn(Arc::new(Once(Arc::clone(&ran))));
        drop(scheduler);
        assert!(handle.is_done());
        assert_eq!(Arc::strong_count(&ran), 1);
        assert!(ran.load(Ordering::Relaxed) <= 1);
    });
}
