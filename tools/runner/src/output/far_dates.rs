//! Dates and timestamps beyond the years that Arrow's formatter knows, which are about 262,000 before and after now.
//!
//! Years of more than four digits have a sign, as ISO 8601 wants it. The greatest value of a type and the one that is as
//! far from zero on the other side stand for infinity with DuckDB, which may have written them.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use std::fmt::{self, Write};

const MILLIS_PER_DAY: i64 = 86_400_000;
/// Days of 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// From the 1st of March of the year 0 to 1970.
const DAYS_TO_EPOCH: i64 = 719_468;

/// Appends the date or timestamp.
pub(super) fn write_far(array: &ArrayRef, row: usize, out: &mut String) -> fmt::Result {
    let infinity = |value: i64, most: i64| match value {
        value if value == most => Some("infinity"),
        value if value == -most => Some("-infinity"),
        _ => None,
    };
    let (value, per_day, most) = match array.data_type() {
        DataType::Date32 => (array.as_primitive::<Date32Type>().value(row).into(), 1, i32::MAX.into()),
        DataType::Date64 => (array.as_primitive::<Date64Type>().value(row), MILLIS_PER_DAY, i64::MAX),
        DataType::Timestamp(unit, _) => {
            let (value, per_milli) = match unit {
                TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 0),
                TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1),
                TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1000),
                TimeUnit::Nanosecond => {
                    (array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000)
                }
            };
            let per_day = if per_milli == 0 { MILLIS_PER_DAY / 1000 } else { per_milli * MILLIS_PER_DAY };
            (value, per_day, i64::MAX)
        }
        _ => return Err(fmt::Error),
    };
    if let Some(infinity) = infinity(value, most) {
        return out.write_str(infinity);
    }
    let (year, month, day) = civil(value.div_euclid(per_day));
    write!(out, "{year:+05}-{month:02}-{day:02}")?;
    let DataType::Timestamp(_, zone) = array.data_type() else { return Ok(()) };
    let (in_day, per_second) = (value.rem_euclid(per_day), per_day / 86_400);
    let seconds = in_day / per_second;
    write!(out, "T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    let fraction = in_day % per_second;
    if fraction > 0 {
        write!(out, ".{fraction:0width$}", width = per_second.ilog10() as usize)?;
    }
    // A zone is how a moment is shown; so far away there are no rules for any.
    out.write_str(if zone.is_some() { "Z" } else { "" })
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    (era * 400 + year + i64::from(month <= 2), month, day)
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
