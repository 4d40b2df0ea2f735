//! The operator against what the definitions say, call by call, in ample and in hardly any memory.

use super::super::testing::{Harness, column, int_column};
use super::transform::OrderedAggregate;
use super::{OrderedAggregateSpec, OrderedCall};
use crate::data::{Batch, DataType, Value, Vector};
use crate::exec::fault::FaultConfig;
use crate::exec::{Output, Pull, Transform};
use crate::expr::ColumnId;
use crate::functions::Ordered;
use crate::mem::Knobs;
use crate::spill::SpillDirectory;
use std::sync::atomic::Ordering::Relaxed;

const FRACTIONS: [f64; 6] = [0.0, 0.1, 0.3, 0.5, 0.95, 1.0];

fn calls(counts: bool) -> Vec<OrderedCall> {
    let call = |kind, fraction, data_type| OrderedCall { kind, fraction, data_type };
    let continuous = FRACTIONS.map(|fraction| call(Ordered::Continuous, fraction, DataType::Float64));
    let discrete = FRACTIONS.map(|fraction| call(Ordered::Discrete, fraction, DataType::Int64));
    let mode = counts.then(|| call(Ordered::Mode, 0.0, DataType::Int64));
    continuous.into_iter().chain(discrete).chain(mode).collect()
}

/// What a call gives for values in order.
fn expected(call: &OrderedCall, values: &[i64]) -> Value {
    if values.is_empty() {
        return Value::Null;
    }
    let int = |at: usize| Value::Int(values[at].into());
    let (len, last) = (values.len() as f64, values.len() - 1);
    match call.kind {
        Ordered::Continuous => {
            let at = call.fraction * last as f64;
            let (below, above) = (values[at.floor() as usize] as f64, values[at.ceil() as usize] as f64);
            Value::Float(below + (above - below) * at.fract())
        }
        Ordered::Discrete => {
            // The first of which enough values are not above.
            let is_enough = |at: &usize| (at + 1) as f64 >= call.fraction * len;
            int((0..values.len()).find(is_enough).unwrap_or(last))
        }
        Ordered::Mode => {
            let runs: Vec<&[i64]> = values.chunk_by(|a, b| a == b).collect();
            let longest = runs.iter().map(|run| run.len()).max();
            let first = runs.iter().find(|run| Some(run.len()) == longest).expect("some");
            Value::Int(first[0].into())
        }
    }
}

/// A key, values in order, and how many nulls come after them.
type Group = (Option<i64>, Vec<i64>, usize);

