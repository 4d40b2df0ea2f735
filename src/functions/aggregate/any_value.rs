//! `any_value(x)`: some non-null value, the first each lane meets.

use super::support::pick::{Whichever, accumulator, pickable};
use super::{Accumulator, AggregateFunction, Evaluation, StatefulAggregate, one_argument};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct AnyValue;

impl AggregateFunction for AnyValue {
    fn name(&self) -> &'static str {
        "any_value"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), "a value", arguments)?;
        pickable(self.name(), given, false)?;
        Ok((vec![given.clone()], given.clone()))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for AnyValue {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        arguments.to_vec()
    }

    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator> {
        accumulator::<Whichever>(&arguments[0])
    }
}
