//! Rows of two integers: many of them, in little memory, with hashes that collide.

use super::super::plan::Plan;
use super::super::{HashJoinKey, HashJoinKind, HashJoinSpec};
use super::run::{AMPLE, Setting, counted_run, run};
use crate::data::hash::hash_word;
use crate::data::{Batch, BufMut, DataType, FlatVector, Selection, Values, Vector};
use crate::error::Error;
use crate::expr::{ColumnId, Expr};
use crate::mem::{Account, Knobs, Pool};
use std::collections::HashMap;
use std::sync::Arc;

/// Batches of two `BIGINT` columns: a key, and the number of the row.
pub(super) fn ints(
    rows: usize,
    batch_rows: usize,
    account: &Account,
    key: impl Fn(usize) -> i64,
) -> Vec<Batch> {
    let column = |values: &[i64]| {
        let values = BufMut::copy_of(account, values).expect("fits").freeze();
        Vector::Flat(FlatVector::new(Values::I64(values)))
    };
    let batch = |start: usize| {
        let numbers = start..rows.min(start + batch_rows);
        let keys: Vec<i64> = numbers.clone().map(&key).collect();
        let numbers: Vec<i64> = numbers.map(|n| n as i64).collect();
        Batch::new(vec![column(&keys), column(&numbers)], keys.len())
    };
    (0..rows).step_by(batch_rows).map(batch).collect()
}

pub(super) fn int_spec(kind: HashJoinKind, output: &[u32]) -> HashJoinSpec {
    let key = |id| Expr::Column { id: ColumnId(id), data_type: DataType::Int64, nullable: true };
    HashJoinSpec {
        kind,
        build_layout: vec![ColumnId(0), ColumnId(1)],
        build_types: vec![DataType::Int64; 2],
        probe_layout: vec![ColumnId(2), ColumnId(3)],
        probe_types: vec![DataType::Int64; 2],
        keys: vec![HashJoinKey { build: key(0), probe: key(2), null_safe: false }],
        residual: Vec::new(),
        output: output.iter().map(|&id| ColumnId(id)).collect(),
        expected_build_rows: None,
        expected_key_range: None,
    }
}

pub(super) fn int_rows(batch: &Batch) -> impl Iterator<Item = Vec<i64>> + '_ {
    let int = |column: &Vector, row: usize| {
        column.scalar(row, &DataType::Int64).as_int().and_then(|v| i64::try_from(v).ok()).unwrap_or(-1)
    };
    let selected = batch.selection().map(Selection::indices);
    (0..batch.rows()).map(move |at| {
        let row = selected.map_or(at, |rows| rows[at] as usize);
        batch.columns().iter().map(|c| int(c, row)).collect()
    })
}

pub(super) fn input_account() -> Account {
    let pool = Pool::new("input", 1 << 30);
    Account::open(&pool, 0, 1 << 20, 0).expect("fits")
}

#[test]
fn a_large_build_is_found_whole_over_many_chunks() {
    let account = input_account();
    let (rows, keys) = (300_000, 100_000);
    let far = |m: usize| (hash_word(m as u64) >> 1) as i64;
    // Spread by value, with gaps between them; in clusters, so that they are spread by hash after all.
    let close = |m: usize| 3 * m as i64 - 5000;
    let clustered = |m: usize| if m == 0 { 16_000_000 } else { m as i64 };
    type Key<'a> = &'a dyn Fn(usize) -> i64;
    let cases: [(Key<'_>, Key<'_>); 3] = [
        (&far, &|m| -1 - m as i64),
        (&close, &|m| if m % 3 == 0 { i64::MAX - m as i64 } else { close(m) + 1 }),
        (&clustered, &|m| 100_000 + m as i64),
    ];
    for (key, other) in cases {
        let build = ints(rows, 4096, &account, |n| key(n % keys));
        // Every second probe key is there.
        let probe = ints(2 * keys, 4096, &account, |n| if n % 2 == 0 { key(n / 2) } else { other(n / 2) });
        for lanes in [1, 3] {
            let setting = Setting { lanes, batch_rows: 4096, ..AMPLE };
            let mut seen = vec![0u8; rows];
            run(int_spec(HashJoinKind::Inner, &[3, 1, 0]), &build, &probe, setting, &mut |batch| {
                for row in int_rows(&batch) {
                    assert_eq!((row[1] as usize % keys) * 2, row[0] as usize);
                    assert_eq!(row[2], key(row[1] as usize % keys));
                    seen[row[1] as usize] += 1;
                }
            })
            .expect("ample");
            assert!(seen.iter().all(|&times| times == 1), "each build row has one probe row");
        }
    }
}

