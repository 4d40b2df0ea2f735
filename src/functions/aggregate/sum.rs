//! `sum(x)`: integers to HUGEINT, decimals to 38 digits at their scale, floats to DOUBLE; null without values.
//!
//! Exact sums are 128-bit. A batch whose values are small enough (by their bounds, else by looking) is summed in
//! 64 bits first; that is nearly every batch there is.

use super::support::input::{Input, spread};
use super::support::kernels::{self, SOME_GROUPS};
use super::support::states::{States, validity, vector};
use super::{
    Accumulator, AggregateFunction, Evaluation, GroupIds, GroupSet, Rows, StatefulAggregate, one_argument,
    wrong_type,
};
use crate::data::{Bounds, DataType, Scalar, Values, Vector, format_decimal};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::mem::{Account, Denied};

const TAKES: &str = "a number";

/// See the module.
pub(super) struct Sum;

impl AggregateFunction for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let given = one_argument(self.name(), TAKES, arguments)?;
        let argument = match given {
            DataType::Boolean | DataType::Null => DataType::Int32,
            DataType::Float32 => DataType::Float64,
            numeric if numeric.is_numeric() => numeric.clone(),
            other => return Err(wrong_type(self.name(), TAKES, other)),
        };
        let result = sum_type(&argument);
        Ok((vec![argument], result))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for Sum {
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType> {
        vec![sum_type(&arguments[0])]
    }

    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator> {
        if arguments[0].is_float() {
            Box::new(FloatSum::new())
        } else {
            Box::new(ExactSum::new(&arguments[0]))
        }
    }
}

/// The type of the sum of values of a numeric type.
pub(super) fn sum_type(argument: &DataType) -> DataType {
    match argument {
        DataType::Decimal { scale, .. } => {
            DataType::Decimal { precision: DataType::MAX_PRECISION, scale: *scale }
        }
        float if float.is_float() => DataType::Float64,
        _ => DataType::Int128,
    }
}

/// Sums of integers and decimals.
pub(super) struct ExactSum {
    sums: States<i128>,
    /// One for groups that have counted a value.
    seen: States<u8>,
    result: DataType,
}

impl ExactSum {
    /// No groups; sums of values of `argument`.
    pub(super) fn new(argument: &DataType) -> Self {
        Self { sums: States::new(), seen: States::new(), result: sum_type(argument) }
    }

    /// The sum of a group, if it has counted a value.
    pub(super) fn sum(&self, group: usize) -> Option<i128> {
        (self.seen[group] != 0).then_some(self.sums[group])
    }

    /// Adds values that fit 64 bits, each of magnitude below `2^bits`.
    fn add_narrow(&mut self, ids: Option<&[u32]>, values: &[i64], bits: u32, groups: usize) -> Result<()> {
        let rows_bits = usize::BITS - values.len().leading_zeros();
        let fits = bits + rows_bits < i64::BITS;
        let Some(ids) = ids else {
            if values.is_empty() {
                return Ok(());
            }
            let sum = if fits { kernels::sum_narrow(values).into() } else { kernels::sum_wide(values) };
            return self.add_one(0, sum);
        };
        if fits && groups <= SOME_GROUPS {
            let present = kernels::groups_present(ids);
            let mut result = Ok(());
            kernels::sum_some(ids, values, groups, |group, sum| {
                if present >> group & 1 == 1
                    && let Err(error) = self.add_one(group, sum.into())
                {
                    result = Err(error);
                }
            });
            return result;
        }
        self.add_wide(ids, values.iter().map(|&v| i128::from(v)))
    }

    /// Adds value by value.
    #[inline(always)]
    fn add_wide(&mut self, ids: &[u32], values: impl Iterator<Item = i128>) -> Result<()> {
        let (sums, seen): (&mut [i128], &mut [u8]) = (&mut self.sums, &mut self.seen);
        let mut has_overflowed = false;
        kernels::update_each(ids, sums, values, |sum, value| {
            let overflows;
            (*sum, overflows) = sum.overflowing_add(value);
            has_overflowed |= overflows;
        });
        ids.iter().for_each(|&id| seen[id as usize] = 1);
        if has_overflowed { Err(self.overflow()) } else { Ok(()) }
    }

