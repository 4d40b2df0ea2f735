//! A bound of a column's values, as statistics have it.
//!
//! Owns: [`Edge`].
//!
//! Invariants:
//! 1. What cannot be decoded, or is no bound in SQL order, is `Unknown`.

use super::footer::{Decode, Stored};
use crate::data::{DataType, PhysicalType, Scalar, Value};
use crate::expr::kernels::decimal::power_of_ten;
use std::cmp::Ordering;

/// The least or the greatest of some values, or what lies beyond it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Edge<'a> {
    Unknown,
    /// Integers, unscaled decimals, dates, times; booleans as 0 and 1.
    Int(i128),
    /// Not NaN.
    Float(f64),
    Bytes(&'a [u8]),
}

impl<'a> Edge<'a> {
    /// As [`decode`](Self::decode); of nothing, nothing is known.
    pub(crate) fn decode_opt(raw: Option<&'a [u8]>, decode: Decode, data_type: &DataType) -> Self {
        raw.map_or(Edge::Unknown, |raw| Self::decode(raw, decode, data_type))
    }

    /// A bound as a file stores it for values of `data_type`.
    pub(crate) fn decode(raw: &'a [u8], decode: Decode, data_type: &DataType) -> Self {
        let int = |value: Option<i128>| value.map_or(Edge::Unknown, Edge::Int);
        let float = |value: Option<f64>| match value {
            Some(value) if !value.is_nan() => Edge::Float(value),
            _ => Edge::Unknown,
        };
        match decode.stored {
            Stored::Boolean => int(raw.first().map(|b| i128::from(*b & 1))),
            Stored::Int32 if *data_type == DataType::UInt32 => {
                int(raw.try_into().ok().map(|b| u32::from_le_bytes(b).into()))
            }
            Stored::Int32 => int(raw.try_into().ok().map(|b| i32::from_le_bytes(b).into())),
            Stored::Int64 if *data_type == DataType::UInt64 => {
                int(raw.try_into().ok().map(|b| u64::from_le_bytes(b).into()))
            }
            Stored::Int64 => int(raw.try_into().ok().map(|b| i64::from_le_bytes(b).into())),
            Stored::Float => float(raw.try_into().ok().map(|b| f32::from_le_bytes(b).into())),
            Stored::Double => float(raw.try_into().ok().map(f64::from_le_bytes)),
            Stored::Fixed(len) if decode.target != PhysicalType::View => {
                int((raw.len() == len as usize).then(|| super::decode::decimal_from_be(raw)))
            }
            Stored::ByteArray | Stored::Fixed(_) => Edge::Bytes(raw),
        }
    }

    /// The same bound where values of type `from` have become values of type `to`, which holds them all.
    pub(crate) fn widened(self, from: &DataType, to: &DataType) -> Self {
        match self {
            _ if from == to => self,
            Edge::Int(value) if to.is_float() => Edge::Float(value as f64),
            Edge::Int(value) => {
                let scaled = factor(from, to).and_then(|factor| value.checked_mul(factor));
                scaled.map_or(Edge::Unknown, Edge::Int)
            }
            Edge::Float(_) if from.is_float() && to.is_float() => self,
            Edge::Float(_) | Edge::Bytes(_) | Edge::Unknown => Edge::Unknown,
        }
    }

    /// The bound as a value of `data_type`.
    pub(crate) fn to_scalar(self, data_type: &DataType) -> Option<Scalar> {
        let value = match self {
            Edge::Unknown => return None,
            Edge::Int(value) if *data_type == DataType::Boolean => Value::Boolean(value != 0),
            Edge::Int(value) => Value::Int(value),
            Edge::Float(value) => Value::Float(value),
            Edge::Bytes(bytes) if *data_type == DataType::Utf8 => {
                Value::Utf8(std::str::from_utf8(bytes).ok()?.into())
            }
            Edge::Bytes(bytes) => Value::Binary(bytes.into()),
        };
        Some(Scalar { data_type: data_type.clone(), value })
    }

    /// How it lies to a literal of the same type and scale; `None` if that is not known.
    pub(crate) fn compare(self, literal: &Scalar) -> Option<Ordering> {
        match (self, &literal.value) {
            (Edge::Int(bound), Value::Int(value)) => Some(bound.cmp(value)),
            (Edge::Int(bound), Value::Boolean(value)) => Some(bound.cmp(&i128::from(*value))),
            (Edge::Float(bound), Value::Float(value)) => Scalar::float(bound).compare(&Scalar::float(*value)),
            (Edge::Bytes(bound), Value::Utf8(_) | Value::Binary(_)) => Some(bound.cmp(literal.as_bytes()?)),
            (_, _) => None,
        }
    }

    /// Whether the two can be the least and the greatest of the same values.
    pub(crate) fn is_ordered(min: Self, max: Self) -> bool {
        match (min, max) {
            (Edge::Int(min), Edge::Int(max)) => min <= max,
            (Edge::Float(min), Edge::Float(max)) => min <= max,
            (Edge::Bytes(min), Edge::Bytes(max)) => min <= max,
            (_, _) => true,
        }
    }
}

/// What integers of `from` are multiplied with to be integers of `to`.
fn factor(from: &DataType, to: &DataType) -> Option<i128> {
    use DataType as D;
    const SECONDS_PER_DAY: i128 = 86_400;
    let per_second = |unit: &crate::data::TimeUnit| i128::from(unit.per_second());
    let scale = |data_type: &DataType| match data_type {
        D::Decimal { scale, .. } => *scale,
        _ => 0,
    };
    match (from, to) {
        (D::Date, D::Timestamp(unit, _)) => Some(per_second(unit) * SECONDS_PER_DAY),
        (D::Timestamp(from, _), D::Timestamp(to, _)) | (D::Time(from), D::Time(to)) => {
            Some(per_second(to) / per_second(from))
        }
        (from, to) if from.is_numeric() && to.is_numeric() => {
            power_of_ten(scale(to).checked_sub(scale(from))?)
        }
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TimeUnit;

    #[test]
    fn bounds_widen_as_their_values_do() {
        let decimal = |precision, scale| DataType::Decimal { precision, scale };
        let widened = |value, from: &DataType, to: &DataType| Edge::Int(value).widened(from, to);
        assert_eq!(widened(-7, &DataType::Int32, &DataType::Int64), Edge::Int(-7));
        assert_eq!(widened(7, &DataType::Int16, &decimal(12, 3)), Edge::Int(7_000));
        assert_eq!(widened(725, &decimal(9, 2), &decimal(18, 4)), Edge::Int(72_500));
        assert_eq!(widened(725, &decimal(18, 4), &decimal(9, 2)), Edge::Unknown);
        assert_eq!(widened(3, &DataType::Int32, &DataType::Float64), Edge::Float(3.0));
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(widened(2, &DataType::Date, &micros), Edge::Int(172_800_000_000));
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        assert_eq!(widened(2, &seconds, &micros), Edge::Int(2_000_000));
        assert_eq!(widened(i128::MAX, &seconds, &micros), Edge::Unknown);
        assert_eq!(Edge::Bytes(b"a").widened(&DataType::Utf8, &DataType::Binary), Edge::Unknown);
    }
}
