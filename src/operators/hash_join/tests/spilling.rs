//! Joins in budgets that hold next to nothing, of rows that do not spread, on disks that fail.

use super::super::plan::Plan;
use super::super::{HashJoinKind, HashJoinSpec};
use super::check;
use super::definition::{CONDITIONS, is_valid, spec};
use super::input::{Draw, side};
use super::large::{input_account, int_rows, int_spec, ints};
use super::run::{AMPLE, Counters, FORCED, Setting, counted_run, refusing, run};
use crate::data::{Batch, BufMut, DataType, FlatVector, Values, Vector, ViewBuilder};
use crate::error::{Error, Result};
use crate::exec::fault::FaultConfig;
use crate::mem::{Account, Knobs};

/// What a join of `spec` is granted before it starts.
fn floor_bytes(spec: HashJoinSpec, lanes: usize, batch_rows: usize) -> usize {
    let plan = Plan::new(spec);
    let knobs = Knobs { lanes, batch_rows, block_bytes: 16 << 10, fan_out: 4 };
    let (build, probe) = (plan.build_need(&knobs), plan.probe_need(&knobs));
    lanes * (build.lane_bytes + probe.lane_bytes) + build.shared_bytes + probe.shared_bytes
}

#[test]
fn joins_agree_with_the_definition_in_no_more_than_their_floors() {
    let draw = Draw::new(9, 300);
    let (build, probe) = (side(80, 4, 1200, draw), side(81, 2, 12, draw));
    let widest = |lanes| {
        let valid = CONDITIONS.into_iter().filter(|&condition| is_valid(HashJoinKind::FullOuter, condition));
        valid.map(|c| floor_bytes(spec(HashJoinKind::FullOuter, c), lanes, 512)).max().expect("some")
    };
    let tiny = |lanes| Setting { lanes, limit_bytes: widest(lanes) + (64 << 10), batch_rows: 512, ..AMPLE };
    check(&build, &probe, &[tiny(2)]);
}

/// Rows a join of integers gives, and what it counted.
fn counted(
    kind: HashJoinKind,
    build: &[Batch],
    probe: &[Batch],
    setting: Setting,
) -> (Result<Vec<Vec<i64>>>, Counters) {
    let output: &[u32] = match kind {
        HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => &[1],
        HashJoinKind::ProbeSemi | HashJoinKind::ProbeAnti { .. } => &[3],
        _ => &[1, 3],
    };
    let mut rows = Vec::new();
    let add = &mut |batch: Batch| rows.extend(int_rows(&batch));
    let (outcome, counters) = counted_run(int_spec(kind, output), build, probe, setting, add);
    rows.sort_unstable();
    (outcome.map(|()| rows), counters)
}

const KINDS: [HashJoinKind; 8] = [
    HashJoinKind::Inner,
    HashJoinKind::ProbeOuter,
    HashJoinKind::BuildOuter,
    HashJoinKind::FullOuter,
    HashJoinKind::ProbeSemi,
    HashJoinKind::ProbeAnti { null_aware: false },
    HashJoinKind::BuildSemi,
    HashJoinKind::BuildAnti,
];

/// How many rows a join of integers gives and the sum of their values, and what it counted.
fn summed(
    kind: HashJoinKind,
    build: &[Batch],
    probe: &[Batch],
    setting: Setting,
) -> ((usize, i64), Counters) {
    let output: &[u32] =
        if kind.drains() == Some(true) || kind == HashJoinKind::BuildAnti { &[1] } else { &[3] };
    let (mut rows, mut sum) = (0, 0_i64);
    let add = &mut |batch: Batch| {
        rows += batch.rows();
        sum = int_rows(&batch).flatten().fold(sum, i64::wrapping_add);
    };
    let (outcome, counters) = counted_run(int_spec(kind, output), build, probe, setting, add);
    outcome.expect("floors suffice");
    ((rows, sum), counters)
}

