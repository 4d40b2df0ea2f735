//! `ln(x)`.

use super::FloatFunction;

pub(super) const LN: FloatFunction = FloatFunction { name: "ln", aliases: &[], f: f64::ln };
