//! `length(text)`: characters.

use super::super::support::{each, flats, strings, text, wrong_arguments};
use super::{count, is_text};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Length;

impl ScalarFunction for Length {
    fn name(&self) -> &'static str {
        "length"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["len", "char_length", "character_length"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [t] if is_text(t) => Ok((vec![DataType::Utf8], DataType::Int64)),
            given => Err(wrong_arguments("length(text)", given)),
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
        let values = strings(&flats[0])?;
        each(rows, cx, |row| count(text(values, row)))
    }
}
