//! The operator in pipelines, against a nested-loop join by definition: every kind of join, key, order and shortage.

use super::super::hash_join::tests::Printed;
use super::super::hash_join::tests::definition::{
    CONDITIONS, KINDS, expected, is_null_aware, is_valid, spec,
};
use super::super::hash_join::tests::input::{Draw, Side, side};
use super::super::hash_join::tests::pipelines::{BatchSource, PrintingSink};
use super::super::hash_join::{HashJoinKind, HashJoinSpec};
use super::*;
use crate::data::{Batch, BufMut, DataType, FlatVector, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{PipelineSpec, QueryCx, QueryRun, QuerySpec, Shape};
use crate::expr::ColumnId;
use crate::mem::{Account, Knobs, Pool};
use crate::sched::{Priority, Scheduler, SchedulerConfig};
use crate::spill::SpillDirectory;
use parking_lot::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How to run.
#[derive(Clone, Copy, Debug)]
struct Setting {
    lanes: usize,
    limit_bytes: usize,
    batch_rows: usize,
    faults: FaultConfig,
}

const AMPLE: Setting =
    Setting { lanes: 2, limit_bytes: 256 << 20, batch_rows: 1024, faults: FaultConfig::NONE };
const FORCED: FaultConfig = FaultConfig { refuse_grant: u16::MAX, seed: 5, ..FaultConfig::NONE };
const WAITS: FaultConfig = FaultConfig { wait: 16_000, seed: 3, ..FaultConfig::NONE };

const SETTINGS: [Setting; 7] = [
    AMPLE,
    // Most keys end with a batch.
    Setting { batch_rows: 3, ..AMPLE },
    Setting { batch_rows: 1, lanes: 1, ..AMPLE },
    Setting { faults: FORCED, ..AMPLE },
    Setting { faults: FORCED, batch_rows: 5, ..AMPLE },
    Setting { faults: FaultConfig { one_row_batches: true, ..WAITS }, ..AMPLE },
    Setting { faults: FaultConfig { refuse_grant: 20_000, ..WAITS }, batch_rows: 7, lanes: 3, ..AMPLE },
];

/// Both ways for each key, in turn.
fn orders(spec: &HashJoinSpec, variant: usize) -> Vec<KeyOrder> {
    let order = |at: usize| KeyOrder {
        descending: (variant + at) % 2 == 1,
        nulls_first: is_null_aware(spec.kind) || (variant / 2 + at) % 2 == 1,
    };
    (0..spec.keys.len()).map(order).collect()
}

/// What a run has left behind, for tests to look at.
struct Outcome {
    rows: Result<Vec<String>>,
    spilled_bytes: u64,
    spilled_keys: u64,
}

fn run(spec: HashJoinSpec, variant: usize, sides: [&[Batch]; 2], setting: Setting, cancels: bool) -> Outcome {
    let printed = Arc::new(Mutex::new(Printed::new(&spec)));
    let orders = orders(&spec, variant);
    let join = MergeJoin::new(spec, &orders);
    let (build, build_side) = join.build(MergeInput::Unsorted);
    let (probe, probe_side) = join.probe(MergeInput::Unsorted);
    let source = join.source(build_side, probe_side);
    let [build, probe] = [build, probe].map(|sink| sink.expect("a side to be sorted has a sink"));
    let pipeline = |source, sink, depends_on| PipelineSpec {
        sources: vec![source],
        shape: Shape::chain(1, 0),
        transforms: Vec::new(),
        sink,
        max_lanes: usize::MAX,
        depends_on,
    };
    let batches = |batches: &[Batch]| SourceBox::new(BatchSource(batches.to_vec()));
    let print = SinkBox::new(PrintingSink(Arc::clone(&printed)));
    let pipelines = vec![
        pipeline(batches(sides[0]), build, vec![]),
        pipeline(batches(sides[1]), probe, vec![]),
        pipeline(source, print, vec![0, 1]),
    ];
    let Setting { lanes, limit_bytes, batch_rows, faults } = setting;
    let pool = Pool::new("query", limit_bytes);
    let knobs = Knobs { lanes, batch_rows, block_bytes: 16 << 10, fan_out: 4 };
    let faults = (faults != FaultConfig::NONE).then(|| Arc::new(Faults::new(faults)));
    let folder = tempfile::tempdir().expect("temporary folder");
    let spill = Arc::new(SpillDirectory::new(Some(folder.path().to_owned()), u64::MAX));
    let hook = faults.as_ref().and_then(Faults::disk_hook);
    let for_query = Arc::new(spill.for_query(hook));
    let cx = Arc::new(QueryCx::new(pool.clone(), knobs, Arc::clone(&for_query), None, faults));
    let config = SchedulerConfig { threads: 2, ..SchedulerConfig::default() };
    let scheduler = Scheduler::new(config).expect("threads can be started");
    let (send, ended) = channel();
    let on_end = move |outcome| {
        // The receiver is gone once a test has failed.
        let _ = send.send(outcome);
    };
    let group = scheduler.group(Priority::DEFAULT);
    let started = QueryRun::start(QuerySpec { pipelines }, cx, group, on_end);
    let mut spilled_keys = 0;
    let outcome = started.and_then(|query| {
        if cancels {
            while printed.lock().len() == 0 {
                std::thread::yield_now();
            }
            query.fail(Error::Cancelled);
        }
        let outcome = ended.recv_timeout(Duration::from_secs(120)).expect("the query ends");
        let counters = query.operators().last().and_then(|operators| Some(operators.first()?.counters()));
        let counters = counters.unwrap_or_default();
        spilled_keys = counters.iter().find(|(name, _)| *name == "spilled_keys").map_or(0, |(_, n)| *n);
        outcome
    });
    let spilled_bytes = for_query.written_bytes();
    drop(scheduler);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    assert_eq!(spill.used_bytes(), 0, "all disk space returns");
    let printed = Arc::into_inner(printed).expect("the sink is gone");
    let rows = outcome.map(|()| printed.into_inner().sorted());
    Outcome { rows, spilled_bytes, spilled_keys }
}

fn check(build: &Side, probe: &Side, settings: &[Setting]) {
    for (number, condition) in CONDITIONS.into_iter().filter(|c| !c.keys.is_empty()).enumerate() {
        for kind in KINDS.into_iter().filter(|&kind| is_valid(kind, condition)) {
            let expected = expected(kind, condition, build, probe);
            for (at, &setting) in settings.iter().enumerate() {
                let what = format!("{kind:?} on {condition:?}, {setting:?}");
                let sides = [&build.batches[..], &probe.batches[..]];
                match (run(spec(kind, condition), number + at, sides, setting, false).rows, &expected) {
                    (Ok(rows), Some(expected)) => {
                        assert_eq!(rows.len(), expected.len(), "{what}");
                        let differing = rows.iter().zip(expected).find(|(a, b)| a != b);
                        assert!(differing.is_none(), "{what}: {differing:#?}");
                    }
                    (Err(Error::Plan(_)), None) => assert_eq!(kind, HashJoinKind::ProbeSingle, "{what}"),
                    (Err(error), _) => panic!("{what}: {error}"),
                    (Ok(_), None) => panic!("{what}: a second match passed"),
                }
            }
        }
    }
}

#[test]
fn joins_agree_with_the_definition_with_nulls_and_duplicates() {
    let draw = Draw::new(7, 9);
    check(&side(1, 4, 40, draw), &side(101, 5, 40, draw), &SETTINGS);
}

#[test]
fn joins_agree_with_the_definition_without_nulls() {
    let draw = Draw::new(0, 60);
    check(&side(10, 3, 60, draw), &side(11, 4, 60, draw), &SETTINGS);
}

#[test]
fn joins_agree_with_the_definition_where_most_values_are_null() {
    let build = side(20, 2, 20, Draw::new(2, 5));
    let probe = side(21, 3, 20, Draw::new(1, 5));
    check(&build, &probe, &SETTINGS[..4]);
    check(&probe, &build, &SETTINGS[..4]);
}

#[test]
fn either_side_may_be_empty() {
    let draw = Draw::new(4, 5);
    let (none, some) = (side(0, 0, 1, draw), side(30, 3, 20, draw));
    check(&none, &some, &SETTINGS[..2]);
    check(&some, &none, &SETTINGS[..2]);
    check(&none, &none, &SETTINGS[..1]);
}

/// Batches of rows of the types of [`spec`], of which only the first and the last column are told: key and number.
fn rows(account: &Account, keys: impl Iterator<Item = i64>) -> Vec<Batch> {
    let keys: Vec<i64> = keys.collect();
    let batch = |(at, keys): (usize, &[i64])| {
        let column = |(place, data_type): (usize, &DataType)| {
            let numbers: Vec<i64> = (0..keys.len()).map(|row| (at * 500 + row) as i64).collect();
            let values = if place == 7 { &numbers } else { keys };
            match data_type {
                DataType::Int64 => {
                    let values = BufMut::copy_of(account, values).expect("fits").freeze();
                    Vector::Flat(FlatVector::new(Values::I64(values)))
                }
                other => {
                    Vector::Constant { value: crate::data::Scalar::null(other.clone()), len: keys.len() }
                }
            }
        };
        let types = super::super::hash_join::tests::input::TYPES;
        Batch::new(types.iter().enumerate().map(column).collect(), keys.len())
    };
    keys.chunks(500).enumerate().map(batch).collect()
}

/// One key has most rows of the build side; what is on disk is read for each batch of the probe's.
#[test]
fn a_key_of_more_rows_than_memory_holds_is_joined_from_disk() {
    let pool = Pool::new("input", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let small = Setting { lanes: 1, limit_bytes: 5 << 19, batch_rows: 512, faults: FaultConfig::NONE };
    let build = rows(&account, (0..300_000).map(|i| if i % 10 < 9 { 7 } else { i64::from(i) }));
    let probe = rows(&account, (0..2000).map(|i| if i % 1000 == 0 { 7 } else { i64::from(i) * 3 }));
    let by_key = CONDITIONS[0];
    let with_residual = CONDITIONS[1];
    let all: Vec<(i64, i64)> = (0..300_000).map(|i| (if i % 10 < 9 { 7 } else { i }, i)).collect();
    let asked: Vec<(i64, i64)> = (0..2000).map(|i| (if i % 1000 == 0 { 7 } else { i * 3 }, i)).collect();
    let heavy_probe = asked.iter().filter(|(key, _)| *key == 7).count();
    let unique = |key: i64| key != 7 && key % 10 == 9 && (0..300_000).contains(&key);
    let light: Vec<_> = asked.iter().filter(|(key, _)| unique(*key)).collect();
    let heavy_build = all.iter().filter(|(key, _)| *key == 7).count();
    let pairs = heavy_probe * heavy_build + light.len();
    let count = |kind, condition| {
        let mut spec = spec(kind, condition);
        // Not what the test is about: the rows as text.
        spec.output.retain(|id| id.0 % 100 == 7 || *id == ColumnId(999));
        let outcome = run(spec, 0, [&build, &probe], small, false);
        assert!(outcome.spilled_bytes > 0, "{kind:?}");
        (outcome.rows.expect("fits").len(), outcome.spilled_keys)
    };
    let (rows, spilled_keys) = count(HashJoinKind::Inner, by_key);
    assert_eq!(rows, pairs);
    assert!(spilled_keys > 0, "270,000 rows of a key went to disk");
    assert_eq!(count(HashJoinKind::ProbeSemi, by_key), (heavy_probe + light.len(), 0));
    assert_eq!(
        count(HashJoinKind::ProbeAnti { null_aware: false }, by_key).0,
        2000 - heavy_probe - light.len()
    );
    assert_eq!(count(HashJoinKind::BuildSemi, by_key).0, heavy_build + light.len());
    // The probe's number must be greater than the build's.
    let numbers = |key: i64, of: &[(i64, i64)]| -> Vec<i64> {
        of.iter().filter(|(k, _)| *k == key).map(|(_, number)| *number % 30_000_000).collect()
    };
    let heavy: Vec<i64> = numbers(7, &asked);
    let largest = heavy.iter().max().copied().expect("some");
    let matched = numbers(7, &all).iter().filter(|number| **number < largest).count();
    let light_matched = light.iter().filter(|(key, number)| number > key).count();
    assert_eq!(count(HashJoinKind::BuildSemi, with_residual).0, matched + light_matched);
    let unmatched = 300_000 - matched - light_matched;
    assert_eq!(count(HashJoinKind::BuildAnti, with_residual).0, unmatched);
}

#[test]
fn a_failing_disk_leaves_nothing_behind() {
    let draw = Draw::new(7, 3);
    let (build, probe) = (side(70, 20, 40, draw), side(71, 20, 40, draw));
    let (mut failures, mut successes) = (0, 0);
    for seed in 0..24 {
        let faults = FaultConfig { spill_error: 100 << (seed % 8), seed, ..FORCED };
        let setting = Setting { faults, batch_rows: 64, ..AMPLE };
        let condition = CONDITIONS[1];
        let sides = [&build.batches[..], &probe.batches[..]];
        match run(spec(HashJoinKind::FullOuter, condition), 0, sides, setting, false).rows {
            Ok(rows) => {
                assert!(Some(rows) == expected(HashJoinKind::FullOuter, condition, &build, &probe));
                successes += 1;
            }
            Err(Error::Io { .. }) => failures += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failures > 2 && successes > 2, "{failures} of 24 runs failed");
}

#[test]
fn a_cancelled_join_gives_everything_back() {
    let pool = Pool::new("input", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let batches = rows(&account, (0..20_000).map(|i| i64::from(i % 4)));
    for faults in [FaultConfig::NONE, FORCED] {
        let setting = Setting { faults, ..AMPLE };
        let spec = spec(HashJoinKind::Inner, CONDITIONS[0]);
        let outcome = run(spec, 0, [&batches, &batches], setting, true);
        assert!(matches!(outcome.rows, Err(Error::Cancelled)));
    }
}
