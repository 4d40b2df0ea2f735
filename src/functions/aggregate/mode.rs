//! `mode(x)`: the non-null value that comes most often, the least of several.

use super::support::pick::pickable;
use super::{AggregateFunction, Evaluation, Ordered, one_argument};
use crate::data::DataType;
use crate::error::Result;

/// See the module.
pub(super) struct Mode;

impl AggregateFunction for Mode {
    fn name(&self) -> &'static str {
        "mode"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), "a value", arguments)?;
        pickable(self.name(), given, true)?;
        Ok((vec![given.clone()], given.clone()))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::Ordered(Ordered::Mode)
    }
}