#[test]
fn one_key_on_both_sides_is_joined_part_by_part() {
    let account = input_account();
    let build = ints(9000, 1024, &account, |n| if n % 900 == 0 { -(n as i64) } else { 7 });
    let probe = ints(6000, 1024, &account, |n| if n % 6 == 0 { -(n as i64) * 1000 } else { 7 });
    for kind in KINDS {
        let (ample, _) = summed(kind, &build, &probe, AMPLE);
        let limit_bytes = floor_bytes(int_spec(kind, &[1, 3]), 1, 512) + (64 << 10);
        let tiny = Setting { limit_bytes, batch_rows: 512, ..AMPLE };
        let (sums, counters) = summed(kind, &build, &probe, tiny);
        assert_eq!(sums, ample, "{kind:?}");
        assert!(counters.get("replays").is_some_and(|&replays| replays > 1), "{kind:?}: {counters:?}");
        for setting in [FORCED, Setting { lanes: 3, faults: refusing(20_000, 3), ..AMPLE }] {
            assert_eq!(summed(kind, &build, &probe, setting).0, ample, "{kind:?}, {setting:?}");
        }
    }
}

#[test]
fn the_smaller_side_of_a_pair_is_the_one_in_the_table() {
    let account = input_account();
    let build = ints(20_000, 1024, &account, |n| if n % 2000 == 0 { -(n as i64) } else { 7 });
    let probe = ints(12, 4, &account, |n| if n % 3 == 0 { -(n as i64) * 1000 } else { 7 });
    for kind in KINDS {
        let (ample, counters) = counted(kind, &build, &probe, AMPLE);
        let ample = ample.expect("ample");
        assert!(!counters.contains_key("reversed_pairs"), "nothing is spilled: {counters:?}");
        let limit_bytes = floor_bytes(int_spec(kind, &[1, 3]), 1, 512) + (64 << 10);
        let tiny = Setting { limit_bytes, batch_rows: 512, ..AMPLE };
        let (rows, counters) = counted(kind, &build, &probe, tiny);
        assert!(rows.expect("floors suffice") == ample, "{kind:?}");
        assert!(counters.get("reversed_pairs").is_some_and(|&pairs| pairs > 0), "{kind:?}: {counters:?}");
        assert!(!counters.contains_key("replays"), "{kind:?}: {counters:?}");
        for setting in [FORCED, Setting { lanes: 3, faults: refusing(20_000, 3), ..AMPLE }] {
            let (rows, _) = counted(kind, &build, &probe, setting);
            assert!(rows.expect("ample") == ample, "{kind:?}, {setting:?}");
        }
    }
}

#[test]
fn joins_of_reversed_roles_agree_with_the_definition() {
    let draw = Draw::new(11, 300);
    let (build, probe) = (side(82, 4, 900, draw), side(83, 2, 40, draw));
    check(&build, &probe, &[FORCED, Setting { lanes: 2, faults: refusing(30_000, 5), ..AMPLE }]);
}

#[test]
fn without_pressure_nothing_is_spilled_and_with_a_little_only_a_part() {
    let account = input_account();
    // Far apart, so that the table needs its hashes.
    let build = ints(100_000, 4096, &account, |n| 1000 * n as i64);
    let probe = ints(20_000, 4096, &account, |n| 3000 * n as i64);
    let (rows, counters) = counted(HashJoinKind::Inner, &build, &probe, AMPLE);
    assert_eq!(rows.expect("ample").len(), 20_000);
    assert!(!counters.contains_key("spills") && !counters.contains_key("spill_bytes"), "{counters:?}");
    let setting = Setting { limit_bytes: 5 << 20, batch_rows: 1024, ..AMPLE };
    let (rows, counters) = counted(HashJoinKind::Inner, &build, &probe, setting);
    assert_eq!(rows.expect("floors suffice").len(), 20_000);
    let spilled = counters.get("spilled_partitions").copied().unwrap_or(0);
    assert!((1..4).contains(&spilled), "some of four partitions came back: {counters:?}");
}

