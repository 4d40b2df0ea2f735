//! `bool_or(x)`: whether any value is true. False is less than true, so this is an extremum.

use super::support::pick::{Greatest, accumulator};
use super::{Accumulator, AggregateFunction, Evaluation, StatefulAggregate, one_argument, wrong_type};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct BoolOr;

impl AggregateFunction for BoolOr {
    fn name(&self) -> &'static str {
        "bool_or"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match one_argument(self.name(), "BOOLEAN", arguments)? {
            DataType::Boolean | DataType::Null => Ok((vec![DataType::Boolean], DataType::Boolean)),
            other => Err(wrong_type(self.name(), "BOOLEAN", other)),
        }
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for BoolOr {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        arguments.to_vec()
    }

    fn accumulator(&self, _arguments: &[DataType]) -> Box<dyn Accumulator> {
        accumulator::<Greatest>(&DataType::Boolean)
    }
}
