//! Functions that choose among their arguments. Unlike CASE they evaluate all of them.

mod coalesce;
mod greatest;
mod least;
mod nullif;

use super::Maker;
use super::support::{flats, wrong_arguments};
use crate::data::{DataType, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::blend;
use crate::expr::kernels::boolean::{is_null, true_bits};
use crate::expr::kernels::compare::compare;
use crate::expr::{CallTypes, CompareOp, EvalCx, ScalarFunction, common_type};
use std::sync::Arc;

pub(super) const LIST: &[Maker] = &[
    || Arc::new(coalesce::Coalesce),
    || Arc::new(greatest::GREATEST),
    || Arc::new(least::LEAST),
    || Arc::new(nullif::NullIf),
];

/// All arguments in the type they have in common.
fn in_common(usage: &str, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
    let common = arguments.iter().try_fold(DataType::Null, |common, t| common_type(&common, t));
    match common {
        Some(common) if !arguments.is_empty() => Ok((vec![common.clone(); arguments.len()], common)),
        _ => Err(wrong_arguments(usage, arguments)),
    }
}

/// The greatest or least argument; nulls are passed over.
struct Extreme {
    name: &'static str,
    /// How a later argument compares that replaces an earlier one.
    wins: CompareOp,
}

impl ScalarFunction for Extreme {
    fn name(&self) -> &'static str {
        self.name
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        in_common(&format!("{}(value, …) of comparable types", self.name), arguments)
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let (t, account) = (types.result, cx.account);
        let mut candidates = flats(arguments, account)?.into_iter().map(Vector::Flat);
        let Some(mut best) = candidates.next() else {
            return Err(wrong_arguments(self.name, types.arguments));
        };
        for candidate in candidates {
            let wins = true_bits(&compare(self.wins, &candidate, &best, t, rows, account)?, rows, account)?;
            let empty = true_bits(&is_null(&best, rows, account)?, rows, account)?;
            let mask = wins.zip(&empty, account, |a, b| a | b)?;
            best = blend(&mask, &candidate, &best, t, account)?;
        }
        Ok(best)
    }
    fn is_strict(&self) -> bool {
        false
    }
}
