//! `a || b`: one text after the other; null if either is.

use super::super::support::{all_text, each_text, flats, strings, text, wrong_arguments};
use super::is_text;
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct ConcatOperator;

impl ScalarFunction for ConcatOperator {
    fn name(&self) -> &'static str {
        "||"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["concat_operator"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [a, b] if is_text(a) || is_text(b) => Ok((all_text(arguments), DataType::Utf8)),
            given => Err(wrong_arguments("text || text", given)),
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
        let (a, b) = (strings(&flats[0])?, strings(&flats[1])?);
        each_text(rows, cx, |row, out| {
            out.push_str(text(a, row));
            out.push_str(text(b, row));
        })
    }
}
