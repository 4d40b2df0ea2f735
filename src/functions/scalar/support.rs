//! What scalar functions share: checking arguments, loops over rows.

use crate::data::{DataType, FlatVector, StringViews, Values, Vector, ViewBuilder};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::expr::kernels::operand::Native;
use crate::mem::Account;

/// The error of a call with arguments a function does not take.
pub(super) fn wrong_arguments(usage: &str, given: &[DataType]) -> Error {
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    Error::plan(format!("the function is {usage}, not called with ({})", given.join(", ")), None)
}

/// The arguments as flat vectors.
pub(super) fn flats(arguments: &[Vector], account: &Account) -> Result<Vec<FlatVector>> {
    Ok(arguments.iter().map(|a| a.flatten(account)).collect::<Result<_, _>>()?)
}

/// The strings of a flat vector.
pub(super) fn strings(flat: &FlatVector) -> Result<&StringViews> {
    match &flat.values {
        Values::View(strings) => Ok(strings),
        _ => Err(Error::internal("the signature asked for strings")),
    }
}

/// A string of a column of text.
pub(super) fn text(strings: &StringViews, row: usize) -> &str {
    let bytes = strings.get(row);
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return unsafe { std::str::from_utf8_unchecked(bytes) };
    }
    // Text is checked where it enters; bytes at null positions may be anything, and count for nothing.
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Values of a fixed-width argument.
pub(super) fn slice<T: Native>(flat: &FlatVector) -> Result<&[T]> {
    T::slice(&flat.values).ok_or_else(|| Error::internal("the signature asked for another type"))
}

/// A vector of `f` of each row.
pub(super) fn each<T: Native>(rows: usize, cx: &EvalCx<'_>, mut f: impl FnMut(usize) -> T) -> Result<Vector> {
    let mut out = crate::data::BufMut::with_len(cx.account, rows)?;
    for (row, out) in out.iter_mut().enumerate() {
        *out = f(row);
    }
    Ok(Vector::Flat(FlatVector::new(T::wrap(out.freeze()))))
}

/// A vector of the text `f` appends for each row.
pub(super) fn each_text(
    rows: usize,
    cx: &EvalCx<'_>,
    mut f: impl FnMut(usize, &mut String),
) -> Result<Vector> {
    let mut builder = ViewBuilder::new(cx.account, rows)?;
    let mut line = String::new();
    for row in 0..rows {
        line.clear();
        f(row, &mut line);
        builder.push(cx.account, line.as_bytes())?;
    }
    Ok(Vector::Flat(FlatVector::new(Values::View(builder.freeze()))))
}

/// A boolean vector of `f` of each row.
pub(super) fn each_bool(rows: usize, cx: &EvalCx<'_>, f: impl FnMut(usize) -> bool) -> Result<Vector> {
    let mut bits = crate::data::BitmapMut::with_len(cx.account, rows)?;
    bits.fill_from(f);
    Ok(Vector::Flat(FlatVector::new(Values::Bool(bits.freeze()))))
}

/// Whether each argument may be read as text: strings, and values that print.
pub(super) fn all_text(arguments: &[DataType]) -> Vec<DataType> {
    vec![DataType::Utf8; arguments.len()]
}
