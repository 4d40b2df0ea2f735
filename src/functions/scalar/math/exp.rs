//! `exp(x)`.

use super::FloatFunction;

pub(super) const EXP: FloatFunction = FloatFunction { name: "exp", aliases: &[], f: f64::exp };
