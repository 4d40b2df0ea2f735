//! `log2(x)`.

use super::FloatFunction;

pub(super) const LOG2: FloatFunction = FloatFunction { name: "log2", aliases: &[], f: f64::log2 };
