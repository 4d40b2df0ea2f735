//! Text to bytes: characters as they are, any byte as `\x` and two hexadecimal digits, as DuckDB reads them. The other
//! direction writes the same form.

use super::Failures;
use crate::data::{FlatVector, Values, ViewBuilder};
use crate::error::{Error, Result};
use crate::mem::Account;

/// The bytes that each text stands for. Only ASCII stands for itself: of other characters nobody would know the bytes.
pub(super) fn from_text(vector: &FlatVector, failures: &mut Failures, account: &Account) -> Result<Values> {
    let Values::View(strings) = &vector.values else {
        return Err(Error::internal("strings are views"));
    };
    let rows = vector.len();
    let is_plain = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
    if (0..rows).all(|row| vector.is_null(row) || is_plain(strings.get(row))) {
        return Ok(Values::View(strings.clone()));
    }
    let mut builder = ViewBuilder::new(account, rows)?;
    let mut bytes = Vec::new();
    for row in 0..rows {
        bytes.clear();
        if !vector.is_null(row) && !unescape(strings.get(row), &mut bytes) {
            bytes.clear();
            failures.mark(row, rows, account)?;
        }
        builder.push(account, &bytes)?;
    }
    Ok(Values::View(builder.freeze()))
}

/// Appends what `text` stands for; whether it stands for anything.
fn unescape(mut text: &[u8], bytes: &mut Vec<u8>) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    loop {
        match text {
            [] => return true,
            [b'\\', b'x', high, low, rest @ ..] => {
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
                bytes.push(high << 4 | low);
                text = rest;
            }
            [b'\\' | 128.., ..] => return false,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                text = rest;
            }
        }
    }
}
