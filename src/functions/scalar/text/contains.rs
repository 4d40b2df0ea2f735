//! `contains(text, part)`.

use super::TextTest;

pub(super) const CONTAINS: TextTest =
    TextTest { name: "contains", aliases: &[], f: |text, part| memchr::memmem::find(text, part).is_some() };
