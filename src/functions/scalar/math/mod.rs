//! Functions of numbers.

mod abs;
mod ceil;
mod exp;
mod floor;
mod ln;
mod log10;
mod log2;
mod modulo;
mod pow;
mod round;
mod sign;
mod sqrt;
mod trunc;

use super::Maker;
use super::support::{each, flats, slice, wrong_arguments};
use crate::data::{DataType, FlatVector, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::kernels::decimal::{power_of_ten, scale_of};
use crate::expr::kernels::operand::map;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};
use crate::mem::Account;
use std::sync::Arc;

pub(super) const LIST: &[Maker] = &[
    || Arc::new(abs::Abs),
    || Arc::new(ceil::CEIL),
    || Arc::new(exp::EXP),
    || Arc::new(floor::FLOOR),
    || Arc::new(ln::LN),
    || Arc::new(log10::LOG10),
    || Arc::new(log2::LOG2),
    || Arc::new(modulo::Mod),
    || Arc::new(pow::Pow),
    || Arc::new(round::Round),
    || Arc::new(sign::Sign),
    || Arc::new(sqrt::SQRT),
    || Arc::new(trunc::TRUNC),
];

/// A function from doubles to doubles.
struct FloatFunction {
    name: &'static str,
    aliases: &'static [&'static str],
    f: fn(f64) -> f64,
}

impl ScalarFunction for FloatFunction {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [t] if t.is_numeric() || *t == DataType::Null => Ok((vec![DataType::Float64], DataType::Float64)),
            given => Err(wrong_arguments(&format!("{}(number)", self.name), given)),
        }
    }
    fn evaluate(
        &self,
        _types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let flats = flats(arguments, cx.account)?;
        let values = slice::<f64>(&flats[0])?;
        each(rows, cx, |row| (self.f)(values[row]))
    }
}

/// A function that makes numbers whole.
struct Rounding {
    name: &'static str,
    aliases: &'static [&'static str],
    float: fn(f64) -> f64,
    /// The whole part of `value / unit`, rounded in the function's way.
    decimal: fn(i128, i128) -> i128,
}

impl ScalarFunction for Rounding {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [t @ DataType::Decimal { precision, .. }] => {
                Ok((vec![t.clone()], DataType::Decimal { precision: *precision, scale: 0 }))
            }
            [DataType::Float32] => Ok((vec![DataType::Float32], DataType::Float32)),
            [t] if t.is_numeric() || *t == DataType::Null => Ok((vec![DataType::Float64], DataType::Float64)),
            given => Err(wrong_arguments(&format!("{}(number)", self.name), given)),
        }
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let flats = flats(arguments, cx.account)?;
        match &flats[0].values {
            Values::F32(v) => each(rows, cx, |row| (self.float)(v[row].into()) as f32),
            Values::F64(v) => each(rows, cx, |row| (self.float)(v[row])),
            _ => {
                let unit = power_of_ten(scale_of(&types.arguments[0])).unwrap_or(i128::MAX);
                let values = unscaled(&flats[0], cx.account)?;
                decimals(rows, cx, types.result, |row| (self.decimal)(values[row], unit))
            }
        }
    }
}

/// The values of an exact column in 128 bits.
fn unscaled(flat: &FlatVector, account: &Account) -> Result<crate::data::Buf<i128>> {
    match &flat.values {
        Values::I64(v) => Ok(map(v, account, |v: i64| (i128::from(v), false))?.0),
        Values::I128(v) => Ok(v.clone()),
        _ => Err(Error::internal("decimals are integers of 64 or 128 bits")),
    }
}

/// A decimal vector of the usual width of its type.
fn decimals(
    rows: usize,
    cx: &EvalCx<'_>,
    data_type: &DataType,
    mut f: impl FnMut(usize) -> i128,
) -> Result<Vector> {
    match data_type {
        // One digit of room: rounding up may need it.
        DataType::Decimal { precision, .. } if *precision < DataType::MAX_NARROW_PRECISION => {
            each(rows, cx, |row| f(row) as i64)
        }
        _ => each(rows, cx, f),
    }
}
