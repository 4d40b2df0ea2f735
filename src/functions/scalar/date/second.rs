//! `second(moment)`: the whole second of the minute.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const SECOND: PartFunction = PartFunction { name: "second", aliases: &[], part: Part::Second };
