//! `mod(x, y)`: the remainder, as `%`.

use super::super::support::wrong_arguments;
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::kernels::arithmetic::{ArithmeticTypes, arithmetic};
use crate::expr::{ArithmeticOp, CallTypes, EvalCx, ScalarFunction, common_type};

pub(super) struct Mod;

impl ScalarFunction for Mod {
    fn name(&self) -> &'static str {
        "modulo"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["mod", "fmod"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        if let [a, b] = arguments
            && let Some(t) = common_type(a, b)
            && t.is_numeric()
        {
            return Ok((vec![t.clone(), t.clone()], t));
        }
        Err(wrong_arguments("mod(number, number)", arguments))
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let t = types.result;
        let types = ArithmeticTypes { left: t, right: t, result: t };
        arithmetic(ArithmeticOp::Modulo, &arguments[0], &arguments[1], types, rows, cx.account)
    }
}
