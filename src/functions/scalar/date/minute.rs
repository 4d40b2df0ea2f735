//! `minute(moment)`: the minute of the hour.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const MINUTE: PartFunction = PartFunction { name: "minute", aliases: &[], part: Part::Minute };
