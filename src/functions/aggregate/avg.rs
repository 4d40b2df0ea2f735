//! `avg(x)`: the mean of non-null values as DOUBLE; exact sums are divided at the end.

use super::count::CountAccumulator;
use super::sum::{ExactSum, FloatSum, sum_type};
use super::support::states::{validity, vector};
use super::{
    Accumulator, AggregateFunction, Evaluation, GroupIds, GroupSet, Rows, StatefulAggregate, one_argument,
    wrong_type,
};
use crate::data::{BufMut, DataType, Values, Vector};
use crate::error::Result;
use crate::expr::EvalCx;
use crate::mem::{Account, Denied};

const TAKES: &str = "a number";

/// See the module.
pub(super) struct Avg;

impl AggregateFunction for Avg {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["mean"]
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let argument = match one_argument(self.name(), TAKES, arguments)? {
            DataType::Null | DataType::Float32 => DataType::Float64,
            numeric if numeric.is_numeric() => numeric.clone(),
            other => return Err(wrong_type(self.name(), TAKES, other)),
        };
        Ok((vec![argument], DataType::Float64))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for Avg {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        vec![sum_type(&arguments[0]), DataType::Int64]
    }

    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator> {
        let scale = if let DataType::Decimal { scale, .. } = arguments[0] { scale } else { 0 };
        let sum = if arguments[0].is_float() {
            Numerator::Float(FloatSum::new())
        } else {
            Numerator::Exact(ExactSum::new(&arguments[0]), 10f64.powi(scale.into()))
        };
        Box::new(AvgAccumulator { sum, count: CountAccumulator::new() })
    }
}

enum Numerator {
    /// With what its sums are to be divided by to undo the scale.
    Exact(ExactSum, f64),
    Float(FloatSum),
}

impl Numerator {
    fn sum(&self, group: usize) -> f64 {
        match self {
            Self::Exact(sum, unit) => sum.sum(group).unwrap_or(0) as f64 / unit,
            Self::Float(sum) => sum.sum(group).unwrap_or(0.0),
        }
    }

    fn accumulator(&self) -> &dyn Accumulator {
        match self {
            Self::Exact(sum, _) => sum,
            Self::Float(sum) => sum,
        }
    }

    fn accumulator_mut(&mut self) -> &mut dyn Accumulator {
        match self {
            Self::Exact(sum, _) => sum,
            Self::Float(sum) => sum,
        }
    }
}

struct AvgAccumulator {
    sum: Numerator,
    count: CountAccumulator,
}

impl Accumulator for AvgAccumulator {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.sum.accumulator_mut().resize(groups, account)?;
        self.count.resize(groups, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        self.sum.accumulator_mut().update(groups, rows, arguments, cx)?;
        self.count.update(groups, rows, arguments, cx)
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        self.sum.accumulator_mut().merge(groups, rows, &states[..1], cx)?;
        self.count.merge(groups, rows, &states[1..], cx)
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        let mut columns = self.sum.accumulator().export(groups, account)?;
        columns.extend(self.count.export(groups, account)?);
        Ok(columns)
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        let mut means = BufMut::with_len(account, groups.len())?;
        for (i, mean) in means.iter_mut().enumerate() {
            let group = groups.group(i);
            *mean = self.sum.sum(group) / self.count.count(group) as f64;
        }
        let validity = validity(groups, account, |g| self.count.count(g) > 0)?;
        Ok(vector(Values::F64(means.freeze()), validity))
    }

    fn clear(&mut self) {
        self.sum.accumulator_mut().clear();
        self.count.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.sum.accumulator().allocated_bytes() + self.count.allocated_bytes()
    }
}
