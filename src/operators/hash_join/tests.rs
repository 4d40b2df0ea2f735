//! The operator against a nested-loop join by definition, over every kind of join, key, representation and shortage.

use super::build::{HashJoinBuild, HashJoinShared};
use super::plan::Plan;
use super::probe::HashJoinProbe;
use super::*;
use crate::data::{
    Batch, Bitmap, BitmapMut, BufMut, DataType, Dictionary, DictionaryIds, FlatVector, Scalar, Selection,
    Value, Values, Vector, ViewBuilder,
};
use crate::error::{Error, MemoryError, Result};
use crate::exec::{Combine, Finish, Flow, LaneCx, Need, OpenCx, Output, Pull, QueryCx, Sink, Transform};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::operators::hash::hash_word;
use crate::spill::SpillDirectory;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::task::Waker;

/// A seeded stream of numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        hash_word(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Columns of either side, by position.
const LONG: usize = 0;
const SHORT: usize = 1;
const TEXT: usize = 2;
const DECIMAL: usize = 3;
const REAL: usize = 4;
const FLAG: usize = 5;
const UNIQUE: usize = 6;
const NUMBER: usize = 7;
const TYPES: [DataType; 8] = [
    DataType::Int64,
    DataType::Int32,
    DataType::Utf8,
    DataType::Decimal { precision: 38, scale: 2 },
    DataType::Float64,
    DataType::Boolean,
    DataType::Int64,
    DataType::Int64,
];
/// Where ids of probe columns start.
const PROBE_IDS: usize = 100;
const MARK: ColumnId = ColumnId(999);

/// How values are drawn.
#[derive(Clone, Copy)]
struct Draw {
    /// One in so many is null; 0: none.
    nulls: u64,
    /// How many values there are.
    domain: u64,
}

fn value(noise: &mut Noise, column: usize, unique: usize, draw: Draw) -> Value {
    if column != UNIQUE && draw.nulls > 0 && noise.below(draw.nulls) == 0 {
        return Value::Null;
    }
    let small = i128::from(noise.below(draw.domain)) - 3;
    match column {
        LONG => Value::Int(small * 1_000_000_007),
        SHORT => Value::Int(small),
        TEXT => Value::Utf8("value ".repeat(1 + small.unsigned_abs() as usize % 7).into()),
        DECIMAL => Value::Int(if noise.below(2) == 0 { small } else { small * (1 << 70) }),
        REAL => Value::Float([0.0, -0.0, 1.5, f64::NAN, -f64::NAN, -7.25][noise.below(6) as usize]),
        FLAG => Value::Boolean(small > 0),
        UNIQUE => Value::Int(unique as i128 * 3),
        _ => Value::Int(small * 11),
    }
}

fn validity(values: &[Value], account: &Account) -> Option<Bitmap> {
    values.contains(&Value::Null).then(|| {
        let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
        bits.fill_from(|i| values[i] != Value::Null);
        bits.freeze()
    })
}

