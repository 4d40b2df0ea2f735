//! `year(moment)`: the year.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const YEAR: PartFunction = PartFunction { name: "year", aliases: &[], part: Part::Year };
