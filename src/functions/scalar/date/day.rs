//! `day(moment)`: the day of the month, from 1.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const DAY: PartFunction = PartFunction { name: "day", aliases: &["dayofmonth"], part: Part::Day };
