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
        match between_type(given) {
            Some(result) if *given == DataType::Null => Ok((vec![result.clone()], result)),
            Some(result) => Ok((vec![given.clone()], result)),
            None => Ok((vec![given.clone()], given.clone())),
        }
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::Ordered(Ordered::Continuous)
    }
}
