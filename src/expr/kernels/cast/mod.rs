//! Conversions between types.
//!
//! Owns: the table of conversions. Numbers go through 64- or 128-bit integers or doubles (`numeric`), text is read by
//! `parse` and written by `format`. A conversion that fails is an error naming the value, or null for TRY_CAST.

mod blob;
mod format;
mod numeric;
mod parse;

pub(crate) use format::{to_text, write_text};
pub(crate) use numeric::divided;

use super::boolean;
use super::operand::{both_valid, map};
use crate::data::{
    Bitmap, BitmapMut, BufMut, DataType, FlatVector, Scalar, TimeUnit, Values, Vector, ViewBuilder,
};
use crate::error::{Error, Result};
use crate::mem::Account;

/// A cast's types and manner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CastTypes<'a> {
    pub(crate) from: &'a DataType,
    pub(crate) to: &'a DataType,
    /// Failures become null.
    pub(crate) is_try: bool,
}

/// Whether there is a conversion at all.
pub(crate) fn is_possible(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    if from == to || *from == D::Null || *to == D::Null {
        return from == to || *from == D::Null;
    }
    let is_number = |t: &DataType| t.is_numeric() || *t == D::Boolean;
    match (from, to) {
        (D::Nested(_), _) | (_, D::Nested(_)) => false,
        (D::Utf8, _) => !matches!(to, D::Interval),
        (_, D::Utf8) => true,
        (D::Date | D::Timestamp(..), D::Date | D::Timestamp(..)) => true,
        (D::Timestamp(..) | D::Time(_), D::Time(_)) => true,
        (from, to) => is_number(from) && is_number(to),
    }
}

/// The rows that failed are collected here.
pub(super) struct Failures {
    bits: Option<BitmapMut>,
}

impl Failures {
    pub(super) fn none() -> Self {
        Self { bits: None }
    }

    /// Marks a row.
    pub(super) fn mark(&mut self, row: usize, rows: usize, account: &Account) -> Result<()> {
        let bits = match &mut self.bits {
            Some(bits) => bits,
            None => self.bits.insert(BitmapMut::ones(account, rows)?),
        };
        bits.set(row, false);
        Ok(())
    }
}

/// `vector`, flat, of type `types.from` as `types.to`.
///
/// # Errors
/// A value error naming the first value that does not fit; a plan error if there is no such conversion.
pub(crate) fn cast(vector: &FlatVector, types: CastTypes<'_>, account: &Account) -> Result<Vector> {
    let CastTypes { from, to, .. } = types;
    if from == to {
        return Ok(Vector::Flat(vector.clone()));
    }
    if !is_possible(from, to) {
        return Err(Error::plan(format!("there is no conversion from {from} to {to}"), None));
    }
    let rows = vector.len();
    let valid = vector.validity.as_ref();
    let mut failures = Failures::none();
    let mut bounds = None;
    let values = match (from, to) {
        (DataType::Null, _) => {
            return Ok(Vector::Constant { value: Scalar::null(to.clone()), len: rows });
        }
        (DataType::Utf8, DataType::Binary) => blob::from_text(vector, &mut failures, account)?,
        (_, DataType::Utf8) => text(vector, from, account)?,
        (DataType::Utf8, _) => parse::strings(vector, to, &mut failures, account)?,
        (_, DataType::Date | DataType::Timestamp(..) | DataType::Time(_)) => {
            times(vector, from, to, &mut failures, account)?
        }
        (_, _) => {
            let converted = numeric::cast(vector, from, to, &mut failures, account)?;
            bounds = converted.bounds;
            converted.values
        }
    };
    let ok = failures.bits.map(BitmapMut::freeze);
    if let Some(ok) = &ok
        && !types.is_try
    {
        let is_bad = |row: usize| !ok.get(row);
        if let Some(row) = super::operand::first_bad(valid, rows, is_bad) {
            return Err(failed(&vector.values.scalar(row, from), to));
        }
    }
    let validity: Option<Bitmap> = both_valid(valid, ok.as_ref().filter(|_| types.is_try), account)?;
    Ok(Vector::Flat(FlatVector { values, validity, bounds }))
}

/// The error of a value that has no counterpart in `to`.
fn failed(value: &Scalar, to: &DataType) -> Error {
    let shown = to_text(value);
    let message = match value.data_type {
        DataType::Utf8 => format!("could not convert string '{shown}' to {to}; TRY_CAST gives null instead"),
        _ => {
            format!("{} value {shown} is out of range for {to}; TRY_CAST gives null instead", value.data_type)
        }
    };
    Error::value(message)
}

fn text(vector: &FlatVector, from: &DataType, account: &Account) -> Result<Values> {
    let rows = vector.len();
    let mut builder = ViewBuilder::new(account, rows)?;
    let mut line = String::new();
    for row in 0..rows {
        line.clear();
        if !vector.is_null(row) {
            write_text(&mut line, &vector.values.scalar(row, from));
        }
        builder.push(account, line.as_bytes())?;
    }
    Ok(Values::View(builder.freeze()))
}

