//! Rows of every type, in batches of every representation.

use crate::data::hash::hash_word;
use crate::data::{
    Batch, Bitmap, BitmapMut, BufMut, DataType, Dictionary, DictionaryIds, FlatVector, Scalar, Selection,
    Value, Values, Vector, ViewBuilder,
};
use crate::expr::ColumnId;
use crate::mem::{Account, Pool};
use std::sync::Arc;

/// A seeded stream of numbers.
pub(in crate::operators) struct Noise(pub(in crate::operators) u64);

impl Noise {
    pub(in crate::operators) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        hash_word(self.0)
    }

    pub(in crate::operators) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Columns of either side, by position.
pub(in crate::operators) const LONG: usize = 0;
pub(in crate::operators) const SHORT: usize = 1;
pub(in crate::operators) const TEXT: usize = 2;
pub(in crate::operators) const DECIMAL: usize = 3;
pub(in crate::operators) const REAL: usize = 4;
pub(in crate::operators) const FLAG: usize = 5;
pub(in crate::operators) const UNIQUE: usize = 6;
pub(in crate::operators) const NUMBER: usize = 7;
pub(in crate::operators) const TYPES: [DataType; 8] = [
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
pub(in crate::operators) const PROBE_IDS: usize = 100;
pub(in crate::operators) const MARK: ColumnId = ColumnId(999);

/// How values are drawn.
#[derive(Clone, Copy)]
pub(in crate::operators) struct Draw {
    /// One in so many is null; 0: none.
    nulls: u64,
    /// How many values there are.
    domain: u64,
    /// Decimals fit 64 bits; drawn for each batch.
    is_narrow: bool,
}

impl Draw {
    /// One in `nulls` values is null; of others there are about `domain`.
    pub(in crate::operators) fn new(nulls: u64, domain: u64) -> Self {
        Self { nulls, domain, is_narrow: false }
    }
}

pub(in crate::operators) fn value(noise: &mut Noise, column: usize, unique: usize, draw: Draw) -> Value {
    if column != UNIQUE && draw.nulls > 0 && noise.below(draw.nulls) == 0 {
        return Value::Null;
    }
    let small = i128::from(noise.below(draw.domain)) - 3;
    match column {
        LONG => Value::Int(small * 1_000_000_007),
        SHORT => Value::Int(small),
        TEXT => Value::Utf8("value ".repeat(1 + small.unsigned_abs() as usize % 7).into()),
        DECIMAL => Value::Int(if draw.is_narrow || noise.below(2) == 0 { small } else { small << 70 }),
        REAL => Value::Float([0.0, -0.0, 1.5, f64::NAN, -f64::NAN, -7.25][noise.below(6) as usize]),
        FLAG => Value::Boolean(small > 0),
        UNIQUE => Value::Int(unique as i128 * 3),
        _ => Value::Int(small * 11),
    }
}

pub(in crate::operators) fn validity(values: &[Value], account: &Account) -> Option<Bitmap> {
    values.contains(&Value::Null).then(|| {
        let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
        bits.fill_from(|i| values[i] != Value::Null);
        bits.freeze()
    })
}

pub(in crate::operators) fn flat(values: &[Value], column: usize, account: &Account) -> FlatVector {
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
pub(in crate::operators) struct Side {
    pub(in crate::operators) batches: Vec<Batch>,
    pub(in crate::operators) rows: Vec<Vec<Value>>,
    _account: Account,
}

/// A column in one of its representations, with its values.
pub(in crate::operators) fn column(
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

pub(in crate::operators) fn side(seed: u64, batches: usize, most_rows: usize, draw: Draw) -> Side {
    let pool = Pool::new("input", 1 << 30);
    let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
    let ids = DictionaryIds::default();
    let noise = &mut Noise(seed);
    let mut side = Side { batches: Vec::new(), rows: Vec::new(), _account: account };
    let mut first = 0;
    for _ in 0..batches {
        let rows = 1 + noise.below(most_rows as u64) as usize;
        let cx = (&side._account, &ids);
        let draw = Draw { is_narrow: noise.below(2) == 0, ..draw };
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
