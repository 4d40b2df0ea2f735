//! `substring(text, start [, length])`: characters from a place, counted from 1, or from the end if negative. A
//! negative length takes the characters before the place.

use super::super::support::{each_text, flats, slice, strings, text, wrong_arguments};
use super::{characters, count, is_text};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct Substring;

impl ScalarFunction for Substring {
    fn name(&self) -> &'static str {
        "substring"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["substr"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [value, numbers @ ..]
                if is_text(value)
                    && (1..=2).contains(&numbers.len())
                    && numbers.iter().all(|n| n.is_integer() || *n == DataType::Null) =>
            {
                let mut wanted = vec![DataType::Int64; arguments.len()];
                wanted[0] = DataType::Utf8;
                Ok((wanted, DataType::Utf8))
            }
            given => Err(wrong_arguments("substring(text, integer [, integer])", given)),
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
        let (values, starts) = (strings(&flats[0])?, slice::<i64>(&flats[1])?);
        let lengths = flats.get(2).map(slice::<i64>).transpose()?;
        each_text(rows, cx, |row, out| {
            let value = text(values, row);
            let begin = match starts[row] {
                start if start < 0 => count(value).saturating_add(start),
                start => start - 1,
            };
            let end = lengths.map_or(i64::MAX, |lengths| begin.saturating_add(lengths[row]));
            out.push_str(characters(value, begin.min(end), begin.max(end)));
        })
    }
}
