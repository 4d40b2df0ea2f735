//! `week(moment)`: the ISO week, from 1.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const WEEK: PartFunction =
    PartFunction { name: "week", aliases: &["weekofyear"], part: Part::Week };
