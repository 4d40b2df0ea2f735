//! `floor(x)`: the greatest whole number not above.

use super::Rounding;

pub(super) const FLOOR: Rounding =
    Rounding { name: "floor", aliases: &[], float: f64::floor, decimal: i128::div_euclid };