    fn add_one(&mut self, group: usize, value: i128) -> Result<()> {
        let sum = self.sums[group].checked_add(value).ok_or_else(|| self.overflow())?;
        self.sums[group] = sum;
        self.seen[group] = 1;
        Ok(())
    }

    fn overflow(&self) -> Error {
        Error::value(format!(
            "overflow in sum: the result does not fit {}; sum a DOUBLE instead: sum(CAST(x AS DOUBLE))",
            self.result
        ))
    }

    fn add(&mut self, groups: GroupIds<'_>, rows: Rows<'_>, input: &Input<'_>) -> Result<()> {
        let mut result = Ok(());
        let count = match groups {
            GroupIds::One => 1,
            GroupIds::Each { groups, .. } => groups,
        };
        let known_bits = input.bounds.map(bounds_bits);
        macro_rules! narrow {
            ($values:expr) => {
                input.pieces(
                    rows,
                    groups,
                    |at| i64::from($values[at]),
                    |ids, values| {
                        let bits = known_bits.unwrap_or_else(|| kernels::magnitude_bits(values));
                        keep(&mut result, self.add_narrow(ids, values, bits, count));
                    },
                )
            };
        }
        macro_rules! wide {
            ($values:expr) => {
                input.pieces(
                    rows,
                    groups,
                    |at| i128::from($values[at]),
                    |ids, values| {
                        keep(
                            &mut result,
                            match ids {
                                Some(ids) => self.add_wide(ids, values.iter().copied()),
                                None => values.iter().try_for_each(|&v| self.add_one(0, v)),
                            },
                        );
                    },
                )
            };
        }
        match input.values {
            Values::I64(values) if input.is_dense(rows) => {
                let values = &values[..rows.len()];
                let bits = known_bits.unwrap_or_else(|| kernels::magnitude_bits(values));
                let ids = match groups {
                    GroupIds::One => None,
                    GroupIds::Each { ids, .. } => Some(ids),
                };
                return self.add_narrow(ids, values, bits, count);
            }
            Values::I64(values) => narrow!(values),
            Values::I32(values) => narrow!(values),
            Values::I16(values) => narrow!(values),
            Values::I8(values) => narrow!(values),
            Values::U32(values) => narrow!(values),
            Values::U16(values) => narrow!(values),
            Values::U8(values) => narrow!(values),
            Values::U64(values) => wide!(values),
            Values::I128(values) => wide!(values),
            Values::Bool(_) | Values::F32(_) | Values::F64(_) | Values::View(_) | Values::Nested(_) => {
                return Err(Error::internal("an exact sum was given values that are not integers"));
            }
        }
        result
    }
}

/// Keeps the first error.
fn keep(result: &mut Result<()>, next: Result<()>) {
    if result.is_ok() {
        *result = next;
    }
}

/// The bits needed by the magnitude of values within bounds.
fn bounds_bits(bounds: Bounds) -> u32 {
    kernels::magnitude_bits(&[bounds.min, bounds.max])
}

