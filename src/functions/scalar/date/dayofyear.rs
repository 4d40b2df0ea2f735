//! `dayofyear(moment)`: the day of the year, from 1.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const DAY_OF_YEAR: PartFunction =
    PartFunction { name: "dayofyear", aliases: &["doy"], part: Part::DayOfYear };
