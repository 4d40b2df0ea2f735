//! `log10(x)`.

use super::FloatFunction;

pub(super) const LOG10: FloatFunction = FloatFunction { name: "log10", aliases: &["log"], f: f64::log10 };
