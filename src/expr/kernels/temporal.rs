//! Dates, timestamps and intervals.
//!
//! Adding an interval moves by calendar months first (the day is cut to the month's length), then by days, then by
//! time, as DuckDB and Postgres do.

use super::arithmetic::ArithmeticTypes;
use super::operand::{Operand, first_bad, map, operand};
use crate::data::{
    Bitmap, Buf, BufMut, DataType, FlatVector, Plain, Scalar, TimeUnit, Value, Values, Vector,
    civil_from_days, days_from_civil,
};
use crate::error::{Error, Result};
use crate::expr::ArithmeticOp;
use crate::mem::{Account, Denied};

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
const DAYS_PER_MONTH: i128 = 30;

/// The parts of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) nanos: i64,
}

impl Interval {
    /// From the packed form of vectors and scalars.
    pub(crate) fn unpack(packed: i128) -> Self {
        Self { months: (packed >> 96) as i32, days: (packed >> 64) as i32, nanos: packed as i64 }
    }

    /// To the packed form.
    pub(crate) fn pack(self) -> i128 {
        i128::from(self.months) << 96 | i128::from(self.days as u32) << 64 | i128::from(self.nanos as u64)
    }

    fn combine(self, other: Self, f: fn(i64, i64) -> Option<i64>) -> Option<Self> {
        let narrow = |l: i32, r: i32| i32::try_from(f(l.into(), r.into())?).ok();
        Some(Self {
            months: narrow(self.months, other.months)?,
            days: narrow(self.days, other.days)?,
            nanos: f(self.nanos, other.nanos)?,
        })
    }

    /// Multiplied by a number; `None` if a part does not fit.
    pub(crate) fn times(self, factor: i64) -> Option<Self> {
        Some(Self {
            months: i32::try_from(i64::from(self.months).checked_mul(factor)?).ok()?,
            days: i32::try_from(i64::from(self.days).checked_mul(factor)?).ok()?,
            nanos: self.nanos.checked_mul(factor)?,
        })
    }
}

/// An interval negated, and whether that overflowed.
pub(super) fn negated(packed: i128) -> (i128, bool) {
    match Interval::unpack(packed).times(-1) {
        Some(negated) => (negated.pack(), false),
        None => (packed, true),
    }
}

/// A timestamp of a unit moved by an interval; `None` if the result does not fit.
pub(crate) fn shift(timestamp: i64, unit: TimeUnit, by: Interval) -> Option<i64> {
    let per_day = unit.per_second() * 86_400;
    let (mut days, time) = (timestamp.div_euclid(per_day), timestamp.rem_euclid(per_day));
    if by.months != 0 {
        let (year, month, day) = civil_from_days(days);
        let months = year * 12 + i64::from(month) - 1 + i64::from(by.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        days = days_from_civil(year, month, day.min(days_in_month(year, month)));
    }
    days = days.checked_add(by.days.into())?;
    let time = i128::from(time) + i128::from(by.nanos) / i128::from(1_000_000_000 / unit.per_second());
    i64::try_from(i128::from(days) * i128::from(per_day) + time).ok()
}

/// Days of a month.
pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The place of intervals in their order: months count 30 days, days 24 hours.
pub(super) fn interval_order(vector: &Vector, account: &Account) -> Result<Vector, Denied> {
    let place = |packed: i128| {
        let i = Interval::unpack(packed);
        (i128::from(i.months) * DAYS_PER_MONTH + i128::from(i.days)) * NANOS_PER_DAY + i128::from(i.nanos)
    };
    Ok(match vector {
        Vector::Flat(FlatVector { values: Values::I128(v), validity, .. }) => {
            let (values, _) = map(v, account, |packed| (place(packed), false))?;
            Vector::Flat(FlatVector {
                values: Values::I128(values),
                validity: validity.clone(),
                bounds: None,
            })
        }
        Vector::Constant { value, len } => {
            let value = match value.value {
                Value::Int(packed) => Scalar::int(value.data_type.clone(), place(packed)),
                _ => value.clone(),
            };
            Vector::Constant { value, len: *len }
        }
        other => other.clone(),
    })
}

/// Arithmetic with at least one date, timestamp or interval.
pub(super) fn arithmetic(
    op: ArithmeticOp,
    left: &Vector,
    right: &Vector,
    types: ArithmeticTypes<'_>,
    valid: Option<Bitmap>,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    use DataType as D;
    let rows = Rows { op, types, valid, rows, account };
    match (types.left, types.right, op) {
        (D::Date, D::Int32, ArithmeticOp::Add) => {
            rows.each(operand::<i32>(left)?, operand::<i32>(right)?, i32::checked_add)
        }
        (D::Date, D::Int32, ArithmeticOp::Subtract) => {
            rows.each(operand::<i32>(left)?, operand::<i32>(right)?, i32::checked_sub)
        }
        (D::Date, D::Date, ArithmeticOp::Subtract) => {
            rows.each(operand::<i32>(left)?, operand::<i32>(right)?, |l, r| Some(i64::from(l) - i64::from(r)))
        }
        (D::Timestamp(unit, _), D::Interval, ArithmeticOp::Add) => {
            let unit = *unit;
            let f = move |l, r| shift(l, unit, Interval::unpack(r));
            rows.each(operand::<i64>(left)?, operand::<i128>(right)?, f)
        }
        (D::Timestamp(unit, _), D::Interval, ArithmeticOp::Subtract) => {
            let unit = *unit;
            let f = move |l, r| shift(l, unit, Interval::unpack(r).times(-1)?);
            rows.each(operand::<i64>(left)?, operand::<i128>(right)?, f)
        }
        (D::Timestamp(unit, _), D::Timestamp(other, _), ArithmeticOp::Subtract) if unit == other => {
            let per_day = unit.per_second() * 86_400;
            let nanos = 1_000_000_000 / unit.per_second();
            let f = move |l: i64, r: i64| {
                let difference = l.checked_sub(r)?;
                let days = i32::try_from(difference / per_day).ok()?;
                Some(Interval { months: 0, days, nanos: difference % per_day * nanos }.pack())
            };
            rows.each(operand::<i64>(left)?, operand::<i64>(right)?, f)
        }
        (D::Interval, D::Interval, ArithmeticOp::Add) => {
            let f =
                |l, r| Interval::unpack(l).combine(Interval::unpack(r), i64::checked_add).map(Interval::pack);
            rows.each(operand::<i128>(left)?, operand::<i128>(right)?, f)
        }
        (D::Interval, D::Interval, ArithmeticOp::Subtract) => {
            let f =
                |l, r| Interval::unpack(l).combine(Interval::unpack(r), i64::checked_sub).map(Interval::pack);
            rows.each(operand::<i128>(left)?, operand::<i128>(right)?, f)
        }
        (D::Interval, D::Int64, ArithmeticOp::Multiply) => {
            let f = |l, r| Interval::unpack(l).times(r).map(Interval::pack);
            rows.each(operand::<i128>(left)?, operand::<i64>(right)?, f)
        }
        (l, r, _) => Err(Error::internal(format!("{op:?} of {l} and {r} is not coerced"))),
    }
}

struct Rows<'a> {
    op: ArithmeticOp,
    types: ArithmeticTypes<'a>,
    valid: Option<Bitmap>,
    rows: usize,
    account: &'a Account,
}

