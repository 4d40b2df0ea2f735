//! Literals: numbers typed as DuckDB types them, strings, intervals.

use super::place;
use crate::data::{DataType, Scalar};
use crate::error::{Error, Location, Result};
use sqlparser::ast;

/// The value of a literal.
pub(super) fn value(literal: &ast::Value, location: Option<Location>) -> Result<Scalar> {
    use ast::Value as V;
    Ok(match literal {
        V::Number(digits, _) => number(digits, location)?,
        V::SingleQuotedString(text)
        | V::EscapedStringLiteral(text)
        | V::UnicodeStringLiteral(text)
        | V::NationalStringLiteral(text)
        | V::TripleSingleQuotedString(text) => Scalar::utf8(text.as_str()),
        V::DollarQuotedString(text) => Scalar::utf8(text.value.as_str()),
        V::Boolean(value) => Scalar::boolean(*value),
        V::Null => Scalar::null(DataType::Null),
        V::Placeholder(name) => {
            let message = format!("the parameter {name}; write the value into the query");
            return Err(Error::unsupported(message, location));
        }
        other => return Err(Error::unsupported(format!("the literal {other}"), location)),
    })
}

/// An integer gets the narrowest of INTEGER, BIGINT and HUGEINT, digits with a point the DECIMAL that holds just them,
/// and anything with an exponent, or too long for those, is a DOUBLE.
pub(super) fn number(text: &str, location: Option<Location>) -> Result<Scalar> {
    let text: String = text.chars().filter(|c| *c != '_').collect();
    let unsigned = text.trim_start_matches('-');
    if let Some((whole, fraction)) = unsigned.split_once('.')
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        let digits = whole.len() + fraction.len();
        let unscaled = text.replace('.', "").parse::<i128>();
        if let (1..=38, Ok(unscaled)) = (digits, unscaled) {
            let data_type = DataType::Decimal { precision: digits as u8, scale: fraction.len() as u8 };
            return Ok(Scalar::int(data_type, unscaled));
        }
    }
    if let Ok(value) = text.parse::<i128>() {
        let data_type = if i32::try_from(value).is_ok() {
            DataType::Int32
        } else if i64::try_from(value).is_ok() {
            DataType::Int64
        } else {
            DataType::Int128
        };
        return Ok(Scalar::int(data_type, value));
    }
    match text.parse::<f64>() {
        Ok(value) => Ok(Scalar::float(value)),
        Err(_) => Err(Error::plan(format!("{text} is no number"), location)),
    }
}

/// The escape character of a LIKE; the empty string means none.
pub(super) fn escape(source: &ast::Expr) -> Result<Option<char>> {
    let text = match source {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => Some(text.as_str()),
            _ => None,
        },
        _ => None,
    };
    let mut characters = text.into_iter().flat_map(str::chars);
    match (text, characters.next(), characters.next()) {
        (Some(_), first, None) => Ok(first),
        _ => Err(Error::plan("ESCAPE takes a string of one character", place(source))),
    }
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Months, days and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    months: i128,
    days: i128,
    nanoseconds: i128,
}

impl Span {
    /// Adds a whole count of a unit; `None` if there is no such unit or the sum overflows.
    fn add(&mut self, count: i128, unit: &str) -> Option<()> {
        let unit = unit.to_lowercase();
        let unit = unit.strip_suffix('s').unwrap_or(&unit);
        let (part, factor) = match unit {
            "year" | "y" | "yr" => (&mut self.months, 12),
            "month" | "mon" => (&mut self.months, 1),
            "quarter" => (&mut self.months, 3),
            "decade" => (&mut self.months, 120),
            "century" | "centurie" => (&mut self.months, 1200),
            "millennium" | "millenium" => (&mut self.months, 12_000),
            "week" | "w" => (&mut self.days, 7),
            "day" | "d" => (&mut self.days, 1),
            "hour" | "h" | "hr" => (&mut self.nanoseconds, 3600 * NANOS_PER_SECOND),
            "minute" | "m" | "min" => (&mut self.nanoseconds, 60 * NANOS_PER_SECOND),
            "second" | "" | "sec" => (&mut self.nanoseconds, NANOS_PER_SECOND),
            "millisecond" | "msec" | "ms" => (&mut self.nanoseconds, 1_000_000),
            "microsecond" | "usec" | "us" => (&mut self.nanoseconds, 1_000),
            _ => return None,
        };
        *part = part.checked_add(count.checked_mul(factor)?)?;
        Some(())
    }

    /// As a value, packed from the high end: 32 bits of months, 32 of days, 64 of nanoseconds.
    fn pack(self) -> Option<Scalar> {
        let months = i32::try_from(self.months).ok()?;
        let days = i32::try_from(self.days).ok()?;
        let nanoseconds = i64::try_from(self.nanoseconds).ok()?;
        let packed =
            (i128::from(months) << 96) | (i128::from(days as u32) << 64) | i128::from(nanoseconds as u64);
        Some(Scalar::int(DataType::Interval, packed))
    }
}

