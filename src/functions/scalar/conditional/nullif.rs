//! `nullif(a, b)`: null if they are equal, else `a`.

use super::super::support::flats;
use super::in_common;
use crate::data::{DataType, Scalar, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::blend;
use crate::expr::kernels::boolean::true_bits;
use crate::expr::kernels::compare::compare;
use crate::expr::{CallTypes, CompareOp, EvalCx, ScalarFunction};

pub(super) struct NullIf;

impl ScalarFunction for NullIf {
    fn name(&self) -> &'static str {
        "nullif"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let usage = "nullif(value, value) of comparable types";
        match arguments {
            [_, _] => in_common(usage, arguments),
            given => Err(super::wrong_arguments(usage, given)),
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
        let sides: Vec<Vector> = flats(arguments, account)?.into_iter().map(Vector::Flat).collect();
        let equal = compare(CompareOp::Eq, &sides[0], &sides[1], t, rows, account)?;
        let null = Vector::Constant { value: Scalar::null(t.clone()), len: rows };
        blend(&true_bits(&equal, rows, account)?, &null, &sides[0], t, account)
    }
    fn is_strict(&self) -> bool {
        false
    }
}
