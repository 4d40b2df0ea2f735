//! Sorts that do not fit, against the same sorts with ample memory or the standard library's.

use super::super::testing::{Harness, column, int_column};
use super::tests::{key, noise, run_into};
use super::*;
use crate::data::{Batch, BufMut, FlatVector, Values, Vector, ViewBuilder};
use crate::error::{MemoryError, Result};
use crate::exec::fault::FaultConfig;
use crate::exec::{Combine, Flow, Pull, Sink, Source};
use crate::spill::SpillDirectory;
use tempfile::TempDir;

/// What evaluation and one batch to emit take.
const LANE_BYTES: usize = 192 << 10;
const SMALL: Knobs = Knobs { lanes: 1, batch_rows: 512, block_bytes: 16 << 10, fan_out: 4 };

/// A place to sort in.
struct Place {
    directory: TempDir,
    spill: SpillDirectory,
    harness: Harness,
    /// Where batches come from: no memory of the sort's.
    input: Harness,
}

impl Place {
    fn new(limit_bytes: usize, faults: Option<FaultConfig>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let spill = SpillDirectory::new(Some(directory.path().to_owned()), 1 << 30);
        let harness = Harness::with((limit_bytes, LANE_BYTES), SMALL, &spill, faults);
        Self { directory, spill, harness, input: Harness::new(64 << 20) }
    }

    fn spilled_bytes(&self) -> u64 {
        self.harness.query.spill.written_bytes()
    }

    /// Nothing is left of a sort.
    fn assert_clean(&self) {
        assert_eq!(self.spill.used_bytes(), 0);
        assert_eq!(self.harness.account.used_bytes(), 0);
        self.harness.account.trim();
        assert_eq!(self.harness.query.pool.granted_bytes(), LANE_BYTES);
        assert_eq!(std::fs::read_dir(self.directory.path()).expect("readable").count(), 0);
    }

    /// Rows of a key, a number and a string made of the number.
    fn batch(&self, rows: &[(Option<i64>, i64)]) -> Batch {
        let (keys, numbers): (Vec<_>, Vec<_>) = rows.iter().map(|(k, n)| (*k, Some(*n))).unzip();
        let mut strings = ViewBuilder::new(&self.input.account, rows.len()).expect("fits");
        for (_, number) in rows {
            strings.push(&self.input.account, text(*number).as_bytes()).expect("fits");
        }
        let columns = vec![
            int_column(&self.input, &keys),
            int_column(&self.input, &numbers),
            Vector::Flat(FlatVector::new(Values::View(strings.freeze()))),
        ];
        Batch::new(columns, rows.len())
    }

    /// The key and number of each row that comes out, whose strings are checked.
    fn sort(&self, spec: SortSpec, lanes: &[Vec<(Option<i64>, i64)>]) -> Result<Vec<(Option<i64>, i64)>> {
        let mut output = Vec::new();
        let lanes = lanes.iter().map(|rows| rows.chunks(500).map(|rows| self.batch(rows))).collect();
        run_into(spec, &self.harness, lanes, |batch| take_rows(&batch, &mut output))?;
        Ok(output)
    }
}

/// Adds the key and number of each row, whose string is checked.
fn take_rows(batch: &Batch, output: &mut Vec<(Option<i64>, i64)>) {
    for row in 0..batch.rows() {
        let int = |at: usize| {
            let value = batch.column(at).scalar(row, &DataType::Int64).as_int();
            value.map(|v| i64::try_from(v).expect("a BIGINT"))
        };
        let number = int(1).expect("not null");
        let string = batch.column(2).scalar(row, &DataType::Utf8);
        assert_eq!(string.as_bytes(), Some(text(number).as_bytes()));
        output.push((int(0), number));
    }
}

fn text(number: i64) -> String {
    format!("{}{number}", "payload ".repeat(number as usize % 7))
}

fn spec(descending: bool, nulls_first: bool, fetch: Option<u64>) -> SortSpec {
    let types = vec![DataType::Int64, DataType::Int64, DataType::Utf8];
    let layout = (0..3).map(ColumnId).collect();
    SortSpec { layout, types, keys: vec![key(0, descending, nulls_first)], fetch }
}

fn rows(count: i64, distinct: u64, seed: u64) -> Vec<(Option<i64>, i64)> {
    let mut random = noise(seed);
    (0..count).map(|number| (Some(random(distinct)).filter(|key| key % 10 != 3), number)).collect()
}

