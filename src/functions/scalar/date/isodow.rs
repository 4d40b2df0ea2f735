//! `isodow(moment)`: the day of the week, Monday being 1 and Sunday 7.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const ISO_DAY_OF_WEEK: PartFunction =
    PartFunction { name: "isodow", aliases: &[], part: Part::IsoDayOfWeek };
