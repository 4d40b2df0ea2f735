//! `sign(x)`: -1, 0 or 1.

use super::super::support::{each, flats, slice, wrong_arguments};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Sign;

impl ScalarFunction for Sign {
    fn name(&self) -> &'static str {
        "sign"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            // The sign of a double is the sign of the number it was rounded from.
            [t] if t.is_numeric() || *t == DataType::Null => Ok((vec![DataType::Float64], DataType::Int8)),
            given => Err(wrong_arguments("sign(number)", given)),
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
        each(rows, cx, |row| i8::from(values[row] > 0.0) - i8::from(values[row] < 0.0))
    }
}
