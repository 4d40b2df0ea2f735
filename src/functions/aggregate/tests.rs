//! Every function against a plain computation over values, for every shape of input, and export–merge round trips.

use super::*;
use crate::data::{
    BitmapMut, BufMut, Dictionary, DictionaryIds, FlatVector, Scalar, TimeUnit, Value, Values, ViewBuilder,
};
use crate::mem::Pool;

/// A seeded stream of numbers.
pub(super) struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

const DECIMAL: DataType = DataType::Decimal { precision: 12, scale: 2 };
const WIDE: DataType = DataType::Decimal { precision: 38, scale: 4 };

fn value(noise: &mut Noise, data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => Value::Boolean(noise.below(2) == 0),
        DataType::Float64 => Value::Float((noise.below(2000) as f64 - 1000.0) / 8.0),
        DataType::Utf8 => Value::Utf8(
            "x".repeat(noise.below(30) as usize)
                .as_str()
                .to_owned()
                .replace('x', ["a", "é", "zz"][noise.below(3) as usize])
                .into(),
        ),
        DataType::Int64 => Value::Int((noise.next() as i64).into()),
        _ => Value::Int(i128::from(noise.below(200)) - 100),
    }
}

fn flat(values: &[Value], data_type: &DataType, account: &Account) -> FlatVector {
    let int = |v: &Value| if let Value::Int(i) = v { *i } else { 0 };
    macro_rules! ints {
        ($variant:ident, $type:ty) => {{
            let ints: Vec<$type> = values.iter().map(|v| int(v) as $type).collect();
            Values::$variant(BufMut::copy_of(account, &ints).expect("fits").freeze())
        }};
    }
    let filled = match data_type {
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
                let text = if let Value::Utf8(s) = v { s.as_bytes() } else { b"" };
                builder.push(account, text).expect("fits");
            }
            Values::View(builder.freeze())
        }
        DataType::Int8 => ints!(I8, i8),
        DataType::Int32 | DataType::Date => ints!(I32, i32),
        DataType::UInt64 => ints!(U64, u64),
        wide if *wide == WIDE => ints!(I128, i128),
        _ => ints!(I64, i64),
    };
    let validity = values.contains(&Value::Null).then(|| {
        let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
        bits.fill_from(|i| values[i] != Value::Null);
        bits.freeze()
    });
    FlatVector { values: filled, validity, bounds: None }
}

struct Case {
    vector: Vector,
    values: Vec<Value>,
}

/// Flat without and with nulls, dictionary without and with nulls, constant, constant null.
fn cases(
    noise: &mut Noise,
    rows: usize,
    data_type: &DataType,
    account: &Account,
    ids: &DictionaryIds,
) -> Vec<Case> {
    let mut out = Vec::new();
    for nulls in [false, true] {
        let null = |noise: &mut Noise| nulls && noise.below(3) == 0;
        let values: Vec<Value> =
            (0..rows).map(|_| if null(noise) { Value::Null } else { value(noise, data_type) }).collect();
        out.push(Case { vector: Vector::Flat(flat(&values, data_type, account)), values });
        let entries: Vec<Value> = (0..5).map(|_| value(noise, data_type)).collect();
        let codes: Vec<u32> = (0..rows).map(|_| noise.below(5) as u32).collect();
        let are_null: Vec<bool> = (0..rows).map(|_| null(noise)).collect();
        let values = codes
            .iter()
            .zip(&are_null)
            .map(|(&c, &n)| if n { Value::Null } else { entries[c as usize].clone() });
        let values: Vec<Value> = values.collect();
        let validity = nulls.then(|| {
            let mut bits = BitmapMut::with_len(account, rows).expect("fits");
            bits.fill_from(|i| !are_null[i]);
            bits.freeze()
        });
        let dictionary = Arc::new(Dictionary::new(ids, flat(&entries, data_type, account)));
        let codes = BufMut::copy_of(account, &codes).expect("fits").freeze();
        out.push(Case { vector: Vector::Dict { codes, validity, dictionary }, values });
        let constant = if nulls { Value::Null } else { value(noise, data_type) };
        let scalar = Scalar { data_type: data_type.clone(), value: constant.clone() };
        out.push(Case {
            vector: Vector::Constant { value: scalar, len: rows },
            values: vec![constant; rows],
        });
    }
    out
}

fn float(value: &Value, data_type: &DataType) -> f64 {
    match (value, data_type) {
        (Value::Float(f), _) => *f,
        (Value::Int(i), DataType::Decimal { scale, .. }) => *i as f64 / 10f64.powi((*scale).into()),
        (Value::Int(i), _) => *i as f64,
        _ => f64::NAN,
    }
}

