//! What kernel tests share: an account, seeded values, vectors from scalars.

use crate::data::{
    BitmapMut, BufMut, DataType, Dictionary, DictionaryIds, FlatVector, PhysicalType, Scalar, TimeUnit,
    Value, Values, Vector, ViewBuilder,
};
use crate::expr::EvalCx;
use crate::mem::{Account, Pool};
use std::sync::Arc;

/// A place to run kernels in.
pub(crate) struct Lab {
    pub(crate) account: Account,
    pub(crate) ids: DictionaryIds,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let pool = Pool::new("lab", 256 << 20);
        let account = Account::open(&pool, 0, 64 << 10, 1 << 20).expect("fits");
        Self { account, ids: DictionaryIds::default() }
    }

    pub(crate) fn cx(&self) -> EvalCx<'_> {
        EvalCx { account: &self.account, ids: &self.ids }
    }

    /// Types whose comparison is a kernel of its own.
    pub(crate) fn types() -> Vec<DataType> {
        vec![
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Int128,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Float32,
            DataType::Float64,
            DataType::Decimal { precision: 15, scale: 2 },
            DataType::Decimal { precision: 38, scale: 2 },
            DataType::Date,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8,
        ]
    }

    /// A flat vector of scalars of one type.
    pub(crate) fn flat(&self, data_type: &DataType, scalars: &[Scalar]) -> Vector {
        let account = &self.account;
        macro_rules! ints {
            ($variant:ident, $t:ty) => {{
                let mut buf = BufMut::<$t>::with_len(account, scalars.len()).expect("fits");
                for (to, s) in buf.iter_mut().zip(scalars) {
                    *to = s.as_int().unwrap_or(77) as $t;
                }
                Values::$variant(buf.freeze())
            }};
        }
        macro_rules! floats {
            ($variant:ident, $t:ty) => {{
                let mut buf = BufMut::<$t>::with_len(account, scalars.len()).expect("fits");
                for (to, s) in buf.iter_mut().zip(scalars) {
                    *to = if let Value::Float(v) = s.value { v as $t } else { 7.5 };
                }
                Values::$variant(buf.freeze())
            }};
        }
        let values = match data_type.physical() {
            PhysicalType::Bool => {
                let mut bits = BitmapMut::with_len(account, scalars.len()).expect("fits");
                bits.fill_from(|i| scalars[i].value == Value::Boolean(true));
                Values::Bool(bits.freeze())
            }
            PhysicalType::I8 => ints!(I8, i8),
            PhysicalType::I16 => ints!(I16, i16),
            PhysicalType::I32 => ints!(I32, i32),
            PhysicalType::I64 => ints!(I64, i64),
            PhysicalType::I128 => ints!(I128, i128),
            PhysicalType::U8 => ints!(U8, u8),
            PhysicalType::U16 => ints!(U16, u16),
            PhysicalType::U32 => ints!(U32, u32),
            PhysicalType::U64 => ints!(U64, u64),
            PhysicalType::F32 => floats!(F32, f32),
            PhysicalType::F64 => floats!(F64, f64),
            PhysicalType::View => {
                let mut builder = ViewBuilder::new(account, scalars.len()).expect("fits");
                for scalar in scalars {
                    builder.push(account, scalar.as_bytes().unwrap_or(b"unspecified")).expect("fits");
                }
                Values::View(builder.freeze())
            }
            PhysicalType::Nested => panic!("no test makes nested values"),
        };
        let validity = scalars.iter().any(Scalar::is_null).then(|| {
            let mut bits = BitmapMut::with_len(account, scalars.len()).expect("fits");
            bits.fill_from(|i| !scalars[i].is_null());
            bits.freeze()
        });
        Vector::Flat(FlatVector { values, validity, bounds: None })
    }

    /// The same scalars as a dictionary of their distinct values (at least one).
    pub(crate) fn dict(&self, data_type: &DataType, scalars: &[Scalar]) -> Vector {
        let mut entries: Vec<Scalar> = Vec::new();
        let mut codes = BufMut::with_len(&self.account, scalars.len()).expect("fits");
        for (code, scalar) in codes.iter_mut().zip(scalars) {
            if scalar.is_null() {
                continue;
            }
            let at = entries.iter().position(|e| e == scalar).unwrap_or(entries.len());
            if at == entries.len() {
                entries.push(scalar.clone());
            }
            *code = at as u32;
        }
        for (code, scalar) in codes.iter_mut().zip(scalars) {
            if scalar.is_null() {
                *code = 0;
            }
        }
        if entries.is_empty() {
            entries.push(Scalar { data_type: data_type.clone(), value: Value::Int(0) });
        }
        let Vector::Flat(flat) = self.flat(data_type, scalars) else { panic!("flat is flat") };
        let Vector::Flat(values) = self.flat(data_type, &entries) else { panic!("flat is flat") };
        let dictionary = Arc::new(Dictionary::new(&self.ids, values));
        Vector::Dict { codes: codes.freeze(), validity: flat.validity, dictionary }
    }
}

/// A small reproducible generator (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Values of a type, a fifth of them null, from a small domain so that equals meet.
    pub(crate) fn scalars(&mut self, data_type: &DataType, rows: usize) -> Vec<Scalar> {
        (0..rows).map(|_| self.scalar(data_type)).collect()
    }

    pub(crate) fn scalar(&mut self, data_type: &DataType) -> Scalar {
        if self.below(5) == 0 {
            return Scalar::null(data_type.clone());
        }
        let n = self.below(12) as i128;
        let value = match data_type {
            DataType::Boolean => Value::Boolean(n % 2 == 0),
            DataType::Float32 | DataType::Float64 => Value::Float(match n {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => -0.0,
                3 => 0.0,
                n => n as f64 * 0.5 - 3.0,
            }),
            DataType::Utf8 => {
                let text = [
                    "",
                    "a",
                    "ab",
                    "abcd",
                    "abcde",
                    "a long string, not inline",
                    "a long string, not inlinf",
                ];
                Value::Utf8(text[n as usize % text.len()].into())
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Value::Int(n),
            DataType::Decimal { precision: 38, .. } if n == 3 => Value::Int(i128::from(i64::MAX) * 5),
            _ => Value::Int(n - 6),
        };
        Scalar { data_type: data_type.clone(), value }
    }
}
