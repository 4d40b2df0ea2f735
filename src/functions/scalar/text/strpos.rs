//! `strpos(text, part)`: the first place of a part, from 1; 0 if there is none.

use super::super::support::{each, flats, strings, text, wrong_arguments};
use super::{count, is_text};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct StrPos;

impl ScalarFunction for StrPos {
    fn name(&self) -> &'static str {
        "strpos"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["instr", "position"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [a, b] if is_text(a) && is_text(b) => Ok((vec![DataType::Utf8; 2], DataType::Int64)),
            given => Err(wrong_arguments("strpos(text, text)", given)),
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
        let (values, parts) = (strings(&flats[0])?, strings(&flats[1])?);
        each(rows, cx, |row| {
            let value = text(values, row);
            value.find(text(parts, row)).map_or(0, |at| count(&value[..at]) + 1)
        })
    }
}
