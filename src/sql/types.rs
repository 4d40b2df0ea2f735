//! SQL type names.

use crate::data::{DataType, TimeUnit};
use crate::error::{Error, Location, Result};
use sqlparser::ast::{self, ExactNumberInfo, TimezoneInfo};
use std::sync::Arc;

/// Precision and scale of a bare `DECIMAL`.
const DEFAULT_DECIMAL: (u8, u8) = (18, 3);

/// The type a SQL type name means.
///
/// # Errors
/// A plan error for impossible decimals, unsupported for types the engine has no values for.
pub(super) fn data_type(name: &ast::DataType, location: Option<Location>) -> Result<DataType> {
    use ast::DataType as T;
    Ok(match name {
        T::Bool | T::Boolean => DataType::Boolean,
        T::TinyInt(_) => DataType::Int8,
        T::SmallInt(_) | T::Int2(_) | T::Int16 => DataType::Int16,
        T::Int(_) | T::Integer(_) | T::Int4(_) | T::Int32 | T::Signed | T::SignedInteger => DataType::Int32,
        T::BigInt(_) | T::Int8(_) | T::Int64 => DataType::Int64,
        T::HugeInt | T::Int128 => DataType::Int128,
        T::UTinyInt | T::UInt8 | T::TinyIntUnsigned(_) => DataType::UInt8,
        T::USmallInt | T::UInt16 | T::SmallIntUnsigned(_) | T::Int2Unsigned(_) => DataType::UInt16,
        T::UInt32 | T::IntUnsigned(_) | T::IntegerUnsigned(_) | T::Int4Unsigned(_) => DataType::UInt32,
        T::UBigInt | T::UInt64 | T::BigIntUnsigned(_) | T::Int8Unsigned(_) => DataType::UInt64,
        T::Real | T::Float4 | T::Float32 => DataType::Float32,
        T::Float(ExactNumberInfo::None) => DataType::Float32,
        T::Float(ExactNumberInfo::Precision(p) | ExactNumberInfo::PrecisionAndScale(p, _)) => {
            if *p <= 24 {
                DataType::Float32
            } else {
                DataType::Float64
            }
        }
        T::Double(_) | T::DoublePrecision | T::Float8 | T::Float64 => DataType::Float64,
        T::Decimal(info) | T::Numeric(info) | T::Dec(info) => decimal(*info, location)?,
        T::Varchar(_)
        | T::CharacterVarying(_)
        | T::CharVarying(_)
        | T::Nvarchar(_)
        | T::Character(_)
        | T::Char(_)
        | T::Text
        | T::String(_) => DataType::Utf8,
        T::Blob(_) | T::Bytea | T::Binary(_) | T::Varbinary(_) | T::Bytes(_) => DataType::Binary,
        T::Date | T::Date32 => DataType::Date,
        T::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Time(TimeUnit::Microsecond)
        }
        T::Datetime(None) | T::TimestampNtz(None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(precision, zone) => {
            let zone = match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => None,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => Some(Arc::from("UTC")),
            };
            let unit = match precision {
                None | Some(6) => TimeUnit::Microsecond,
                Some(0) => TimeUnit::Second,
                Some(3) => TimeUnit::Millisecond,
                Some(9) => TimeUnit::Nanosecond,
                Some(other) => {
                    let message = format!("TIMESTAMP({other}); use a precision of 0, 3, 6 or 9");
                    return Err(Error::unsupported(message, location));
                }
            };
            DataType::Timestamp(unit, zone)
        }
        T::Interval { .. } => DataType::Interval,
        T::Custom(custom, arguments) if arguments.is_empty() => {
            match custom.to_string().to_lowercase().as_str() {
                "uinteger" => DataType::UInt32,
                "utinyint" => DataType::UInt8,
                "usmallint" => DataType::UInt16,
                "ubigint" => DataType::UInt64,
                "hugeint" => DataType::Int128,
                "long" => DataType::Int64,
                "short" => DataType::Int16,
                "logical" => DataType::Boolean,
                "bpchar" | "string" => DataType::Utf8,
                "timestamp_s" => DataType::Timestamp(TimeUnit::Second, None),
                "timestamp_ms" => DataType::Timestamp(TimeUnit::Millisecond, None),
                "timestamp_us" => DataType::Timestamp(TimeUnit::Microsecond, None),
                "timestamp_ns" => DataType::Timestamp(TimeUnit::Nanosecond, None),
                _ => return Err(Error::plan(format!("no type \"{custom}\""), location)),
            }
        }
        other => return Err(Error::unsupported(format!("the type {other}"), location)),
    })
}

fn decimal(info: ExactNumberInfo, location: Option<Location>) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (u64::from(DEFAULT_DECIMAL.0), i64::from(DEFAULT_DECIMAL.1)),
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ 1..=DataType::MAX_PRECISION), Ok(scale)) if scale <= precision => {
            Ok(DataType::Decimal { precision, scale })
        }
        _ => Err(Error::plan(
            format!("DECIMAL({precision},{scale}): precision is 1 to 38, and scale at most precision"),
            location,
        )),
    }
}
