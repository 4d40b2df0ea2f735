//! Which of the values in order an aggregate takes, and what lies between two of them.

use super::OrderedCall;
use crate::data::{BitmapMut, BufMut, DataType, FlatVector, Plain, TimeUnit, Values, Vector};
use crate::error::{Error, Result};
use crate::functions::Ordered;
use crate::mem::Account;

const MICROSECONDS_PER_DAY: i128 = 86_400_000_000;

/// Between which two of the values, numbered from 0, and how far from the first to the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rank {
    pub(super) below: u64,
    pub(super) above: u64,
    pub(super) weight: f64,
}

impl OrderedCall {
    /// What it takes of `len` values, at least one; `None` if that is not told by their number.
    pub(super) fn rank(&self, len: u64) -> Option<Rank> {
        let last = len - 1;
        let kind = if self.interpolates() { self.kind } else { self.kind.without_between() };
        match kind {
            Ordered::Mode => None,
            Ordered::Continuous => {
                let at = last as f64 * self.fraction;
                let (below, above) = ((at.floor() as u64).min(last), (at.ceil() as u64).min(last));
                Some(Rank { below, above, weight: at - at.floor() })
            }
            Ordered::Discrete => {
                let before = len as f64 - (len as f64 - self.fraction * len as f64).floor();
                let at = (before as u64).max(1) - 1;
                Some(Rank { below: at.min(last), above: at.min(last), weight: 0.0 })
            }
        }
    }

    /// Whether results may lie between values.
    fn interpolates(&self) -> bool {
        matches!(
            self.data_type,
            DataType::Float32
                | DataType::Float64
                | DataType::Decimal { .. }
                | DataType::Time(_)
                | DataType::Timestamp(..)
        )
    }

    /// Results that lie between the values of two vectors, each at its weight; null where one is not `known`.
    pub(super) fn between(
        &self,
        [below, above]: [&FlatVector; 2],
        weights: &[f64],
        known: BitmapMut,
        account: &Account,
    ) -> Result<Vector> {
        let known = known.freeze();
        let validity = (known.count_ones() < known.len()).then_some(known);
        if self.kind != Ordered::Continuous || !self.interpolates() {
            return Ok(Vector::Flat(FlatVector { validity, ..below.clone() }));
        }
        let values = interpolated(&below.values, &above.values, weights, &self.data_type, account)?;
        Ok(Vector::Flat(FlatVector { values, validity, bounds: None }))
    }
}

impl Ordered {
    /// The same of values with none in between.
    fn without_between(self) -> Self {
        match self {
            Self::Continuous | Self::Discrete => Self::Discrete,
            Self::Mode => Self::Mode,
        }
    }
}

fn interpolated(
    below: &Values,
    above: &Values,
    weights: &[f64],
    data_type: &DataType,
    account: &Account,
) -> Result<Values> {
    let float = |row: usize| {
        let (from, to) = (float_at(below, row)?, float_at(above, row)?);
        // Infinities have no distance.
        let (distance, weight) = (to - from, weights[row]);
        // Of numbers far apart the distance is no number.
        let at =
            if distance.is_finite() { from + distance * weight } else { from * (1.0 - weight) + to * weight };
        Ok(if from == to { from } else { at })
    };
    let int = |row: usize| Ok(int_between(int_at(below, row)?, int_at(above, row)?, weights[row]));
    let rows = weights.len();
    Ok(match data_type {
        DataType::Float64 => Values::F64(made(rows, float, account)?.freeze()),
        DataType::Float32 => Values::F32(made(rows, |row| Ok(float(row)? as f32), account)?.freeze()),
        DataType::Timestamp(TimeUnit::Microsecond, None) if matches!(below, Values::I32(_)) => {
            // Of dates.
            let instant = |row: usize| {
                let days = |values| Ok::<_, Error>(int_at(values, row)? * MICROSECONDS_PER_DAY);
                let at = int_between(days(below)?, days(above)?, weights[row]);
                i64::try_from(at).map_err(|_| {
                    Error::value("a date between two others is out of range for TIMESTAMP; use quantile_disc")
                })
            };
            Values::I64(made(rows, instant, account)?.freeze())
        }
        DataType::Decimal { .. } if !matches!(below, Values::I64(_)) || !matches!(above, Values::I64(_)) => {
            Values::I128(made(rows, int, account)?.freeze())
        }
        _ => Values::I64(made(rows, |row| Ok(int(row)? as i64), account)?.freeze()),
    })
}

/// What lies at `weight` of the way between two numbers, the first of which is not greater, rounded towards zero.
fn int_between(from: i128, to: i128, weight: f64) -> i128 {
    // Exact even where it takes 128 bits.
    let distance = to.wrapping_sub(from) as u128;
    let (way, has_rest) = if distance >> f64::MANTISSA_DIGITS == 0 {
        let way = distance as f64 * weight;
        (way as u128, way.fract() > 0.0)
    } else {
        // Distances that are no floats, by a weight in 2^-64.
        let weight = (weight * 2_f64.powi(64)) as u64;
        let (high, low) = (distance >> 64, distance as u64);
        let low = u128::from(low) * u128::from(weight);
        (high * u128::from(weight) + (low >> 64), low as u64 > 0)
    };
    let at = from.wrapping_add(way as i128);
    if at < 0 && has_rest { at + 1 } else { at }
}

fn made<T: Plain>(rows: usize, value: impl Fn(usize) -> Result<T>, account: &Account) -> Result<BufMut<T>> {
    let mut out = BufMut::with_capacity(account, rows)?;
    for row in 0..rows {
        out.push(value(row)?);
    }
    Ok(out)
}

fn int_at(values: &Values, row: usize) -> Result<i128> {
    Ok(match values {
        Values::I8(v) => v[row].into(),
        Values::I16(v) => v[row].into(),
        Values::I32(v) => v[row].into(),
        Values::I64(v) => v[row].into(),
        Values::I128(v) => v[row],
        Values::U8(v) => v[row].into(),
        Values::U16(v) => v[row].into(),
        Values::U32(v) => v[row].into(),
        Values::U64(v) => v[row].into(),
        Values::F32(_) | Values::F64(_) | Values::Bool(_) | Values::View(_) | Values::Nested(_) => {
            return Err(Error::internal("there is nothing between values that are no numbers"));
        }
    })
}

fn float_at(values: &Values, row: usize) -> Result<f64> {
    Ok(match values {
        Values::F32(v) => v[row].into(),
        Values::F64(v) => v[row],
        other => int_at(other, row)? as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_far_apart_have_something_between_them() {
        let greatest = 10_i128.pow(38) - 1;
        assert_eq!(int_between(-greatest, greatest, 0.5), 0);
        assert_eq!(int_between(0, greatest, 0.25), greatest / 4);
        assert_eq!(int_between(i128::MIN, i128::MAX, 0.0), i128::MIN);
        assert_eq!([(-3, -2), (2, 3), (-1, 0)].map(|(a, b)| int_between(a, b, 0.5)), [-2, 2, 0]);
    }
}