#[test]
fn unmatched_rows_of_a_large_build_come_out_once() {
    let account = input_account();
    let build = ints(200_000, 2048, &account, |n| n as i64);
    let probe = ints(50_000, 2048, &account, |n| 3 * n as i64);
    for (kind, wanted) in [(HashJoinKind::BuildAnti, false), (HashJoinKind::BuildSemi, true)] {
        let setting = Setting { lanes: 2, batch_rows: 1000, ..AMPLE };
        let mut seen = vec![0u8; 200_000];
        run(int_spec(kind, &[1]), &build, &probe, setting, &mut |batch| {
            int_rows(&batch).for_each(|row| seen[row[0] as usize] += 1);
        })
        .expect("ample");
        for (n, &times) in seen.iter().enumerate() {
            let has_match = n % 3 == 0 && n < 150_000;
            assert_eq!(times, u8::from(has_match == wanted), "{kind:?}: row {n}");
        }
    }
}

#[test]
fn one_key_with_very_many_rows_is_joined_in_parts() {
    let account = input_account();
    let build = ints(150_000, 4096, &account, |n| if n % 1000 == 0 { n as i64 } else { 7 });
    let probe = ints(4, 4, &account, |n| [7, 5000, 8, 7][n]);
    let mut counts: HashMap<i64, usize> = HashMap::new();
    run(int_spec(HashJoinKind::ProbeOuter, &[3, 1]), &build, &probe, AMPLE, &mut |batch| {
        for row in int_rows(&batch) {
            *counts.entry(row[0]).or_default() += 1;
        }
    })
    .expect("ample");
    let common = 150_000 - 150;
    assert_eq!(counts, HashMap::from([(0, common), (1, 1), (2, 1), (3, common)]));
    let mut rows = Vec::new();
    run(int_spec(HashJoinKind::ProbeSemi, &[3]), &build, &probe, AMPLE, &mut |batch| {
        rows.extend(int_rows(&batch).map(|row| row[0]));
    })
    .expect("ample");
    assert_eq!(rows, [0, 1, 3]);
}

