//! Sink and source together, against the standard library's sort.

use super::super::testing::{Harness, column, int_column, ints, two_columns};
use super::*;
use crate::data::{Batch, BufMut, FlatVector, Values, Vector, ViewBuilder};
use crate::error::{Error, Result};
use crate::exec::{Combine, Flow, LaneCx, Pull, Sink, Source};
use crate::mem::Knobs;

pub(super) fn key(id: u32, descending: bool, nulls_first: bool) -> SortKey {
    SortKey { expr: column(id), nullable: true, descending, nulls_first }
}

fn spec(columns: u32, keys: Vec<SortKey>, fetch: Option<u64>) -> SortSpec {
    let layout = (0..columns).map(ColumnId).collect();
    SortSpec { layout, types: vec![DataType::Int64; columns as usize], keys, fetch }
}

/// Pushes the batches of each lane and returns what the source emits.
fn run(spec: SortSpec, harness: &Harness, lanes: Vec<Vec<Batch>>) -> Result<Vec<Batch>> {
    let mut output = Vec::new();
    run_into(spec, harness, lanes, |batch| output.push(batch))?;
    Ok(output)
}

/// Pushes the batches of each lane, as they come, and hands on what the source emits; a second lane of the source
/// works ahead of the first, now and then.
pub(super) fn run_into<B: IntoIterator<Item = Batch>>(
    spec: SortSpec,
    harness: &Harness,
    lanes: Vec<B>,
    mut emit: impl FnMut(Batch),
) -> Result<()> {
    let (sink, source) = pair(spec);
    let knobs = Knobs { lanes: lanes.len(), ..harness.query.knobs };
    let source_open = harness.open_with(1, source.need(&knobs).shared_bytes);
    let shared = sink.open(&harness.open_with(lanes.len(), sink.need(&knobs).shared_bytes))?;
    let mut locals = Vec::new();
    let cx: LaneCx<'_> = harness.lane();
    for batches in lanes {
        let mut local = sink.local(&shared, &cx)?;
        for batch in batches {
            let mut flow = sink.push(&shared, &mut local, batch, &cx)?;
            while let Flow::Wait(_) = flow {
                flow = sink.resume(&shared, &mut local, &cx)?;
            }
            if let Flow::Done = flow {
                break;
            }
        }
        locals.push(local);
    }
    for mut local in locals {
        while let Combine::Wait(_) = sink.combine(&shared, &mut local, &cx)? {}
    }
    drop(shared);
    let shared = source.open(&source_open)?;
    let mut local = source.local(&shared, &cx)?;
    let mut ahead = source.local(&shared, &cx)?;
    let mut turns = noise(5);
    loop {
        // Emitting goes on alone for a while, and working ahead until it is full.
        for _ in 0..turns(9) - 3 {
            let Pull::Wait(_) = source.pull(&shared, &mut ahead, &cx)? else { panic!("rows are left") };
        }
        match source.pull(&shared, &mut local, &cx)? {
            Pull::Emit(batch) => {
                assert!((1..=1024).contains(&batch.rows()));
                emit(batch);
            }
            Pull::Wait(_) => {}
            Pull::Done => break,
        }
    }
    let Pull::Done = source.pull(&shared, &mut ahead, &cx)? else { panic!("no rows are left") };
    Ok(())
}

/// SplitMix64, so that a failure can be repeated.
pub(super) fn noise(seed: u64) -> impl FnMut(u64) -> i64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33).rem_euclid(below) as i64
    }
}

#[test]
fn many_runs_of_several_lanes_come_out_in_order() {
    let harness = Harness::new(512 << 20);
    let mut random = noise(7);
    let mut expected = Vec::new();
    let mut lanes = Vec::new();
    for lane in 0..3 {
        let mut batches = Vec::new();
        for _ in 0..90 - 40 * lane {
            let rows: Vec<_> = (0..1000).map(|_| (random(5000), random(1 << 40))).collect();
            let picked: Vec<u32> = (0..1000).filter(|_| random(4) > 0).collect();
            expected.extend(picked.iter().map(|row| rows[*row as usize]));
            batches.push(harness.select(two_columns(&harness, rows), &picked));
        }
        lanes.push(batches);
    }
    let output = run(spec(2, vec![key(0, true, false), key(1, false, false)], None), &harness, lanes);
    let output: Vec<_> = output.expect("fits").iter().flat_map(|b| harness.rows(b)).collect();
    expected.sort_by_key(|(a, b)| (-a, *b));
    assert_eq!(output.len(), expected.len());
    for (row, expected) in output.iter().zip(expected) {
        assert_eq!((row[0], row[1]), (Some(expected.0), Some(expected.1)));
    }
}

