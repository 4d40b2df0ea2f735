//! `concat(a, b, …)`: the texts one after the other; nulls are passed over.

use super::super::support::{all_text, each_text, flats, strings, text, wrong_arguments};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Concat;

impl ScalarFunction for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [] => Err(wrong_arguments("concat(value, …)", arguments)),
            given => Ok((all_text(given), DataType::Utf8)),
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
        let columns = flats.iter().map(strings).collect::<Result<Vec<_>>>()?;
        each_text(rows, cx, |row, out| {
            for (flat, column) in flats.iter().zip(&columns) {
                if !flat.is_null(row) {
                    out.push_str(text(column, row));
                }
            }
        })
    }
    fn is_strict(&self) -> bool {
        false
    }
}
