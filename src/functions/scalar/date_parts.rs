//! The parts of a moment and how they are computed.

use super::date::Moment;
use crate::data::{civil_from_days, days_from_civil};
use crate::error::{Error, Result};

/// A part that can be asked for, or cut to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Century,
    Decade,
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    IsoYear,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Epoch,
}

impl Part {
    /// The part a specifier names.
    ///
    /// # Errors
    /// A value error if it names none.
    pub(super) fn named(name: &str) -> Result<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "century" | "centuries" => Self::Century,
            "decade" | "decades" => Self::Decade,
            "year" | "years" | "y" | "yr" => Self::Year,
            "quarter" | "quarters" => Self::Quarter,
            "month" | "months" | "mon" | "mons" => Self::Month,
            "week" | "weeks" | "w" => Self::Week,
            "day" | "days" | "d" | "dayofmonth" => Self::Day,
            "hour" | "hours" | "h" => Self::Hour,
            "minute" | "minutes" | "m" | "min" => Self::Minute,
            "second" | "seconds" | "s" | "sec" => Self::Second,
            "millisecond" | "milliseconds" | "ms" => Self::Millisecond,
            "microsecond" | "microseconds" | "us" => Self::Microsecond,
            "isoyear" => Self::IsoYear,
            "dow" | "dayofweek" | "weekday" => Self::DayOfWeek,
            "isodow" => Self::IsoDayOfWeek,
            "doy" | "dayofyear" => Self::DayOfYear,
            "epoch" => Self::Epoch,
            _ => {
                return Err(Error::value(format!(
                    "'{name}' is no part of a date; use one such as year, quarter, month, week, day, hour, minute, \
                     second, dow, doy or epoch"
                )));
            }
        })
    }

    /// Its value. Seconds and finer count within their minute; the epoch in whole seconds.
    pub(super) fn of(self, moment: Moment) -> i64 {
        let Moment { days, nanos } = moment;
        let civil = || civil_from_days(days);
        match self {
            Self::Century => (civil().0 - 1).div_euclid(100) + 1,
            Self::Decade => civil().0.div_euclid(10),
            Self::Year => civil().0,
            Self::Quarter => i64::from(civil().1 - 1) / 3 + 1,
            Self::Month => civil().1.into(),
            Self::Week => {
                let thursday = days - (days + 3).rem_euclid(7) + 3;
                (thursday - days_from_civil(iso_year(days), 1, 1)) / 7 + 1
            }
            Self::Day => civil().2.into(),
            Self::Hour => nanos / 3_600_000_000_000,
            Self::Minute => nanos / 60_000_000_000 % 60,
            Self::Second => nanos / 1_000_000_000 % 60,
            Self::Millisecond => nanos % 60_000_000_000 / 1_000_000,
            Self::Microsecond => nanos % 60_000_000_000 / 1_000,
            Self::IsoYear => iso_year(days),
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::IsoDayOfWeek => (days + 3).rem_euclid(7) + 1,
            Self::DayOfYear => days - days_from_civil(civil().0, 1, 1) + 1,
            Self::Epoch => days * 86_400 + nanos / 1_000_000_000,
        }
    }

    /// The moment cut down to the part's beginning.
    pub(super) fn truncate(self, moment: Moment) -> Moment {
        let Moment { days, nanos } = moment;
        let time = |unit: i64| Moment { days, nanos: nanos - nanos % unit };
        let (year, month, _) = civil_from_days(days);
        let day = |year, month| Moment { days: days_from_civil(year, month, 1), nanos: 0 };
        match self {
            Self::Century => day(year.div_euclid(100) * 100, 1),
            Self::Decade => day(year.div_euclid(10) * 10, 1),
            Self::Year => day(year, 1),
            Self::Quarter => day(year, (month - 1) / 3 * 3 + 1),
            Self::Month => day(year, month),
            Self::Week => Moment { days: days - (days + 3).rem_euclid(7), nanos: 0 },
            Self::IsoYear => {
                let first = days_from_civil(iso_year(days), 1, 4);
                Moment { days: first - (first + 3).rem_euclid(7), nanos: 0 }
            }
            Self::Day | Self::DayOfWeek | Self::IsoDayOfWeek | Self::DayOfYear => Moment { days, nanos: 0 },
            Self::Hour => time(3_600_000_000_000),
            Self::Minute => time(60_000_000_000),
            Self::Second | Self::Epoch => time(1_000_000_000),
            Self::Millisecond => time(1_000_000),
            Self::Microsecond => time(1_000),
        }
    }
}

/// The year the week's Thursday is in.
fn iso_year(days: i64) -> i64 {
    civil_from_days(days - (days + 3).rem_euclid(7) + 3).0
}
