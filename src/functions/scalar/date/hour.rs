//! `hour(moment)`: the hour of the day.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const HOUR: PartFunction = PartFunction { name: "hour", aliases: &[], part: Part::Hour };
