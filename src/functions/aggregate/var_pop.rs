//! `var_pop(x)`: the population variance of non-null values.

use super::support::variance::{Spread, VarianceAccumulator, state_types};
use super::{Accumulator, AggregateFunction, Evaluation, StatefulAggregate, one_argument, wrong_type};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct VarPop;

impl AggregateFunction for VarPop {
    fn name(&self) -> &'static str {
        "var_pop"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), "a number", arguments)?;
        if given.is_numeric() || *given == DataType::Null {
            Ok((vec![DataType::Float64], DataType::Float64))
        } else {
            Err(wrong_type(self.name(), "a number", given))
        }
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for VarPop {
    fn state_types(&self, _arguments: &[DataType]) -> Vec<DataType> {
        state_types()
    }

    fn accumulator(&self, _arguments: &[DataType]) -> Box<dyn Accumulator> {
        Box::new(VarianceAccumulator::new(Spread::VarPop))
    }
}
