//! Functions of text. Positions and lengths count characters.

mod concat;
mod concat_operator;
mod contains;
mod ends_with;
mod left;
mod length;
mod lower;
mod ltrim;
mod replace;
mod reverse;
mod right;
mod rtrim;
mod starts_with;
mod strpos;
mod substring;
mod trim;
mod upper;

use super::Maker;
use super::support::{each_bool, each_text, flats, slice, strings, text, wrong_arguments};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, ScalarFunction};
use std::sync::Arc;

pub(super) const LIST: &[Maker] = &[
    || Arc::new(concat::Concat),
    || Arc::new(concat_operator::ConcatOperator),
    || Arc::new(contains::CONTAINS),
    || Arc::new(ends_with::ENDS_WITH),
    || Arc::new(left::LEFT),
    || Arc::new(length::Length),
    || Arc::new(lower::LOWER),
    || Arc::new(ltrim::LTRIM),
    || Arc::new(replace::Replace),
    || Arc::new(reverse::REVERSE),
    || Arc::new(right::RIGHT),
    || Arc::new(rtrim::RTRIM),
    || Arc::new(starts_with::STARTS_WITH),
    || Arc::new(strpos::StrPos),
    || Arc::new(substring::Substring),
    || Arc::new(trim::TRIM),
    || Arc::new(upper::UPPER),
];

/// Whether a value can be given where text is wanted.
fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::Null)
}

/// A function from text to text.
struct TextFunction {
    name: &'static str,
    aliases: &'static [&'static str],
    /// Appends the result.
    f: fn(&str, &mut String),
}

impl ScalarFunction for TextFunction {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [t] if is_text(t) => Ok((vec![DataType::Utf8], DataType::Utf8)),
            given => Err(wrong_arguments(&format!("{}(text)", self.name), given)),
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
        each_text(rows, cx, |row, out| (self.f)(text(values, row), out))
    }
}

/// A question about a text and another.
struct TextTest {
    name: &'static str,
    aliases: &'static [&'static str],
    f: fn(&[u8], &[u8]) -> bool,
}

impl ScalarFunction for TextTest {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [a, b] if is_text(a) && is_text(b) => Ok((vec![DataType::Utf8; 2], DataType::Boolean)),
            given => Err(wrong_arguments(&format!("{}(text, text)", self.name), given)),
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
        each_bool(rows, cx, |row| (self.f)(a.get(row), b.get(row)))
    }
}

/// A part of a text given a number of characters.
struct TextPart {
    name: &'static str,
    f: fn(&str, i64) -> &str,
}

impl ScalarFunction for TextPart {
    fn name(&self) -> &'static str {
        self.name
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [a, n] if is_text(a) && (n.is_integer() || *n == DataType::Null) => {
                Ok((vec![DataType::Utf8, DataType::Int64], DataType::Utf8))
            }
            given => Err(wrong_arguments(&format!("{}(text, integer)", self.name), given)),
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
        let (values, counts) = (strings(&flats[0])?, slice::<i64>(&flats[1])?);
        each_text(rows, cx, |row, out| out.push_str((self.f)(text(values, row), counts[row])))
    }
}

/// Text without some characters at its ends: white space, or those of a second argument.
struct Trimming {
    name: &'static str,
    start: bool,
    end: bool,
}

impl ScalarFunction for Trimming {
    fn name(&self) -> &'static str {
        self.name
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [_] | [_, _] if arguments.iter().all(is_text) => {
                Ok((vec![DataType::Utf8; arguments.len()], DataType::Utf8))
            }
            given => Err(wrong_arguments(&format!("{}(text [, characters])", self.name), given)),
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
        let unwanted = flats.get(1).map(strings).transpose()?;
        each_text(rows, cx, |row, out| {
            let characters = unwanted.map_or(" ", |u| text(u, row));
            let mut rest = text(values, row);
            if self.start {
                rest = rest.trim_start_matches(|c| characters.contains(c));
            }
            if self.end {
                rest = rest.trim_end_matches(|c| characters.contains(c));
            }
            out.push_str(rest);
        })
    }
}

/// Characters `start..end` of a text, cut to what is there.
fn characters(value: &str, start: i64, end: i64) -> &str {
    let (start, end) = (start.max(0) as usize, end.max(0) as usize);
    if start >= end {
        return "";
    }
    if value.is_ascii() {
        return value.get(start.min(value.len())..end.min(value.len())).unwrap_or_default();
    }
    let at = |n: usize| value.char_indices().nth(n).map_or(value.len(), |(at, _)| at);
    &value[at(start)..at(end)]
}

/// The number of characters of a text.
fn count(value: &str) -> i64 {
    if value.is_ascii() { value.len() as i64 } else { value.chars().count() as i64 }
}
