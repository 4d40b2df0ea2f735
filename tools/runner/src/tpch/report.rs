//! What is printed and written about the runs.
//!
//! Owns: [`Report`], [`Row`], [`Check`].

use crate::engine::EngineArgs;
use crate::print::outln;
use bytesize::ByteSize;
use serde_json::json;
use std::io;

/// What became of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// The rows are the stored answer.
    Passed,
    /// No answer is stored for this scale.
    Unchecked,
    /// The engine does not run it yet, and why.
    Unsupported(String),
    /// The rows differ from the answer, and where.
    Wrong(String),
    /// It failed.
    Error(String),
}

/// Figures of one query.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Planning to last row, of every run.
    pub(super) seconds: Vec<f64>,
    pub(super) rows: usize,
    pub(super) peak_granted_bytes: usize,
    pub(super) spilled_bytes: u64,
    pub(super) check: Check,
}

impl Row {
    /// A query that has not run.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            seconds: Vec::new(),
            rows: 0,
            peak_granted_bytes: 0,
            spilled_bytes: 0,
            check: Check::Unchecked,
        }
    }

    fn best(&self) -> Option<f64> {
        self.seconds.iter().copied().reduce(f64::min)
    }

    /// One line of the table. A message is cut at its first line; the JSON has all of it.
    pub(super) fn print(&self) -> io::Result<()> {
        let check = match &self.check {
            Check::Passed => "ok",
            Check::Unchecked => "unchecked",
            Check::Unsupported(_) => "unsupported",
            Check::Wrong(what) => &format!("WRONG: {what}"),
            Check::Error(what) => &format!("ERROR: {}", what.lines().next().unwrap_or_default()),
        };
        match self.best() {
            Some(best) => outln!(
                "{:5}  {best:9.3}  {:8}  {:>10}  {:>10}  {check}",
                self.name,
                self.rows,
                size(self.peak_granted_bytes as u64),
                size(self.spilled_bytes)
            ),
            None => outln!("{:5}  {:>9}  {:>8}  {:>10}  {:>10}  {check}", self.name, "-", "-", "-", "-"),
        }
    }
}

fn size(bytes: u64) -> String {
    if bytes == 0 { String::from("0") } else { ByteSize(bytes).display().iec().to_string() }
}

/// All figures of a command.
#[derive(Debug)]
pub(super) struct Report {
    scale: f64,
    threads: usize,
    memory_limit: Option<u64>,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub(super) fn new(scale: f64, engine: &EngineArgs) -> Self {
        let memory_limit = engine.memory_limit.map(|bytes| bytes as u64);
        Self { scale, threads: engine.thread_count(), memory_limit, rows: Vec::new() }
    }

    /// Adds a query.
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The table's heading.
    pub(super) fn print_header() -> io::Result<()> {
        outln!("{:5}  {:>9}  {:>8}  {:>10}  {:>10}  check", "query", "seconds", "rows", "peak", "spilled")
    }

    /// Total and geometric mean of the queries that ran.
    pub(super) fn print_footer(&self) -> io::Result<()> {
        let times: Vec<f64> = self.rows.iter().filter_map(Row::best).collect();
        if times.len() < 2 {
            return Ok(());
        }
        let total: f64 = times.iter().sum();
        let geometric_mean = (times.iter().map(|t| t.max(1e-9).ln()).sum::<f64>() / times.len() as f64).exp();
        outln!("total  {total:9.3}  geometric mean {geometric_mean:.3} over {} queries", times.len())
    }

    /// Names of the queries that make the command fail; those not supported yet count if they were `named`.
    pub(super) fn failures(&self, named: bool) -> Vec<&'static str> {
        self.rows
            .iter()
            .filter(|row| match row.check {
                Check::Passed | Check::Unchecked => false,
                Check::Unsupported(_) => named,
                Check::Wrong(_) | Check::Error(_) => true,
            })
            .map(|row| row.name)
            .collect()
    }

    /// The figures as JSON.
    pub(super) fn to_json(&self) -> String {
        let queries: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let (check, error) = match &row.check {
                    Check::Passed => ("ok", None),
                    Check::Unchecked => ("unchecked", None),
                    Check::Unsupported(what) => ("unsupported", Some(what)),
                    Check::Wrong(what) => ("wrong", Some(what)),
                    Check::Error(what) => ("error", Some(what)),
                };
                json!({
                    "name": row.name,
                    "seconds": row.seconds,
                    "rows": row.rows,
                    "peak_granted_bytes": row.peak_granted_bytes,
                    "spilled_bytes": row.spilled_bytes,
                    "check": check,
                    "error": error,
                })
            })
            .collect();
        let report = json!({
            "engine": "gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "scale_factor": self.scale,
            "threads": self.threads,
            "memory_limit": self.memory_limit,
            "queries": queries,
        });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_fails_only_when_named() {
        let report = Report {
            scale: 1.0,
            threads: 2,
            memory_limit: None,
            rows: vec![
                Row { check: Check::Passed, seconds: vec![0.5, 0.25], ..Row::new("q01") },
                Row { check: Check::Unsupported(String::from("joins")), ..Row::new("q02") },
                Row { check: Check::Wrong(String::from("row 1")), ..Row::new("q06") },
            ],
        };
        assert_eq!(report.failures(false), ["q06"]);
        assert_eq!(report.failures(true), ["q02", "q06"]);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("valid JSON");
        assert_eq!(json["queries"][0]["check"], "ok");
        assert_eq!(json["queries"][2]["error"], "row 1");
    }
}
