//! Values to text, as DuckDB writes them.

use crate::data::{DataType, Scalar, TimeUnit, Value, civil_from_days, format_decimal};
use crate::expr::kernels::temporal::Interval;
use std::fmt::Write;

/// A value as text; empty for null.
pub(crate) fn to_text(scalar: &Scalar) -> String {
    let mut out = String::new();
    write_text(&mut out, scalar);
    out
}

/// Appends a value's text; nothing for null.
pub(crate) fn write_text(out: &mut String, scalar: &Scalar) {
    // Writing to a string cannot fail.
    let _ = match (&scalar.value, &scalar.data_type) {
        (Value::Null, _) => Ok(()),
        (Value::Boolean(b), _) => write!(out, "{b}"),
        (Value::Float(v), DataType::Float32) => float(out, f64::from(*v as f32), &format!("{:e}", *v as f32)),
        (Value::Float(v), _) => float(out, *v, &format!("{v:e}")),
        (Value::Utf8(s), _) => out.write_str(s),
        (Value::Binary(bytes), _) => bytes.iter().try_for_each(|b| match b {
            b'\\' | b'\'' | b'"' | 0..32 | 127.. => write!(out, "\\x{b:02X}"),
            _ => out.write_char(char::from(*b)),
        }),
        (Value::Int(v), DataType::Decimal { scale, .. }) => out.write_str(&format_decimal(*v, *scale)),
        (Value::Int(v), DataType::Date) => date(out, *v as i64),
        (Value::Int(v), DataType::Time(unit)) => time(out, *v as i64, *unit),
        (Value::Int(v), DataType::Timestamp(unit, zone)) => {
            let per_day = unit.per_second() * 86_400;
            let v = *v as i64;
            date(out, v.div_euclid(per_day))
                .and_then(|()| out.write_char(' '))
                .and_then(|()| time(out, v.rem_euclid(per_day), *unit))
                .and_then(|()| if zone.is_some() { out.write_str("+00") } else { Ok(()) })
        }
        (Value::Int(v), DataType::Interval) => interval(out, Interval::unpack(*v)),
        (Value::Int(v), _) => write!(out, "{v}"),
    };
}

/// The shortest digits that read back the same, `scientific` form given; plain between 1e-4 and 1e16.
fn float(out: &mut String, v: f64, scientific: &str) -> std::fmt::Result {
    if v.is_nan() {
        return out.write_str("nan");
    }
    if v.is_infinite() {
        return out.write_str(if v > 0.0 { "inf" } else { "-inf" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if v != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    out.write_str(sign)?;
    match usize::try_from(exponent) {
        Ok(whole) if digits.len() > whole + 1 => {
            write!(out, "{}.{}", &digits[..=whole], &digits[whole + 1..])
        }
        Ok(whole) => write!(out, "{digits:0<width$}.0", width = whole + 1),
        Err(_) => {
            write!(out, "0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1))
        }
    }
}

fn date(out: &mut String, days: i64) -> std::fmt::Result {
    let (year, month, day) = civil_from_days(days);
    if year <= 0 {
        return write!(out, "{:04}-{month:02}-{day:02} (BC)", 1 - year);
    }
    write!(out, "{year:04}-{month:02}-{day:02}")
}

fn time(out: &mut String, value: i64, unit: TimeUnit) -> std::fmt::Result {
    let per_second = unit.per_second();
    let (seconds, fraction) = (value / per_second, value % per_second);
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    if fraction != 0 {
        let width = per_second.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(out, ".{}", digits.trim_end_matches('0'))?;
    }
    Ok(())
}

fn interval(out: &mut String, i: Interval) -> std::fmt::Result {
    let mut parts: Vec<String> = Vec::new();
    let mut part = |count: i32, unit: &str| {
        if count != 0 {
            parts.push(format!("{count} {unit}{}", if count.abs() == 1 { "" } else { "s" }));
        }
    };
    part(i.months / 12, "year");
    part(i.months % 12, "month");
    part(i.days, "day");
    if i.nanos != 0 || parts.is_empty() {
        let mut clock = String::new();
        if i.nanos < 0 {
            clock.push('-');
        }
        let micros = (i.nanos.unsigned_abs() / 1000) as i64;
        time(&mut clock, micros, TimeUnit::Microsecond)?;
        parts.push(clock);
    }
    out.write_str(&parts.join(" "))
}