/// A key, and a string of `width` bytes.
fn wide(rows: usize, width: usize, account: &Account) -> Vec<Batch> {
    let batch = |start: usize| {
        let keys: Vec<i64> = (start..rows.min(start + 8)).map(|n| n as i64).collect();
        let mut strings = ViewBuilder::new(account, keys.len()).expect("fits");
        keys.iter().for_each(|&k| strings.push(account, &vec![b'a' + k as u8 % 26; width]).expect("fits"));
        let keys_values = Values::I64(BufMut::copy_of(account, &keys).expect("fits").freeze());
        let flat = |values| Vector::Flat(FlatVector::new(values));
        Batch::new(vec![flat(keys_values), flat(Values::View(strings.freeze()))], keys.len())
    };
    (0..rows).step_by(8).map(batch).collect()
}

#[test]
fn wide_rows_take_the_space_they_need_one_by_one() {
    let account = input_account();
    let spec = || {
        let mut spec = int_spec(HashJoinKind::FullOuter, &[1, 3]);
        spec.build_types[1] = DataType::Utf8;
        spec.probe_types[1] = DataType::Utf8;
        spec
    };
    let (build, probe) = (wide(200, 20_000, &account), wide(100, 20_000, &account));
    let limit_bytes = floor_bytes(spec(), 1, 512) + (600 << 10);
    let setting = Setting { limit_bytes, batch_rows: 512, ..AMPLE };
    let mut rows = 0;
    let (outcome, counters) = counted_run(spec(), &build, &probe, setting, &mut |batch| {
        let text = |at: usize| batch.columns()[at].scalar(0, &DataType::Utf8).as_bytes().map(<[u8]>::to_vec);
        assert!(text(1).is_none_or(|probe| Some(probe) == text(0)));
        rows += batch.rows();
    });
    outcome.expect("a few rows fit");
    assert_eq!(rows, 200);
    assert!(counters["spill_bytes"] > 4_000_000, "{counters:?}");
    let setting = Setting { limit_bytes: floor_bytes(spec(), 1, 512), batch_rows: 512, ..AMPLE };
    let (build, probe) = (wide(8, 3_000_000, &account), wide(8, 10, &account));
    match run(spec(), &build, &probe, setting, &mut |_| {}) {
        Err(Error::Memory(error)) => assert!(error.to_string().contains("HashJoin"), "{error}"),
        other => panic!("a row is larger than the budget: {other:?}"),
    }
}

#[test]
fn a_failing_disk_ends_the_query_and_leaves_nothing() {
    let account = input_account();
    let build = ints(3000, 512, &account, |n| n as i64 % 700);
    let probe = ints(1000, 512, &account, |n| n as i64);
    let mut failures = 0;
    for seed in 0..40 {
        let faults = FaultConfig { refuse_grant: u16::MAX, spill_error: 2000, seed, ..FaultConfig::NONE };
        let setting = Setting { lanes: 2, faults, ..AMPLE };
        match counted(HashJoinKind::FullOuter, &build, &probe, setting).0 {
            Ok(rows) => assert_eq!(rows.len(), 3000 + 300),
            Err(Error::Io { .. }) => failures += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failures > 5, "{failures} runs failed");
}

#[test]
fn rows_without_columns_are_counted() {
    let account = input_account();
    let build = ints(3000, 512, &account, |n| n as i64);
    let probe = ints(30, 10, &account, |n| n as i64);
    for setting in [AMPLE, FORCED] {
        let mut cross_rows = 0;
        let spec = HashJoinSpec { keys: Vec::new(), ..int_spec(HashJoinKind::Inner, &[3]) };
        run(spec, &build, &probe, setting, &mut |batch| cross_rows += batch.rows()).expect("ample");
        assert_eq!(cross_rows, 90_000, "{setting:?}");
    }
}
