//! `rtrim(text [, characters])`.

use super::Trimming;

pub(super) const RTRIM: Trimming = Trimming { name: "rtrim", start: false, end: true };
