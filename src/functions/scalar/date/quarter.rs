//! `quarter(moment)`: the quarter, from 1.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const QUARTER: PartFunction = PartFunction { name: "quarter", aliases: &[], part: Part::Quarter };
