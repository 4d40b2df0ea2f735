//! `left(text, n)`: the first `n` characters, or all but the last `-n`.

use super::{TextPart, characters, count};

pub(super) const LEFT: TextPart = TextPart {
    name: "left",
    f: |value, n| characters(value, 0, if n < 0 { count(value).saturating_add(n) } else { n }),
};