#[test]
fn lanes_that_lay_out_at_the_same_time_keep_the_order() {
    let harness = Harness::new(256 << 20);
    let mut random = noise(13);
    for fetch in [None, Some(150_000)] {
        let (sink, source) = pair(spec(1, vec![key(0, false, false)], fetch));
        let cx = harness.lane();
        let source_open = harness.open_with(1, source.need(&harness.query.knobs).shared_bytes);
        let sink_open = harness.open_with(1, sink.need(&harness.query.knobs).shared_bytes);
        let shared = sink.open(&sink_open).expect("fits");
        let mut local = sink.local(&shared, &cx).expect("fits");
        let mut expected: Vec<i64> = (0..300_000).map(|_| random(1 << 40)).collect();
        for values in expected.chunks(1000) {
            let batch = ints(&harness, values.iter().copied().map(Some));
            let mut flow = sink.push(&shared, &mut local, batch, &cx).expect("fits");
            while let Flow::Wait(_) = flow {
                flow = sink.resume(&shared, &mut local, &cx).expect("fits");
            }
        }
        while let Combine::Wait(_) = sink.combine(&shared, &mut local, &cx).expect("fits") {}
        drop(shared);
        expected.sort_unstable();
        expected.truncate(fetch.map_or(usize::MAX, |fetch| fetch as usize));

        let shared = source.open(&source_open).expect("fits");
        let mut emitting = source.local(&shared, &cx).expect("fits");
        let ahead: Vec<_> = (0..3).map(|_| source.local(&shared, &cx).expect("fits")).collect();
        let mut output: Vec<Option<i64>> = Vec::new();
        std::thread::scope(|scope| {
            for mut local in ahead {
                let (source, shared, harness) = (&source, &shared, &harness);
                scope.spawn(move || {
                    while let Pull::Wait(_) = source.pull(shared, &mut local, &harness.lane()).expect("fits")
                    {
                        std::thread::yield_now();
                    }
                });
            }
            loop {
                match source.pull(&shared, &mut emitting, &cx).expect("fits") {
                    Pull::Emit(batch) => output.extend(harness.rows(&batch).iter().map(|row| row[0])),
                    Pull::Wait(_) => std::thread::yield_now(),
                    Pull::Done => break,
                }
            }
        });
        assert!(output.into_iter().eq(expected.into_iter().map(Some)), "{fetch:?}");
    }
}

#[test]
fn a_fetch_keeps_the_first_rows_whatever_order_they_come_in() {
    let mut random = noise(11);
    for fetch in [0, 1, 10, 1500, 40_000, 70_000] {
        for step in [-1i64, 0, 1] {
            let harness = Harness::new(512 << 20);
            let lane = |offset: i64, random: &mut dyn FnMut(u64) -> i64| -> Vec<Vec<i64>> {
                let value = |i: i64, random: &mut dyn FnMut(u64) -> i64| match step {
                    0 => random(100_000),
                    step => step * (2 * i + offset),
                };
                (0..40).map(|b| (0..1000).map(|i| value(b * 1000 + i, random)).collect()).collect()
            };
            let values = [lane(0, &mut random), lane(1, &mut random)];
            let mut expected: Vec<i64> = values.iter().flatten().flatten().copied().collect();
            expected.sort_unstable();
            expected.truncate(fetch);
            let batch = |values: &Vec<i64>| ints(&harness, values.iter().copied().map(Some));
            let lanes = values.iter().map(|lane| lane.iter().map(batch).collect()).collect();
            let output = run(spec(1, vec![key(0, false, true)], Some(fetch as u64)), &harness, lanes);
            let output: Vec<_> = output.expect("fits").iter().flat_map(|b| harness.rows(b)).collect();
            assert!(output.iter().map(|row| row[0]).eq(expected.into_iter().map(Some)), "{fetch} {step}");
        }
    }
}

#[test]
fn a_small_fetch_holds_little_whatever_it_is_given() {
    let harness = Harness::new(2 << 20);
    let (sink, _source) = pair(spec(1, vec![key(0, false, false)], Some(100)));
    let need = sink.need(&harness.query.knobs).shared_bytes;
    let shared = sink.open(&harness.open_with(1, need)).expect("opens");
    let cx = harness.lane();
    let mut local = sink.local(&shared, &cx).expect("starts");
    // Ever smaller values: no row can be dropped by the cutoff before its batch has come.
    for i in (0..2000i64).rev() {
        let batch = ints(&harness, (0..1000).map(|j| Some(i * 1000 + j)));
        sink.push(&shared, &mut local, batch, &cx).expect("fits 2 MiB, though the input is 16 MB");
    }
}

