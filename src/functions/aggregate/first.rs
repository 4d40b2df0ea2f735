//! `first(x)`: the value of the first row each lane meets, null if it is null.

use super::support::pick::{Earliest, accumulator, pickable};
use super::{Accumulator, AggregateFunction, Evaluation, StatefulAggregate, one_argument};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct First;

impl AggregateFunction for First {
    fn name(&self) -> &'static str {
        "first"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["arbitrary"]
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

impl StatefulAggregate for First {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        vec![arguments[0].clone(), DataType::Boolean]
    }

    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator> {
        accumulator::<Earliest>(&arguments[0])
    }
}
