//! `quantile_cont(x, fraction)`, in SQL's words `percentile_cont(fraction) WITHIN GROUP (ORDER BY x)`: what lies at a
//! fraction of the way through the non-null values in order, between two of them if need be.

use super::support::quantile::{between_type, value_and_fraction};
use super::{AggregateFunction, Evaluation, Ordered, wrong_type};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct QuantileCont;

impl AggregateFunction for QuantileCont {
    fn name(&self) -> &'static str {
        "quantile_cont"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["percentile_cont"]
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = value_and_fraction(self.name(), arguments)?;
        match between_type(given) {
            Some(result) if *given == DataType::Null => Ok((vec![result.clone(), DataType::Float64], result)),
            Some(result) => Ok((vec![given.clone(), DataType::Float64], result)),
            None => Err(wrong_type(self.name(), "numbers, dates and timestamps", given)),
        }
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::Ordered(Ordered::Continuous)
    }
}
