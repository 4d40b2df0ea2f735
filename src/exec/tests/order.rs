//! What is called when, and that no row is lost or made up.

use super::fakes::{FakeSink, FakeSource, FakeTransform, Waits, World};
use super::{PipelineSpec, Setup, pipeline, run};
use crate::exec::fault::FaultConfig;
use crate::exec::{Handoff, Shape};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The log without opens and locals, as one line.
fn calls(world: &World) -> String {
    let log = world.log();
    let kept = log.iter().filter(|e| !e.ends_with(".Open") && !e.ends_with(".Local"));
    kept.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_batch_travels_to_the_sink_before_the_next_is_pulled() {
    let world = World::default();
    let split = FakeTransform { piece_rows: 2, ..FakeTransform::new(&world, "a") };
    let single = FakeTransform { piece_rows: 1, ..FakeTransform::new(&world, "b") };
    let sink = FakeSink::new(&world, "z");
    let source = FakeSource::new(&world, "s", &[3, 1]);
    run(
        vec![pipeline(source.boxed(), vec![split.boxed(), single.boxed()], sink.boxed())],
        &Setup::default(),
        &world,
    )
    .expect("runs");
    assert_eq!(
        calls(&world),
        "s.Pull, a.Push 3, b.Push 2, z.Push 1, b.Resume, z.Push 1, a.Resume, b.Push 1, z.Push 1, \
         s.Pull, a.Push 1, b.Push 1, z.Push 1, s.Pull, a.Flush, b.Flush, z.Combine, z.Finish"
    );
}

#[test]
fn a_flush_may_emit_several_batches_which_others_split() {
    let world = World::default();
    let first = FakeTransform { flush_batches: 2, ..FakeTransform::new(&world, "a") };
    let second = FakeTransform { flush_batches: 1, ..FakeTransform::new(&world, "b") };
    let source = FakeSource::new(&world, "s", &[]);
    let sink = FakeSink::new(&world, "z");
    run(
        vec![pipeline(source.boxed(), vec![first.boxed(), second.boxed()], sink.boxed())],
        &Setup::default(),
        &world,
    )
    .expect("runs");
    assert_eq!(
        calls(&world),
        "s.Pull, a.Flush, b.Push 1, z.Push 1, a.Flush, b.Push 1, z.Push 1, b.Flush, z.Push 1, z.Combine, z.Finish"
    );
}

#[test]
fn done_leaves_out_everything_upstream_of_it() {
    let world = World::default();
    let upstream = FakeTransform { piece_rows: 1, drain_batches: 3, ..FakeTransform::new(&world, "a") };
    let limit = FakeTransform { limit: 2, ..FakeTransform::new(&world, "b") };
    let after = FakeTransform { flush_batches: 1, ..FakeTransform::new(&world, "c") };
    let sources = ["s", "t"].map(|name| FakeSource::new(&world, name, &[5, 5]).boxed()).into();
    let transforms = vec![upstream.boxed(), limit.boxed(), after.boxed()];
    let sink = FakeSink::new(&world, "z");
    let spec = PipelineSpec {
        sources,
        shape: Shape::chain(2, transforms.len()),
        ..pipeline(FakeSource::new(&world, "", &[]).boxed(), transforms, sink.boxed())
    };
    run(vec![spec], &Setup::default(), &world).expect("runs");
    // The second source and the drain of `a` are stages that end at once; what is downstream is flushed in each.
    assert_eq!(
        calls(&world),
        "s.Pull, a.Push 5, b.Push 1, c.Push 1, z.Push 1, a.Resume, b.Push 1, c.Push 1, z.Push 1, \
         c.Flush, z.Push 1, c.Flush, c.Flush, z.Combine, z.Finish"
    );
}

#[test]
fn a_limit_ends_lanes_that_wait_for_rows_nobody_wants() {
    for workers in [1, 3] {
        let world = World::default();
        let source = FakeSource { only_first_lane: true, ..FakeSource::new(&world, "s", &[4; 8]) };
        let limit = FakeTransform { limit: 10, ..FakeTransform::new(&world, "a") };
        let sink = FakeSink::new(&world, "z");
        let rows = Arc::clone(&sink.rows);
        let spec = pipeline(source.boxed(), vec![limit.boxed()], sink.boxed());
        run(vec![spec], &Setup::lanes(workers, 4), &world).expect("ends though lanes are parked");
        assert_eq!(rows.load(SeqCst), 10);
    }
}

#[test]
fn rows_claimed_before_another_lane_is_done_are_not_lost() {
    for round in 0..30 {
        let world = World::default();
        let source = FakeSource::new(&world, "s", &[7; 40]);
        let waits = if round % 2 == 0 { Waits::Each } else { Waits::Not };
        let limit = FakeTransform { limit: 100, piece_rows: 1, waits, ..FakeTransform::new(&world, "a") };
        let sink = FakeSink::new(&world, "z");
        let rows = Arc::clone(&sink.rows);
        run(vec![pipeline(source.boxed(), vec![limit.boxed()], sink.boxed())], &Setup::lanes(3, 6), &world)
            .expect("runs");
        assert_eq!(rows.load(SeqCst), 100);
    }
}

#[test]
fn a_sink_that_is_done_ends_the_pipeline() {
    let world = World::default();
    let source = FakeSource { is_endless: true, ..FakeSource::new(&world, "s", &[1]) };
    let sink = FakeSink { limit: 50, ..FakeSink::new(&world, "z") };
    let rows = Arc::clone(&sink.rows);
    run(vec![pipeline(source.boxed(), Vec::new(), sink.boxed())], &Setup::lanes(2, 4), &world).expect("ends");
    assert!((50..54).contains(&rows.load(SeqCst)), "each other lane may be in a call");
}

#[test]
fn stages_follow_each_other_on_all_lanes() {
    let world = World::default();
    let first = FakeTransform { drain_batches: 20, ..FakeTransform::new(&world, "a") };
    let second = FakeTransform { drain_batches: 20, ..FakeTransform::new(&world, "b") };
    let sources = ["s", "t"].map(|name| FakeSource::new(&world, name, &[1; 20]).boxed()).into();
    let sink = FakeSink { tasks: 5, ..FakeSink::new(&world, "z") };
    let rows = Arc::clone(&sink.rows);
    let transforms = vec![first.boxed(), second.boxed()];
    let spec = PipelineSpec {
        sources,
        shape: Shape::chain(2, transforms.len()),
        ..pipeline(FakeSource::new(&world, "", &[]).boxed(), transforms, sink.boxed())
    };
    run(vec![spec], &Setup::lanes(3, 4), &world).expect("runs");
    assert_eq!(rows.load(SeqCst), 80);
    let log = world.log();
    let last = |entry: &str| log.iter().rposition(|e| e == entry).expect("was called");
    let first = |entry: &str| log.iter().position(|e| e == entry).expect("was called");
    for (before, after) in
        [("s.Pull", "t.Pull"), ("t.Pull", "a.Drain"), ("a.Drain", "b.Drain"), ("z.Combine", "z.Finish")]
    {
        assert!(last(before) < first(after), "{before} comes before {after}");
    }
    assert!(first("z.Finish") < first("z.Task") && last("z.Task") < last("z.Finish"));
    // `a` is flushed by each lane after both sources, `b` after the drain of `a` too.
    assert_eq!((world.count("a.Flush"), world.count("b.Flush")), (8, 12));
    assert_eq!((world.count("z.Combine"), world.count("z.Finish"), world.count("z.Task")), (4, 2, 5));
}

#[test]
fn a_pipeline_starts_when_those_it_reads_have_finished() {
    for (workers, lanes) in [(1, 1), (1, 8), (4, 3)] {
        let world = World::default();
        let handoff = Handoff::new();
        let builds = ["a", "b"].map(|name| {
            let source = FakeSource::new(&world, "s", &[2; 10]);
            let output = (name == "a").then(|| handoff.clone());
            pipeline(
                source.boxed(),
                Vec::new(),
                FakeSink { output, tasks: 3, ..FakeSink::new(&world, name) }.boxed(),
            )
        });
        let source = FakeSource { input: Some(handoff), ..FakeSource::new(&world, "r", &[]) };
        let sink = FakeSink::new(&world, "z");
        let rows = Arc::clone(&sink.rows);
        let probe = pipeline(source.boxed(), Vec::new(), sink.boxed());
        // The same dependency twice is one.
        let probe = PipelineSpec { depends_on: vec![0, 1, 0], ..probe };
        run(builds.into_iter().chain([probe]).collect(), &Setup::lanes(workers, lanes), &world)
            .expect("runs");
        assert_eq!(rows.load(SeqCst), 20);
        let log = world.log();
        let opened = log.iter().position(|e| e == "r.Open").expect("was opened");
        assert!(log[opened..].iter().all(|e| !e.starts_with("a.") && !e.starts_with("b.")));
    }
}

/// All waits and splits at once; rows are the same.
#[test]
fn waits_and_single_rows_change_no_result() {
    let faulty = FaultConfig { wait: 20_000, one_row_batches: true, seed: 3, ..FaultConfig::default() };
    for waits in [Waits::Not, Waits::Each] {
        for faults in [FaultConfig::default(), faulty] {
            for (workers, lanes) in [(1, 1), (1, 3), (2, 8), (4, 5)] {
                let world = World::default();
                let source = FakeSource { waits, ..FakeSource::new(&world, "s", &[9, 1, 4, 30, 2]) };
                let first = FakeTransform {
                    waits,
                    piece_rows: 3,
                    flush_batches: 2,
                    ..FakeTransform::new(&world, "a")
                };
                let second = FakeTransform { waits, drain_batches: 5, ..FakeTransform::new(&world, "b") };
                let sink = FakeSink { waits, tasks: 4, ..FakeSink::new(&world, "z") };
                let rows = Arc::clone(&sink.rows);
                let spec = pipeline(source.boxed(), vec![first.boxed(), second.boxed()], sink.boxed());
                run(vec![spec], &Setup { faults, ..Setup::lanes(workers, lanes) }, &world).expect("runs");
                assert_eq!(rows.load(SeqCst), 46 + 2 * lanes + 5, "{waits:?} {faults:?} {workers} {lanes}");
            }
        }
    }
}
