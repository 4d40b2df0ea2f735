//! The figures of a query, and how they pass from its process to the one that asked.
//!
//! Owns: [`Figures`]. Must not know: how they are taken.

use gristmill::QueryMetrics;
use serde_json::{Value, json};

/// Figures of a query.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) seconds: Vec<f64>,
    pub(super) rows: u64,
    pub(super) peak_granted_bytes: u64,
    pub(super) spilled_bytes: u64,
    /// What was spilled and waited for, of the run that spilled most.
    pub(super) pressure: Value,
    pub(super) error: Option<String>,
}

/// What memory being short came to.
pub(super) fn pressure(metrics: &QueryMetrics) -> Value {
    let QueryMetrics { floor_bytes, spill, waits, .. } = metrics;
    json!({
        "floor_bytes": floor_bytes,
        "spill": {
            "partitions": spill.partitions,
            "depth": spill.depth,
            "files": spill.files,
            "blocks_written": spill.blocks_written,
            "bytes_written": spill.bytes_written,
            "blocks_read": spill.blocks_read,
            "bytes_read": spill.bytes_read,
            "write_seconds": spill.write_time.as_secs_f64(),
            "read_seconds": spill.read_time.as_secs_f64(),
            "merge_seconds": spill.merge_time.as_secs_f64(),
        },
        "waits": {"memory": waits.memory, "queue": waits.queue, "other": waits.other},
    })
}

impl Figures {
    /// One line for another process.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "seconds": self.seconds,
            "rows": self.rows,
            "peak_granted_bytes": self.peak_granted_bytes,
            "spilled_bytes": self.spilled_bytes,
            "pressure": self.pressure,
            "error": self.error,
        })
    }

    /// What a query's process printed; `None` if that is something else.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            seconds: value["seconds"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?,
            rows: value["rows"].as_u64()?,
            peak_granted_bytes: value["peak_granted_bytes"].as_u64()?,
            spilled_bytes: value["spilled_bytes"].as_u64()?,
            pressure: value["pressure"].clone(),
            error: value["error"].as_str().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_pass_between_processes() {
        let figures = Figures { seconds: vec![0.5, 0.25], rows: 7, spilled_bytes: 9, ..Figures::default() };
        let parsed = Figures::parse(&figures.to_json().to_string()).expect("figures");
        assert_eq!(
            (parsed.seconds, parsed.rows, parsed.spilled_bytes, parsed.error),
            (vec![0.5, 0.25], 7, 9, None)
        );
        assert!(Figures::parse("").is_none());
        assert!(Figures::parse("{\"seconds\": 3}").is_none());
    }
}
