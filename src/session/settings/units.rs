//! Sizes, times and truth values as people write them.
//!
//! Owns: [`parse_bytes`], [`parse_duration`] and what writes them, for settings and, exported, for whoever reads a
//! command line or a configuration: one text means the same everywhere. Must not know: what is set.

use std::fmt;
use std::time::Duration;

/// A text that is no size or no time. Says what would be one; whoever reports it names the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError(&'static str);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UnitError {}

const NO_SIZE: UnitError =
    UnitError("write a number of bytes, or a number and a unit such as '256MB' (10^6) or '64MiB' (2^20)");
const NO_TIME: UnitError =
    UnitError("write a number of seconds, or a number and a unit such as '500ms', '30s', '5m' or '1h'");

/// Powers of ten and powers of two, as DuckDB reads them.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Units of time, in milliseconds.
const TIMES: &[(&str, f64)] =
    &[("", 1e3), ("ms", 1.0), ("s", 1e3), ("m", 60e3), ("min", 60e3), ("h", 3600e3)];

/// Bytes of a size such as `256MB` (10^6), `64MiB` (2^20) or `1.5 GB`; a number without a unit is bytes. Case does not
/// matter.
///
/// ```
/// assert_eq!(gristmill::parse_bytes("64MiB"), Ok(64 << 20));
/// assert_eq!(gristmill::parse_bytes("1.5 gb"), Ok(1_500_000_000));
/// assert!(gristmill::parse_bytes("64 parsecs").is_err());
/// ```
///
/// # Errors
/// What would be a size.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(NO_SIZE)?;
    let (_, unit_bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or(NO_SIZE)?;
    // Whole numbers are exact, whatever their size.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*unit_bytes).ok_or(NO_SIZE);
    }
    let bytes = number.parse::<f64>().map_err(|_| NO_SIZE)? * *unit_bytes as f64;
    // Every size below is exact enough, and none above is anybody's.
    if bytes >= u64::MAX as f64 { Err(NO_SIZE) } else { Ok(bytes as u64) }
}

/// `true`, `on`, `1` and their opposites, in any case; `None` as it is.
pub(super) fn boolean(value: Option<&str>) -> Result<Option<bool>, String> {
    match value.map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true" | "on" | "1") => Ok(Some(true)),
        Some("false" | "off" | "0") => Ok(Some(false)),
        Some(_) => Err("write true or false".to_owned()),
    }
}

/// A time such as `500ms`, `30s`, `1.5m` or `2h`; a number without a unit is seconds. Case does not matter.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(gristmill::parse_duration("1.5m"), Ok(Duration::from_secs(90)));
/// assert_eq!(gristmill::parse_duration("30"), Ok(Duration::from_secs(30)));
/// assert!(gristmill::parse_duration("-1s").is_err());
/// ```
///
/// # Errors
/// What would be a time.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(NO_TIME)?;
    let (_, unit_millis) = TIMES.iter().find(|(name, _)| *name == unit).ok_or(NO_TIME)?;
    let number: f64 = number.parse().map_err(|_| NO_TIME)?;
    Duration::try_from_secs_f64(number * unit_millis / 1e3).map_err(|_| NO_TIME)
}

/// Digits, perhaps with a point, and a unit in lower case.
fn split(text: &str) -> Option<(&str, String)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    number.starts_with(|c: char| c.is_ascii_digit()).then(|| (number, unit.trim().to_lowercase()))
}

/// The size in the largest unit that leaves no fraction, as [`parse_bytes`] reads it.
pub(crate) fn format_bytes(bytes: u64) -> String {
    for (unit, unit_bytes) in [("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000)] {
        if bytes > 0 && bytes.is_multiple_of(unit_bytes) {
            return format!("{}{unit}", bytes / unit_bytes);
        }
    }
    format!("{bytes}B")
}

/// The time in the largest unit that leaves no fraction.
pub(crate) fn format_duration(time: Duration) -> String {
    let millis = time.as_millis();
    for (unit, unit_millis) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(unit_millis) {
            return format!("{}{unit}", millis / unit_millis);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("256MB", 256_000_000),
            ("64mib", 64 << 20),
            (" 1.5 GB ", 1_500_000_000),
            ("2TiB", 2 << 40),
            ("7b", 7),
            ("0KiB", 0),
            ("64", 64),
            ("18446744073709551615", u64::MAX),
            ("9007199254740993B", (1 << 53) + 1),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", ".MB", "-1MB", "12 parsecs", "1e99GB", "1.2.3MB", "99999999TB", "½GB", "6 4"]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, millis) in
            [("500ms", 500), ("30 s", 30_000), ("1.5M", 90_000), ("2h", 7_200_000), ("30", 30_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "5 weeks", "1e9h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 999, 1 << 20, 64 << 20, 10_000_000, 3 << 30, 5_000_000_000, 123_456_789] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        for millis in [0, 1, 999, 1_000, 90_000, 60_000, 7_200_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(time)), Ok(time));
        }
    }
}
