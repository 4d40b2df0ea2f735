//! Single values.

use super::types::DataType;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A typed value, possibly null.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Its logical type.
    pub data_type: DataType,
    /// The value.
    pub value: Value,
}

/// The payload of a [`Scalar`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// A boolean.
    Boolean(bool),
    /// Integers, unscaled decimals, dates, times, timestamps; intervals packed as in Arrow's `MonthDayNano`.
    Int(i128),
    /// Floats of both widths.
    Float(f64),
    /// UTF-8 text.
    Utf8(Arc<str>),
    /// Bytes.
    Binary(Arc<[u8]>),
}

impl Scalar {
    /// A null of a type.
    pub fn null(data_type: DataType) -> Self {
        Self { data_type, value: Value::Null }
    }

    /// A boolean.
    pub fn boolean(value: bool) -> Self {
        Self { data_type: DataType::Boolean, value: Value::Boolean(value) }
    }

    /// An integer, decimal, date, time or timestamp from its integer representation.
    pub fn int(data_type: DataType, value: i128) -> Self {
        Self { data_type, value: Value::Int(value) }
    }

    /// A `DOUBLE`.
    pub fn float(value: f64) -> Self {
        Self { data_type: DataType::Float64, value: Value::Float(value) }
    }

    /// A `VARCHAR`.
    pub fn utf8(value: impl Into<Arc<str>>) -> Self {
        Self { data_type: DataType::Utf8, value: Value::Utf8(value.into()) }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The integer payload, if it has one.
    pub fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(value) => Some(value),
            Value::Null | Value::Boolean(_) | Value::Float(_) | Value::Utf8(_) | Value::Binary(_) => None,
        }
    }

    /// The bytes of a string or blob.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Utf8(s) => Some(s.as_bytes()),
            Value::Binary(b) => Some(b),
            Value::Null | Value::Boolean(_) | Value::Int(_) | Value::Float(_) => None,
        }
    }

    /// SQL order of two values of one type; `None` if either is null or the kinds differ. NaN sorts last, equal to
    /// itself; -0.0 equals 0.0.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (&self.value, &other.value) {
            (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Float(a), Value::Float(b)) => {
                Some(a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())))
            }
            (Value::Utf8(_) | Value::Binary(_), Value::Utf8(_) | Value::Binary(_)) => {
                self.as_bytes().cmp(&other.as_bytes()).into()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, &self.data_type) {
            (Value::Null, _) => f.write_str("NULL"),
            (Value::Boolean(b), _) => write!(f, "{b}"),
            (Value::Int(v), DataType::Decimal { scale, .. }) => f.write_str(&format_decimal(*v, *scale)),
            (Value::Int(v), DataType::Date) => {
                let (year, month, day) = civil_from_days(*v as i64);
                write!(f, "'{year:04}-{month:02}-{day:02}'")
            }
            (Value::Int(v), _) => write!(f, "{v}"),
            (Value::Float(v), _) => write!(f, "{v}"),
            (Value::Utf8(s), _) => write!(f, "'{}'", s.replace('\'', "''")),
            (Value::Binary(b), _) => {
                f.write_str("'")?;
                for byte in b.iter() {
                    write!(f, "\\x{byte:02X}")?;
                }
                f.write_str("'")
            }
        }
    }
}

/// An unscaled decimal as text at full scale.
pub(crate) fn format_decimal(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs();
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let one = 10u128.pow(u32::from(scale));
    format!("{sign}{}.{:0width$}", digits / one, digits % one, width = usize::from(scale))
}

/// Year, month, day of a day count since 1970-01-01, proleptic Gregorian.
/// After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day count since 1970-01-01 of a proleptic Gregorian date; the inverse of [`civil_from_days`].
pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_print_at_full_scale() {
        assert_eq!(format_decimal(-5, 2), "-0.05");
        assert_eq!(format_decimal(i128::MIN, 0), i128::MIN.to_string());
        assert_eq!(format_decimal(1_230, 3), "1.230");
    }

    #[test]
    fn days_and_dates_agree() {
        for days in (-800_000..800_000).step_by(37) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
        assert_eq!(civil_from_days(10_471), (1998, 9, 2));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
    }

    #[test]
    fn floats_follow_sql_order() {
        let f = Scalar::float;
        assert_eq!(f(-0.0).compare(&f(0.0)), Some(Ordering::Equal));
        assert_eq!(f(f64::NAN).compare(&f(f64::INFINITY)), Some(Ordering::Greater));
        assert_eq!(f(f64::NAN).compare(&f(f64::NAN)), Some(Ordering::Equal));
    }
}
