//! Text to values. Surrounding white space is ignored.

use super::Failures;
use crate::data::{BitmapMut, BufMut, DataType, FlatVector, PhysicalType, TimeUnit, Values, days_from_civil};
use crate::error::{Error, Result};
use crate::expr::kernels::decimal::{has_precision, power_of_ten};
use crate::expr::kernels::operand::Native;
use crate::expr::kernels::temporal::days_in_month;
use crate::mem::Account;

/// Each string as a value of `to`; rows that are none are marked.
pub(super) fn strings(
    vector: &FlatVector,
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<Values> {
    let mut text = Text { vector, failures, account };
    match (to, to.physical()) {
        (DataType::Boolean, _) => {
            let rows = vector.len();
            let mut bits = BitmapMut::with_len(account, rows)?;
            let values = text.each::<u8>(|s| boolean(s).map(u8::from))?;
            if let Values::U8(values) = values {
                bits.fill_from(|i| values[i] == 1);
            }
            Ok(Values::Bool(bits.freeze()))
        }
        (DataType::Decimal { precision, scale }, physical) => {
            let parse = |s: &str| number(s, *scale).filter(|v| has_precision(*v, *precision));
            match physical {
                PhysicalType::I64 => text.each::<i64>(|s| i64::try_from(parse(s)?).ok()),
                _ => text.each::<i128>(parse),
            }
        }
        (DataType::Date, _) => text.each::<i32>(|s| i32::try_from(timestamp(s)?.days).ok()),
        (DataType::Timestamp(unit, _), _) => text.each::<i64>(|s| timestamp(s)?.in_unit(*unit)),
        (DataType::Time(unit), _) => text.each::<i64>(|s| {
            let (nanos, rest) = time(s)?;
            rest.is_empty().then(|| nanos / (1_000_000_000 / unit.per_second()))
        }),
        (_, PhysicalType::I8) => text.each::<i8>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::I16) => text.each::<i16>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::I32) => text.each::<i32>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::I64) => text.each::<i64>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::I128) => text.each::<i128>(|s| number(s, 0)),
        (_, PhysicalType::U8) => text.each::<u8>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::U16) => text.each::<u16>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::U32) => text.each::<u32>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::U64) => text.each::<u64>(|s| number(s, 0)?.try_into().ok()),
        (_, PhysicalType::F32) => text.each::<f32>(|s| s.parse().ok()),
        (_, PhysicalType::F64) => text.each::<f64>(|s| s.parse().ok()),
        (_, PhysicalType::Bool | PhysicalType::View | PhysicalType::Nested) => {
            Err(Error::plan(format!("there is no conversion from VARCHAR to {to}"), None))
        }
    }
}

struct Text<'a> {
    vector: &'a FlatVector,
    failures: &'a mut Failures,
    account: &'a Account,
}

impl Text<'_> {
    fn each<T: Native>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<Values> {
        let Values::View(strings) = &self.vector.values else {
            return Err(Error::internal("strings are views"));
        };
        let rows = strings.len();
        let mut out: BufMut<T> = BufMut::zeroed(self.account, rows)?;
        for (row, out) in out.iter_mut().enumerate() {
            if self.vector.is_null(row) {
                continue;
            }
            let parsed = std::str::from_utf8(strings.get(row)).ok().and_then(|s| parse(s.trim_ascii()));
            match parsed {
                Some(value) => *out = value,
                None => self.failures.mark(row, rows, self.account)?,
            }
        }
        Ok(T::wrap(out.freeze()))
    }
}

fn boolean(s: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(s));
    if is(&["true", "t", "yes", "y", "1"]) {
        Some(true)
    } else if is(&["false", "f", "no", "n", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A number, perhaps with fraction and exponent, in units of `10^-scale`, rounded half away from zero.
pub(crate) fn number(s: &str, scale: u8) -> Option<i128> {
    let (is_negative, s) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    let (mantissa, exponent) = match s.find(['e', 'E']) {
        Some(at) => (&s[..at], s[at + 1..].parse::<i32>().ok()?),
        None => (s, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = || whole.bytes().chain(fraction.bytes());
    if !digits().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digits up to this place count; the next one rounds.
    let places = whole.len() as i64 + i64::from(exponent) + i64::from(scale);
    let mut value: i128 = 0;
    let mut seen = 0;
    for digit in digits() {
        if seen == places {
            value = value.checked_add(i128::from(digit >= b'5'))?;
            break;
        }
        if seen > places {
            break;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        seen += 1;
    }
    let missing = places - seen;
    if missing > 0 && value != 0 {
        let factor = u8::try_from(missing).ok().and_then(power_of_ten)?;
        value = value.checked_mul(factor)?;
    }
    Some(if is_negative { -value } else { value })
}

/// A day and a time of day.
struct Moment {
    days: i64,
    nanos: i64,
}

impl Moment {
    fn in_unit(&self, unit: TimeUnit) -> Option<i64> {
        let whole = self.days.checked_mul(86_400 * unit.per_second())?;
        whole.checked_add(self.nanos / (1_000_000_000 / unit.per_second()))
    }
}

/// `YYYY-MM-DD`, perhaps with a time behind a space or `T` and a zone offset behind that.
fn timestamp(s: &str) -> Option<Moment> {
    let (is_negative, s) = s.strip_prefix('-').map_or((false, s), |rest| (true, rest));
    let (year, rest) = digits(s, 6)?;
    let separator = rest.bytes().next().filter(|b| matches!(b, b'-' | b'/'))?;
    let (month, rest) = digits(&rest[1..], 2)?;
    let rest = rest.strip_prefix(char::from(separator))?;
    let (day, rest) = digits(rest, 2)?;
    let year = if is_negative { -year } else { year };
    let (month, day) = (month as u32, day as u32);
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if rest.trim_ascii().is_empty() {
        return Some(Moment { days, nanos: 0 });
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (nanos, zone) = time(rest.trim_ascii_start())?;
    let offset_minutes = match zone.trim_ascii().as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let (hours, rest) = digits(&zone.trim_ascii()[1..], 2)?;
            let (minutes, rest) = match rest.strip_prefix(':').unwrap_or(rest) {
                "" => (0, ""),
                rest => digits(rest, 2)?,
            };
            if !rest.is_empty() {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let nanos = nanos - offset_minutes * 60_000_000_000;
    let day = 86_400_000_000_000;
    Some(Moment { days: days + nanos.div_euclid(day), nanos: nanos.rem_euclid(day) })
}

/// `HH:MM[:SS[.fraction]]` in nanoseconds, and what follows.
fn time(s: &str) -> Option<(i64, &str)> {
    let (hours, rest) = digits(s, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (seconds, mut rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        let mut unit = 100_000_000;
        for digit in fraction.bytes().take(len) {
            nanos += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        rest = &fraction[len..];
    }
    Some((((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + nanos, rest))
}

/// One to `max` digits at the start, and what follows.
fn digits(s: &str, max: usize) -> Option<(i64, &str)> {
    let len = s.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if len == 0 {
        return None;
    }
    Some((s[..len].parse().ok()?, &s[len..]))
}
