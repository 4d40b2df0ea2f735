//! The times of several runs as a few figures, and when two of them differ by more than noise.

use hdrhistogram::Histogram;
use serde_json::Value;

/// Medians nearer to each other than this are the same.
const NOTABLE_RATIO: f64 = 1.05;
/// Digits to which the histogram keeps a time.
const DIGITS: u8 = 4;

/// How the times of some runs are spread, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub best: f64,
    pub p25: f64,
    pub median: f64,
    pub p75: f64,
}

impl Spread {
    /// The spread of `seconds`; `None` of none.
    pub fn of(seconds: &[f64]) -> Option<Self> {
        let best = seconds.iter().copied().reduce(f64::min)?;
        let mut nanos = Histogram::<u64>::new(DIGITS).expect("a number of digits it supports");
        for run in seconds {
            nanos.record((run * 1e9) as u64).expect("it grows with what is recorded");
        }
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e9;
        Some(Self { best, p25: at(0.25), median: at(0.5), p75: at(0.75) })
    }

    /// The spread in a measurement of an earlier report.
    pub fn from_json(measurement: &Value) -> Option<Self> {
        let at = |key| measurement[key].as_f64();
        Some(Self {
            best: at("best_seconds")?,
            p25: at("p25_seconds")?,
            median: at("median_seconds")?,
            p75: at("p75_seconds")?,
        })
    }

    /// How this stands to an earlier spread: the ratio of the medians, and a word if they are further apart than
    /// [`NOTABLE_RATIO`] and the middle halves of the runs do not even touch.
    pub fn change_since(&self, before: &Self) -> String {
        let ratio = self.median / before.median.max(1e-9);
        let word = if ratio > NOTABLE_RATIO && self.p25 > before.p75 {
            " SLOWER"
        } else if ratio < 1.0 / NOTABLE_RATIO && self.p75 < before.p25 {
            " faster"
        } else {
            ""
        };
        format!("{ratio:.2}x{word}")
    }
}
