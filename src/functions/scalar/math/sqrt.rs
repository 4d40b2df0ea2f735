//! `sqrt(x)`.

use super::FloatFunction;

pub(super) const SQRT: FloatFunction = FloatFunction { name: "sqrt", aliases: &[], f: f64::sqrt };
