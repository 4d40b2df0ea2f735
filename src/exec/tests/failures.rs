//! Errors, panics, cancels and deadlines: one end, nothing left.

use super::fakes::{Call, FakeSink, FakeSource, FakeTransform, Trouble, Waits, World};
use super::{PipelineSpec, Setup, assert_internal, pipeline, run, scheduler, start};
use crate::error::Error;
use crate::exec::floors::Schedule;
use crate::mem::Pool;
use std::time::{Duration, Instant};

/// A query that makes every call there is.
fn everything(world: &World, waits: Waits) -> Vec<PipelineSpec> {
    let source = FakeSource { waits, ..FakeSource::new(world, "s", &[5; 12]) };
    let transform = FakeTransform {
        waits,
        piece_rows: 2,
        flush_batches: 2,
        drain_batches: 3,
        ..FakeTransform::new(world, "t")
    };
    let sink = FakeSink { waits, tasks: 3, ..FakeSink::new(world, "z") };
    let first = pipeline(source.boxed(), vec![transform.boxed()], sink.boxed());
    let second =
        pipeline(FakeSource::new(world, "s2", &[1]).boxed(), Vec::new(), FakeSink::new(world, "z2").boxed());
    vec![first, PipelineSpec { depends_on: vec![0], ..second }]
}

const CALLS: [(&str, &[Call]); 3] = [
    ("s", &[Call::Open, Call::Local, Call::Pull]),
    ("t", &[Call::Open, Call::Local, Call::Push, Call::Resume, Call::Flush, Call::Drain]),
    ("z", &[Call::Open, Call::Local, Call::Push, Call::Resume, Call::Combine, Call::Finish, Call::Task]),
];

#[test]
fn an_error_or_panic_in_any_call_ends_the_query_once_and_leaves_nothing() {
    for (operator, calls) in CALLS {
        for &call in calls {
            for panics in [false, true] {
                let settings = [
                    (1, 1, Waits::Each, false),
                    (1, 3, Waits::Not, true),
                    (3, 4, Waits::Each, false),
                    (3, 4, Waits::Each, true),
                ];
                for (workers, lanes, waits, is_tight) in settings {
                    if call == Call::Resume && waits == Waits::Not && operator == "z" {
                        continue;
                    }
                    let world = World::with_trouble(Some(Trouble { operator, call, panics }));
                    let ample = Setup::lanes(workers, lanes);
                    let knobs = ample.cx(&Pool::new("p", 1 << 20)).knobs;
                    let limit_bytes =
                        Schedule::InTurn.floor_bytes(&everything(&World::default(), waits), &knobs);
                    let setup = if is_tight { Setup { limit_bytes, ..ample } } else { ample };
                    let outcome = run(everything(&world, waits), &setup, &world);
                    let part = format!("trouble in {operator}.{call:?}");
                    match outcome {
                        Err(Error::Data(e)) if !panics => assert_eq!(e.message, part),
                        other => assert_internal(other, &part),
                    }
                    assert_eq!(world.count("s2.Open"), 0, "nothing starts after a failure");
                }
            }
        }
    }
}

#[test]
fn a_broken_contract_is_an_internal_error() {
    let world = World::default();
    let source = FakeSource::new(&world, "s", &[1]);
    let bad = FakeTransform { emits_nothing: true, ..FakeTransform::new(&world, "bad") };
    let spec = pipeline(source.boxed(), vec![bad.boxed()], FakeSink::new(&world, "z").boxed());
    assert_internal(run(vec![spec], &Setup::default(), &world), "contract: bad emitted an empty batch");

    let source = FakeSource::new(&world, "worse", &[0]);
    let spec = pipeline(source.boxed(), Vec::new(), FakeSink::new(&world, "z").boxed());
    assert_internal(run(vec![spec], &Setup::default(), &world), "contract: worse emitted an empty batch");
}

fn endless(world: &World, waits: Waits) -> Vec<PipelineSpec> {
    let source = FakeSource { is_endless: true, waits, ..FakeSource::new(world, "s", &[1]) };
    let mute = World::default();
    vec![pipeline(source.boxed(), Vec::new(), FakeSink::new(&mute, "z").boxed())]
}

#[test]
fn a_cancel_ends_running_and_parked_lanes() {
    for waits in [Waits::Not, Waits::Each, Waits::Always] {
        let (world, scheduler, engine) = (World::default(), scheduler(2), Pool::new("engine", 64 << 20));
        let running =
            start(endless(&world, waits), &Setup::lanes(2, 4), &world, &engine, &scheduler).expect("starts");
        assert!(!running.is_over());
        let asked = Instant::now();
        running.run().fail(Error::Cancelled);
        running.run().fail(Error::internal("the first error wins"));
        assert!(matches!(running.end(), Err(Error::Cancelled)));
        assert!(asked.elapsed() < Duration::from_secs(5), "soon");
    }
}

#[test]
fn a_deadline_ends_running_lanes_by_itself_and_parked_ones_when_looked_at() {
    let limit = Duration::from_millis(20);
    let setup = Setup { timeout: Some(limit), ..Setup::lanes(2, 2) };
    let world = World::default();
    assert!(matches!(run(endless(&world, Waits::Not), &setup, &world), Err(Error::Timeout { .. })));

    let (scheduler, engine) = (scheduler(2), Pool::new("engine", 64 << 20));
    let running = start(endless(&world, Waits::Always), &setup, &world, &engine, &scheduler).expect("starts");
    let deadline = running.run().deadline().expect("it has one");
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    running.run().expire();
    assert!(matches!(running.end(), Err(Error::Timeout { .. })));
}

#[test]
fn wakes_without_reason_are_harmless() {
    let (world, scheduler, engine) = (World::default(), scheduler(2), Pool::new("engine", 64 << 20));
    let setup = Setup::lanes(2, 3);
    let running =
        start(everything(&world, Waits::Each), &setup, &world, &engine, &scheduler).expect("starts");
    while !running.is_over_now() {
        world.wakers().iter().for_each(std::task::Waker::wake_by_ref);
    }
    running.end().expect("runs");
}

#[test]
fn a_query_ends_when_its_scheduler_is_dropped() {
    for waits in [Waits::Not, Waits::Always] {
        let (world, scheduler, engine) = (World::default(), scheduler(2), Pool::new("engine", 64 << 20));
        let setup = Setup::lanes(2, 4);
        let running = start(endless(&world, waits), &setup, &world, &engine, &scheduler).expect("starts");
        assert!(!running.is_over());
        let group = scheduler.group(crate::sched::Priority::DEFAULT);
        drop(scheduler);
        assert!(matches!(running.end(), Err(Error::Cancelled)), "undone is not done");

        // And one that comes too late.
        let (send, ended) = std::sync::mpsc::channel();
        let spec = crate::exec::QuerySpec { pipelines: everything(&world, waits) };
        let cx = setup.cx(&engine.child("query", 64 << 20));
        let on_end = move |outcome| send.send(outcome).expect("the test waits");
        crate::exec::QueryRun::start(spec, cx, group, on_end).expect("floors fit");
        assert!(matches!(ended.recv_timeout(super::PATIENCE), Ok(Err(Error::Cancelled))));
        assert_eq!((engine.granted_bytes(), world.live()()), (0, 0));
    }
}
