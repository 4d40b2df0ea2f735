//! Dates and timestamps beyond the years that Arrow's formatter knows, which are about 262,000 before and after now.
//!
//! Years of more than four digits have a sign, as ISO 8601 wants it. The greatest value of a type and the one that is as
//! far from zero on the other side stand for infinity with DuckDB, which may have written them.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use gristmill::civil_from_days;
use std::fmt::{self, Write};

const SECONDS_PER_DAY: i64 = 86_400;

/// Appends the date or timestamp.
pub(super) fn write_far(array: &ArrayRef, row: usize, out: &mut String) -> fmt::Result {
    let (value, per_second) = match array.data_type() {
        DataType::Date32 => return write_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Date64 => (array.as_primitive::<Date64Type>().value(row), 1000),
        DataType::Timestamp(TimeUnit::Second, _) => {
            (array.as_primitive::<TimestampSecondType>().value(row), 1)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (array.as_primitive::<TimestampMillisecondType>().value(row), 1000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000)
        }
        _ => return Err(fmt::Error),
    };
    match value {
        i64::MAX => return out.write_str("infinity"),
        value if value == -i64::MAX => return out.write_str("-infinity"),
        _ => {}
    }
    let per_day = SECONDS_PER_DAY * per_second;
    write_day(value.div_euclid(per_day), out)?;
    let DataType::Timestamp(_, zone) = array.data_type() else { return Ok(()) };
    let in_day = value.rem_euclid(per_day);
    let (seconds, fraction) = (in_day / per_second, in_day % per_second);
    write!(out, "T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    if fraction > 0 {
        write!(out, ".{fraction:0width$}", width = per_second.ilog10() as usize)?;
    }
    // A zone is how a moment is shown; so far away there are no rules for any.
    out.write_str(if zone.is_some() { "Z" } else { "" })
}

fn write_date(days: i32, out: &mut String) -> fmt::Result {
    match days {
        i32::MAX => out.write_str("infinity"),
        days if days == -i32::MAX => out.write_str("-infinity"),
        days => write_day(days.into(), out),
    }
}

fn write_day(days: i64, out: &mut String) -> fmt::Result {
    let (year, month, day) = civil_from_days(days);
    write!(out, "{year:+05}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn far(array: &ArrayRef) -> Vec<String> {
        (0..array.len())
            .map(|row| {
                let mut out = String::new();
                write_far(array, row, &mut out).expect("a date");
                out
            })
            .collect()
    }

    #[test]
    fn far_dates_have_signed_years_and_infinity_is_one() {
        let dates = Date32Array::from(vec![0, 11_016, i32::MAX - 1, i32::MIN, i32::MAX, -i32::MAX]);
        let expected =
            ["+1970-01-01", "+2000-02-29", "+5881580-07-10", "-5877641-06-23", "infinity", "-infinity"];
        assert_eq!(far(&(Arc::new(dates) as ArrayRef)), expected);
    }

    #[test]
    fn far_timestamps_keep_their_time() {
        let times = TimestampMicrosecondArray::from(vec![i64::MAX - 1, i64::MIN, i64::MAX]);
        let expected = ["+294247-01-10T04:00:54.775806", "-290308-12-21T19:59:05.224192", "infinity"];
        assert_eq!(far(&(Arc::new(times.clone()) as ArrayRef)), expected);
        let zoned = times.with_timezone("Europe/Berlin");
        assert_eq!(far(&(Arc::new(zoned) as ArrayRef))[0], "+294247-01-10T04:00:54.775806Z");
    }
}
