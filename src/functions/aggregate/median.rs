//! `median(x)`: the value in the middle of the non-null ones in order; between the two in the middle of an even number,
//! where the type has values in between.

use super::support::pick::pickable;
use super::support::quantile::between_type;
use super::{AggregateFunction, Evaluation, Ordered, one_argument};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct Median;

impl AggregateFunction for Median {
    fn name(&self) -> &'static str {
        "median"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), "a value", arguments)?;
        pickable(self.name(), given, true)?;
        Ok((vec![given.clone()], between_type(given).unwrap_or_else(|| given.clone())))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::Ordered(Ordered::Continuous)
    }
}