/// Dates, times and timestamps among themselves.
fn times(
    vector: &FlatVector,
    from: &DataType,
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<Values> {
    let per_day = |unit: &TimeUnit| unit.per_second() * 86_400;
    match (&vector.values, from, to) {
        (Values::I32(days), DataType::Date, DataType::Timestamp(unit, _)) => {
            let per_day = per_day(unit);
            let f = |v: i32| {
                let wide = i128::from(v) * i128::from(per_day);
                (wide as i64, i128::from(wide as i64) != wide)
            };
            let (values, failed) = map(days, account, f)?;
            if failed {
                mark_all(days, |v| f(v).1, failures, account)?;
            }
            Ok(Values::I64(values))
        }
        (Values::I64(v), DataType::Timestamp(unit, _), DataType::Date) => {
            let per_day = per_day(unit);
            let f = |v: i64| {
                let days = v.div_euclid(per_day);
                (days as i32, i64::from(days as i32) != days)
            };
            let (values, failed) = map(v, account, f)?;
            if failed {
                mark_all(v, |v| f(v).1, failures, account)?;
            }
            Ok(Values::I32(values))
        }
        (Values::I64(v), DataType::Timestamp(from, _), DataType::Time(to)) => {
            let per_day = per_day(from);
            let (from, to) = (from.per_second(), to.per_second());
            let f = |v: i64| {
                ((i128::from(v.rem_euclid(per_day)) * i128::from(to) / i128::from(from)) as i64, false)
            };
            Ok(Values::I64(map(v, account, f)?.0))
        }
        (
            Values::I64(v),
            DataType::Timestamp(from, _) | DataType::Time(from),
            DataType::Timestamp(to, _) | DataType::Time(to),
        ) => {
            let (from, to) = (from.per_second(), to.per_second());
            if from == to {
                return Ok(vector.values.clone());
            }
            let f = |v: i64| {
                let wide = (i128::from(v) * i128::from(to)).div_euclid(i128::from(from));
                (wide as i64, i128::from(wide as i64) != wide)
            };
            let (values, failed) = map(v, account, f)?;
            if failed {
                mark_all(v, |v| f(v).1, failures, account)?;
            }
            Ok(Values::I64(values))
        }
        _ => Err(Error::plan(format!("there is no conversion from {from} to {to}"), None)),
    }
}

/// Marks every value for which `is_bad` holds.
fn mark_all<T: Copy>(
    values: &[T],
    is_bad: impl Fn(T) -> bool,
    failures: &mut Failures,
    account: &Account,
) -> Result<()> {
    for (row, value) in values.iter().enumerate() {
        if is_bad(*value) {
            failures.mark(row, values.len(), account)?;
        }
    }
    Ok(())
}

/// A boolean vector's values as 0 and 1.
fn zeros_and_ones(vector: &FlatVector, account: &Account) -> Result<crate::data::Buf<i64>> {
    let rows = vector.len();
    let bits = boolean::bits(&Vector::Flat(vector.clone()), rows, account)?;
    let mut out = BufMut::with_len(account, rows)?;
    for (row, out) in out.iter_mut().enumerate() {
        *out = i64::from(bits.get(row));
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Value;
    use crate::expr::kernels::testing::{Lab, Random};

    fn one(value: &Scalar, to: &DataType) -> Result<Scalar> {
        let lab = Lab::new();
        let Vector::Flat(flat) = lab.flat(&value.data_type, std::slice::from_ref(value)) else {
            panic!("flat is flat")
        };
        let types = CastTypes { from: &value.data_type, to, is_try: false };
        Ok(cast(&flat, types, &lab.account)?.scalar(0, to))
    }

    const fn decimal(precision: u8, scale: u8) -> DataType {
        DataType::Decimal { precision, scale }
    }

    #[test]
    fn numbers_round_as_duckdb_does() {
        let float = |v: f64, to: DataType| one(&Scalar::float(v), &to).map(|s| s.value);
        assert_eq!(float(2.5, DataType::Int32).expect("fits"), Value::Int(2));
        assert_eq!(float(3.5, DataType::Int32).expect("fits"), Value::Int(4));
        assert_eq!(float(-2.5, DataType::Int8).expect("fits"), Value::Int(-2));
        assert_eq!(float(0.125, decimal(5, 2)).expect("fits"), Value::Int(13));
        assert_eq!(float(-0.125, decimal(5, 2)).expect("fits"), Value::Int(-13));
        assert!(float(1e10, DataType::Int32).is_err());
        assert!(float(f64::NAN, DataType::Int64).is_err());
        assert!(float(1000.0, decimal(3, 1)).is_err());
        let dec = |v, s, to: DataType| one(&Scalar::int(decimal(10, s), v), &to).map(|s| s.value);
        assert_eq!(dec(25, 1, DataType::Int32).expect("fits"), Value::Int(3));
        assert_eq!(dec(-25, 1, DataType::Int32).expect("fits"), Value::Int(-3));
        assert_eq!(dec(2345, 3, decimal(5, 2)).expect("fits"), Value::Int(235));
        assert_eq!(dec(2345, 3, decimal(20, 10)).expect("fits"), Value::Int(23_450_000_000));
        assert_eq!(dec(2345, 3, DataType::Float64).expect("fits"), Value::Float(2.345));
        assert!(dec(99_999, 1, decimal(3, 0)).is_err());
        assert!(one(&Scalar::int(DataType::Int32, 300), &DataType::Int8).is_err());
        assert!(one(&Scalar::int(DataType::Int32, -1), &DataType::UInt64).is_err());
        assert_eq!(one(&Scalar::boolean(true), &DataType::Int32).expect("fits").as_int(), Some(1));
        let two = Scalar::int(DataType::Int32, 2);
        assert_eq!(one(&two, &DataType::Boolean).expect("fits"), Scalar::boolean(true));
    }

    #[test]
    fn text_becomes_values_and_back() {
        let read = |s: &str, to: &DataType| one(&Scalar::utf8(s), to);
        for (text, to, want) in [
            (" 3 ", DataType::Int32, 3),
            ("2.5", DataType::Int32, 3),
            ("-2.5", DataType::Int32, -3),
            ("1e3", DataType::Int64, 1000),
            ("+5", DataType::UInt8, 5),
            ("2.345", decimal(5, 2), 235),
            ("-0.05", decimal(5, 2), -5),
            ("1e3", decimal(10, 2), 100_000),
            ("1970-01-02", DataType::Date, 1),
            ("1970/1/2", DataType::Date, 1),
            ("1970-01-02 10:00", DataType::Date, 1),
            ("1970-01-01T00:00:01.5", DataType::Timestamp(TimeUnit::Microsecond, None), 1_500_000),
            ("00:00:02", DataType::Time(TimeUnit::Microsecond), 2_000_000),
        ] {
            assert_eq!(read(text, &to).expect(text).as_int(), Some(want), "{text}");
        }
        for (text, to) in [
            ("", DataType::Int32),
            ("abc", DataType::Int32),
            ("2020-02-30", DataType::Date),
            ("300", DataType::Int8),
            ("12.5.1", DataType::Float64),
            ("on", DataType::Boolean),
        ] {
            assert!(read(text, &to).is_err(), "{text}");
        }
        for (value, want) in [
            (Scalar::float(1.0), "1.0"),
            (Scalar::float(1e20), "1e+20"),
            (Scalar::float(1.5e-5), "1.5e-05"),
            (Scalar::float(1e15), "1000000000000000.0"),
            (Scalar::float(f64::NAN), "nan"),
            (Scalar::int(decimal(5, 2), 110), "1.10"),
            (Scalar::int(DataType::Date, 1), "1970-01-02"),
            (
                Scalar::int(DataType::Timestamp(TimeUnit::Microsecond, None), 1_500_000),
                "1970-01-01 00:00:01.5",
            ),
            (Scalar::boolean(true), "true"),
        ] {
            assert_eq!(one(&value, &DataType::Utf8).expect("text"), Scalar::utf8(want));
        }
    }

    #[test]
    fn try_cast_gives_null_and_nulls_never_fail() {
        let lab = Lab::new();
        let texts = [Scalar::utf8("1"), Scalar::utf8("x"), Scalar::null(DataType::Utf8)];
        let Vector::Flat(flat) = lab.flat(&DataType::Utf8, &texts) else { panic!("flat is flat") };
        let to = DataType::Int32;
        let types = CastTypes { from: &DataType::Utf8, to: &to, is_try: true };
        let result = cast(&flat, types, &lab.account).expect("null instead");
        assert_eq!(result.scalar(0, &to).as_int(), Some(1));
        assert!(result.is_null(1) && result.is_null(2));
        let Vector::Flat(flat) = lab.flat(&DataType::Utf8, &[texts[0].clone(), texts[2].clone()]) else {
            panic!("flat is flat")
        };
        assert!(cast(&flat, CastTypes { is_try: false, ..types }, &lab.account).is_ok());
    }

    #[test]
    fn integers_survive_every_wider_type() {
        let lab = Lab::new();
        let mut random = Random::new(2);
        let types = Lab::types();
        for from in types.iter().filter(|t| t.is_integer()) {
            let scalars = random.scalars(from, 70);
            let Vector::Flat(flat) = lab.flat(from, &scalars) else { panic!("flat is flat") };
            for to in [DataType::Int64, DataType::Int128, DataType::Float64, decimal(25, 2), DataType::Utf8] {
                let there =
                    cast(&flat, CastTypes { from, to: &to, is_try: false }, &lab.account).expect("wider");
                let there = there.flatten(&lab.account).expect("fits");
                let back = cast(&there, CastTypes { from: &to, to: from, is_try: false }, &lab.account);
                let back = back.expect("came from there");
                for (row, scalar) in scalars.iter().enumerate() {
                    assert_eq!(back.scalar(row, from), *scalar, "{from} through {to}");
                }
            }
        }
    }
}
