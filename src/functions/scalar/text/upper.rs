//! `upper(text)`.

use super::TextFunction;

pub(super) const UPPER: TextFunction =
    TextFunction { name: "upper", aliases: &["ucase"], f: |value, out| out.push_str(&value.to_uppercase()) };
