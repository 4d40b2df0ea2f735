//! `ltrim(text [, characters])`.

use super::Trimming;

pub(super) const LTRIM: Trimming = Trimming { name: "ltrim", start: true, end: false };