fn sorted(
    rows: &[(Option<i64>, i64)],
    descending: bool,
    nulls_first: bool,
    fetch: Option<u64>,
) -> Vec<(Option<i64>, i64)> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|(key, _)| {
        (key.is_none() != nulls_first, key.map(|key| if descending { -key } else { key }))
    });
    rows.truncate(fetch.map_or(usize::MAX, |fetch| fetch as usize));
    rows
}

#[test]
fn little_memory_gives_the_rows_that_ample_memory_does() {
    for (seed, distinct, descending, nulls_first, fetch) in [
        (1, 1 << 40, false, false, None),
        (2, 1000, true, true, None),
        (3, 1, false, true, None),
        (4, 1 << 20, true, false, Some(45_000)),
        (5, 50, false, false, Some(40_001)),
        (6, 1 << 30, false, false, Some(20_000)),
    ] {
        let rows = rows(100_000, distinct, seed);
        let expected = sorted(&rows, descending, nulls_first, fetch);
        for limit_bytes in [1280 << 10, 3 << 20] {
            let place = Place::new(limit_bytes, None);
            let output = place.sort(spec(descending, nulls_first, fetch), std::slice::from_ref(&rows));
            assert!(output.expect("spills") == expected, "case {seed} in {limit_bytes} bytes");
            assert!(place.spilled_bytes() > 0);
            place.assert_clean();
        }
        let place = Place::new(256 << 20, None);
        assert!(place.sort(spec(descending, nulls_first, fetch), &[rows]).expect("fits") == expected);
        assert_eq!(place.spilled_bytes(), 0);
        place.assert_clean();
    }
}

#[test]
fn lanes_that_spill_and_lanes_that_do_not_come_together() {
    let lanes = [rows(60_000, 1 << 40, 1), rows(2_000, 1 << 40, 2), rows(0, 1, 3), rows(30_000, 500, 4)];
    let mut expected: Vec<_> = lanes.iter().flatten().copied().collect();
    expected.sort_by_key(|(key, number)| (key.is_none(), *key, *number));
    let place = Place::new(3 << 20, None);
    let mut output = place.sort(spec(false, false, None), &lanes).expect("spills");
    assert!(output.is_sorted_by_key(|(key, _)| (key.is_none(), *key)));
    output.sort_by_key(|(key, number)| (key.is_none(), *key, *number));
    assert!(output == expected);
    place.assert_clean();
}

#[test]
fn rows_laid_out_ahead_need_no_memory_and_others_wait_for_it() {
    let place = Place::new(4 << 20, None);
    let lanes = [rows(3_000, 1 << 40, 5), rows(3_000, 1 << 40, 6)];
    let expected = sorted(&lanes.concat(), false, false, None);
    let (sink, source) = pair(spec(false, false, None));
    let knobs = Knobs { lanes: 2, ..SMALL };
    let source_open = place.harness.open_with(1, source.need(&knobs).shared_bytes);
    let sink_open = place.harness.open_with(2, sink.need(&knobs).shared_bytes);
    let shared = sink.open(&sink_open).expect("fits");
    let cx = place.harness.lane();
    for rows in lanes {
        let mut local = sink.local(&shared, &cx).expect("fits");
        for rows in rows.chunks(500) {
            let mut flow = sink.push(&shared, &mut local, place.batch(rows), &cx).expect("fits");
            while let Flow::Wait(_) = flow {
                flow = sink.resume(&shared, &mut local, &cx).expect("fits");
            }
        }
        while let Combine::Wait(_) = sink.combine(&shared, &mut local, &cx).expect("fits") {}
    }
    drop(shared);
    let shared = source.open(&source_open).expect("fits");
    let mut emitting = source.local(&shared, &cx).expect("fits");
    let mut ahead = source.local(&shared, &cx).expect("fits");
    let pull = |local: &mut _| source.pull(&shared, local, &cx).expect("fits");
    assert!(matches!(pull(&mut ahead), Pull::Wait(_)));
    let page = || BufMut::<u8>::with_len(&place.harness.account, 4096).ok();
    let taken: Vec<_> = std::iter::from_fn(page).collect();
    let mut output = Vec::new();
    while let Pull::Emit(batch) = pull(&mut emitting) {
        take_rows(&batch, &mut output);
    }
    assert!(
        (1..expected.len()).contains(&output.len()),
        "what is laid out needs no page, and no other is left"
    );
    drop(taken);
    loop {
        match pull(&mut emitting) {
            Pull::Emit(batch) => take_rows(&batch, &mut output),
            Pull::Wait(_) => _ = pull(&mut ahead),
            Pull::Done => break,
        }
    }
    assert!(output.iter().map(|(key, _)| key).eq(expected.iter().map(|(key, _)| key)));
    output.sort_unstable();
    let mut expected = expected;
    expected.sort_unstable();
    assert_eq!(output, expected);
}

