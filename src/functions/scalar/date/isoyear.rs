//! `isoyear(moment)`: the year the ISO week belongs to.

use super::PartFunction;
use crate::functions::scalar::date_parts::Part;

pub(super) const ISO_YEAR: PartFunction = PartFunction { name: "isoyear", aliases: &[], part: Part::IsoYear };
