//! Logical types and the physical types that carry them.

use crate::error::{Error, Result};
use arrow::datatypes as arrow_types;
use std::fmt;
use std::sync::Arc;

/// Resolution of a timestamp or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

/// The logical type of a column or expression, as SQL sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// The type of a bare `NULL`; coerces to anything.
    Null,
    /// `BOOLEAN`.
    Boolean,
    /// `TINYINT`.
    Int8,
    /// `SMALLINT`.
    Int16,
    /// `INTEGER`.
    Int32,
    /// `BIGINT`.
    Int64,
    /// `HUGEINT`: 128 bits, the type of integer sums.
    Int128,
    /// `UTINYINT`.
    UInt8,
    /// `USMALLINT`.
    UInt16,
    /// `UINTEGER`.
    UInt32,
    /// `UBIGINT`.
    UInt64,
    /// `FLOAT`.
    Float32,
    /// `DOUBLE`.
    Float64,
    /// `DECIMAL(precision, scale)`: up to 38 digits, `scale` of them after the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// `VARCHAR`, UTF-8.
    Utf8,
    /// `BLOB`.
    Binary,
    /// `DATE`: days since 1970-01-01.
    Date,
    /// `TIME` since midnight.
    Time(TimeUnit),
    /// `TIMESTAMP` since 1970-01-01 00:00; with a zone it is an instant.
    Timestamp(TimeUnit, Option<Arc<str>>),
    /// `INTERVAL`: months, days and nanoseconds.
    Interval,
    /// A nested type, carried as Arrow arrays.
    Nested(Arc<arrow_types::DataType>),
}

/// How values lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PhysicalType {
    /// A bit each.
    Bool,
    /// 8-bit signed.
    I8,
    /// 16-bit signed.
    I16,
    /// 32-bit signed; dates.
    I32,
    /// 64-bit signed; times, timestamps, narrow decimals.
    I64,
    /// 128-bit signed; wide decimals, intervals (months, days, nanoseconds packed from the high end).
    I128,
    /// 8-bit unsigned.
    U8,
    /// 16-bit unsigned.
    U16,
    /// 32-bit unsigned.
    U32,
    /// 64-bit unsigned.
    U64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-byte views of strings or bytes (Arrow's layout).
    View,
    /// An Arrow array.
    Nested,
}

impl DataType {
    /// Digits that always fit a 64-bit decimal.
    pub const MAX_NARROW_PRECISION: u8 = 18;
    /// Digits that fit a decimal at all.
    pub const MAX_PRECISION: u8 = 38;

    /// The usual physical type. A decimal's vectors may be wider or narrower than this from batch to batch.
    pub(crate) fn physical(&self) -> PhysicalType {
        match self {
            Self::Null | Self::Boolean => PhysicalType::Bool,
            Self::Int8 => PhysicalType::I8,
            Self::Int16 => PhysicalType::I16,
            Self::Int32 | Self::Date => PhysicalType::I32,
            Self::Int64 | Self::Time(_) | Self::Timestamp(..) => PhysicalType::I64,
            Self::Int128 | Self::Interval => PhysicalType::I128,
            Self::UInt8 => PhysicalType::U8,
            Self::UInt16 => PhysicalType::U16,
            Self::UInt32 => PhysicalType::U32,
            Self::UInt64 => PhysicalType::U64,
            Self::Float32 => PhysicalType::F32,
            Self::Float64 => PhysicalType::F64,
            Self::Decimal { precision, .. } if *precision <= Self::MAX_NARROW_PRECISION => PhysicalType::I64,
            Self::Decimal { .. } => PhysicalType::I128,
            Self::Utf8 | Self::Binary => PhysicalType::View,
            Self::Nested(_) => PhysicalType::Nested,
        }
    }

    /// Whether it is an integer type, signed or not.
    pub fn is_integer(&self) -> bool {
        matches!(
            self,
            Self::Int8
                | Self::Int16
                | Self::Int32
                | Self::Int64
                | Self::Int128
                | Self::UInt8
                | Self::UInt16
                | Self::UInt32
                | Self::UInt64
        )
    }

    /// Whether it is a floating-point type.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }

    /// Whether arithmetic is defined on it: integers, floats, decimals.
    pub fn is_numeric(&self) -> bool {
        self.is_integer() || self.is_float() || matches!(self, Self::Decimal { .. })
    }

    /// Bytes a value takes in a flat vector, strings at the size of their view.
    pub(crate) fn value_bytes(&self) -> usize {
        match self.physical() {
            PhysicalType::Bool | PhysicalType::I8 | PhysicalType::U8 => 1,
            PhysicalType::I16 | PhysicalType::U16 => 2,
            PhysicalType::I32 | PhysicalType::U32 | PhysicalType::F32 => 4,
            PhysicalType::I64 | PhysicalType::U64 | PhysicalType::F64 => 8,
            PhysicalType::I128 | PhysicalType::View | PhysicalType::Nested => 16,
        }
    }

