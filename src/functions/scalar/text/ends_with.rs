//! `ends_with(text, suffix)`.

use super::TextTest;

pub(super) const ENDS_WITH: TextTest =
    TextTest { name: "ends_with", aliases: &["suffix"], f: |text, suffix| text.ends_with(suffix) };
