//! Fairness, counted in slices of a pretended length: the real choice and the real arithmetic, no clock and no thread.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::Core;
use super::group::{Group, GroupCore};
use super::stride::Priority;
use super::task::{Running, Step, Task, TaskCore};
use super::worker::Worker;

const SLICE: Duration = Duration::from_millis(2);

/// Ends after a number of slices.
struct Slices(AtomicUsize);

impl Slices {
    fn new(slices: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(slices)))
    }
}

impl Task for Slices {
    fn run(&self, _worker: usize, _waker: &Waker) -> Step {
        if self.0.fetch_sub(1, Ordering::Relaxed) > 1 { Step::Again } else { Step::Done }
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

const FOREVER: usize = usize::MAX;

/// A scheduler of one worker whose slices are as long as the test says.
struct Simulation {
    core: Arc<Core>,
    worker: Worker,
    current: Option<(Running, usize)>,
}

impl Simulation {
    fn new() -> Self {
        let core = Core::new(1, SLICE);
        let worker = Worker::new(Arc::clone(&core), 0);
        Self { core, worker, current: None }
    }

    /// A group of `tasks` tasks that never end.
    fn group(&self, weight: u32, tasks: usize) -> Group {
        let group = Group::create(&self.core, Priority::new(weight).unwrap());
        for _ in 0..tasks {
            group.spawn(Slices::new(FOREVER));
        }
        group
    }

    /// One slice, as the worker's loop would choose it; returns the address of the group that had it.
    fn step(&mut self, length: Duration) -> *const GroupCore {
        let (task, streak) = self.current.take().unwrap_or_else(|| {
            let task = self.worker.pick().expect("something is always runnable here");
            (task.begin().expect("nothing is abandoned here"), 0)
        });
        let ended = task.slice(0);
        task.group().charge(length);
        let who = address(task.group());
        if ended == Ok(Step::Done) {
            task.finish();
        } else if self.worker.keeps(task.group(), streak + 1) {
            assert!(task.stay());
            self.current = Some((task, streak + 1));
        } else {
            task.requeue();
        }
        who
    }

    /// Slices each of `groups` had out of `steps`.
    fn count<const N: usize>(&mut self, groups: [&Group; N], steps: usize) -> [usize; N] {
        let mut counts = [0; N];
        for _ in 0..steps {
            let who = self.step(SLICE);
            for (group, count) in groups.iter().zip(&mut counts) {
                *count += usize::from(address(group.core()) == who);
            }
        }
        counts
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.core.stop();
        self.core.close();
        if let Some((task, _)) = self.current.take() {
            task.finish();
        }
    }
}

fn address(group: &GroupCore) -> *const GroupCore {
    std::ptr::from_ref(group)
}

#[test]
fn equal_groups_share_equally_however_many_tasks_they_have() {
    let mut s = Simulation::new();
    let (one, many) = (s.group(100, 1), s.group(100, 50));
    let [a, b] = s.count([&one, &many], 1_000);
    assert!(a.abs_diff(b) <= 1, "{a} against {b}");
}

#[test]
fn shares_follow_priorities() {
    let mut s = Simulation::new();
    let (light, heavy) = (s.group(100, 2), s.group(300, 2));
    // Past the decay of both, so that only the weights differ.
    s.count([], 1_000);
    let [l, h] = s.count([&light, &heavy], 4_000);
    assert!((990..=1_010).contains(&l), "{l} against {h}");
}

#[test]
fn a_new_priority_counts_from_the_next_slice() {
    let mut s = Simulation::new();
    let (a, b) = (s.group(100, 1), s.group(100, 1));
    s.count([], 1_000);
    a.set_priority(Priority::new(400).unwrap());
    let [x, y] = s.count([&a, &b], 1_000);
    assert!((795..=805).contains(&x), "{x} against {y}");
}

#[test]
fn a_short_query_overtakes_a_long_one_that_still_moves() {
    let mut s = Simulation::new();
    let long = s.group(100, 4);
    s.count([], 5_000);
    let short = s.group(100, 1);
    // The long one may be in a streak, and is owed one slice in 64.
    let [l, n] = s.count([&long, &short], 15);
    assert!(l <= 1, "the short one had only {n} of 15");
    let [l, _] = s.count([&long, &short], 200);
    assert!(l >= 2, "the long one starved");
    // Once both have decayed they are equals.
    let [l, n] = s.count([&long, &short], 1_000);
    assert!(l.abs_diff(n) <= 20, "{l} against {n}");
}

#[test]
fn a_stream_of_short_queries_does_not_starve_an_old_one() {
    let mut s = Simulation::new();
    let old = s.group(100, 1);
    s.count([], 1_000);
    let mut had = 0;
    for _ in 0..100 {
        let short = s.group(100, 0);
        let task = short.spawn(Slices::new(20));
        while !task.is_done() {
            had += s.count([&old], 1)[0];
        }
    }
    // Twenty slices of a newcomer cost it about 50,000 ticks, one of the old group's 128,000.
    assert!((30..=60).contains(&had), "{had} beside 2000");
}

#[test]
fn a_sleeper_gains_no_credit() {
    let mut s = Simulation::new();
    let (awake, sleeper) = (s.group(100, 1), s.group(100, 0));
    s.count([], 2_000);
    sleeper.spawn(Slices::new(FOREVER));
    // It is new to the decay and thus served first, but owes its stay there to that alone: 44 slices of CPU time
    // bring it to the same floor, none of the 2000 it missed are made up for.
    s.count([], 300);
    let [a, b] = s.count([&awake, &sleeper], 1_000);
    assert!(a.abs_diff(b) <= 2, "{a} against {b}");
}

#[test]
fn an_expedited_group_does_not_wait_behind_its_debt() {
    let mut s = Simulation::new();
    let cancelled = s.group(100, 8);
    let other = s.group(100, 1);
    s.count([], 1_000);
    // A slice a hundred times too long, as debt goes.
    while s.step(100 * SLICE) != address(cancelled.core()) {}
    let [c, _] = s.count([&cancelled, &other], 50);
    assert_eq!(c, 0, "there was no debt to begin with");
    // Those that have just come are level with whom is served now.
    let newcomers: Vec<_> = (0..20).map(|_| s.group(100, 1)).collect();
    cancelled.expedite();
    // Whoever has the worker has been promised this slice.
    s.step(SLICE);
    let [c, _] = s.count([&cancelled, &other], 8);
    assert_eq!(c, 8, "each of its tasks lets go before {} others are served", newcomers.len());
}

#[test]
fn a_group_pays_for_the_length_of_its_slices() {
    let mut s = Simulation::new();
    let (short, long) = (s.group(100, 1), s.group(100, 1));
    s.count([], 1_000);
    let mut counts = [0_u32; 2];
    for _ in 0..5_000 {
        // Charged by who runs: ask whose turn it is by the pass.
        let length = if short.core().pass() <= long.core().pass() { 1 } else { 4 };
        let who = s.step(Duration::from_millis(length));
        counts[usize::from(who == address(long.core()))] += length as u32;
    }
    assert!(counts[0].abs_diff(counts[1]) < counts[0] / 10, "{counts:?} ms");
}

#[test]
fn tasks_of_one_group_take_turns() {
    let mut s = Simulation::new();
    let _group = s.group(100, 3);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 * super::worker::MAX_STREAK {
        s.step(SLICE);
        if let Some((task, _)) = &s.current {
            seen.insert(task.id());
        }
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_group_leaves_the_list_with_its_last_handle_and_task() {
    let core = Core::new(1, SLICE);
    let mut worker = Worker::new(Arc::clone(&core), 0);
    let group = Group::create(&core, Priority::DEFAULT);
    let task = group.spawn(Slices::new(1));
    let weak = Arc::downgrade(group.core());
    drop(group.clone());
    drop(group);
    assert_eq!(core.groups.len(), 1, "its task is not over");
    let running = worker.pick().and_then(TaskCore::begin).expect("one task is queued");
    worker.run(running);
    assert!(task.is_done());
    assert_eq!(core.groups.len(), 0);
    drop((task, worker));
    assert!(weak.upgrade().is_none(), "something still holds the group");
}
