//! `right(text, n)`: the last `n` characters, or all but the first `-n`.

use super::{TextPart, characters, count};

pub(super) const RIGHT: TextPart = TextPart {
    name: "right",
    f: |value, n| {
        let len = count(value);
        characters(value, if n < 0 { n.saturating_neg() } else { len.saturating_sub(n) }, len)
    },
};