#[test]
fn nulls_go_where_they_are_told_and_equal_rows_keep_their_order() {
    let harness = Harness::new(16 << 20);
    for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let values = [Some(3), None, Some(1), Some(3), None, Some(2), Some(i64::MIN), Some(i64::MAX)];
        let numbers: Vec<_> = (0..values.len() as i64).map(Some).collect();
        let columns = vec![int_column(&harness, &values), int_column(&harness, &numbers)];
        let batch = Batch::new(columns, values.len());
        let output = run(spec(2, vec![key(0, descending, nulls_first)], None), &harness, vec![vec![batch]]);
        let output: Vec<_> = output.expect("fits").iter().flat_map(|b| harness.rows(b)).collect();
        let mut expected: Vec<_> = values.iter().copied().zip(0..).collect();
        expected.sort_by_key(|(value, _)| {
            let value = value.map(i128::from);
            (value.is_none() != nulls_first, value.map(|v| if descending { -v } else { v }))
        });
        let expected: Vec<_> = expected.into_iter().map(|(value, i)| vec![value, Some(i)]).collect();
        assert_eq!(output, expected);
    }
}

#[test]
fn strings_travel_with_their_rows() {
    let harness = Harness::new(64 << 20);
    let mut random = noise(3);
    let text = |i: i64| format!("{}{i}", "common prefix ".repeat(i as usize % 3));
    let batches = (0..20).map(|_| {
        let values: Vec<i64> = (0..500).map(|_| random(3000)).collect();
        let mut builder = ViewBuilder::new(&harness.account, 500).expect("fits");
        for value in &values {
            builder.push(&harness.account, text(*value).as_bytes()).expect("fits");
        }
        let strings = Vector::Flat(FlatVector::new(Values::View(builder.freeze())));
        let values: Vec<_> = values.into_iter().map(Some).collect();
        Batch::new(vec![strings, int_column(&harness, &values)], 500)
    });
    let expr = Expr::Column { id: ColumnId(0), data_type: DataType::Utf8, nullable: false };
    let keys = vec![SortKey { nullable: expr.is_nullable(), expr, descending: false, nulls_first: false }];
    let types = vec![DataType::Utf8, DataType::Int64];
    let spec = SortSpec { layout: vec![ColumnId(0), ColumnId(1)], types, keys, fetch: None };
    let output = run(spec, &harness, vec![batches.collect()]).expect("fits");
    let mut before = String::new();
    let mut rows = 0;
    for batch in &output {
        for row in 0..batch.rows() {
            let number = batch.column(1).scalar(row, &DataType::Int64).as_int().expect("not null");
            let string = batch.column(0).scalar(row, &DataType::Utf8);
            let string = std::str::from_utf8(string.as_bytes().expect("not null")).expect("text").to_owned();
            assert_eq!(string, text(number as i64));
            assert!(before <= string);
            before = string;
            rows += 1;
        }
    }
    assert_eq!(rows, 10_000);
}

#[test]
fn nothing_in_gives_nothing_out_and_memory_comes_back() {
    let harness = Harness::new(16 << 20);
    let output = run(spec(1, vec![key(0, false, false)], None), &harness, vec![vec![], vec![]]);
    assert!(output.expect("fits").is_empty());
    let batches =
        |from: i64| (0..30).map(|b| ints(&harness, (0..1000).map(|i| Some(from + b * i)))).collect();
    let output = run(spec(1, vec![key(0, false, false)], None), &harness, vec![batches(0), batches(5)]);
    drop(output.expect("fits"));
    assert_eq!(harness.account.used_bytes(), 0);
}

#[test]
fn what_does_not_fit_without_room_on_disk_is_an_error_that_says_so() {
    let harness = Harness::new(2 << 20);
    let wide = BufMut::<i128>::zeroed(&harness.account, 1000).expect("fits").freeze();
    let wide = Batch::new(vec![Vector::Flat(FlatVector::new(Values::I128(wide)))], 1000);
    let expr = Expr::Column {
        id: ColumnId(0),
        data_type: DataType::Decimal { precision: 38, scale: 0 },
        nullable: true,
    };
    let keys = vec![SortKey { expr: expr.clone(), nullable: true, descending: false, nulls_first: false }];
    let spec = SortSpec { layout: vec![ColumnId(0)], types: vec![expr.data_type()], keys, fetch: None };
    let failed = run(spec, &harness, vec![vec![wide; 100]]).expect_err("4 MB with keys");
    assert!(matches!(failed, Error::SpillQuota { .. }), "{failed}");
}