/// `INTERVAL '3' MONTH`, `INTERVAL 3 MONTH`, `INTERVAL '1 year 2 days'`.
pub(super) fn interval(interval: &ast::Interval, location: Option<Location>) -> Result<Scalar> {
    if interval.last_field.is_some() {
        return Err(Error::unsupported("intervals over several fields; write '1 year 2 months'", location));
    }
    let Some((text, negative)) = literal_text(&interval.value) else {
        let message = "an interval that is not a literal; multiply a literal interval instead";
        return Err(Error::unsupported(message, place(interval.value.as_ref()).or(location)));
    };
    let mut span = Span::default();
    let parsed = match &interval.leading_field {
        Some(field) => {
            let unit = field.to_string();
            // Units of a second and below keep the fraction of the count, larger ones drop it, as in DuckDB.
            let count = text.trim();
            let count = if unit.to_lowercase().contains("second") {
                count
            } else {
                count.split('.').next().unwrap_or_default()
            };
            parse_parts(&format!("{count} {unit}"), &mut span)
        }
        None => parse_parts(&text, &mut span),
    };
    if negative {
        span = Span { months: -span.months, days: -span.days, nanoseconds: -span.nanoseconds };
    }
    parsed.and_then(|()| span.pack()).ok_or_else(|| {
        let message =
            format!("'{text}' is no interval; write it like INTERVAL '3' MONTH or INTERVAL '1 year 2 days'");
        Error::plan(message, location)
    })
}

/// The text of a string or number, and whether a minus stands before it.
fn literal_text(source: &ast::Expr) -> Option<(String, bool)> {
    match source {
        ast::Expr::Nested(inner) => literal_text(inner),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            literal_text(expr).map(|(text, negative)| (text, !negative))
        }
        ast::Expr::Value(value) => match value.value.clone() {
            ast::Value::Number(text, _) | ast::Value::SingleQuotedString(text) => Some((text, false)),
            _ => None,
        },
        _ => None,
    }
}

/// `1 year -2 days 04:05:06.5`.
fn parse_parts(text: &str, span: &mut Span) -> Option<()> {
    let mut words = text.split_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            add_clock(word, span)?;
            continue;
        }
        // The unit may be glued to the count, as in '3days'.
        let end = word.find(char::is_alphabetic).unwrap_or(word.len());
        let (count, unit) = word.split_at(end);
        let unit = if unit.is_empty() { words.next()? } else { unit };
        if unit.eq_ignore_ascii_case("ago") {
            return None;
        }
        match count.split_once('.') {
            None => span.add(count.parse().ok()?, unit)?,
            Some(_) => {
                // Fractions are exact down to what a nanosecond resolves.
                let mut one = Span::default();
                one.add(1, unit)?;
                let count: f64 = count.parse().ok()?;
                if one.months != 0 {
                    span.add((count * one.months as f64).trunc() as i128, "month")?;
                } else {
                    let nanos = one.days as f64 * 86_400e9 + one.nanoseconds as f64;
                    let nanos = (count * nanos).round() as i128;
                    let day = 86_400 * NANOS_PER_SECOND;
                    if one.days != 0 {
                        span.days = span.days.checked_add(nanos / day)?;
                        span.nanoseconds = span.nanoseconds.checked_add(nanos % day)?;
                    } else {
                        span.nanoseconds = span.nanoseconds.checked_add(nanos)?;
                    }
                }
            }
        }
    }
    Some(())
}

/// `[-]hours:minutes[:seconds[.fraction]]`.
fn add_clock(word: &str, span: &mut Span) -> Option<()> {
    let (sign, clock) = match word.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, word),
    };
    let mut parts = clock.split(':');
    let hours: i128 = parts.next()?.parse().ok()?;
    let minutes: i128 = parts.next()?.parse().ok()?;
    let (seconds, nanos) = match parts.next() {
        None => (0, 0),
        Some(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
            (whole.parse::<i128>().ok()?, digits.parse::<i128>().ok()?)
        }
    };
    if parts.next().is_some() || !(0..60).contains(&minutes) || !(0..60).contains(&seconds) {
        return None;
    }
    let total = hours
        .checked_mul(3600)?
        .checked_add(minutes * 60 + seconds)?
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(nanos)?;
    span.nanoseconds = span.nanoseconds.checked_add(sign * total)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Value;

    #[test]
    fn numbers_are_typed_as_duckdb_types_them() {
        let decimal = |precision, scale| DataType::Decimal { precision, scale };
        for (text, data_type, payload) in [
            ("1", DataType::Int32, Value::Int(1)),
            ("-2147483648", DataType::Int32, Value::Int(i128::from(i32::MIN))),
            ("2147483648", DataType::Int64, Value::Int(2_147_483_648)),
            ("9223372036854775808", DataType::Int128, Value::Int(1 << 63)),
            ("0.05", decimal(3, 2), Value::Int(5)),
            (".05", decimal(2, 2), Value::Int(5)),
            ("-1.5", decimal(2, 1), Value::Int(-15)),
            ("100.25", decimal(5, 2), Value::Int(10_025)),
            ("1_000", DataType::Int32, Value::Int(1000)),
            ("1.5e3", DataType::Float64, Value::Float(1500.0)),
        ] {
            assert_eq!(number(text, None).expect("a number"), Scalar { data_type, value: payload }, "{text}");
        }
    }

    #[test]
    fn intervals_add_up() {
        let parse = |text| {
            let mut span = Span::default();
            parse_parts(text, &mut span).map(|()| span)
        };
        let span = |months, days, nanoseconds| Some(Span { months, days, nanoseconds });
        assert_eq!(parse("1 year 2 days"), span(12, 2, 0));
        assert_eq!(parse("-3days 00:00:01.5"), span(0, -3, 1_500_000_000));
        assert_eq!(parse("1.5 days"), span(0, 1, 43_200 * NANOS_PER_SECOND));
        assert_eq!(parse("3"), None);
        assert_eq!(parse("3 fortnights"), None);
        let packed = Span { months: -1, days: -2, nanoseconds: -3 }.pack().and_then(|s| s.as_int());
        let expected = (-1_i128 << 96) | (i128::from(-2_i32 as u32) << 64) | i128::from(-3_i64 as u64);
        assert_eq!(packed, Some(expected));
    }
}
