//! `reverse(text)`.

use super::TextFunction;

pub(super) const REVERSE: TextFunction =
    TextFunction { name: "reverse", aliases: &[], f: |value, out| out.extend(value.chars().rev()) };
