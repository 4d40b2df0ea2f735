//! `dayofweek(moment)`: the day of the week, Sunday being 0.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const DAY_OF_WEEK: PartFunction =
    PartFunction { name: "dayofweek", aliases: &["dow", "weekday"], part: Part::DayOfWeek };
