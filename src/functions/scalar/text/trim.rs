//! `trim(text [, characters])`.

use super::Trimming;

pub(super) const TRIM: Trimming = Trimming { name: "trim", start: true, end: true };
