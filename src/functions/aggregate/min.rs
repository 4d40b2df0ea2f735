//! `min(x)`: the least non-null value; NaN is the greatest.

use super::support::pick::{Least, accumulator, pickable};
use super::{Accumulator, AggregateFunction, Evaluation, StatefulAggregate, one_argument};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct Min;

impl AggregateFunction for Min {
    fn name(&self) -> &'static str {
        "min"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), "a value", arguments)?;
        pickable(self.name(), given, true)?;
        Ok((vec![given.clone()], given.clone()))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for Min {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        arguments.to_vec()
    }

    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator> {
        accumulator::<Least>(&arguments[0])
    }
}