fn flat(values: &[Value], column: usize, account: &Account) -> FlatVector {
    let int = |v: &Value| if let Value::Int(i) = v { *i } else { 5 };
    let ints = || values.iter().map(int);
    let filled = match TYPES[column] {
        DataType::Boolean => {
            let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
            bits.fill_from(|i| values[i] == Value::Boolean(true));
            Values::Bool(bits.freeze())
        }
        DataType::Float64 => {
            let float = |v: &Value| if let Value::Float(f) = v { *f } else { 7.0 };
            let floats: Vec<f64> = values.iter().map(float).collect();
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
        DataType::Decimal { .. } if !ints().all(|i| i64::try_from(i).is_ok()) => {
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

/// Batches with the rows alive in them.
struct Side {
    batches: Vec<Batch>,
    rows: Vec<Vec<Value>>,
    _account: Account,
}

/// A column in one of its representations, with its values.
fn column(
    noise: &mut Noise,
    (at, rows, first): (usize, usize, usize),
    draw: Draw,
    (account, ids): (&Account, &DictionaryIds),
) -> (Vector, Vec<Value>) {
    match noise.below(if at == UNIQUE { 1 } else { 4 }) {
        0 | 1 => {
            let values: Vec<Value> = (0..rows).map(|i| value(noise, at, first + i, draw)).collect();
            (Vector::Flat(flat(&values, at, account)), values)
        }
        2 => {
            let constant = value(noise, at, 0, draw);
            let scalar = Scalar { data_type: TYPES[at].clone(), value: constant.clone() };
            (Vector::Constant { value: scalar, len: rows }, vec![constant; rows])
        }
        _ => {
            let entries: Vec<Value> =
                (0..6).map(|_| value(noise, at, 0, Draw { nulls: 0, ..draw })).collect();
            let codes: Vec<u32> = (0..rows).map(|_| noise.below(6) as u32).collect();
            let mut value = |&code: &u32| match draw.nulls {
                0 => entries[code as usize].clone(),
                nulls if noise.below(nulls) == 0 => Value::Null,
                _ => entries[code as usize].clone(),
            };
            let values: Vec<Value> = codes.iter().map(&mut value).collect();
            let dictionary = Arc::new(Dictionary::new(ids, flat(&entries, at, account)));
            let codes = BufMut::copy_of(account, &codes).expect("fits").freeze();
            (Vector::Dict { codes, validity: validity(&values, account), dictionary }, values)
        }
    }
}

fn side(seed: u64, batches: usize, most_rows: usize, draw: Draw) -> Side {
    let pool = Pool::new("input", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let ids = DictionaryIds::default();
    let noise = &mut Noise(seed);
    let mut side = Side { batches: Vec::new(), rows: Vec::new(), _account: account };
    let mut first = 0;
    for _ in 0..batches {
        let rows = 1 + noise.below(most_rows as u64) as usize;
        let cx = (&side._account, &ids);
        let columns: Vec<_> = (0..TYPES.len()).map(|at| column(noise, (at, rows, first), draw, cx)).collect();
        first += rows;
        let selects = noise.below(2) == 0;
        let mut alive: Vec<u32> = (0..rows as u32).filter(|_| !selects || noise.below(3) > 0).collect();
        if alive.is_empty() {
            alive.push(0);
        }
        for &row in &alive {
            side.rows.push(columns.iter().map(|(_, values)| values[row as usize].clone()).collect());
        }
        let indices = BufMut::copy_of(&side._account, &alive).expect("fits").freeze();
        let vectors = columns.into_iter().map(|(vector, _)| vector).collect();
        let selection = selects.then(|| Selection::new(indices));
        side.batches.push(Batch::new(vectors, rows).with_selection(selection));
    }
    side
}

fn expr(first_id: usize, at: usize) -> Expr {
    let id = ColumnId((first_id + at) as u32);
    Expr::Column { id, data_type: TYPES[at].clone(), nullable: true }
}

/// What pairs of rows must satisfy.
#[derive(Clone, Copy, Debug)]
struct Condition {
    /// Columns that must be equal, and whether nulls are.
    keys: &'static [(usize, bool)],
    /// Whether the probe's number must be greater than the build's.
    residual: bool,
}

const CONDITIONS: [Condition; 14] = [
    Condition { keys: &[(LONG, false)], residual: false },
    Condition { keys: &[(LONG, false)], residual: true },
    Condition { keys: &[(LONG, true)], residual: false },
    Condition { keys: &[(SHORT, false), (FLAG, true)], residual: false },
    Condition { keys: &[(LONG, false), (SHORT, false)], residual: true },
    Condition { keys: &[(TEXT, false)], residual: false },
    Condition { keys: &[(TEXT, true), (SHORT, false)], residual: true },
    Condition { keys: &[(DECIMAL, false)], residual: false },
    Condition { keys: &[(DECIMAL, true), (TEXT, true)], residual: false },
    Condition { keys: &[(REAL, false)], residual: false },
    Condition { keys: &[(UNIQUE, false)], residual: false },
    Condition { keys: &[(UNIQUE, false), (TEXT, false)], residual: false },
    Condition { keys: &[], residual: true },
    Condition { keys: &[], residual: false },
];

const KINDS: [HashJoinKind; 12] = [
    HashJoinKind::Inner,
    HashJoinKind::ProbeOuter,
    HashJoinKind::BuildOuter,
    HashJoinKind::FullOuter,
    HashJoinKind::ProbeSingle,
    HashJoinKind::ProbeSemi,
    HashJoinKind::ProbeAnti { null_aware: false },
    HashJoinKind::ProbeAnti { null_aware: true },
    HashJoinKind::ProbeMark { null_aware: false },
    HashJoinKind::ProbeMark { null_aware: true },
    HashJoinKind::BuildSemi,
    HashJoinKind::BuildAnti,
];

fn is_null_aware(kind: HashJoinKind) -> bool {
    matches!(
        kind,
        HashJoinKind::ProbeAnti { null_aware: true } | HashJoinKind::ProbeMark { null_aware: true }
    )
}

fn is_valid(kind: HashJoinKind, condition: Condition) -> bool {
    !is_null_aware(kind) || !condition.residual && matches!(condition.keys, [(_, false)])
}

/// Which sides come out.
fn emits(kind: HashJoinKind) -> (bool, bool) {
    match kind {
        HashJoinKind::ProbeSemi | HashJoinKind::ProbeAnti { .. } | HashJoinKind::ProbeMark { .. } => {
            (true, false)
        }
        HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => (false, true),
        _ => (true, true),
    }
}

fn spec(kind: HashJoinKind, condition: Condition) -> HashJoinSpec {
    let ids = |first: usize| (0..TYPES.len()).map(move |at| ColumnId((first + at) as u32));
    let key = |&(at, null_safe): &(usize, bool)| HashJoinKey {
        build: expr(0, at),
        probe: expr(PROBE_IDS, at),
        null_safe,
    };
    let above = Expr::Compare {
        op: CompareOp::Gt,
        left: Box::new(expr(PROBE_IDS, NUMBER)),
        right: Box::new(expr(0, NUMBER)),
    };
    let (emits_probe, emits_build) = emits(kind);
    let mut output = Vec::new();
    if emits_probe {
        output.extend(ids(PROBE_IDS));
    }
    if emits_build {
        output.extend(ids(0));
    }
    if matches!(kind, HashJoinKind::ProbeMark { .. }) {
        output.push(MARK);
    }
    HashJoinSpec {
        kind,
        build_layout: ids(0).collect(),
        build_types: TYPES.to_vec(),
        probe_layout: ids(PROBE_IDS).collect(),
        probe_types: TYPES.to_vec(),
        keys: condition.keys.iter().map(key).collect(),
        residual: if condition.residual { vec![above] } else { Vec::new() },
        output,
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

/// Whether two values of column `at` are equal; `None` if either is null.
fn equal(at: usize, a: &Value, b: &Value) -> Option<bool> {
    let typed = |v: &Value| Scalar { data_type: TYPES[at].clone(), value: v.clone() };
    typed(a).compare(&typed(b)).map(Ordering::is_eq)
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// The answer for a pair: whether it is asked about, and what it is.
fn answer(
    kind: HashJoinKind,
    condition: Condition,
    build: &[Value],
    probe: &[Value],
) -> (bool, Option<bool>) {
    let key = |&(at, null_safe): &(usize, bool)| match equal(at, &build[at], &probe[at]) {
        None if null_safe => Some(build[at] == Value::Null && probe[at] == Value::Null),
        equal => equal,
    };
    let keys = condition.keys.iter().map(key).fold(Some(true), and);
    let residual = match (&build[NUMBER], &probe[NUMBER]) {
        _ if !condition.residual => Some(true),
        (Value::Int(build), Value::Int(probe)) => Some(probe > build),
        _ => None,
    };
    if is_null_aware(kind) { (true, keys) } else { (keys == Some(true), residual) }
}

const TOO_MANY: &str = "a scalar subquery returned more than one row; use LIMIT 1 or an aggregate";

/// The join by definition, sorted; `None` if it must fail.
fn expected(kind: HashJoinKind, condition: Condition, build: &Side, probe: &Side) -> Option<Vec<String>> {
    let nulls = vec![Value::Null; TYPES.len()];
    let (emits_probe, emits_build) = emits(kind);
    let row = |probe: &[Value], build: &[Value], mark: Option<Value>| {
        let probe = probe.iter().filter(|_| emits_probe);
        let build = build.iter().filter(|_| emits_build);
        probe.chain(build).chain(&mark).map(canonical).collect::<Vec<_>>().join("|")
    };
    let mut rows = Vec::new();
    let mut has_match = vec![false; build.rows.len()];
    for p in &probe.rows {
        let answers: Vec<Option<bool>> = build
            .rows
            .iter()
            .map(|b| answer(kind, condition, b, p))
            .map(|(is_asked, answer)| if is_asked { answer } else { Some(false) })
            .collect();
        let matches: Vec<usize> = (0..answers.len()).filter(|&at| answers[at] == Some(true)).collect();
        matches.iter().for_each(|&at| has_match[at] = true);
        let mark = if !matches.is_empty() {
            Some(true)
        } else if answers.contains(&None) {
            None
        } else {
            Some(false)
        };
        match kind {
            HashJoinKind::Inner | HashJoinKind::BuildOuter => {
                rows.extend(matches.iter().map(|&at| row(p, &build.rows[at], None)));
            }
            HashJoinKind::ProbeOuter | HashJoinKind::FullOuter | HashJoinKind::ProbeSingle => {
                if kind == HashJoinKind::ProbeSingle && matches.len() > 1 {
                    return None;
                }
                rows.extend(matches.iter().map(|&at| row(p, &build.rows[at], None)));
                if matches.is_empty() {
                    rows.push(row(p, &nulls, None));
                }
            }
            HashJoinKind::ProbeSemi => rows.extend((mark == Some(true)).then(|| row(p, &nulls, None))),
            HashJoinKind::ProbeAnti { null_aware } => {
                let passes = if null_aware { mark == Some(false) } else { mark != Some(true) };
                rows.extend(passes.then(|| row(p, &nulls, None)));
            }
            HashJoinKind::ProbeMark { .. } => {
                rows.push(row(p, &nulls, Some(mark.map_or(Value::Null, Value::Boolean))));
            }
            HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => {}
        }
    }
    for (at, b) in build.rows.iter().enumerate() {
        match kind {
            HashJoinKind::BuildSemi if has_match[at] => rows.push(row(&nulls, b, None)),
            HashJoinKind::BuildOuter | HashJoinKind::FullOuter | HashJoinKind::BuildAnti
                if !has_match[at] =>
            {
                rows.push(row(&nulls, b, None));
            }
            _ => {}
        }
    }
    rows.sort_unstable();
    Some(rows)
}

/// How to run.
#[derive(Clone, Copy, Debug)]
struct Setting {
    lanes: usize,
    limit_bytes: usize,
    batch_rows: usize,
}

const AMPLE: Setting = Setting { lanes: 1, limit_bytes: 1 << 30, batch_rows: 1024 };

/// A run of the operator as pipelines would run it, all lanes in turn.
struct Run {
    pool: Pool,
    query: Arc<QueryCx>,
    metrics: Arc<OperatorMetrics>,
    setting: Setting,
}

impl Run {
    fn new(setting: Setting) -> Self {
        let pool = Pool::new("query", setting.limit_bytes);
        let Setting { lanes, batch_rows, .. } = setting;
        let knobs = Knobs { lanes, batch_rows, block_bytes: 32 << 10, fan_out: 8 };
        let spill = Arc::new(SpillDirectory::new(None, 0));
        let query = Arc::new(QueryCx::new(pool.clone(), knobs, spill, None, None));
        Self { pool, query, metrics: OperatorMetrics::new("HashJoin"), setting }
    }

    fn accounts(&self, need: Need) -> Result<Vec<Account>> {
        let open = |_| Ok(Account::open(&self.pool, need.lane_bytes, 4096, 64 << 10)?);
        (0..self.setting.lanes).map(open).collect()
    }

    fn open(&self, need: Need) -> Result<OpenCx<'_>> {
        OpenCx::granted(&self.query, self.setting.lanes, &self.metrics, need.shared_bytes)
    }

    fn cx<'a>(&'a self, account: &'a Account, lane: usize) -> LaneCx<'a> {
        LaneCx { query: &self.query, account, lane, waker: Waker::noop(), metrics: &self.metrics }
    }

    fn build(&self, sink: &HashJoinBuild, batches: &[Batch]) -> Result<()> {
        let need = sink.need(&self.query.knobs);
        let accounts = self.accounts(need)?;
        let shared = sink.open(&self.open(need)?)?;
        let mut locals = Vec::new();
        for (lane, account) in accounts.iter().enumerate() {
            locals.push(sink.local(&shared, &self.cx(account, lane))?);
        }
        for (number, batch) in batches.iter().enumerate() {
            let lane = number % self.setting.lanes;
            let cx = self.cx(&accounts[lane], lane);
            match sink.push(&shared, &mut locals[lane], batch.clone(), &cx)? {
                Flow::NeedInput => {}
                Flow::Done => break,
                Flow::Wait(wait) => panic!("{wait:?}"),
            }
        }
        for (lane, local) in locals.iter_mut().enumerate() {
            let combined = sink.combine(&shared, local, &self.cx(&accounts[lane], lane))?;
            assert!(matches!(combined, Combine::Ready));
        }
        drop(locals);
        let cx = self.cx(&accounts[0], 0);
        while let Finish::Tasks(tasks) = sink.finish(&shared, &cx)? {
            // In any order.
            for task in tasks.into_iter().rev() {
                task(&cx)?;
            }
        }
        Ok(())
    }

    fn probe(&self, probe: &HashJoinProbe, batches: &[Batch], emit: &mut dyn FnMut(Batch)) -> Result<()> {
        let need = probe.need(&self.query.knobs);
        let accounts = self.accounts(need)?;
        let table = probe.open(&self.open(need)?)?;
        let mut locals = Vec::new();
        for (lane, account) in accounts.iter().enumerate() {
            locals.push(probe.local(&table, &self.cx(account, lane))?);
        }
        let mut emit = |batch: Batch, most_rows: usize| {
            assert!(batch.rows() > 0 && batch.rows() <= most_rows.max(self.setting.batch_rows));
            emit(batch);
        };
        'batches: for (number, batch) in batches.iter().enumerate() {
            let lane = number % self.setting.lanes;
            let cx = self.cx(&accounts[lane], lane);
            let mut output = probe.push(&table, &mut locals[lane], batch.clone(), &cx)?;
            loop {
                match output {
                    Output::NeedInput => break,
                    Output::Emit(joined) => {
                        emit(joined, batch.rows());
                        break;
                    }
                    Output::EmitMore(joined) => emit(joined, batch.rows()),
                    Output::Wait(_) => {}
                    Output::Done(last) => {
                        assert!(last.is_none());
                        break 'batches;
                    }
                }
                output = probe.resume(&table, &mut locals[lane], &cx)?;
            }
        }
        if probe.has_drain() {
            let mut open = vec![true; self.setting.lanes];
            while open.contains(&true) {
                for (lane, local) in locals.iter_mut().enumerate().filter(|(lane, _)| open[*lane]) {
                    match probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                        Pull::Emit(batch) => emit(batch, 0),
                        Pull::Wait(wait) => panic!("{wait:?}"),
                        Pull::Done => {}
                    }
                }
                // A lane that is done stays done: ask each until all say so in one round.
                for (lane, local) in locals.iter_mut().enumerate() {
                    if let Pull::Emit(batch) = probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                        emit(batch, 0);
                    } else {
                        open[lane] = false;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Runs a join; batches that come out go to `emit`. Memory must have returned in any case.
fn run(
    spec: HashJoinSpec,
    build: &[Batch],
    probe: &[Batch],
    setting: Setting,
    emit: &mut dyn FnMut(Batch),
) -> Result<()> {
    let run = Run::new(setting);
    let outcome = {
        let plan = Arc::new(Plan::new(spec));
        let handoff: Handoff<HashJoinShared> = Handoff::new();
        let sink = HashJoinBuild::new(Arc::clone(&plan), handoff.clone());
        let transform = HashJoinProbe::new(plan, handoff);
        run.build(&sink, build).and_then(|()| run.probe(&transform, probe, emit))
    };
    let Run { pool, query, .. } = run;
    drop(query);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    outcome
}

/// The rows a join gives, sorted.
fn joined(spec: HashJoinSpec, build: &Side, probe: &Side, setting: Setting) -> Result<Vec<String>> {
    let type_of = |id: &ColumnId| match *id {
        MARK => DataType::Boolean,
        ColumnId(id) => TYPES[id as usize % PROBE_IDS].clone(),
    };
    let types: Vec<DataType> = spec.output.iter().map(type_of).collect();
    let pool = Pool::new("output", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let mut rows = Vec::new();
    run(spec, &build.batches, &probe.batches, setting, &mut |batch| {
        let batch = batch.compact(&account).expect("fits");
        for row in 0..batch.rows() {
            let values = batch.columns().iter().zip(&types).map(|(c, t)| canonical(&c.scalar(row, t).value));
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    })?;
    rows.sort_unstable();
    Ok(rows)
}

fn check(build: &Side, probe: &Side, settings: &[Setting]) {
    for condition in CONDITIONS {
        for kind in KINDS {
            if !is_valid(kind, condition) {
                continue;
            }
            let expected = expected(kind, condition, build, probe);
            for &setting in settings {
                let what = format!("{kind:?} on {condition:?}, {setting:?}");
                match (joined(spec(kind, condition), build, probe, setting), &expected) {
                    (Ok(rows), Some(expected)) => {
                        assert_eq!(rows.len(), expected.len(), "{what}");
                        let differing = rows.iter().zip(expected).find(|(a, b)| a != b);
                        assert!(differing.is_none(), "{what}: {differing:#?}");
                    }
                    (Err(Error::Plan(error)), None) => assert_eq!(error.to_string(), TOO_MANY, "{what}"),
                    (Err(error), _) => panic!("{what}: {error}"),
                    (Ok(_), None) => panic!("{what}: a second match passed"),
                }
            }
        }
    }
}

const SETTINGS: [Setting; 3] =
    [AMPLE, Setting { lanes: 3, ..AMPLE }, Setting { lanes: 2, batch_rows: 7, ..AMPLE }];

#[test]
fn joins_agree_with_the_definition_with_nulls_and_duplicates() {
    let draw = Draw { nulls: 7, domain: 9 };
    for seed in 0..3 {
        check(&side(seed, 4, 40, draw), &side(seed + 100, 5, 40, draw), &SETTINGS);
    }
}

#[test]
fn joins_agree_with_the_definition_without_nulls() {
    let draw = Draw { nulls: 0, domain: 60 };
    for seed in 10..12 {
        check(&side(seed, 3, 60, draw), &side(seed + 100, 4, 60, draw), &SETTINGS);
    }
}

#[test]
fn joins_agree_with_the_definition_where_most_values_are_null() {
    let build = side(20, 2, 20, Draw { nulls: 2, domain: 5 });
    let probe = side(21, 3, 20, Draw { nulls: 1, domain: 5 });
    check(&build, &probe, &SETTINGS);
    check(&probe, &build, &SETTINGS);
}

#[test]
fn either_side_may_be_empty() {
    let draw = Draw { nulls: 4, domain: 5 };
    let (none, some) = (side(0, 0, 1, draw), side(30, 3, 20, draw));
    check(&none, &some, &SETTINGS);
    check(&some, &none, &SETTINGS);
    check(&none, &none, &SETTINGS);
}

#[test]
fn single_build_rows_join_in_every_way() {
    for seed in 40..46 {
        let draw = Draw { nulls: 3, domain: 3 };
        check(&side(seed, 1, 1, draw), &side(seed + 100, 2, 30, draw), &[AMPLE]);
    }
}

/// Batches of two `BIGINT` columns: a key, and the number of the row.
fn ints(rows: usize, batch_rows: usize, account: &Account, key: impl Fn(usize) -> i64) -> Vec<Batch> {
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

fn int_spec(kind: HashJoinKind, output: &[u32]) -> HashJoinSpec {
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
    }
}

fn int_rows(batch: &Batch) -> impl Iterator<Item = Vec<i64>> + '_ {
    let int = |column: &Vector, row: usize| {
        column.scalar(row, &DataType::Int64).as_int().and_then(|v| i64::try_from(v).ok()).unwrap_or(-1)
    };
    let selected = batch.selection().map(Selection::indices);
    (0..batch.rows()).map(move |at| {
        let row = selected.map_or(at, |rows| rows[at] as usize);
        batch.columns().iter().map(|c| int(c, row)).collect()
    })
}

fn input_account() -> Account {
    let pool = Pool::new("input", 1 << 30);
    Account::open(&pool, 0, 1 << 20, 0).expect("fits")
}

#[test]
fn a_large_build_is_found_whole_over_many_chunks() {
    let account = input_account();
    let (rows, keys) = (300_000, 100_000);
    let key = |n: usize| (hash_word((n % keys) as u64) >> 1) as i64;
    let build = ints(rows, 4096, &account, key);
    // Every second probe key is there.
    let probe = ints(2 * keys, 4096, &account, |n| if n % 2 == 0 { key(n / 2) } else { -1 - n as i64 });
    for lanes in [1, 3] {
        let setting = Setting { lanes, batch_rows: 4096, ..AMPLE };
        let mut seen = vec![0u8; rows];
        run(int_spec(HashJoinKind::Inner, &[3, 1, 0]), &build, &probe, setting, &mut |batch| {
            for row in int_rows(&batch) {
                assert_eq!((row[1] as usize % keys) * 2, row[0] as usize);
                assert_eq!(row[2], key(row[1] as usize));
                seen[row[1] as usize] += 1;
            }
        })
        .expect("ample");
        assert!(seen.iter().all(|&times| times == 1), "each build row has one probe row");
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
fn a_build_larger_than_the_budget_is_a_memory_error_and_gives_all_back() {
    let account = input_account();
    let build = ints(200_000, 2048, &account, |n| n as i64);
    let probe = ints(10, 10, &account, |n| n as i64);
    let mut refused = 0;
    // From barely the floors to nearly enough, so that every stage is refused once.
    for limit_bytes in (1 << 20..24 << 20).step_by(700_001) {
        let setting = Setting { lanes: 2, limit_bytes, batch_rows: 1024 };
        let spec = int_spec(HashJoinKind::FullOuter, &[0, 1, 2, 3]);
        match run(spec, &build, &probe, setting, &mut |_| {}) {
            Ok(()) => {}
            Err(Error::Memory(error)) => {
                assert!(matches!(*error, MemoryError::Exceeded { .. }), "{error}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 5, "{refused} budgets were refused");
}

#[test]
fn a_small_build_fits_its_floor() {
    let account = input_account();
    let build = ints(900, 450, &account, |n| n as i64);
    let probe = ints(900, 450, &account, |n| 2 * n as i64);
    let spec = || int_spec(HashJoinKind::FullOuter, &[0, 1, 2, 3]);
    let knobs = Knobs { lanes: 2, batch_rows: 512, block_bytes: 32 << 10, fan_out: 8 };
    let plan = Plan::new(spec());
    let (build_need, probe_need) = (plan.build_need(&knobs), plan.probe_need(&knobs));
    // The table stays while the probe runs.
    let lane_bytes = build_need.lane_bytes.max(probe_need.lane_bytes);
    let limit_bytes = 2 * lane_bytes + build_need.shared_bytes;
    let setting = Setting { lanes: 2, limit_bytes, batch_rows: 512 };
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
