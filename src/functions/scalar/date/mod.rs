//! Functions of dates and timestamps.

mod date_part;
mod date_trunc;
mod day;
mod dayofweek;
mod dayofyear;
mod hour;
mod isodow;
mod isoyear;
mod minute;
mod month;
mod quarter;
mod second;
mod week;
mod year;

use super::Maker;
use super::date_parts::Part;
use super::support::{each, flats, slice, wrong_arguments};
use crate::data::{DataType, FlatVector, TimeUnit, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::{CallTypes, EvalCx, ScalarFunction};
use std::sync::Arc;

pub(super) const LIST: &[Maker] = &[
    || Arc::new(date_part::DatePart),
    || Arc::new(date_trunc::DateTrunc),
    || Arc::new(day::DAY),
    || Arc::new(dayofweek::DAY_OF_WEEK),
    || Arc::new(dayofyear::DAY_OF_YEAR),
    || Arc::new(hour::HOUR),
    || Arc::new(isodow::ISO_DAY_OF_WEEK),
    || Arc::new(isoyear::ISO_YEAR),
    || Arc::new(minute::MINUTE),
    || Arc::new(month::MONTH),
    || Arc::new(quarter::QUARTER),
    || Arc::new(second::SECOND),
    || Arc::new(week::WEEK),
    || Arc::new(year::YEAR),
];

/// One part of a date or timestamp, such as `year(date)`.
struct PartFunction {
    name: &'static str,
    aliases: &'static [&'static str],
    part: Part,
}

impl ScalarFunction for PartFunction {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [t] if is_moment(t) => Ok((vec![moment_type(t)], DataType::Int64)),
            given => Err(wrong_arguments(&format!("{}(date or timestamp)", self.name), given)),
        }
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let flats = flats(arguments, cx.account)?;
        let moments = Moments::new(&flats[0], &types.arguments[0])?;
        each(rows, cx, |row| self.part.of(moments.get(row)))
    }
}

fn is_moment(t: &DataType) -> bool {
    matches!(t, DataType::Date | DataType::Timestamp(..) | DataType::Null)
}

fn moment_type(t: &DataType) -> DataType {
    if *t == DataType::Null { DataType::Date } else { t.clone() }
}

/// A day since 1970-01-01 and the nanoseconds of that day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) days: i64,
    pub(super) nanos: i64,
}

/// A column of dates or timestamps.
enum Moments<'a> {
    Dates(&'a [i32]),
    Timestamps(&'a [i64], TimeUnit),
}

impl<'a> Moments<'a> {
    fn new(flat: &'a FlatVector, data_type: &DataType) -> Result<Self> {
        match (&flat.values, data_type) {
            (Values::I32(_), _) => Ok(Self::Dates(slice(flat)?)),
            (Values::I64(_), DataType::Timestamp(unit, _)) => Ok(Self::Timestamps(slice(flat)?, *unit)),
            _ => Err(Error::internal("the signature asked for dates or timestamps")),
        }
    }

    fn get(&self, row: usize) -> Moment {
        match self {
            Self::Dates(days) => Moment { days: days[row].into(), nanos: 0 },
            Self::Timestamps(values, unit) => {
                let per_day = unit.per_second() * 86_400;
                let time = values[row].rem_euclid(per_day);
                Moment {
                    days: values[row].div_euclid(per_day),
                    nanos: time * (1_000_000_000 / unit.per_second()),
                }
            }
        }
    }
}
