//! `ceil(x)`: the least whole number not below.

use super::Rounding;

pub(super) const CEIL: Rounding = Rounding {
    name: "ceil",
    aliases: &["ceiling"],
    float: f64::ceil,
    decimal: |value, unit| -(-value).div_euclid(unit),
};