    /// The Arrow type results of this type are returned as.
    pub fn to_arrow(&self) -> arrow_types::DataType {
        use arrow_types::DataType as A;
        match self {
            Self::Null => A::Null,
            Self::Boolean => A::Boolean,
            Self::Int8 => A::Int8,
            Self::Int16 => A::Int16,
            Self::Int32 => A::Int32,
            Self::Int64 => A::Int64,
            Self::Int128 => A::Decimal128(38, 0),
            Self::UInt8 => A::UInt8,
            Self::UInt16 => A::UInt16,
            Self::UInt32 => A::UInt32,
            Self::UInt64 => A::UInt64,
            Self::Float32 => A::Float32,
            Self::Float64 => A::Float64,
            Self::Decimal { precision, scale } => A::Decimal128(*precision, *scale as i8),
            Self::Utf8 => A::Utf8View,
            Self::Binary => A::BinaryView,
            Self::Date => A::Date32,
            Self::Time(TimeUnit::Second) => A::Time32(arrow_types::TimeUnit::Second),
            Self::Time(TimeUnit::Millisecond) => A::Time32(arrow_types::TimeUnit::Millisecond),
            Self::Time(unit) => A::Time64(unit.to_arrow()),
            Self::Timestamp(unit, zone) => A::Timestamp(unit.to_arrow(), zone.clone()),
            Self::Interval => A::Interval(arrow_types::IntervalUnit::MonthDayNano),
            Self::Nested(inner) => inner.as_ref().clone(),
        }
    }

    /// The logical type of an Arrow type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for types the engine has no values for.
    pub fn from_arrow(arrow: &arrow_types::DataType) -> Result<Self> {
        use arrow_types::DataType as A;
        Ok(match arrow {
            A::Null => Self::Null,
            A::Boolean => Self::Boolean,
            A::Int8 => Self::Int8,
            A::Int16 => Self::Int16,
            A::Int32 => Self::Int32,
            A::Int64 => Self::Int64,
            A::UInt8 => Self::UInt8,
            A::UInt16 => Self::UInt16,
            A::UInt32 => Self::UInt32,
            A::UInt64 => Self::UInt64,
            A::Float16 | A::Float32 => Self::Float32,
            A::Float64 => Self::Float64,
            A::Decimal32(p, s) | A::Decimal64(p, s) | A::Decimal128(p, s) if *s >= 0 && *s as u8 <= *p => {
                Self::Decimal { precision: *p, scale: *s as u8 }
            }
            A::Utf8 | A::LargeUtf8 | A::Utf8View => Self::Utf8,
            A::Binary | A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_) => Self::Binary,
            A::Date32 => Self::Date,
            A::Time32(unit) | A::Time64(unit) => Self::Time(TimeUnit::from_arrow(*unit)),
            A::Timestamp(unit, zone) => Self::Timestamp(TimeUnit::from_arrow(*unit), zone.clone()),
            A::Interval(arrow_types::IntervalUnit::MonthDayNano) => Self::Interval,
            A::Dictionary(_, value) => Self::from_arrow(value)?,
            A::List(_) | A::LargeList(_) | A::FixedSizeList(..) | A::Struct(_) | A::Map(..) => {
                Self::Nested(Arc::new(arrow.clone()))
            }
            other => return Err(Error::unsupported(format!("columns of Arrow type {other}"), None)),
        })
    }
}

impl TimeUnit {
    fn to_arrow(self) -> arrow_types::TimeUnit {
        match self {
            Self::Second => arrow_types::TimeUnit::Second,
            Self::Millisecond => arrow_types::TimeUnit::Millisecond,
            Self::Microsecond => arrow_types::TimeUnit::Microsecond,
            Self::Nanosecond => arrow_types::TimeUnit::Nanosecond,
        }
    }

    fn from_arrow(unit: arrow_types::TimeUnit) -> Self {
        match unit {
            arrow_types::TimeUnit::Second => Self::Second,
            arrow_types::TimeUnit::Millisecond => Self::Millisecond,
            arrow_types::TimeUnit::Microsecond => Self::Microsecond,
            arrow_types::TimeUnit::Nanosecond => Self::Nanosecond,
        }
    }

    /// Units in a second.
    pub fn per_second(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::Millisecond => 1_000,
            Self::Microsecond => 1_000_000,
            Self::Nanosecond => 1_000_000_000,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Null => "NULL",
            Self::Boolean => "BOOLEAN",
            Self::Int8 => "TINYINT",
            Self::Int16 => "SMALLINT",
            Self::Int32 => "INTEGER",
            Self::Int64 => "BIGINT",
            Self::Int128 => "HUGEINT",
            Self::UInt8 => "UTINYINT",
            Self::UInt16 => "USMALLINT",
            Self::UInt32 => "UINTEGER",
            Self::UInt64 => "UBIGINT",
            Self::Float32 => "FLOAT",
            Self::Float64 => "DOUBLE",
            Self::Decimal { precision, scale } => return write!(f, "DECIMAL({precision},{scale})"),
            Self::Utf8 => "VARCHAR",
            Self::Binary => "BLOB",
            Self::Date => "DATE",
            Self::Time(_) => "TIME",
            Self::Timestamp(_, None) => "TIMESTAMP",
            Self::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
            Self::Interval => "INTERVAL",
            Self::Nested(inner) => return write!(f, "{inner}"),
        };
        f.write_str(name)
    }
}

/// A named, typed column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in its original case; names match without regard to case.
    pub name: String,
    /// The type.
    pub data_type: DataType,
    /// Whether nulls may occur.
    pub nullable: bool,
}

/// The columns of a table or result, in order.
pub(crate) type Schema = Arc<[Field]>;
