//! Hundreds of queries at once, some of which fail, in less memory than they would like.

use super::fakes::{Call, FakeSink, FakeSource, FakeTransform, Trouble, Waits, World};
use super::{Setup, pipeline, scheduler, start};
use crate::error::Error;
use crate::exec::PipelineSpec;
use crate::exec::fault::FaultConfig;
use crate::mem::Pool;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

#[test]
fn many_queries_with_random_failures_each_end_once_and_leave_nothing() {
    const CALLS: [Call; 8] = [
        Call::Open,
        Call::Local,
        Call::Pull,
        Call::Push,
        Call::Flush,
        Call::Combine,
        Call::Finish,
        Call::Task,
    ];
    let scheduler = scheduler(4);
    let engine = Pool::new("engine", 6 << 20);
    let mut queries = Vec::new();
    for seed in 0..300usize {
        let trouble = match seed % 4 {
            0 => Some(Trouble {
                operator: ["s", "t", "z"][seed / 4 % 3],
                call: CALLS[seed / 12 % CALLS.len()],
                panics: seed % 8 == 0,
            }),
            _ => None,
        };
        let world = World::with_trouble(trouble);
        let waits = if seed % 3 == 0 { Waits::Each } else { Waits::Not };
        let faults = match seed % 5 {
            0 => {
                FaultConfig { wait: 9000, one_row_batches: true, seed: seed as u64, ..FaultConfig::default() }
            }
            _ => FaultConfig::default(),
        };
        let source = FakeSource { waits, ..FakeSource::new(&world, "s", &[3; 9]) };
        let transform = FakeTransform {
            piece_rows: 2,
            flush_batches: 1,
            drain_batches: 2,
            waits,
            ..FakeTransform::new(&world, "t")
        };
        let sink = FakeSink { tasks: seed % 3, waits, ..FakeSink::new(&world, "z") };
        let rows = Arc::clone(&sink.rows);
        let first = pipeline(source.boxed(), vec![transform.boxed()], sink.boxed());
        let second = pipeline(
            FakeSource::new(&world, "s2", &[1; 3]).boxed(),
            Vec::new(),
            FakeSink::new(&world, "z2").boxed(),
        );
        let specs = vec![first, PipelineSpec { depends_on: vec![0], ..second }];
        let lanes = 1 + seed % 8;
        let setup = Setup { limit_bytes: 4 << 20, faults, ..Setup::lanes(4, lanes) };
        let running = start(specs, &setup, &world, &engine, &scheduler).expect("its floors fit the engine");
        if seed % 11 == 0 {
            running.run().fail(Error::Cancelled);
        }
        queries.push((seed, lanes, trouble, rows, running));
    }
    let mut ended_well = 0;
    for (seed, lanes, trouble, rows, running) in queries {
        match running.end() {
            Ok(()) => {
                assert_eq!(rows.load(SeqCst), 27 + lanes + 2, "query {seed}");
                ended_well += 1;
            }
            Err(Error::Cancelled) => assert_eq!(seed % 11, 0),
            Err(error) => assert!(trouble.is_some(), "query {seed} ends with {error}"),
        }
    }
    assert!(ended_well > 150, "{ended_well}");
    assert_eq!(engine.granted_bytes(), 0);
    assert!(engine.peak_bytes() <= 6 << 20);
}