#[test]
fn injected_refusals_change_nothing() {
    let rows = rows(30_000, 3000, 9);
    for refuse_grant in [u16::MAX, u16::MAX / 4] {
        for fetch in [None, Some(10), Some(33_000)] {
            let faults = FaultConfig { refuse_grant, seed: 3, ..FaultConfig::default() };
            let place = Place::new(64 << 20, Some(faults));
            let output = place.sort(spec(true, false, fetch), std::slice::from_ref(&rows)).expect("spills");
            assert!(output == sorted(&rows, true, false, fetch));
            assert!(place.spilled_bytes() > 0);
            place.assert_clean();
        }
    }
}

#[test]
fn a_failing_disk_leaves_nothing_behind() {
    let rows = rows(40_000, 1 << 40, 9);
    let expected = sorted(&rows, false, false, None);
    let mut failures = 0;
    for seed in 0..24 {
        let faults = FaultConfig { spill_error: 40 << (seed % 8), seed, ..FaultConfig::default() };
        let place = Place::new(1280 << 10, Some(faults));
        match place.sort(spec(false, false, None), std::slice::from_ref(&rows)) {
            Ok(output) => assert!(output == expected),
            Err(Error::Io { .. }) => failures += 1,
            Err(other) => panic!("{other}"),
        }
        place.assert_clean();
    }
    assert!(failures > 6, "{failures} of 24 runs failed");
}

#[test]
fn rows_of_a_mebibyte_sort_in_a_few() {
    let wide = |number: i64| {
        let mut bytes = vec![b'x'; 1 << 20];
        bytes[1 << 19] = b'a' + (number * 7 % 26) as u8;
        bytes
    };
    let expr = Expr::Column { id: ColumnId(1), data_type: DataType::Utf8, nullable: true };
    for by_string in [false, true] {
        let place = Place::new(14 << 20, None);
        let account = &place.input.account;
        let batches = (0..26).map(|number: i64| {
            let mut strings = ViewBuilder::new(account, 1).expect("fits");
            strings.push(account, &wide(number)).expect("fits");
            let strings = Vector::Flat(FlatVector::new(Values::View(strings.freeze())));
            Batch::new(vec![int_column(&place.input, &[Some(number)]), strings], 1)
        });
        let expr = if by_string { expr.clone() } else { column(0) };
        let keys = vec![SortKey { nullable: expr.is_nullable(), expr, descending: true, nulls_first: false }];
        let types = vec![DataType::Int64, DataType::Utf8];
        let spec = SortSpec { layout: (0..2).map(ColumnId).collect(), types, keys, fetch: None };
        let mut output = Vec::new();
        run_into(spec, &place.harness, vec![batches], |batch| {
            for row in 0..batch.rows() {
                let number = batch.column(0).scalar(row, &DataType::Int64).as_int().expect("not null") as i64;
                let string = batch.column(1).scalar(row, &DataType::Utf8);
                assert!(string.as_bytes() == Some(&wide(number)));
                output.push(number);
            }
        })
        .expect("spills");
        let mut expected: Vec<i64> = (0..26).collect();
        expected.sort_by_key(|number| std::cmp::Reverse(if by_string { number * 7 % 26 } else { *number }));
        assert_eq!(output, expected);
        assert!(place.spilled_bytes() > 10 << 20);
        place.assert_clean();
    }
}

#[test]
fn what_no_budget_could_sort_says_how_much_it_lacks() {
    let place = Place::new(2 << 20, None);
    let mut strings = ViewBuilder::new(&place.input.account, 1).expect("fits");
    strings.push(&place.input.account, &[b'x'; 8 << 20]).expect("fits");
    let batch = Batch::new(vec![Vector::Flat(FlatVector::new(Values::View(strings.freeze())))], 1);
    let expr = Expr::Literal(crate::data::Scalar::int(DataType::Int64, 1));
    let keys = vec![SortKey { nullable: expr.is_nullable(), expr, descending: false, nulls_first: false }];
    let spec = SortSpec { layout: vec![ColumnId(0)], types: vec![DataType::Utf8], keys, fetch: None };
    let failed = run_into(spec, &place.harness, vec![vec![batch]], |_| {}).expect_err("8 MiB in 2");
    let Error::Memory(memory) = &failed else { panic!("{failed}") };
    assert!(matches!(**memory, MemoryError::BudgetTooSmall { .. }), "{failed}");
    place.assert_clean();
}
