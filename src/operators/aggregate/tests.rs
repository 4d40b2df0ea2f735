//! The operator against aggregation by definition, over every kind of key, representation and shortage.

use super::groups::Kind;
use super::intake::Intake;
use super::sink::HashAggregateSink;
use super::source::HashAggregateSource;
use super::spec::Plan;
use super::*;
use crate::data::{
    Batch, BitmapMut, BufMut, DataType, Dictionary, DictionaryIds, FlatVector, Scalar, Selection, Value,
    Values, Vector, ViewBuilder,
};
use crate::error::{Error, MemoryError, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{Combine, Finish, Flow, LaneCx, Need, OpenCx, Pull, QueryCx, Sink, Source};
use crate::expr::{ColumnId, Expr};
use crate::functions::aggregate::{GroupSet, find};
use crate::functions::{AggregateCall, Rows};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use std::collections::BTreeMap;
use std::task::Waker;

/// A seeded stream of numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        hash::hash_word(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

const WIDE: DataType = DataType::Decimal { precision: 38, scale: 2 };

/// Columns of the input, by position.
const LONG: usize = 0;
const TEXT: usize = 1;
const FLAG: usize = 2;
const REAL: usize = 3;
const DECIMAL: usize = 4;
const SHORT: usize = 5;
const NUMBER: usize = 6;
const UNIQUE: usize = 7;
const TYPES: [DataType; 8] = [
    DataType::Int64,
    DataType::Utf8,
    DataType::Boolean,
    DataType::Float64,
    WIDE,
    DataType::Int32,
    DataType::Int64,
    DataType::Int64,
];

fn value(noise: &mut Noise, column: usize, unique: i128) -> Value {
    if column != UNIQUE && noise.below(7) == 0 {
        return Value::Null;
    }
    let small = i128::from(noise.below(9)) - 4;
    match column {
        LONG => Value::Int(small * 1_000_000_007),
        TEXT => Value::Utf8("value ".repeat(noise.below(5) as usize).into()),
        FLAG => Value::Boolean(small > 0),
        REAL => Value::Float([0.0, -0.0, 1.5, f64::NAN, -f64::NAN, -7.25][noise.below(6) as usize]),
        DECIMAL => Value::Int(if noise.below(2) == 0 { small } else { small * (1 << 70) }),
        SHORT => Value::Int(small),
        UNIQUE => Value::Int(unique),
        _ => Value::Int(i128::from(noise.next() as i32)),
    }
}

fn flat(values: &[Value], column: usize, account: &Account) -> FlatVector {
    let int = |v: &Value| if let Value::Int(i) = v { *i } else { 0 };
    let ints = || values.iter().map(int);
    let fits = ints().all(|i| i64::try_from(i).is_ok());
    let filled = match TYPES[column] {
        DataType::Boolean => {
            let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
            bits.fill_from(|i| values[i] == Value::Boolean(true));
            Values::Bool(bits.freeze())
        }
        DataType::Float64 => {
            let floats: Vec<f64> =
                values.iter().map(|v| if let Value::Float(f) = v { *f } else { 7.0 }).collect();
            Values::F64(BufMut::copy_of(account, &floats).expect("fits").freeze())
        }
        DataType::Utf8 => {
            let mut builder = ViewBuilder::new(account, values.len()).expect("fits");
            for v in values {
                let text = if let Value::Utf8(s) = v { s.as_bytes() } else { b"junk" };
                builder.push(account, text).expect("fits");
            }
            Values::View(builder.freeze())
        }
        DataType::Int32 => {
            let ints: Vec<i32> = ints().map(|i| i as i32).collect();
            Values::I32(BufMut::copy_of(account, &ints).expect("fits").freeze())
        }
        DataType::Decimal { .. } if !fits => {
            let ints: Vec<i128> = ints().collect();
            Values::I128(BufMut::copy_of(account, &ints).expect("fits").freeze())
        }
        _ => {
            let ints: Vec<i64> = ints().map(|i| i as i64).collect();
            Values::I64(BufMut::copy_of(account, &ints).expect("fits").freeze())
        }
    };
    FlatVector { values: filled, validity: validity(values, account), bounds: None }
}

fn validity(values: &[Value], account: &Account) -> Option<crate::data::Bitmap> {
    values.contains(&Value::Null).then(|| {
        let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
        bits.fill_from(|i| values[i] != Value::Null);
        bits.freeze()
    })
}

/// Input batches with the rows alive in them.
struct Input {
    batches: Vec<Batch>,
    rows: Vec<Vec<Value>>,
    _account: Account,
}

/// A column in one of its representations, with its values.
fn column(
    noise: &mut Noise,
    at: usize,
    rows: usize,
    first: i128,
    cx: (&Account, &DictionaryIds),
) -> (Vector, Vec<Value>) {
    let (account, ids) = cx;
    match noise.below(if at == UNIQUE { 1 } else { 4 }) {
        0 | 1 => {
            let values: Vec<Value> = (0..rows).map(|i| value(noise, at, first + i as i128)).collect();
            (Vector::Flat(flat(&values, at, account)), values)
        }
        2 => {
            let constant = value(noise, at, 0);
            let scalar = Scalar { data_type: TYPES[at].clone(), value: constant.clone() };
            (Vector::Constant { value: scalar, len: rows }, vec![constant; rows])
        }
        _ => {
            let entries = (0..6).map(|_| value(noise, at, 0)).filter(|v| *v != Value::Null);
            let mut entries: Vec<Value> = entries.collect();
            if entries.is_empty() {
                entries.push(if at == TEXT { Value::Utf8("only".into()) } else { Value::Int(0) });
            }
            let codes: Vec<u32> = (0..rows).map(|_| noise.below(entries.len() as u64) as u32).collect();
            let values = codes
                .iter()
                .map(|&c| if noise.below(5) == 0 { Value::Null } else { entries[c as usize].clone() });
            let values: Vec<Value> = values.collect();
            let dictionary = Arc::new(Dictionary::new(ids, flat(&entries, at, account)));
            let codes = BufMut::copy_of(account, &codes).expect("fits").freeze();
            (Vector::Dict { codes, validity: validity(&values, account), dictionary }, values)
        }
    }
}

fn input(seed: u64, batches: usize, batch_rows: usize) -> Input {
    let pool = Pool::new("input", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let ids = DictionaryIds::default();
    let noise = &mut Noise(seed);
    let mut out = Input { batches: Vec::new(), rows: Vec::new(), _account: account };
    let mut unique = 0;
    for _ in 0..batches {
        let rows = 1 + noise.below(batch_rows as u64) as usize;
        let columns: Vec<_> =
            (0..TYPES.len()).map(|at| column(noise, at, rows, unique, (&out._account, &ids))).collect();
        unique += rows as i128;
        let selects = noise.below(2) == 0;
        let alive: Vec<u32> = (0..rows as u32).filter(|_| !selects || noise.below(3) > 0).collect();
        for &row in &alive {
            out.rows.push(columns.iter().map(|(_, values)| values[row as usize].clone()).collect());
        }
        let selection =
            selects.then(|| Selection::new(BufMut::copy_of(&out._account, &alive).expect("fits").freeze()));
        let vectors = columns.into_iter().map(|(vector, _)| vector).collect();
        out.batches.push(Batch::new(vectors, rows).with_selection(selection));
    }
    out
}

fn expr(at: usize) -> Expr {
    Expr::Column { id: ColumnId(at as u32), data_type: TYPES[at].clone(), nullable: true }
}

fn call(name: &str, argument: Option<usize>, filter: Option<usize>) -> AggregateCall {
    let function = find(name).expect("in the library");
    let arguments: Vec<Expr> = argument.into_iter().map(expr).collect();
    let types: Vec<DataType> = arguments.iter().map(Expr::data_type).collect();
    let (_, data_type) = function.signature(&types).expect("takes the type");
    AggregateCall { function, arguments, distinct: false, filter: filter.map(expr), data_type }
}

fn spec(groups: &[usize]) -> AggregateSpec {
    AggregateSpec {
        layout: (0..TYPES.len() as u32).map(ColumnId).collect(),
        groups: groups.iter().map(|&at| expr(at)).collect(),
        aggregates: vec![
            call("count", None, None),
            call("sum", Some(NUMBER), None),
            call("min", Some(TEXT), None),
            call("max", Some(TEXT), Some(FLAG)),
            call("count", Some(NUMBER), Some(FLAG)),
            call("max", Some(REAL), None),
        ],
        has_few_strings: false,
    }
}

/// A value that equal values share.
fn canonical(value: &Value) -> String {
    match value {
        Value::Float(f) if f.is_nan() => "NaN".to_owned(),
        Value::Float(f) => format!("{:?}", f + 0.0),
        other => format!("{other:?}"),
    }
}

type Answer = BTreeMap<Vec<String>, Vec<String>>;

/// The answer by definition.
fn expected(rows: &[Vec<Value>], groups: &[usize]) -> Answer {
    let mut members: BTreeMap<Vec<String>, Vec<&Vec<Value>>> = BTreeMap::new();
    if groups.is_empty() {
        members.insert(Vec::new(), Vec::new());
    }
    for row in rows {
        members.entry(groups.iter().map(|&at| canonical(&row[at])).collect()).or_default().push(row);
    }
    let aggregate = |rows: Vec<&Vec<Value>>| {
        let some = |at: usize, filters: bool| -> Vec<Value> {
            let passing = rows.iter().filter(|row| !filters || row[FLAG] == Value::Boolean(true));
            passing.map(|row| row[at].clone()).filter(|v| *v != Value::Null).collect()
        };
        let best = |at: usize, filters: bool, is_max: bool| {
            let typed = |v: &Value| Scalar { data_type: TYPES[at].clone(), value: v.clone() };
            let values = some(at, filters).into_iter();
            let order = |a: &Value, b: &Value| typed(a).compare(&typed(b)).expect("comparable");
            if is_max { values.max_by(order) } else { values.min_by(order) }.unwrap_or(Value::Null)
        };
        let ints = some(NUMBER, false);
        let sum: i128 = ints.iter().map(|v| if let Value::Int(i) = v { *i } else { 0 }).sum();
        let values = [
            Value::Int(rows.len() as i128),
            if ints.is_empty() { Value::Null } else { Value::Int(sum) },
            best(TEXT, false, false),
            best(TEXT, true, true),
            Value::Int(some(NUMBER, true).len() as i128),
            best(REAL, false, true),
        ];
        values.iter().map(canonical).collect()
    };
    members.into_iter().map(|(key, rows)| (key, aggregate(rows))).collect()
}

/// How to run.
#[derive(Clone, Copy)]
struct Setting {
    lanes: usize,
    limit_bytes: usize,
    refuse_grant: u16,
    batch_rows: usize,
}

const AMPLE: Setting = Setting { lanes: 1, limit_bytes: 1 << 30, refuse_grant: 0, batch_rows: 1024 };

/// What a run gave.
struct Outcome {
    answer: Answer,
    spilled_bytes: u64,
}

type Env<'a> = (&'a Arc<QueryCx>, &'a Arc<OperatorMetrics>);

fn lane_cx<'a>((query, metrics): Env<'a>, account: &'a Account, lane: usize) -> LaneCx<'a> {
    LaneCx { query, account, lane, waker: Waker::noop(), metrics }
}

/// Runs the operator as a pipeline would, all lanes in turn.
fn run(spec: AggregateSpec, batches: &[Batch], setting: Setting) -> Result<Outcome> {
    let Setting { lanes, limit_bytes, refuse_grant, batch_rows } = setting;
    let pool = Pool::new("query", limit_bytes);
    let knobs = Knobs { lanes, batch_rows, block_bytes: 32 << 10, fan_out: 8 };
    let root = SpillDirectory::new(None, 1 << 32);
    let faults = FaultConfig { refuse_grant, seed: 5, ..FaultConfig::default() };
    let faults = (refuse_grant > 0).then(|| Arc::new(Faults::new(faults)));
    let query = Arc::new(QueryCx::new(pool.clone(), knobs, Arc::new(root.for_query(None)), None, faults));
    let metrics = OperatorMetrics::new("HashAggregate");
    let group_types: Vec<DataType> = spec.groups.iter().map(Expr::data_type).collect();
    let types: Vec<DataType> =
        group_types.iter().cloned().chain(spec.aggregates.iter().map(|a| a.data_type.clone())).collect();
    let plan = Arc::new(Plan::new(spec));
    let handoff = Handoff::new();
    let sink = HashAggregateSink::new(Arc::clone(&plan), handoff.clone());
    let source = HashAggregateSource::new(Arc::clone(&plan), handoff);
    let open_cx = |need: Need| OpenCx::granted(&query, lanes, &metrics, need.shared_bytes);
    let mut answer = Answer::new();
    let env = (&query, &metrics);
    {
        let accounts = |lane_bytes| -> Result<Vec<Account>> {
            (0..lanes).map(|_| Ok(Account::open(&pool, lane_bytes, 4096, 64 << 10)?)).collect()
        };
        let sink_accounts = accounts(sink.need(&knobs).lane_bytes)?;
        let shared = sink.open(&open_cx(sink.need(&knobs))?)?;
        let mut locals = Vec::new();
        for (lane, account) in sink_accounts.iter().enumerate() {
            locals.push(sink.local(&shared, &lane_cx(env, account, lane))?);
        }
        for (number, batch) in batches.iter().enumerate() {
            let lane = number % lanes;
            let cx = lane_cx(env, &sink_accounts[lane], lane);
            let mut flow = sink.push(&shared, &mut locals[lane], batch.clone(), &cx)?;
            while let Flow::Wait(_) = flow {
                flow = sink.resume(&shared, &mut locals[lane], &cx)?;
            }
            assert!(matches!(flow, Flow::NeedInput));
        }
        for (lane, local) in locals.iter_mut().enumerate() {
            let combined = sink.combine(&shared, local, &lane_cx(env, &sink_accounts[lane], lane))?;
            assert!(matches!(combined, Combine::Ready));
        }
        drop(locals);
        let cx = lane_cx(env, &sink_accounts[0], 0);
        while let Finish::Tasks(tasks) = sink.finish(&shared, &cx)? {
            for task in tasks {
                task(&cx)?;
            }
        }
        drop((shared, sink_accounts));

        let source_accounts = accounts(source.need(&knobs).lane_bytes)?;
        let shared = source.open(&open_cx(source.need(&knobs))?)?;
        let mut locals = Vec::new();
        for (lane, account) in source_accounts.iter().enumerate() {
            locals.push(Some(source.local(&shared, &lane_cx(env, account, lane))?));
        }
        while locals.iter().any(Option::is_some) {
            for (lane, slot) in locals.iter_mut().enumerate() {
                let Some(local) = slot else { continue };
                match source.pull(&shared, local, &lane_cx(env, &source_accounts[lane], lane))? {
                    Pull::Emit(batch) => {
                        assert!(batch.rows() > 0 && batch.rows() <= batch_rows);
                        for row in 0..batch.rows() {
                            let values = batch.columns().iter().zip(&types);
                            let values = values.map(|(c, t)| canonical(&c.scalar(row, t).value));
                            let mut key: Vec<String> = values.collect();
                            let results = key.split_off(group_types.len());
                            assert!(answer.insert(key, results).is_none(), "a group comes out once");
                        }
                    }
                    Pull::Wait(_) => {}
                    Pull::Done => *slot = None,
                }
            }
        }
    }
    drop((sink, source));
    let spilled_bytes = query.spill.written_bytes();
    drop(query);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    assert_eq!(root.used_bytes(), 0, "all files are gone");
    Ok(Outcome { answer, spilled_bytes })
}

const KEYS: [&[usize]; 12] = [
    &[],
    &[LONG],
    &[TEXT],
    &[FLAG],
    &[REAL],
    &[DECIMAL],
    &[TEXT, FLAG],
    &[LONG, SHORT],
    &[LONG, SHORT, SHORT],
    &[DECIMAL, LONG],
    &[UNIQUE],
    &[TEXT, UNIQUE, REAL, DECIMAL, FLAG],
];

/// The outcome with strings among the keys numbered, if there are any, which must be that without.
fn run_both(groups: &[usize], batches: &[Batch], setting: Setting) -> Result<Outcome> {
    let outcome = run(spec(groups), batches, setting)?;
    if !groups.contains(&TEXT) {
        return Ok(outcome);
    }
    let numbered = run(AggregateSpec { has_few_strings: true, ..spec(groups) }, batches, setting)?;
    assert!(numbered.answer == outcome.answer, "keys {groups:?}, numbered");
    assert_eq!(numbered.spilled_bytes > 0, outcome.spilled_bytes > 0, "keys {groups:?}");
    Ok(numbered)
}

#[test]
fn groups_agree_with_the_definition_for_every_kind_of_key() {
    for seed in 0..4 {
        let input = input(seed, 12, 900);
        for groups in KEYS {
            let expected = expected(&input.rows, groups);
            for lanes in [1, 3] {
                let outcome = run_both(groups, &input.batches, Setting { lanes, ..AMPLE }).expect("ample");
                assert_eq!(outcome.answer, expected, "keys {groups:?}, seed {seed}, {lanes} lanes");
                assert_eq!(outcome.spilled_bytes, 0);
            }
        }
    }
}

#[test]
fn refused_grants_change_nothing_but_spill() {
    let input = input(9, 16, 400);
    // Groups of a small domain are counted in place and need no grant; the others must have spilled.
    let mut spilling_keys = 0;
    for groups in KEYS {
        let expected = expected(&input.rows, groups);
        for (lanes, refuse_grant) in [(1, u16::MAX), (1, 20_000), (3, 30_000), (2, 3_000)] {
            let setting = Setting { lanes, refuse_grant, ..AMPLE };
            let outcome = run_both(groups, &input.batches, setting).expect("ample");
            assert_eq!(outcome.answer, expected, "keys {groups:?}, {lanes} lanes, {refuse_grant}");
            spilling_keys += usize::from(refuse_grant == u16::MAX && outcome.spilled_bytes > 0);
        }
    }
    assert!(spilling_keys > KEYS.len() / 2, "{spilling_keys} of {} kinds of keys spilled", KEYS.len());
}

#[test]
fn many_groups_fit_a_small_budget() {
    let input = input(3, 120, 1024);
    for groups in [&[UNIQUE][..], &[TEXT, UNIQUE, REAL, DECIMAL, FLAG]] {
        let expected = expected(&input.rows, groups);
        for lanes in [1, 2] {
            let limit_bytes = lanes * (5 << 20) / 2;
            let setting = Setting { lanes, limit_bytes, batch_rows: 512, ..AMPLE };
            let outcome = run_both(groups, &input.batches, setting).expect("floors fit");
            assert!(outcome.spilled_bytes > 0, "{} groups need more than the budget", expected.len());
            assert!(outcome.answer == expected, "keys {groups:?}, {lanes} lanes");
        }
    }
}

#[test]
fn many_groups_of_many_lanes_come_out_once_in_order_or_not() {
    let input = input(4, 60, 1024);
    // Alone, the numbers of rows ascend in every lane's table.
    for groups in [&[UNIQUE][..], &[UNIQUE, LONG], &[TEXT, UNIQUE]] {
        let expected = expected(&input.rows, groups);
        assert!(expected.len() > 10_000, "enough for several spans or ranges");
        let outcome = run_both(groups, &input.batches, Setting { lanes: 3, ..AMPLE }).expect("ample");
        assert!(outcome.answer == expected, "keys {groups:?}");
        assert_eq!(outcome.spilled_bytes, 0);
    }
}

#[test]
fn keys_that_begin_to_repeat_when_nobody_looks_come_out_once() {
    let input = input(6, 40, 1024);
    let batches: Vec<Batch> = [&input.batches[..], &input.batches[..20], &input.batches[..]].concat();
    let (times, rows) = (&input.rows, input.batches[..20].iter().map(Batch::rows).sum::<usize>());
    let rows = [&times[..], &times[..rows], &times[..]].concat();
    for groups in [&[UNIQUE][..], &[DECIMAL, UNIQUE], &[TEXT, UNIQUE]] {
        let expected = expected(&rows, groups);
        for (lanes, limit_bytes) in [(1, 1 << 30), (2, 1 << 30), (3, 1 << 30), (2, 5 << 20)] {
            let outcome = run(spec(groups), &batches, Setting { lanes, limit_bytes, ..AMPLE }).expect("fits");
            assert!(outcome.answer == expected, "keys {groups:?}, {lanes} lanes, {limit_bytes} bytes");
        }
    }
}

/// What tables by themselves need, keyed by one column and without aggregates.
struct Tables {
    pool: Pool,
    query: Arc<QueryCx>,
    metrics: Arc<OperatorMetrics>,
    plan: Arc<Plan>,
    scratch: Account,
}

impl Tables {
    fn keyed_by(column: usize) -> Self {
        let pool = Pool::new("query", 1 << 30);
        let knobs = Knobs { lanes: 1, batch_rows: 1024, block_bytes: 32 << 10, fan_out: 8 };
        let spill = Arc::new(SpillDirectory::new(None, 1 << 32).for_query(None));
        let query = Arc::new(QueryCx::new(pool.clone(), knobs, spill, None, None));
        let metrics = OperatorMetrics::new("HashAggregate");
        let plan = Arc::new(Plan::new(AggregateSpec { aggregates: vec![], ..spec(&[column]) }));
        let scratch = Account::open(&pool, 1 << 20, 4096, 64 << 10).expect("ample");
        Self { pool, query, metrics, plan, scratch }
    }

    fn cx(&self) -> LaneCx<'_> {
        lane_cx((&self.query, &self.metrics), &self.scratch, 0)
    }

    fn table(&self) -> Intake {
        let account = Account::open(&self.pool, 1 << 20, 4096, 64 << 10).expect("ample");
        Intake::new(&self.plan, account, 1 << 20, 8).expect("ample")
    }

    fn count(&self, intake: &mut Intake, keys: FlatVector, rows: usize) {
        let batch = Batch::new(vec![Vector::Flat(keys)], rows);
        let rows = Rows::All(batch.physical_rows());
        let added = intake.add(Kind::Rows, batch.columns(), rows, &mut 0, &self.cx()).expect("ample");
        assert_eq!(added, Ok(()));
    }
}

/// Groups of a table that is watched, and how many of them are found at the end, after counting `keys`.
fn watched(keys: impl Iterator<Item = i64>) -> (usize, usize) {
    let tables = Tables::keyed_by(UNIQUE);
    let mut intake = tables.table();
    let keys: Vec<i64> = keys.collect();
    for keys in keys.chunks(1024) {
        let values = Values::I64(BufMut::copy_of(&tables.scratch, keys).expect("ample").freeze());
        tables.count(&mut intake, FlatVector { values, validity: None, bounds: None }, keys.len());
        intake.watch();
    }
    let groups = intake.groups().len();
    (groups, intake.slots().found(groups))
}

#[test]
fn groups_that_are_all_known_merge_with_a_table_that_has_nulls() {
    let tables = Tables::keyed_by(NUMBER);
    let table = |values: &[Value]| {
        let mut intake = tables.table();
        tables.count(&mut intake, flat(values, NUMBER, &tables.scratch), values.len());
        intake
    };
    let known: Vec<Value> = (0..500).map(Value::Int).collect();
    let with_null: Vec<Value> = known.iter().cloned().chain([Value::Null]).collect();
    let (mut to, from) = (table(&known), table(&with_null));
    for (start, len, groups) in [(0, 500, 500), (500, 1, 501), (0, 501, 501)] {
        let merged = to.merge(from.groups(), GroupSet::Range { start, len }, &tables.cx());
        assert_eq!(merged.expect("ample"), (len, Ok(())));
        assert_eq!(to.groups().len(), groups);
    }
}

#[test]
fn only_keys_that_do_not_come_back_are_forgotten() {
    // In order, four rows each: old groups need not be found, and no key comes twice but where it was cut in two.
    let (groups, found) = watched((0..200_000).map(|row| row / 4));
    assert!((50_000..50_100).contains(&groups) && found < 10_000, "{found} of {groups} found");
    // All different: nothing needs to be found.
    let (groups, found) = watched(0..50_000);
    assert!(groups == 50_000 && found < 10_000, "{found} of {groups} found");
    // Many keys, each again and again: found, but for what was forgotten before that was known.
    for distinct in [500, 3_000, 20_000] {
        let mut noise = Noise(3);
        let (groups, found) = watched((0..400_000).map(|_| noise.below(distinct) as i64));
        assert!(groups < 2 * distinct as usize, "{groups} groups of {distinct} keys");
        assert_eq!(found, groups, "{distinct} keys");
    }
}

#[test]
fn without_rows_there_is_one_row_without_groups_and_none_with() {
    let none = run(spec(&[LONG]), &[], AMPLE).expect("ample");
    assert!(none.answer.is_empty());
    let one = run(spec(&[]), &[], Setting { lanes: 2, ..AMPLE }).expect("ample");
    assert_eq!(one.answer, expected(&[], &[]));
}

#[test]
fn a_budget_too_small_says_so() {
    let input = input(5, 2, 100);
    let setting = Setting { limit_bytes: 64 << 10, ..AMPLE };
    let Err(error) = run(spec(&[TEXT]), &input.batches, setting) else { panic!("floors do not fit") };
    assert!(matches!(error, Error::Memory(e) if matches!(*e, MemoryError::Exceeded { .. })));
}

#[test]
fn distinct_aggregates_are_refused_by_name() {
    let mut spec = spec(&[LONG]);
    spec.aggregates[1].distinct = true;
    let Err(error) = run(spec, &[], AMPLE) else { panic!("not supported") };
    assert!(error.to_string().contains("sum(DISTINCT"), "{error}");
}