#[test]
fn keys_whose_hashes_collide_are_told_apart() {
    let account = input_account();
    // The second of two keys is chosen so that four keys each have one hash; every fourth is not on the build side.
    let turned = |first: i64| hash_word(first as u64).rotate_left(29);
    let group_of = |n: usize| n - n % 4;
    let second = |n: usize| (turned(n as i64) ^ turned(group_of(n) as i64) ^ 17) as i64;
    let keys = |rows: &[usize]| {
        let column = |values: Vec<i64>| {
            let values = BufMut::copy_of(&account, &values).expect("fits").freeze();
            Vector::Flat(FlatVector::new(Values::I64(values)))
        };
        let firsts = column(rows.iter().map(|&n| n as i64).collect());
        vec![Batch::new(vec![firsts, column(rows.iter().map(|&n| second(n)).collect())], rows.len())]
    };
    let build: Vec<usize> = (0..800).filter(|n| n % 4 != 3).collect();
    let probe: Vec<usize> = (0..1000).rev().collect();
    let spec = |kind, output: &[u32]| {
        let mut spec = int_spec(kind, output);
        let key = |id| Expr::Column { id: ColumnId(id), data_type: DataType::Int64, nullable: true };
        spec.keys.push(HashJoinKey { build: key(1), probe: key(3), null_safe: false });
        spec
    };
    let rows = |kind, output: &[u32]| {
        let mut rows = Vec::new();
        let (build, probe) = (keys(&build), keys(&probe));
        run(spec(kind, output), &build, &probe, AMPLE, &mut |batch| rows.extend(int_rows(&batch)))
            .expect("ample");
        rows.sort_unstable();
        rows
    };
    let has_match = |n: &usize| *n < 800 && n % 4 != 3;
    let of = |wanted: bool| (0..1000).filter(move |n| has_match(n) == wanted).map(|n| n as i64);
    let pairs: Vec<Vec<i64>> = of(true).map(|n| vec![n, n]).collect();
    assert_eq!(rows(HashJoinKind::Inner, &[0, 2]), pairs);
    assert_eq!(rows(HashJoinKind::ProbeSemi, &[2]), of(true).map(|n| vec![n]).collect::<Vec<_>>());
    let anti = HashJoinKind::ProbeAnti { null_aware: false };
    assert_eq!(rows(anti, &[2]), of(false).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn a_build_of_any_size_is_joined_in_any_budget() {
    let account = input_account();
    let (rows, probe_rows) = (180_000, 120_000);
    let build = ints(rows, 8192, &account, |n| n as i64);
    let probe = ints(probe_rows, 8192, &account, |n| 2 * n as i64);
    let (mut depths, mut replays) = (0, 0);
    // Of the keys nothing is known, or between which values they lie, or something wrong.
    let hints = [None, Some(0..=179_999), Some(90_000..=1_200_000)];
    // From barely the floors to plenty, so that every stage is refused once.
    for (at, limit_bytes) in (900 << 10..8 << 20).step_by(397_001).enumerate() {
        let setting = Setting { lanes: 1 + at % 3, limit_bytes, batch_rows: 512, ..AMPLE };
        let mut spec = int_spec(HashJoinKind::FullOuter, &[0, 1, 2, 3]);
        spec.expected_build_rows = Some(rows as u64);
        spec.expected_key_range = hints[at / 3 % hints.len()].clone();
        let (mut count, mut sums) = (0, [0; 4]);
        let (outcome, counters) = counted_run(spec, &build, &probe, setting, &mut |batch| {
            for row in int_rows(&batch) {
                count += 1;
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        });
        match outcome {
            Ok(()) => {}
            // Not even the floors.
            Err(Error::Memory(_)) if limit_bytes < 3 << 20 => continue,
            Err(error) => panic!("{limit_bytes}: {error}"),
        }
        // 90 000 pairs, as many build rows alone, 30 000 probe rows alone; absent values read as -1.
        assert_eq!(count, 210_000, "{limit_bytes}");
        let sum_to = |n: i64| n * (n - 1) / 2;
        let expected = [
            sum_to(180_000) - 30_000,
            sum_to(180_000) - 30_000,
            2 * sum_to(120_000) - 90_000,
            sum_to(120_000) - 90_000,
        ];
        assert_eq!(sums, expected, "{limit_bytes}");
        let counter = |name| counters.get(name).copied().unwrap_or(0);
        depths = depths.max(counter("spill_depth"));
        replays += counter("replays");
    }
    assert!(depths > 1, "partitions were split at least once");
    assert!(replays > 0, "partitions were joined part by part at least once");
}

#[test]
fn a_small_build_fits_its_floor() {
    let account = input_account();
    let build = ints(900, 450, &account, |n| n as i64);
    let probe = ints(900, 450, &account, |n| 2 * n as i64);
    let spec = || int_spec(HashJoinKind::FullOuter, &[0, 1, 2, 3]);
    let knobs = Knobs { lanes: 2, batch_rows: 512, block_bytes: 16 << 10, fan_out: 4 };
    let plan = Plan::new(spec());
    let (build_need, probe_need) = (plan.build_need(&knobs), plan.probe_need(&knobs));
    let limit_bytes = 2 * (build_need.lane_bytes + probe_need.lane_bytes)
        + build_need.shared_bytes
        + probe_need.shared_bytes;
    let setting = Setting { lanes: 2, limit_bytes, batch_rows: 512, ..AMPLE };
    let mut rows = 0;
    run(spec(), &build, &probe, setting, &mut |batch| rows += batch.rows()).expect("floors suffice");
    assert_eq!(rows, 900 + 450);
}

#[test]
fn keys_that_cannot_be_compared_are_refused_by_name() {
    let list = arrow::datatypes::DataType::new_list(arrow::datatypes::DataType::Int32, true);
    let mut spec = int_spec(HashJoinKind::Inner, &[]);
    let data_type = DataType::Nested(Arc::new(list));
    let key = &mut spec.keys[0];
    for side in [&mut key.build, &mut key.probe] {
        let Expr::Column { data_type: of_key, .. } = side else { panic!("a column") };
        *of_key = data_type.clone();
    }
    let Err(error) = run(spec, &[], &[], AMPLE, &mut |_| {}) else { panic!("not supported") };
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}
