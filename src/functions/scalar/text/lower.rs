//! `lower(text)`.

use super::TextFunction;

pub(super) const LOWER: TextFunction =
    TextFunction { name: "lower", aliases: &["lcase"], f: |value, out| out.push_str(&value.to_lowercase()) };