impl Accumulator for ExactSum {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.sums.resize(groups, 0, account)?;
        self.seen.resize(groups, 0, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        if let (GroupIds::One, Vector::Constant { value: Scalar { value, .. }, .. }) = (groups, &arguments[0])
            && let crate::data::Value::Int(value) = value
            && rows.len() > 0
        {
            let sum = value.checked_mul(rows.len() as i128).ok_or_else(|| self.overflow())?;
            return self.add_one(0, sum);
        }
        match spread(&arguments[0], cx.account)? {
            Some(vector) => self.add(groups, rows, &Input::new(&vector)?),
            None => Ok(()),
        }
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        self.update(groups, rows, states, cx)
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        let validity = validity(groups, account, |g| self.seen[g] != 0)?;
        Ok(vec![vector(Values::I128(self.sums.gather(groups, account)?), validity)])
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        if let DataType::Decimal { scale, .. } = self.result {
            let limit = 10i128.pow(u32::from(DataType::MAX_PRECISION));
            let sums = (0..groups.len()).map(|i| self.sums[groups.group(i)]);
            if let Some(sum) = sums.into_iter().find(|sum| *sum <= -limit || *sum >= limit) {
                return Err(Error::value(format!(
                    "overflow in sum: {} has more digits than {}; sum a DOUBLE instead: sum(CAST(x AS DOUBLE))",
                    format_decimal(sum, scale),
                    self.result
                )));
            }
        }
        let mut columns = self.export(groups, account)?;
        Ok(columns.remove(0))
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.seen.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.sums.allocated_bytes() + self.seen.allocated_bytes()
    }
}

/// Sums of floats.
pub(super) struct FloatSum {
    sums: States<f64>,
    seen: States<u8>,
}

impl FloatSum {
    /// No groups.
    pub(super) fn new() -> Self {
        Self { sums: States::new(), seen: States::new() }
    }

    /// The sum of a group, if it has counted a value.
    pub(super) fn sum(&self, group: usize) -> Option<f64> {
        (self.seen[group] != 0).then_some(self.sums[group])
    }

    fn add_values(&mut self, ids: Option<&[u32]>, values: &[f64], groups: usize) {
        let (sums, seen): (&mut [f64], &mut [u8]) = (&mut self.sums, &mut self.seen);
        match ids {
            _ if values.is_empty() => {}
            None => {
                sums[0] += kernels::sum_float(values);
                seen[0] = 1;
            }
            Some(ids) if groups <= SOME_GROUPS => {
                let present = kernels::groups_present(ids);
                kernels::sum_float_some(ids, values, groups, |group, sum| {
                    if present >> group & 1 == 1 {
                        sums[group] += sum;
                        seen[group] = 1;
                    }
                });
            }
            Some(ids) => {
                kernels::update_each(ids, sums, values.iter(), |sum, value| *sum += value);
                ids.iter().for_each(|&id| seen[id as usize] = 1);
            }
        }
    }
}

impl Accumulator for FloatSum {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.sums.resize(groups, 0.0, account)?;
        self.seen.resize(groups, 0, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let Some(vector) = spread(&arguments[0], cx.account)? else { return Ok(()) };
        let input = Input::new(&vector)?;
        let (count, ids) = match groups {
            GroupIds::One => (1, None),
            GroupIds::Each { ids, groups } => (groups, Some(ids)),
        };
        match input.values {
            Values::F64(values) if input.is_dense(rows) => {
                self.add_values(ids, &values[..rows.len()], count);
            }
            Values::F64(values) => {
                input.pieces(
                    rows,
                    groups,
                    |at| values[at],
                    |ids, values| self.add_values(ids, values, count),
                );
            }
            Values::F32(values) => input.pieces(
                rows,
                groups,
                |at| f64::from(values[at]),
                |ids, values| self.add_values(ids, values, count),
            ),
            Values::Bool(_)
            | Values::I8(_)
            | Values::I16(_)
            | Values::I32(_)
            | Values::I64(_)
            | Values::I128(_)
            | Values::U8(_)
            | Values::U16(_)
            | Values::U32(_)
            | Values::U64(_)
            | Values::View(_)
            | Values::Nested(_) => {
                return Err(Error::internal("a float sum was given values that are not floats"));
            }
        }
        Ok(())
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        self.update(groups, rows, states, cx)
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        Ok(vec![self.finish(groups, account)?])
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        let validity = validity(groups, account, |g| self.seen[g] != 0)?;
        Ok(vector(Values::F64(self.sums.gather(groups, account)?), validity))
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.seen.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.sums.allocated_bytes() + self.seen.allocated_bytes()
    }
}
