//! Pipelines that are trees: branches with transforms of their own that meet.

use super::fakes::{FakeSink, FakeSource, FakeTransform, Waits, World};
use super::{PipelineSpec, Setup, pipeline, run};
use crate::exec::fault::FaultConfig;
use crate::exec::{Feed, Shape, SourceBox, TransformBox};
use crate::mem::Knobs;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The log without opens and locals, as one line.
fn calls(world: &World) -> String {
    let log = world.log();
    let kept = log.iter().filter(|e| !e.ends_with(".Open") && !e.ends_with(".Local"));
    kept.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn feed(next: usize) -> Feed {
    Feed { next, max_lanes: usize::MAX }
}

fn tree(
    world: &World,
    sources: Vec<(SourceBox, Feed)>,
    transforms: Vec<(TransformBox, usize)>,
    sink: FakeSink,
) -> PipelineSpec {
    let (sources, feeds) = sources.into_iter().unzip();
    let (transforms, next) = transforms.into_iter().unzip();
    let nothing = FakeSource::new(world, "", &[]).boxed();
    let shape = Shape { feeds, next };
    PipelineSpec { sources, shape, ..pipeline(nothing, transforms, sink.boxed()) }
}

#[test]
fn each_branch_goes_through_its_own_transforms_and_then_the_common_ones() {
    let world = World::default();
    let a = FakeTransform { drain_batches: 1, ..FakeTransform::new(&world, "a") };
    let b = FakeTransform { flush_batches: 1, ..FakeTransform::new(&world, "b") };
    let c = FakeTransform { drain_batches: 1, ..FakeTransform::new(&world, "c") };
    let sources = vec![
        (FakeSource::new(&world, "s", &[3]).boxed(), feed(0)),
        (FakeSource::new(&world, "t", &[2]).boxed(), feed(1)),
        (FakeSource::new(&world, "u", &[1]).boxed(), feed(2)),
    ];
    let transforms = vec![(a.boxed(), 2), (b.boxed(), 2), (c.boxed(), 3)];
    let spec = tree(&world, sources, transforms, FakeSink::new(&world, "z"));
    run(vec![spec], &Setup::default(), &world).expect("runs");
    assert_eq!(
        calls(&world),
        "s.Pull, a.Push 3, c.Push 3, z.Push 3, s.Pull, a.Flush, c.Flush, \
         a.Drain, c.Push 1, z.Push 1, a.Drain, c.Flush, \
         t.Pull, b.Push 2, c.Push 2, z.Push 2, t.Pull, b.Flush, c.Push 1, z.Push 1, c.Flush, \
         u.Pull, c.Push 1, z.Push 1, u.Pull, c.Flush, \
         c.Drain, z.Push 1, c.Drain, z.Combine, z.Finish"
    );
    // A lane's state of a branch is made when the branch begins.
    let log = world.log();
    let at = |entry: &str| log.iter().position(|e| e == entry).expect("was called");
    assert!(at("a.Drain") < at("b.Local") && at("b.Local") < at("t.Pull") && at("b.Flush") < at("u.Local"));
}

#[test]
fn a_limit_ends_its_branch_and_a_limit_above_ends_all() {
    for lanes in [1, 4] {
        let world = World::default();
        let inner = FakeTransform { limit: 5, ..FakeTransform::new(&world, "a") };
        let sources = vec![
            (FakeSource { is_endless: true, ..FakeSource::new(&world, "s", &[2]) }.boxed(), feed(0)),
            (FakeSource::new(&world, "t", &[4; 10]).boxed(), feed(1)),
        ];
        let common = FakeTransform::new(&world, "b");
        let sink = FakeSink::new(&world, "z");
        let rows = Arc::clone(&sink.rows);
        let spec = tree(&world, sources, vec![(inner.boxed(), 1), (common.boxed(), 2)], sink);
        run(vec![spec], &Setup::lanes(2, lanes), &world).expect("ends");
        assert_eq!(rows.load(SeqCst), 45);

        let world = World::default();
        let inner = FakeTransform { drain_batches: 3, ..FakeTransform::new(&world, "a") };
        let common = FakeTransform { limit: 7, ..FakeTransform::new(&world, "b") };
        let sources = vec![
            (FakeSource { is_endless: true, ..FakeSource::new(&world, "s", &[2]) }.boxed(), feed(0)),
            (FakeSource::new(&world, "t", &[4; 10]).boxed(), feed(1)),
        ];
        let sink = FakeSink::new(&world, "z");
        let rows = Arc::clone(&sink.rows);
        let spec = tree(&world, sources, vec![(inner.boxed(), 1), (common.boxed(), 2)], sink);
        run(vec![spec], &Setup::lanes(2, lanes), &world).expect("ends");
        assert_eq!(rows.load(SeqCst), 7);
        assert_eq!((world.count("t.Pull"), world.count("t.Local"), world.count("a.Drain")), (0, 0, 0));
    }
}

#[test]
fn a_source_may_be_read_by_fewer_lanes_than_others() {
    let world = World::default();
    let in_order = Feed { next: 0, max_lanes: 1 };
    let sources = vec![
        (FakeSource::new(&world, "s", &[1; 30]).boxed(), in_order),
        (FakeSource::new(&world, "t", &[1; 30]).boxed(), feed(0)),
    ];
    let sink = FakeSink::new(&world, "z");
    let rows = Arc::clone(&sink.rows);
    let a = FakeTransform { drain_batches: 6, ..FakeTransform::new(&world, "a") };
    let spec = tree(&world, sources, vec![(a.boxed(), 1)], sink);
    run(vec![spec], &Setup::lanes(3, 4), &world).expect("runs");
    assert_eq!(rows.load(SeqCst), 66);
    let locals = (world.count("s.Local"), world.count("t.Local"), world.count("a.Local"));
    assert_eq!(locals, (1, 4, 4));
}

#[test]
fn a_floor_counts_what_lives_at_once() {
    let world = World::default();
    let knobs = Knobs { lanes: 2, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
    let spec = |branches: usize| {
        let source = |at| (FakeSource::new(&world, "s", &[1]).boxed(), feed(at));
        let transform = |_| (FakeTransform::new(&world, "a").boxed(), branches);
        let sources = (0..branches).map(source).collect();
        let transforms = (0..branches).map(transform).collect();
        tree(&world, sources, transforms, FakeSink::new(&world, "z"))
    };
    assert_eq!(spec(1).lane_bytes(&knobs), spec(20).lane_bytes(&knobs));
    assert!(
        spec(1).shared_bytes(&knobs) < spec(20).shared_bytes(&knobs),
        "shared states are opened together"
    );
}

#[test]
fn waits_and_single_rows_change_no_result() {
    let faulty = FaultConfig { wait: 20_000, one_row_batches: true, seed: 5, ..FaultConfig::default() };
    for waits in [Waits::Not, Waits::Each] {
        for faults in [FaultConfig::default(), faulty] {
            for (workers, lanes) in [(1, 1), (2, 3), (4, 5)] {
                let world = World::default();
                let source = |name, next, max_lanes| {
                    let source = FakeSource { waits, ..FakeSource::new(&world, name, &[9, 1, 4]) };
                    (source.boxed(), Feed { next, max_lanes })
                };
                let limit = FakeTransform { waits, limit: 10, ..FakeTransform::new(&world, "a") };
                let split = FakeTransform {
                    waits,
                    piece_rows: 3,
                    drain_batches: 4,
                    ..FakeTransform::new(&world, "b")
                };
                let inner = FakeTransform { waits, drain_batches: 2, ..FakeTransform::new(&world, "c") };
                let outer = FakeTransform { waits, ..FakeTransform::new(&world, "d") };
                // A union within a union: ((s limited ∪ t) ∪ u).
                let sources = vec![source("s", 0, 1), source("t", 1, usize::MAX), source("u", 3, 2)];
                let transforms =
                    vec![(limit.boxed(), 2), (split.boxed(), 2), (inner.boxed(), 3), (outer.boxed(), 4)];
                let sink = FakeSink { waits, tasks: 4, ..FakeSink::new(&world, "z") };
                let rows = Arc::clone(&sink.rows);
                let spec = tree(&world, sources, transforms, sink);
                run(vec![spec], &Setup { faults, ..Setup::lanes(workers, lanes) }, &world).expect("runs");
                assert_eq!(rows.load(SeqCst), 10 + 14 + 4 + 2 + 14, "{waits:?} {faults:?} {workers} {lanes}");
            }
        }
    }
}
