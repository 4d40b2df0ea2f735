//! `quantile_disc(x, fraction)`, in SQL's words `percentile_disc(fraction) WITHIN GROUP (ORDER BY x)`: the first of the
//! non-null values in order that at least a fraction of them is not above.

use super::support::pick::pickable;
use super::support::quantile::value_and_fraction;
use super::{AggregateFunction, Evaluation, Ordered};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct QuantileDisc;

impl AggregateFunction for QuantileDisc {
    fn name(&self) -> &'static str {
        "quantile_disc"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["quantile", "percentile_disc"]
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = value_and_fraction(self.name(), arguments)?;
        pickable(self.name(), given, true)?;
        Ok((vec![given.clone(), DataType::Float64], given.clone()))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::Ordered(Ordered::Discrete)
    }
}
