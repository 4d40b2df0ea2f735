//! Many tasks, real threads, foreign wakers: what loom's small models cannot reach.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::*;

/// Far beyond what any of these tests takes, so that only a lost wake reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn scheduler(threads: usize) -> Scheduler {
    let slice = Duration::from_millis(2);
    Scheduler::new(SchedulerConfig { threads, name: "stress".to_owned(), slice }).unwrap()
}

/// A small generator (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A task made of two closures.
struct Closure<R, P> {
    run: R,
    panicked: P,
}

impl<R, P> Task for Closure<R, P>
where
    R: Fn(usize, &Waker) -> Step + Send + Sync + 'static,
    P: Fn(String) + Send + Sync + 'static,
{
    fn run(&self, worker: usize, waker: &Waker) -> Step {
        (self.run)(worker, waker)
    }

    fn panicked(&self, message: String) {
        (self.panicked)(message);
    }
}

fn task(run: impl Fn(usize, &Waker) -> Step + Send + Sync + 'static) -> Arc<dyn Task> {
    Arc::new(Closure { run, panicked: |message| panic!("{message}") })
}

/// Waits until `condition` holds; `false` if it does not within the test's patience.
fn eventually(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// Parks a number of times, each time handing its waker to the foreign threads.
struct Parker {
    parks_left: AtomicUsize,
    running: AtomicBool,
    /// Set by the foreign thread before it wakes: a slice after the wake must see it.
    ready: Arc<AtomicBool>,
    wakers: Sender<(Waker, Arc<AtomicBool>)>,
    done: Sender<()>,
}

impl Task for Parker {
    fn run(&self, worker: usize, waker: &Waker) -> Step {
        assert!(worker < 4);
        assert!(!self.running.swap(true, Ordering::Relaxed), "ran on two workers at once");
        // Relaxed: that the wake orders it is what is tested.
        let step = if !self.ready.load(Ordering::Relaxed) {
            Step::Parked
        } else if self.parks_left.load(Ordering::Relaxed) == 0 {
            self.done.send(()).unwrap();
            Step::Done
        } else {
            self.parks_left.fetch_sub(1, Ordering::Relaxed);
            self.ready.store(false, Ordering::Relaxed);
            self.wakers.send((waker.clone(), Arc::clone(&self.ready))).unwrap();
            if self.parks_left.load(Ordering::Relaxed).is_multiple_of(3) { Step::Again } else { Step::Parked }
        };
        self.running.store(false, Ordering::Relaxed);
        step
    }

    fn panicked(&self, message: String) {
        panic!("{message}");
    }
}

fn wake_at_random(wakers: &Mutex<Receiver<(Waker, Arc<AtomicBool>)>>, seed: u64) {
    let mut random = Random(seed);
    let mut held = Vec::new();
    loop {
        let next = wakers.lock().unwrap().recv_timeout(Duration::from_millis(1));
        let (keep, ended) = match next {
            Ok(waker) => {
                held.push(waker);
                (random.below(8), false)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => (0, false),
            Err(mpsc::RecvTimeoutError::Disconnected) => (0, true),
        };
        while held.len() > keep {
            let (waker, ready): (Waker, Arc<AtomicBool>) = held.swap_remove(random.below(held.len()));
            if random.below(4) == 0 {
                waker.wake_by_ref(); // spurious
            }
            ready.store(true, Ordering::Relaxed);
            waker.wake();
        }
        if ended {
            return;
        }
    }
}

#[test]
fn thousands_of_tasks_park_and_are_woken_from_other_threads() {
    const TASKS: usize = 3_000;
    let scheduler = scheduler(4);
    let (wakers, woken) = mpsc::channel();
    let (done, finished) = mpsc::channel();
    let woken = Mutex::new(woken);
    thread::scope(|scope| {
        for seed in 1..=3 {
            let woken = &woken;
            scope.spawn(move || wake_at_random(woken, seed));
        }
        let groups: Vec<Group> = (0..7).map(|_| scheduler.group(Priority::DEFAULT)).collect();
        for i in 0..TASKS {
            groups[i % groups.len()].spawn(Arc::new(Parker {
                parks_left: AtomicUsize::new(i % 23),
                running: AtomicBool::new(false),
                ready: Arc::new(AtomicBool::new(true)),
                wakers: wakers.clone(),
                done: done.clone(),
            }));
        }
        drop((wakers, groups));
        for i in 0..TASKS {
            assert!(finished.recv_timeout(PATIENCE).is_ok(), "a wake was lost: {i} of {TASKS} tasks ended");
        }
    });
    assert!(eventually(|| scheduler.core.groups.len() == 0), "groups outlive their tasks");
}

#[test]
fn who_parks_until_a_time_is_woken_by_nobody_else() {
    const PARKS: usize = 20;
    const PAUSE: Duration = Duration::from_millis(3);
    for threads in [1, 2] {
        let scheduler = scheduler(threads);
        let group = scheduler.group(Priority::DEFAULT);
        let done = Arc::new(AtomicUsize::new(0));
        let is_busy = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        // With all workers asleep, then with one that never is.
        for round in 1..=2 {
            for _ in 0..8 {
                let (done, parks) = (Arc::clone(&done), AtomicUsize::new(0));
                group.spawn(task(move |_, _| {
                    if parks.fetch_add(1, Ordering::Relaxed) < PARKS {
                        return Step::ParkedUntil(Instant::now() + PAUSE);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    Step::Done
                }));
            }
            assert!(eventually(|| done.load(Ordering::Relaxed) == 8 * round));
            if round == 1 {
                is_busy.store(true, Ordering::Relaxed);
                let is_busy = Arc::clone(&is_busy);
                group.spawn(task(move |_, _| match is_busy.load(Ordering::Relaxed) {
                    true => Step::Again,
                    false => Step::Done,
                }));
            }
        }
        is_busy.store(false, Ordering::Relaxed);
        assert!(start.elapsed() >= 2 * PARKS as u32 * PAUSE);
    }
}

#[test]
fn a_scheduler_forgets_who_is_parked_until_a_time() {
    let scheduler = scheduler(2);
    let held = Arc::new(());
    let (weak, parked) = (Arc::downgrade(&held), Arc::new(AtomicBool::new(false)));
    let is_parked = Arc::clone(&parked);
    scheduler.group(Priority::DEFAULT).spawn(task(move |_, _| {
        let _ = &held;
        is_parked.store(true, Ordering::Relaxed);
        Step::ParkedUntil(Instant::now() + PATIENCE)
    }));
    assert!(eventually(|| parked.load(Ordering::Relaxed)));
    let core = Arc::downgrade(&scheduler.core);
    drop(scheduler);
    assert!(weak.upgrade().is_none() && core.upgrade().is_none());
}

#[test]
fn every_spawn_wakes_a_worker_of_its_own() {
    const WORKERS: usize = 4;
    let scheduler = scheduler(WORKERS);
    let group = scheduler.group(Priority::DEFAULT);
    for round in 0..300 {
        let (here, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..WORKERS {
            let (here, left) = (Arc::clone(&here), Arc::clone(&left));
            // Holds its worker until all have one, which a task must not do: it shows that none sleeps.
            group.spawn(task(move |_, _| {
                here.fetch_add(1, Ordering::SeqCst);
                let met = eventually(|| here.load(Ordering::SeqCst) == WORKERS);
                left.fetch_add(if met { 1 } else { 1_000 }, Ordering::SeqCst);
                Step::Done
            }));
        }
        assert!(eventually(|| left.load(Ordering::SeqCst) >= WORKERS));
        assert_eq!(left.load(Ordering::SeqCst), WORKERS, "a worker slept in round {round}");
    }
}

#[test]
fn groups_come_and_go_while_others_run() {
    let scheduler = scheduler(3);
    let count = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 1..=4_u64 {
            let (scheduler, count) = (&scheduler, &count);
            scope.spawn(move || {
                let mut random = Random(client);
                for _ in 0..200 {
                    let group = scheduler.group(Priority::new(1 + random.below(300) as u32).unwrap());
                    let (done, finished) = mpsc::channel();
                    let tasks = 1 + random.below(6);
                    for _ in 0..tasks {
                        let (count, done, inner) = (Arc::clone(count), done.clone(), group.clone());
                        let slices = AtomicUsize::new(random.below(5));
                        group.spawn(task(move |_, waker| {
                            if slices.load(Ordering::Relaxed) > 0 {
                                slices.fetch_sub(1, Ordering::Relaxed);
                                waker.wake_by_ref();
                                return Step::Parked;
                            }
                            // A task that spawns into its own group.
                            let (count, done) = (Arc::clone(&count), done.clone());
                            inner.spawn(task(move |_, _| {
                                count.fetch_add(1, Ordering::Relaxed);
                                let _ = done.send(());
                                Step::Done
                            }));
                            Step::Done
                        }));
                    }
                    drop(group);
                    for _ in 0..tasks {
                        finished.recv_timeout(PATIENCE).expect("a task was lost");
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 0);
    assert!(eventually(|| scheduler.core.groups.len() == 0), "groups outlive their tasks");
}

#[test]
fn a_panic_ends_its_task_alone() {
    struct Bomb(Sender<String>);
    impl Task for Bomb {
        fn run(&self, _worker: usize, _waker: &Waker) -> Step {
            panic!("boom {}", 7)
        }
        fn panicked(&self, message: String) {
            self.0.send(message).unwrap();
            panic!("and again")
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("and while dropped")
        }
    }
    let scheduler = scheduler(1);
    let group = scheduler.group(Priority::DEFAULT);
    let (messages, received) = mpsc::channel();
    let handles: Vec<TaskHandle> = (0..20).map(|_| group.spawn(Arc::new(Bomb(messages.clone())))).collect();
    for _ in 0..20 {
        assert_eq!(received.recv_timeout(PATIENCE).unwrap(), "boom 7");
    }
    assert!(eventually(|| handles.iter().all(TaskHandle::is_done)));
    handles.iter().for_each(TaskHandle::wake);
    let (done, finished) = mpsc::channel();
    group.spawn(task(move |_, _| {
        done.send(()).unwrap();
        Step::Done
    }));
    finished.recv_timeout(PATIENCE).expect("the worker did not outlive the panics");
    assert_eq!(received.try_recv().ok(), None, "a task ran after its panic");
}

#[test]
fn a_dropped_scheduler_holds_no_body_busy_queued_or_parked() {
    for seed in 1..=20 {
        let mut random = Random(seed);
        let scheduler = scheduler(2);
        let group = scheduler.group(Priority::DEFAULT);
        let mut bodies: Vec<Weak<dyn Task>> = Vec::new();
        let mut handles = Vec::new();
        for i in 0..60 {
            // A parked body that holds its own waker: a cycle only the end of the scheduler can cut.
            let own = Mutex::new(None);
            let body = task(move |_, waker| {
                *own.lock().unwrap() = Some(waker.clone());
                if i % 2 == 0 { Step::Again } else { Step::Parked }
            });
            bodies.push(Arc::downgrade(&body));
            handles.push(group.spawn(body));
        }
        let wakers: Vec<Waker> = handles.iter().map(TaskHandle::waker).collect();
        let foreign = thread::spawn(move || wakers.iter().for_each(Waker::wake_by_ref));
        for _ in 0..random.below(2_000) {
            std::hint::spin_loop();
        }
        drop(scheduler);
        foreign.join().unwrap();
        assert!(handles.iter().all(TaskHandle::is_done));
        assert!(bodies.iter().all(|body| body.upgrade().is_none()), "a body outlives its scheduler");
        handles.iter().for_each(TaskHandle::wake);

        let late = task(|_, _| unreachable!("there is no worker left"));
        let weak = Arc::downgrade(&late);
        assert!(group.spawn(late).is_done());
        assert!(weak.upgrade().is_none());
        let core = Arc::downgrade(group.core());
        drop((group, handles));
        assert!(core.upgrade().is_none(), "the group outlives its handles");
    }
}

#[test]
fn a_worker_may_drop_its_own_scheduler() {
    struct Last {
        scheduler: Mutex<Option<Scheduler>>,
        dropped: Sender<()>,
    }
    impl Task for Last {
        fn run(&self, _worker: usize, _waker: &Waker) -> Step {
            match self.scheduler.lock().unwrap().take() {
                Some(scheduler) => {
                    drop(scheduler);
                    Step::Again
                }
                None => Step::Parked,
            }
        }
        fn panicked(&self, message: String) {
            panic!("{message}");
        }
    }
    impl Drop for Last {
        fn drop(&mut self) {
            self.dropped.send(()).unwrap();
        }
    }
    let scheduler = scheduler(3);
    let group = scheduler.group(Priority::DEFAULT);
    let (dropped, received) = mpsc::channel();
    let last = Arc::new(Last { scheduler: Mutex::new(None), dropped });
    let body: Arc<dyn Task> = Arc::<Last>::clone(&last);
    let handle = group.spawn(body);
    *last.scheduler.lock().unwrap() = Some(scheduler);
    drop(last);
    handle.wake();
    received.recv_timeout(PATIENCE).expect("the body was not dropped");
    assert!(handle.is_done());
}

#[test]
fn cpu_time_is_measured_per_group() {
    let scheduler = scheduler(1);
    let (busy, idle) = (scheduler.group(Priority::DEFAULT), scheduler.group(Priority::DEFAULT));
    let handle = busy.spawn(task(|_, _| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(3) {}
        Step::Done
    }));
    assert!(eventually(|| handle.is_done()));
    assert!(busy.cpu_time() >= Duration::from_millis(3));
    assert_eq!(idle.cpu_time(), Duration::ZERO);
}

#[test]
fn bad_configurations_are_refused_in_words() {
    let config = SchedulerConfig { threads: 0, ..SchedulerConfig::default() };
    assert!(Scheduler::new(config).unwrap_err().to_string().contains("threads is 0"));
    let config = SchedulerConfig { threads: 1, name: "a\0b".to_owned(), ..SchedulerConfig::default() };
    assert!(Scheduler::new(config).unwrap_err().to_string().contains("zero bytes"));
}