/// The aggregate of values by its definition.
fn expected(name: &str, values: &[Value], data_type: &DataType) -> Value {
    let some: Vec<&Value> = values.iter().filter(|v| **v != Value::Null).collect();
    let typed = |v: &Value| Scalar { data_type: data_type.clone(), value: v.clone() };
    let n = some.len() as f64;
    let floats: Vec<f64> = some.iter().map(|v| float(v, data_type)).collect();
    let mean = floats.iter().sum::<f64>() / n;
    let squares: f64 = floats.iter().map(|f| (f - mean) * (f - mean)).sum();
    let order = |a: &&&Value, b: &&&Value| typed(a).compare(&typed(b)).expect("comparable");
    match name {
        "count" => return Value::Int(some.len() as i128),
        "first" => return values.first().cloned().unwrap_or(Value::Null),
        _ if some.is_empty() => return Value::Null,
        _ => {}
    }
    match name {
        "sum" if data_type.is_float() => Value::Float(floats.iter().sum()),
        "sum" => Value::Int(some.iter().map(|v| if let Value::Int(i) = v { *i } else { 0 }).sum()),
        "min" | "bool_and" => (*some.iter().min_by(order).expect("not empty")).clone(),
        "max" | "bool_or" => (*some.iter().max_by(order).expect("not empty")).clone(),
        "any_value" => some[0].clone(),
        "avg" => Value::Float(mean),
        "var_pop" => Value::Float(squares / n),
        "stddev_pop" => Value::Float((squares / n).sqrt()),
        "var_samp" if some.len() > 1 => Value::Float(squares / (n - 1.0)),
        "stddev_samp" if some.len() > 1 => Value::Float((squares / (n - 1.0)).sqrt()),
        "var_samp" | "stddev_samp" => Value::Null,
        other => panic!("no definition of {other}"),
    }
}

fn agree(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1e6) || a == b,
        _ => got == expected,
    }
}

fn check(function: &Arc<dyn AggregateFunction>, data_type: &DataType, groups: usize, seed: u64) {
    let pool = Pool::new("p", 64 << 20);
    let account = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
    let ids = DictionaryIds::default();
    let mut cx = EvalCx { account: &account, ids: &ids };
    let noise = &mut Noise(seed);
    let (arguments, result_type) =
        function.signature(std::slice::from_ref(data_type)).expect("takes the type");
    let rows = 1500;
    for (number, case) in cases(noise, rows, data_type, &account, &ids).into_iter().enumerate() {
        for selects in [false, true] {
            let selected: Vec<u32> = (0..rows as u32).filter(|_| !selects || noise.below(3) > 0).collect();
            let row_groups: Vec<u32> = selected.iter().map(|_| noise.below(groups as u64) as u32).collect();
            let rows = if selects { Rows::At(&selected) } else { Rows::All(rows) };
            let group_ids =
                if groups == 1 { GroupIds::One } else { GroupIds::Each { ids: &row_groups, groups } };
            let Evaluation::States(states_of) = function.evaluation() else { panic!("it has a state") };
            let mut accumulator = states_of.accumulator(&arguments);
            accumulator.resize(groups + 1, &account).expect("fits");
            let columns = std::slice::from_ref(&case.vector);
            accumulator.reserve(rows, columns, &account).expect("fits");
            accumulator.update(group_ids, rows, columns, &mut cx).expect("sums fit");

            // Through export and merge, group by group backwards, with one group that has counted nothing.
            let order: Vec<u32> = (0..=groups as u32).rev().collect();
            let states = accumulator.export(GroupSet::At(&order), &account).expect("fits");
            assert_eq!(states.len(), states_of.state_types(&arguments).len());
            let mut merged = states_of.accumulator(&arguments);
            merged.resize(groups + 1, &account).expect("fits");
            let middle = groups.div_ceil(2);
            for (start, half) in [(0, &order[..middle]), (middle, &order[middle..])] {
                let at: Vec<u32> = (start as u32..(start + half.len()) as u32).collect();
                let to = GroupIds::Each { ids: half, groups: groups + 1 };
                merged.reserve(Rows::At(&at), &states, &account).expect("fits");
                merged.merge(to, Rows::At(&at), &states, &mut cx).expect("sums fit");
            }
            for (which, accumulator) in [("updated", &accumulator), ("merged", &merged)] {
                let range = GroupSet::Range { start: 0, len: groups + 1 };
                let got = accumulator.finish(range, &account).expect("fits");
                for group in 0..=groups {
                    let members = selected.iter().zip(&row_groups);
                    let members =
                        members.filter(|(_, g)| **g as usize == group || (groups == 1 && group == 0));
                    let values: Vec<Value> = members.map(|(r, _)| case.values[*r as usize].clone()).collect();
                    let got = got.scalar(group, &result_type).value;
                    let expected = expected(function.name(), &values, data_type);
                    assert!(
                        agree(&got, &expected),
                        "{which} {}({data_type}) case {number} group {group} of {groups}: {got:?}, not {expected:?}",
                        function.name(),
                    );
                }
            }
            accumulator.clear();
            assert_eq!(accumulator.allocated_bytes(), 0);
        }
    }
}