impl Rows<'_> {
    fn each<A, B, R: Plain + super::operand::Native>(
        self,
        left: Operand<'_, A>,
        right: Operand<'_, B>,
        f: impl Fn(A, B) -> Option<R>,
    ) -> Result<Vector>
    where
        A: Copy + Into<i128>,
        B: Copy + Into<i128>,
    {
        let mut out: BufMut<R> = BufMut::with_len(self.account, self.rows)?;
        let mut failed = false;
        for (row, out) in out.iter_mut().enumerate() {
            let value = f(left.get(row), right.get(row));
            failed |= value.is_none();
            *out = value.unwrap_or_default();
        }
        if failed {
            let bad = |row| f(left.get(row), right.get(row)).is_none();
            if let Some(row) = first_bad(self.valid.as_ref(), self.rows, bad) {
                let shown = |value: i128, data_type: &DataType| {
                    super::cast::to_text(&Scalar::int(data_type.clone(), value))
                };
                let l = shown(left.get(row).into(), self.types.left);
                let r = shown(right.get(row).into(), self.types.right);
                return Err(super::arithmetic::overflow(self.op, &self.types.result.to_string(), &l, &r));
            }
        }
        let out: Buf<R> = out.freeze();
        Ok(Vector::Flat(FlatVector { values: R::wrap(out), validity: self.valid, bounds: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_keep_to_the_calendar() {
        let day = |y, m, d| days_from_civil(y, m, d) * 86_400;
        let by = |months, days| Interval { months, days, nanos: 0 };
        let shift = |t, i| shift(t, TimeUnit::Second, i);
        assert_eq!(shift(day(2020, 1, 31), by(1, 0)), Some(day(2020, 2, 29)));
        assert_eq!(shift(day(2020, 3, 31), by(-1, 0)), Some(day(2020, 2, 29)));
        assert_eq!(shift(day(2020, 1, 31), by(1, 1)), Some(day(2020, 3, 1)));
        assert_eq!(shift(day(1995, 11, 30), by(-25, 0)), Some(day(1993, 10, 30)));
        assert_eq!(shift(day(1900, 1, 30), by(1, 0)), Some(day(1900, 2, 28)));
        let micros = super::shift(-1, TimeUnit::Microsecond, Interval { months: 0, days: 1, nanos: 1000 });
        assert_eq!(micros, Some(86_400_000_000));
    }

    #[test]
    fn intervals_pack_with_signs() {
        for i in [
            Interval { months: -1, days: 2, nanos: -3 },
            Interval { months: 5, days: -6, nanos: 7 },
            Interval { months: i32::MIN, days: i32::MAX, nanos: i64::MIN },
        ] {
            assert_eq!(Interval::unpack(i.pack()), i);
        }
        assert!(negated(Interval { months: i32::MIN, days: 0, nanos: 0 }.pack()).1);
    }
}
