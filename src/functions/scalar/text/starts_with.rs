//! `starts_with(text, prefix)`.

use super::TextTest;

pub(super) const STARTS_WITH: TextTest =
    TextTest { name: "starts_with", aliases: &["prefix"], f: |text, prefix| text.starts_with(prefix) };
