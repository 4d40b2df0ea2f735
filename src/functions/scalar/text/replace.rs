//! `replace(text, from, to)`: every occurrence; nothing if `from` is empty.

use super::super::support::{each_text, flats, strings, text, wrong_arguments};
use super::is_text;
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Replace;

impl ScalarFunction for Replace {
    fn name(&self) -> &'static str {
        "replace"
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [_, _, _] if arguments.iter().all(is_text) => Ok((vec![DataType::Utf8; 3], DataType::Utf8)),
            given => Err(wrong_arguments("replace(text, text, text)", given)),
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
        let (values, from, to) = (strings(&flats[0])?, strings(&flats[1])?, strings(&flats[2])?);
        each_text(rows, cx, |row, out| {
            let (mut rest, from, to) = (text(values, row), text(from, row), text(to, row));
            if !from.is_empty() {
                while let Some((before, after)) = rest.split_once(from) {
                    out.push_str(before);
                    out.push_str(to);
                    rest = after;
                }
            }
            out.push_str(rest);
        })
    }
}
