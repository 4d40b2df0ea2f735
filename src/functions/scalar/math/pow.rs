//! `pow(x, y)`: x to the power of y, in doubles.

use super::super::support::{each, flats, slice, wrong_arguments};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Pow;

impl ScalarFunction for Pow {
    fn name(&self) -> &'static str {
        "pow"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["power", "**"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [a, b] if [a, b].iter().all(|t| t.is_numeric() || **t == DataType::Null) => {
                Ok((vec![DataType::Float64; 2], DataType::Float64))
            }
            given => Err(wrong_arguments("pow(number, number)", given)),
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
        let (base, exponent) = (slice::<f64>(&flats[0])?, slice::<f64>(&flats[1])?);
        each(rows, cx, |row| base[row].powf(exponent[row]))
    }
}
