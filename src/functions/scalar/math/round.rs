//! `round(x [, digits])`: half away from zero, to `digits` places behind the point (before it, if negative).

use super::super::support::{each, flats, slice, wrong_arguments};
use super::{decimals, unscaled};
use crate::data::{DataType, FlatVector, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::kernels::cast::divided;
use crate::expr::kernels::decimal::{power_of_ten, scale_of};
use crate::expr::kernels::operand::{Native, for_physical};
use crate::expr::{CallTypes, EvalCx, Expr, ScalarFunction};

pub(super) struct Round;

impl ScalarFunction for Round {
    fn name(&self) -> &'static str {
        "round"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let (number, digits) = match arguments {
            [t] => (t, false),
            [t, d] if d.is_integer() || *d == DataType::Null => (t, true),
            given => return Err(wrong_arguments("round(number [, integer])", given)),
        };
        let t = match number {
            DataType::Null => DataType::Float64,
            t if t.is_numeric() => t.clone(),
            _ => return Err(wrong_arguments("round(number [, integer])", arguments)),
        };
        let mut wanted = vec![t.clone()];
        if digits {
            wanted.push(DataType::Int32);
        }
        let result = match (&t, digits) {
            (DataType::Decimal { precision, .. }, false) => {
                DataType::Decimal { precision: *precision, scale: 0 }
            }
            _ => t,
        };
        Ok((wanted, result))
    }
    fn refined(&self, arguments: &[Expr], result: DataType) -> DataType {
        match (arguments, &result) {
            ([_, Expr::Literal(digits)], DataType::Decimal { precision, scale }) => {
                let digits = digits.as_int().unwrap_or(0).clamp(0, (*scale).into()) as u8;
                DataType::Decimal { precision: *precision, scale: digits }
            }
            _ => result,
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
        let digits = flats.get(1).map(slice::<i32>).transpose()?;
        let digits = |row: usize| digits.map_or(0, |d| d[row]).clamp(-40, 40);
        match (&flats[0].values, types.result) {
            (Values::F32(v), _) => each(rows, cx, |row| float(v[row].into(), digits(row)) as f32),
            (Values::F64(v), _) => each(rows, cx, |row| float(v[row], digits(row))),
            (_, DataType::Decimal { scale, .. }) => {
                let values = unscaled(&flats[0], cx.account)?;
                let from = scale_of(&types.arguments[0]);
                decimals(rows, cx, types.result, |row| {
                    exact(values[row], from.into(), digits(row).min(from.into()), (*scale).into())
                })
            }
            (values, _) => for_physical!(
                values.physical(),
                T => integers::<T>(&flats[0], rows, cx, digits),
                _ => Err(Error::internal("numbers are fixed-width")),
            ),
        }
    }
}

fn float(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits.abs());
    let rounded =
        if digits >= 0 { (value * factor).round() / factor } else { (value / factor).round() * factor };
    // Past the range of doubles there is nothing to round.
    if rounded.is_finite() { rounded } else { value }
}

/// A value of scale `from` rounded to `digits` places, in scale `to`.
fn exact(value: i128, from: i32, digits: i32, to: i32) -> i128 {
    let power = |exponent: i32| u8::try_from(exponent).ok().and_then(power_of_ten);
    let Some(unit) = power(from - digits) else { return 0 };
    let rounded = divided(value, unit);
    if to >= digits {
        power(to - digits).map_or(0, |factor| rounded.wrapping_mul(factor))
    } else {
        power(digits - to).map_or(0, |factor| divided(rounded, factor))
    }
}

fn integers<T: Native>(
    flat: &FlatVector,
    rows: usize,
    cx: &EvalCx<'_>,
    digits: impl Fn(usize) -> i32,
) -> Result<Vector> {
    let values = slice::<T>(flat)?;
    let t = DataType::Int128;
    each(rows, cx, |row| {
        if digits(row) >= 0 {
            return values[row];
        }
        let wide = crate::data::Scalar::int(t.clone(), exact(as_exact(flat, row), 0, digits(row), 0));
        T::from_scalar(&wide)
    })
}

fn as_exact(flat: &FlatVector, row: usize) -> i128 {
    flat.values.scalar(row, &DataType::Int128).as_int().unwrap_or(0)
}
