//! What is written about a benchmark, and read again when a later one is compared with it.
//!
//! Owns: [`Measurement`], [`Report`], [`Baseline`] and the shape of their JSON: settings that figures depend on, and a
//! flat list of measurements, one for each statement and engine.

use super::figures::Spread;
use super::options::Options;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The engine that earlier figures are compared of.
pub const OURS: &str = "gristmill";

/// A statement's runs in one engine. What was not or cannot be measured is `None`.
#[derive(Debug, Clone, Default)]
pub struct Measurement {
    pub statement: String,
    pub engine: &'static str,
    /// Of every measured run.
    pub seconds: Vec<f64>,
    pub rows: Option<u64>,
    /// Rows it reads, for a rate.
    pub input_rows: Option<u64>,
    /// Most anonymous memory its process had, and what it had before the first run.
    pub peak_anonymous_bytes: Option<u64>,
    pub rest_anonymous_bytes: Option<u64>,
    /// Most memory the engine granted.
    pub peak_granted_bytes: Option<u64>,
    pub spilled_bytes: Option<u64>,
    /// Why there is no answer.
    pub error: Option<String>,
}

impl Measurement {
    /// Nothing measured yet.
    pub fn new(statement: &str, engine: &'static str) -> Self {
        Self { statement: statement.to_owned(), engine, ..Self::default() }
    }

    /// Its times, unless it failed.
    pub fn spread(&self) -> Option<Spread> {
        if self.error.is_some() { None } else { Spread::of(&self.seconds) }
    }

    fn to_json(&self) -> Value {
        let spread = self.spread();
        json!({
            "statement": self.statement,
            "engine": self.engine,
            "best_seconds": spread.map(|s| s.best),
            "p25_seconds": spread.map(|s| s.p25),
            "median_seconds": spread.map(|s| s.median),
            "p75_seconds": spread.map(|s| s.p75),
            "seconds": self.seconds,
            "rows": self.rows,
            "input_rows": self.input_rows,
            "peak_anonymous_bytes": self.peak_anonymous_bytes,
            "rest_anonymous_bytes": self.rest_anonymous_bytes,
            "peak_granted_bytes": self.peak_granted_bytes,
            "spilled_bytes": self.spilled_bytes,
            "error": self.error,
        })
    }
}

/// The figures of a benchmark.
pub struct Report {
    benchmark: &'static str,
    /// What figures depend on beside the code.
    settings: Value,
    /// Versions of the engines by name.
    pub versions: BTreeMap<&'static str, String>,
    measurements: Vec<Value>,
}

impl Report {
    /// An empty report of a benchmark over `data`.
    pub fn new(benchmark: &'static str, options: &Options, data: &str) -> Self {
        let settings = json!({
            "data": data,
            "threads": options.threads,
            "memory_limit": options.memory_limit,
            "optimized": !cfg!(debug_assertions),
        });
        let versions = BTreeMap::from([(OURS, env!("CARGO_PKG_VERSION").to_owned())]);
        Self { benchmark, settings, versions, measurements: Vec::new() }
    }

    /// Adds a measurement.
    pub fn push(&mut self, measurement: &Measurement) {
        self.measurements.push(measurement.to_json());
    }

    /// Writes it to the file asked for, if one is.
    pub fn write(&self, path: Option<&Path>) -> Result<(), String> {
        let Some(path) = path else { return Ok(()) };
        fs::write(path, format!("{:#}\n", self.to_json()))
            .map_err(|e| format!("cannot write '{}': {e}", path.display()))
    }

    fn to_json(&self) -> Value {
        json!({
            "benchmark": self.benchmark,
            "settings": self.settings,
            "engines": self.versions,
            "measurements": self.measurements,
        })
    }
}

/// An earlier report: how our engine did.
pub struct Baseline {
    settings: Value,
    spreads: BTreeMap<String, Spread>,
}

impl Baseline {
    /// Reads the file asked for, if one is. Says so if it was made otherwise than `report`.
    pub fn read(path: Option<&Path>, report: &Report) -> Result<Option<Self>, String> {
        let Some(path) = path else { return Ok(None) };
        let wrong = |what: &str| format!("cannot compare with '{}': {what}", path.display());
        let text = fs::read_to_string(path).map_err(|e| wrong(&e.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        if json["benchmark"] != report.benchmark {
            return Err(wrong("it is no report of this benchmark"));
        }
        let baseline = Self::of(&json).ok_or_else(|| wrong("it lacks measurements"))?;
        if baseline.settings != report.settings {
            eprintln!(
                "warning: '{}' was measured with other settings: {}, now {}",
                path.display(),
                baseline.settings,
                report.settings
            );
        }
        Ok(Some(baseline))
    }

    fn of(json: &Value) -> Option<Self> {
        let ours = json["measurements"].as_array()?.iter().filter(|m| m["engine"] == OURS);
        let spreads = ours.filter_map(|m| Some((m["statement"].as_str()?.to_owned(), Spread::from_json(m)?)));
        Some(Self { spreads: spreads.collect(), settings: json["settings"].clone() })
    }

    /// How `now` stands to what was measured then; empty where either failed.
    pub fn change(&self, now: &Measurement) -> String {
        match (now.spread(), self.spreads.get(&now.statement)) {
            (Some(now), Some(before)) => now.change_since(before),
            (None, _) | (_, None) => String::new(),
        }
    }
}
