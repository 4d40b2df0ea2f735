//! `abs(x)`: the magnitude; an error for the one integer whose magnitude does not fit.

use super::super::support::{flats, wrong_arguments};
use crate::data::{DataType, Scalar, Vector};
use crate::error::Result;
use crate::expr::kernels::arithmetic::negate;
use crate::expr::kernels::blend::{blend, scatter};
use crate::expr::kernels::boolean::true_bits;
use crate::expr::kernels::compare::compare;
use crate::expr::kernels::indices::positions;
use crate::expr::{CallTypes, CompareOp, EvalCx, ScalarFunction};

pub(super) struct Abs;

impl ScalarFunction for Abs {
    fn name(&self) -> &'static str {
        "abs"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [DataType::Null] => Ok((vec![DataType::Int32], DataType::Int32)),
            [t] if t.is_numeric() => Ok((vec![t.clone()], t.clone())),
            given => Err(wrong_arguments("abs(number)", given)),
        }
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let (t, account) = (types.result, cx.account);
        let value = Vector::Flat(flats(arguments, account)?.swap_remove(0));
        let zero = if t.is_float() { Scalar::float(0.0) } else { Scalar::int(t.clone(), 0) };
        let zero = Vector::Constant { value: zero, len: rows };
        let is_negative =
            true_bits(&compare(CompareOp::Lt, &value, &zero, t, rows, account)?, rows, account)?;
        let negative_rows = positions(is_negative.words(), account)?;
        if negative_rows.is_empty() {
            return Ok(value);
        }
        let negated = negate(&value.gather(&negative_rows, account)?, t, account)?;
        blend(&is_negative, &scatter(negated, &negative_rows, rows, account)?, &value, t, account)
    }
}