#[test]
fn functions_agree_with_their_definitions_and_survive_export_and_merge() {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int32,
        DataType::Int64,
        DataType::Date,
        DataType::Float64,
        DECIMAL,
        WIDE,
        DataType::Utf8,
    ];
    for function in library() {
        if let Evaluation::Ordered(_) = function.evaluation() {
            continue;
        }
        for (i, data_type) in types.iter().enumerate() {
            let is_same = |s: &(Vec<DataType>, DataType)| s.0 == [data_type.clone()];
            if !function.signature(std::slice::from_ref(data_type)).as_ref().is_ok_and(is_same) {
                continue;
            }
            for groups in [1, 3, 8, 40, 700] {
                check(&function, data_type, groups, i as u64 * 31 + groups as u64);
            }
        }
    }
}

#[test]
fn types_of_results_are_those_of_the_oracle() {
    let result = |name: &str, argument: DataType| {
        find(name).expect("in the library").signature(&[argument]).expect("takes the type").1
    };
    assert_eq!(result("SUM", DataType::Int16), DataType::Int128);
    assert_eq!(result("sum", DataType::Boolean), DataType::Int128);
    assert_eq!(result("sum", DataType::Float32), DataType::Float64);
    assert_eq!(result("sum", DECIMAL), DataType::Decimal { precision: 38, scale: 2 });
    assert_eq!(result("avg", DECIMAL), DataType::Float64);
    assert_eq!(result("mean", DataType::Int8), DataType::Float64);
    assert_eq!(result("max", DataType::Date), DataType::Date);
    assert_eq!(result("variance", DataType::Int8), DataType::Float64);
    assert!(find("sum").expect("in the library").signature(&[DataType::Utf8]).is_err());
    assert!(find("bool_and").expect("in the library").signature(&[DataType::Int8]).is_err());
    assert_eq!(result("median", DataType::Int8), DataType::Float64);
    assert_eq!(result("median", DECIMAL), DECIMAL);
    assert_eq!(result("median", DataType::Utf8), DataType::Utf8);
    assert_eq!(result("median", DataType::Date), DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(result("mode", DataType::Date), DataType::Date);
    assert!(find("quantile_cont").expect("in the library").signature(&[DataType::Utf8, DECIMAL]).is_err());
    assert!(find("quantile_disc").expect("in the library").signature(&[DataType::Utf8]).is_err());
    assert!(find("no_such").is_none());
}

#[test]
fn a_sum_past_its_type_is_an_error() {
    let pool = Pool::new("p", 1 << 20);
    let account = Account::open(&pool, 0, 4096, 0).expect("fits");
    let ids = DictionaryIds::default();
    let mut cx = EvalCx { account: &account, ids: &ids };
    let huge = i128::MAX / 3;
    for groups in [GroupIds::One, GroupIds::Each { ids: &[0; 4], groups: 1 }] {
        let values = vec![Value::Int(huge); 4];
        let vector = Vector::Flat(flat(&values, &WIDE, &account));
        let mut sum = sum::Sum.accumulator(&[WIDE]);
        sum.resize(1, &account).expect("fits");
        sum.update(groups, Rows::All(1), std::slice::from_ref(&vector), &mut cx).expect("fits 128 bits");
        let got = sum.finish(GroupSet::Range { start: 0, len: 1 }, &account);
        assert!(got.is_ok(), "{huge} has 38 digits");
        let rest = sum.update(groups, Rows::All(4), std::slice::from_ref(&vector), &mut cx);
        assert!(rest.expect_err("five thirds").to_string().contains("overflow in sum"));
        let mut sum = sum::Sum.accumulator(&[WIDE]);
        sum.resize(1, &account).expect("fits");
        sum.update(groups, Rows::All(2), std::slice::from_ref(&vector), &mut cx).expect("fits 128 bits");
        let got = sum.finish(GroupSet::Range { start: 0, len: 1 }, &account);
        assert!(got.expect_err("39 digits").to_string().contains("more digits"));
    }
}

#[test]
fn the_list_and_the_folder_agree() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/functions/aggregate");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod" && name != "tests")
        .collect();
    files.sort();
    assert_eq!(files, FILES);
}
