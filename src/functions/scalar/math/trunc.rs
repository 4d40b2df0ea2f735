//! `trunc(x)`: the whole part.

use super::Rounding;

pub(super) const TRUNC: Rounding =
    Rounding { name: "trunc", aliases: &[], float: f64::trunc, decimal: |value, unit| value / unit };
