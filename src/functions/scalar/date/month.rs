//! `month(moment)`: the month, from 1.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const MONTH: PartFunction = PartFunction { name: "month", aliases: &[], part: Part::Month };