/// Rows of `groups` in batches of `batch_rows`; with `counts` each value once, with how often it comes.
fn check(groups: &[Group], batch_rows: usize, (has_groups, counts): (bool, bool), harness: &Harness) {
    let rows_of = |(key, values, nulls): &Group| -> Vec<[Option<i64>; 3]> {
        let values = values.chunk_by(|a, b| counts && a == b);
        let values = values.map(|run| [*key, Some(run[0]), Some(run.len() as i64)]);
        let nulls = vec![[*key, None, Some(1)]; *nulls];
        values.chain(nulls).collect()
    };
    let rows: Vec<[Option<i64>; 3]> = groups.iter().flat_map(rows_of).collect();
    let spec = OrderedAggregateSpec {
        layout: vec![ColumnId(7), ColumnId(8), ColumnId(9)],
        groups: if has_groups { vec![column(7)] } else { vec![] },
        value: column(8),
        count: counts.then(|| column(9)),
        calls: calls(counts),
    };
    let operator = OrderedAggregate::new(spec);
    let need = operator.need(&harness.query.knobs);
    let shared = operator.open(&harness.open_with(1, need.shared_bytes)).expect("the floor fits");
    let cx = harness.lane();
    let mut local = operator.local(&shared, &cx).expect("valid");
    let mut got: Vec<Vec<Value>> = vec![];
    let types: Vec<DataType> = has_groups
        .then_some(DataType::Int64)
        .into_iter()
        .chain(calls(counts).into_iter().map(|c| c.data_type))
        .collect();
    let mut take = |batch: &Batch| {
        for row in 0..batch.rows() {
            let value = |(column, t): (&Vector, &DataType)| column.scalar(row, t).value;
            got.push(batch.columns().iter().zip(&types).map(value).collect());
        }
    };
    for part in rows.chunks(batch_rows) {
        let column = |at: usize| int_column(harness, &part.iter().map(|row| row[at]).collect::<Vec<_>>());
        let columns = (0..3).map(column).collect();
        let mut output =
            operator.push(&shared, &mut local, Batch::new(columns, part.len()), &cx).expect("fits");
        loop {
            match output {
                Output::NeedInput => break,
                Output::Emit(batch) => {
                    take(&batch);
                    break;
                }
                Output::EmitMore(batch) => take(&batch),
                Output::Wait(_) | Output::Done(_) => panic!("it neither waits nor ends"),
            }
            output = operator.resume(&shared, &mut local, &cx).expect("fits");
        }
    }
    match operator.flush(&shared, &mut local, &cx).expect("fits") {
        Output::Done(Some(batch)) => take(&batch),
        Output::Done(None) => {}
        other => panic!("it is over, not {other:?}"),
    }
    while let Pull::Emit(batch) = operator.drain(&shared, &mut local, &cx).expect("fits") {
        assert!(operator.has_drain());
        take(&batch);
    }
    let all = |(key, values, _): &Group| {
        let key = key.map_or(Value::Null, |key| Value::Int(key.into()));
        let results = calls(counts).into_iter().map(|call| expected(&call, values));
        has_groups.then_some(key).into_iter().chain(results).collect::<Vec<_>>()
    };
    let expected: Vec<_> = groups.iter().map(all).collect();
    assert_eq!(got, expected, "batches of {batch_rows}");
}

fn groups() -> Vec<Group> {
    let lengths = [1, 2, 0, 3, 1, 1, 40, 7, 0, 1000, 5, 2500, 1, 6];
    let group = |(at, len): (usize, usize)| {
        let mut values: Vec<i64> =
            (0..len).map(|n| (n as i64 * 7919 + at as i64) % (1 + len as i64 / 3)).collect();
        values.sort_unstable();
        let key = (at + 1 < lengths.len()).then_some(at as i64);
        (key, values, if len == 0 { 1 + at } else { at % 3 })
    };
    lengths.into_iter().enumerate().map(group).collect()
}

#[test]
fn values_are_taken_as_defined_whatever_the_batches() {
    for batch_rows in [1, 2, 5, 64, 1000, 1024] {
        for counts in [false, true] {
            check(&groups(), batch_rows, (true, counts), &Harness::new(64 << 20));
        }
    }
}

#[test]
fn all_rows_are_one_group_without_keys() {
    for (values, nulls) in [(vec![], 0), (vec![], 3), (vec![4], 0), ((0..3000).collect(), 5)] {
        for counts in [false, true] {
            check(&[(None, values.clone(), nulls)], 700, (false, counts), &Harness::new(64 << 20));
        }
    }
}

#[test]
fn values_of_a_long_group_go_to_disk() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let spill = SpillDirectory::new(Some(folder.path().to_owned()), u64::MAX);
    let knobs = Knobs { lanes: 1, batch_rows: 512, block_bytes: 16 << 10, fan_out: 4 };
    let faults = FaultConfig { refuse_grant: u16::MAX / 2, ..FaultConfig::NONE };
    for (counts, faults) in [(false, None), (true, None), (false, Some(faults)), (true, Some(faults))] {
        let harness = Harness::with((2 << 20, 1 << 20), knobs, &spill, faults);
        let repeated = if counts { 1 } else { 3 };
        let values: Vec<i64> = (0..400_000).map(|n| n / repeated).chain([399_999]).collect();
        let groups = [(Some(1), vec![1, 2], 0), (Some(2), values, 7), (Some(3), vec![5], 0)];
        check(&groups, 512, (true, counts), &harness);
        let spilled = harness.lane().metrics.counter("spilled_keys").load(Relaxed);
        assert!(spilled > 0, "the values do not fit");
    }
}
