//! `coalesce(a, b, …)`: the first argument that is not null.

use super::super::support::flats;
use super::in_common;
use crate::data::{DataType, Scalar, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::blend;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Coalesce;

impl ScalarFunction for Coalesce {
    fn name(&self) -> &'static str {
        "coalesce"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["ifnull"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        in_common("coalesce(value, …) of types that mix", arguments)
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let mut result = Vector::Constant { value: Scalar::null(types.result.clone()), len: rows };
        for flat in flats(arguments, cx.account)?.into_iter().rev() {
            result = match flat.validity.clone() {
                None => Vector::Flat(flat),
                Some(valid) => blend(&valid, &Vector::Flat(flat), &result, types.result, cx.account)?,
            };
        }
        Ok(result)
    }
    fn is_strict(&self) -> bool {
        false
    }
}
