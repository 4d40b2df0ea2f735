//! Floors, admission and reclaim.

use super::fakes::{FakeSink, FakeSource, FakeTransform, LANE_BYTES, Waits, World};
use super::{PipelineSpec, Setup, pipeline, run, scheduler, start};
use crate::error::{Error, MemoryError, Result};
use crate::exec::floors::Schedule;
use crate::exec::{LaneCx, Need, OpenCx, Pull, QuerySpec, Retry, Source, SourceBox};
use crate::mem::{Account, Knobs, Pool, Reservation, Tenant};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn simple(world: &World, waits: Waits) -> Vec<PipelineSpec> {
    let source = FakeSource { waits, ..FakeSource::new(world, "s", &[1; 4]) };
    vec![pipeline(source.boxed(), Vec::new(), FakeSink::new(world, "z").boxed())]
}

fn floor_bytes(world: &World, lanes: usize) -> usize {
    let knobs = Knobs { lanes, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
    simple(world, Waits::Not).iter().map(|p| p.lanes_bytes(&knobs) + p.shared_bytes(&knobs)).sum()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + super::PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_query_runs_in_exactly_its_floors_and_not_in_less() {
    let world = World::default();
    let limit_bytes = floor_bytes(&world, 3);
    let setup = Setup { limit_bytes, ..Setup::lanes(2, 3) };
    run(simple(&world, Waits::Each), &setup, &world)
        .expect("lane and shared accounts open within the floors");

    let setup = Setup { limit_bytes: limit_bytes - 1, ..setup };
    match run(simple(&world, Waits::Not), &setup, &world) {
        Err(Error::Memory(e)) => {
            let MemoryError::BudgetTooSmall { required_bytes, .. } = *e else {
                panic!("{e} asks for nothing")
            };
            assert_eq!(required_bytes, limit_bytes);
        }
        other => panic!("{other:?} is no memory error"),
    }
}

#[test]
fn a_source_that_takes_all_there_is_leaves_the_others_what_they_were_promised() {
    for spare_bytes in [0, 4096, 1 << 20] {
        let world = World::default();
        let setup = Setup { limit_bytes: floor_bytes(&world, 3) + spare_bytes, ..Setup::lanes(2, 3) };
        let source = FakeSource { is_greedy: true, ..FakeSource::new(&world, "s", &[1; 4]) };
        let pipelines = vec![pipeline(source.boxed(), Vec::new(), FakeSink::new(&world, "z").boxed())];
        run(pipelines, &setup, &world).expect("the sink has its floor");
    }
}

#[test]
fn admission_turns_lanes_down_until_the_floors_fit() {
    let world = World::default();
    let most = Knobs { lanes: 8, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
    let mut spec = QuerySpec { pipelines: simple(&world, Waits::Not) };
    let mut lanes = |limit| spec.admit(most, &Pool::new("engine", limit)).map(|knobs| knobs.lanes);
    assert_eq!(lanes(64 << 20).ok(), Some(8));
    assert_eq!(lanes(floor_bytes(&world, 2) * 8 / 5 + 8).ok(), Some(2), "floors may take five eighths");
    assert_eq!(lanes(floor_bytes(&world, 1)).ok(), Some(1), "or everything, if there is no other way");
    assert!(lanes(floor_bytes(&world, 1) - 1).is_err());
}

#[test]
fn wide_rows_have_fewer_lanes_and_never_none() {
    let world = World::default();
    let most = Knobs { lanes: 8, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
    let lanes = |limit| {
        let scan = |name| FakeSource { row_bytes: 512 << 10, ..FakeSource::new(&world, name, &[1; 8]) };
        let of = |name| pipeline(scan(name).boxed(), Vec::new(), FakeSink::new(&world, "z").boxed());
        let mut spec = QuerySpec { pipelines: vec![of("s"), of("t")] };
        spec.admit(most, &Pool::new("engine", limit)).expect("fits").lanes
    };
    assert_eq!(lanes(512 << 20), 8);
    assert_eq!(lanes(128 << 20), 3, "three eighths are sixteen rows of a mebibyte for each");
    assert_eq!(lanes(4 << 20), 1);
}

#[test]
fn pipelines_with_narrow_lanes_keep_more_of_them() {
    let world = World::default();
    let most = Knobs { lanes: 8, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
    let pipelines = || {
        let transforms = (0..100).map(|_| FakeTransform::new(&world, "more").boxed()).collect();
        let source = FakeSource::new(&world, "s", &[1; 8]).boxed();
        let mut pipelines = simple(&world, Waits::Not);
        pipelines.push(pipeline(source, transforms, FakeSink::new(&world, "z").boxed()));
        pipelines
    };
    let floors = |pipelines: &[_], lanes| Schedule::InTurn.floor_bytes(pipelines, &Knobs { lanes, ..most });
    let lanes = |limit| {
        let mut spec = QuerySpec { pipelines: pipelines() };
        let knobs = spec.admit(most, &Pool::new("engine", limit)).expect("fits");
        assert!(floors(&spec.pipelines, knobs.lanes) <= limit);
        spec.pipelines.iter().map(|pipeline| pipeline.lanes(&knobs)).collect::<Vec<_>>()
    };
    assert_eq!(lanes(64 << 20), [8, 8]);
    // Room for one lane of the second, of whose bytes the first makes several.
    assert_eq!(lanes(floors(&pipelines(), 1) * 8 / 5 + (64 << 10)), [8, 1]);
    assert_eq!(lanes(floors(&pipelines(), 1)), [1, 1], "nothing is added where floors take all there is");
    let between = lanes(floors(&pipelines(), 3) * 8 / 5 + (64 << 10));
    assert_eq!(between, [8, 3]);
}

/// Three pipelines that could run at the same time.
fn three(world: &World) -> Vec<PipelineSpec> {
    let one = |source, sink| {
        let source = FakeSource { waits: Waits::Each, ..FakeSource::new(world, source, &[1; 4]) };
        pipeline(source.boxed(), Vec::new(), FakeSink::new(world, sink).boxed())
    };
    vec![one("s0", "z0"), one("s1", "z1"), one("s2", "z2")]
}

#[test]
fn pipelines_run_in_turn_where_their_floors_do_not_fit_together() {
    for (workers, lanes) in [(1, 1), (1, 3), (3, 4)] {
        let world = World::default();
        let setup = Setup::lanes(workers, lanes);
        let knobs = setup.cx(&Pool::new("p", 1 << 20)).knobs;
        let limit_bytes = Schedule::InTurn.floor_bytes(&three(&world), &knobs);
        assert!(limit_bytes < Schedule::Together.floor_bytes(&three(&world), &knobs));
        run(three(&world), &Setup { limit_bytes, ..setup }, &world).expect("lanes give their floors back");
        let number = |entry: &String| entry.split('.').next().and_then(|name| name[1..].parse::<u32>().ok());
        let order: Vec<_> = world.log().iter().map(|e| number(e).expect("a pipeline's number")).collect();
        assert!(order.is_sorted(), "{:?}", world.log());
        assert_eq!(order.last(), Some(&2));
    }
}

#[test]
fn a_lane_gives_back_what_later_stages_do_not_need_but_for_pipelines_to_come() {
    let draining = |world: &World| {
        let transform = FakeTransform { drain_batches: 1, ..FakeTransform::new(world, "t") };
        let source = FakeSource::new(world, "s", &[1; 4]).boxed();
        let spec = pipeline(source, vec![transform.clone().boxed()], FakeSink::new(world, "z").boxed());
        (spec, transform.drain_floors)
    };
    let world = World::default();
    let (alone, floors) = draining(&world);
    run(vec![alone], &Setup::lanes(1, 1), &world).expect("no trouble");
    assert!(!floors.lock().is_empty());
    assert!(floors.lock().iter().all(|&floor| floor == 2 * LANE_BYTES), "without the source's: {floors:?}");

    // In turn before a pipeline whose one lane needs more.
    let (first, floors) = draining(&world);
    let transforms = (0..4).map(|_| FakeTransform::new(&world, "more").boxed()).collect();
    let larger =
        pipeline(FakeSource::new(&world, "s", &[1]).boxed(), transforms, FakeSink::new(&world, "z").boxed());
    let setup = Setup::lanes(1, 1);
    let knobs = setup.cx(&Pool::new("p", 1 << 20)).knobs;
    let pipelines = vec![first, larger];
    let limit_bytes = Schedule::InTurn.floor_bytes(&pipelines, &knobs);
    run(pipelines, &Setup { limit_bytes, ..setup }, &world).expect("the larger one has its floor");
    assert!(floors.lock().iter().all(|&floor| floor == 2 * LANE_BYTES), "{floors:?}");
}

#[test]
fn queries_wait_their_turn_for_floors_that_others_hold() {
    let world = World::default();
    let (scheduler, floor) = (scheduler(2), floor_bytes(&world, 1));
    let engine = Pool::new("engine", floor);
    let setup = Setup { limit_bytes: floor, ..Setup::lanes(2, 1) };
    let go = |waits, world: &World| {
        start(simple(world, waits), &setup, world, &engine, &scheduler).expect("queues")
    };
    let (first_world, second_world, third_world) = (World::default(), World::default(), World::default());
    let first = go(Waits::Always, &first_world);
    let second = go(Waits::Always, &second_world);
    let third = go(Waits::Each, &third_world);
    until("the first starts", || first_world.count("z.Local") == 1);
    assert!(!second.is_over() && !third.is_over());
    assert_eq!(second_world.log().len() + third_world.log().len(), 0, "they have no memory to start with");
    first.run().fail(Error::Cancelled);
    assert!(first.end().is_err());
    until("the second starts", || second_world.count("z.Local") == 1);
    assert!(!third.is_over() && third_world.log().is_empty(), "in order");
    second.run().fail(Error::Cancelled);
    assert!(second.end().is_err());
    third.end().expect("runs");
    assert_eq!(engine.granted_bytes(), 0);
}

#[test]
fn a_query_that_waits_its_turn_can_be_cancelled_and_lets_others_pass() {
    let world = World::default();
    let (scheduler, floor) = (scheduler(2), floor_bytes(&world, 2));
    let engine = Pool::new("engine", 2 * floor);
    let mut held = Reservation::empty(&engine);
    held.try_grow(floor).expect("fits");
    let at_work = Tenant::of(&engine);
    let large = Setup { limit_bytes: 2 * floor, ..Setup::lanes(2, 4) };
    let small = Setup { limit_bytes: 2 * floor, ..Setup::lanes(2, 1) };
    let (large_world, small_world) = (World::default(), World::default());
    let first =
        start(simple(&large_world, Waits::Not), &large, &large_world, &engine, &scheduler).expect("queues");
    let second =
        start(simple(&small_world, Waits::Not), &small, &small_world, &engine, &scheduler).expect("queues");
    assert!(!first.is_over() && !second.is_over());
    first.run().fail(Error::Cancelled);
    assert!(matches!(first.end(), Err(Error::Cancelled)));
    second.end().expect("fits beside what is held");
    drop(scheduler);
    drop((held, at_work));
    assert_eq!(engine.granted_bytes(), 0);
}

#[test]
fn a_query_fails_if_nobody_is_left_to_give_it_memory() {
    let (scheduler, floor) = (scheduler(2), floor_bytes(&World::default(), 1));
    let engine = Pool::new("engine", floor);
    let setup = Setup { limit_bytes: floor, ..Setup::lanes(2, 1) };
    let (first_world, second_world) = (World::default(), World::default());
    let go = |waits, world: &World| {
        start(simple(world, waits), &setup, world, &engine, &scheduler).expect("queues")
    };
    let first = go(Waits::Always, &first_world);
    until("the first starts", || first_world.count("z.Local") == 1);
    let second = go(Waits::Not, &second_world);
    assert!(!second.is_over(), "the first may give its memory back");
    first.run().fail(Error::Cancelled);
    assert!(first.end().is_err());
    second.end().expect("it did");
    // As a reader that keeps a result: at rest.
    let mut held = Reservation::empty(&engine);
    held.try_grow(1).expect("nothing is held");
    match go(Waits::Not, &World::default()).end() {
        Err(Error::Memory(e)) => assert!(matches!(*e, MemoryError::Exceeded { .. }), "{e}"),
        other => panic!("{other:?} is no memory error"),
    }
    drop(held);
    assert_eq!(engine.granted_bytes(), 0);
}

/// A lane that holds 2.5 MiB and waits for ever.
fn hoard(world: &World, is_stubborn: bool) -> Vec<PipelineSpec> {
    let source = FakeSource { waits: Waits::Always, ..FakeSource::new(world, "s", &[]) };
    let sink = FakeSink { slabs: 40, is_stubborn, ..FakeSink::new(world, "z") };
    vec![pipeline(source.boxed(), Vec::new(), sink.boxed())]
}

fn one_lane() -> Setup {
    Setup { limit_bytes: 4 << 20, ..Setup::lanes(1, 1) }
}

#[test]
fn a_parked_lane_gives_back_what_others_want() {
    let world = World::default();
    let (scheduler, engine) = (scheduler(1), Pool::new("engine", 4 << 20));
    let running = start(hoard(&world, false), &one_lane(), &world, &engine, &scheduler).expect("starts");
    until("the lane is parked", || !world.wakers().is_empty());
    let granted = engine.granted_bytes();
    assert!(granted > 40 * (64 << 10), "{granted}");
    let top = engine.top_consumers(1);
    assert_eq!(top[0].name, "z");
    assert!(top[0].used_bytes > 40 * (64 << 10));

    let account = Account::open(&engine, 0, 4096, 0).expect("fits");
    until("the lane gives back", || account.charge(3 << 20).is_ok());
    assert!(world.count("z.reclaim") >= 1);
    assert!(!running.is_over());
    running.run().fail(Error::Cancelled);
    assert!(running.end().is_err());
}

#[test]
fn a_lane_that_has_nothing_to_give_is_not_asked_for_ever() {
    let (stubborn_world, world) = (World::default(), World::default());
    let (scheduler, engine) = (scheduler(1), Pool::new("engine", 8 << 20));
    let stubborn = start(hoard(&stubborn_world, true), &one_lane(), &stubborn_world, &engine, &scheduler)
        .expect("starts");
    let other = start(hoard(&world, false), &one_lane(), &world, &engine, &scheduler).expect("starts");
    until("the lanes are parked", || !world.wakers().is_empty() && !stubborn_world.wakers().is_empty());
    let account = Account::open(&engine, 0, 4096, 0).expect("fits");
    until("the other lane gives back", || account.charge(4 << 20).is_ok());
    until("nobody is left to ask", || !engine.request_reclaim(4 << 20, None));
    let asked = stubborn_world.count("z.reclaim");
    assert!(asked >= 1 && world.count("z.reclaim") >= 1);
    for _ in 0..20 {
        assert!(account.charge(4 << 20).is_err());
    }
    assert!(!stubborn.is_over());
    assert_eq!(stubborn_world.count("z.reclaim"), asked);
    for running in [stubborn, other] {
        running.run().fail(Error::Cancelled);
        assert!(running.end().is_err());
    }
}

/// Wants more bytes than its floor, and waits for them.
struct Asker {
    bytes: usize,
    pulls: Arc<AtomicUsize>,
}

impl Source for Asker {
    type Shared = ();
    type Local = Retry;

    fn name(&self) -> String {
        "asker".to_owned()
    }

    fn need(&self, _knobs: &Knobs) -> Need {
        Need::default()
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Retry> {
        Ok(Retry::default())
    }

    fn pull(&self, _shared: &(), retry: &mut Retry, cx: &LaneCx<'_>) -> Result<Pull> {
        self.pulls.fetch_add(1, SeqCst);
        match cx.account.hold(self.bytes) {
            Ok(_) => Ok(Pull::Done),
            Err(denied) => retry.wait(denied.bytes, cx).map(Pull::Wait).ok_or_else(|| denied.into()),
        }
    }
}

#[test]
fn who_waits_for_memory_is_woken_when_it_is_there_and_rests_until_then() {
    let world = World::default();
    let (scheduler, engine) = (scheduler(1), Pool::new("engine", 4 << 20));
    let mut held = Reservation::empty(&engine);
    held.try_grow(3 << 20).expect("fits");
    let pulls = Arc::new(AtomicUsize::new(0));
    let source = Asker { bytes: 2 << 20, pulls: Arc::clone(&pulls) };
    let sink = FakeSink::new(&world, "z");
    let pipelines = vec![pipeline(SourceBox::new(source), Vec::new(), sink.boxed())];
    let running = start(pipelines, &one_lane(), &world, &engine, &scheduler).expect("starts");
    until("the lane waits", || pulls.load(SeqCst) > 4);
    let before = pulls.load(SeqCst);
    std::thread::sleep(Duration::from_millis(320));
    let tries = pulls.load(SeqCst) - before;
    assert!(tries <= 25, "{tries} tries in 0.3 s");
    assert!(!running.is_over());
    held.shrink(2 << 20);
    running.end().expect("it got what it waited for");
}
