//! What the benchmarks share: flags, repeated measurement, the table, JSON and its comparison with an earlier run.
//!
//! A benchmark is a list of named statements over tables. Each is run once unmeasured and then `--runs` times; times are
//! from the text of the statement to its last row, whose rows are let go of as they come.

use gristmill::{Engine, Session};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A time counts as changed if its median moved by more than this.
const NOTABLE_RATIO: f64 = 1.05;

const USAGE: &str = "flags:
  --path DIR           folder of the TPC-H tables [default: data/tpch-sf1]
  --runs N             measured runs of each statement [default: 5]
  --only TEXT          statements whose name contains TEXT
  --threads N          worker threads [default: one per core]
  --memory-limit BYTES memory of the engine
  --spill-dir DIR      where it spills
  --json FILE          write the figures
  --baseline FILE      compare with figures written before";

/// What the command line asks for.
pub struct Options {
    pub path: PathBuf,
    runs: u32,
    only: String,
    threads: Option<usize>,
    memory_limit: Option<usize>,
    spill_dir: Option<PathBuf>,
    json: Option<PathBuf>,
    baseline: Option<PathBuf>,
}

/// A statement to measure.
pub struct Case {
    pub name: String,
    pub sql: String,
    /// Rows it reads, for a rate; 0: unknown.
    pub input_rows: u64,
}

/// Figures of a statement.
struct Figures {
    micros: Histogram<u64>,
    input_rows: u64,
    rows: u64,
    peak_granted_bytes: usize,
    spilled_bytes: u64,
}

impl Options {
    /// Reads the command line; a message if it is wrong.
    pub fn parse() -> Result<Self, String> {
        let mut options = Self {
            path: PathBuf::from("data/tpch-sf1"),
            runs: 5,
            only: String::new(),
            threads: None,
            memory_limit: None,
            spill_dir: None,
            json: None,
            baseline: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            // `cargo bench` adds this.
            if flag == "--bench" {
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{flag} lacks a value\n{USAGE}"))?;
            let number = || value.parse::<usize>().map_err(|_| format!("{flag}: '{value}' is no number"));
            match flag.as_str() {
                "--path" => options.path = PathBuf::from(value),
                "--runs" => options.runs = u32::try_from(number()?).map_err(|e| e.to_string())?.max(1),
                "--only" => options.only = value,
                "--threads" => options.threads = Some(number()?),
                "--memory-limit" => options.memory_limit = Some(number()?),
                "--spill-dir" => options.spill_dir = Some(PathBuf::from(value)),
                "--json" => options.json = Some(PathBuf::from(value)),
                "--baseline" => options.baseline = Some(PathBuf::from(value)),
                other => return Err(format!("unknown flag {other}\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// An engine as asked for.
    pub fn engine(&self) -> Result<Engine, String> {
        let mut builder = Engine::builder();
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        if let Some(folder) = &self.spill_dir {
            builder = builder.temp_directory(folder.clone());
        }
        builder.build().map_err(|e| e.to_string())
    }
}

/// Prints what went wrong, if anything did.
pub fn exit(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the statements, prints a line for each, writes and compares the figures.
pub fn measure(
    benchmark: &str,
    session: &Session,
    cases: impl IntoIterator<Item = Case>,
    options: &Options,
) -> Result<(), String> {
    let baseline = options.baseline.as_ref().map(read_medians).transpose()?;
    println!(
        "{:24}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}  vs. baseline",
        "statement", "p50 ms", "p90 ms", "max ms", "Mrows/s", "spilled"
    );
    let mut statements = Vec::new();
    for case in cases.into_iter().filter(|case| case.name.contains(&options.only)) {
        let figures = figures_of(session, &case, options.runs).map_err(|e| format!("{}: {e}", case.name))?;
        let at = |quantile| figures.micros.value_at_quantile(quantile) as f64 / 1e3;
        let median = at(0.5);
        let rate = figures.input_rows as f64 / median.max(1e-3) / 1e3;
        let before = baseline.as_ref().and_then(|baseline| baseline.get(&case.name));
        println!(
            "{:24}  {median:9.2}  {:9.2}  {:9.2}  {:>9}  {:7.0}M  {}",
            case.name,
            at(0.9),
            figures.micros.max() as f64 / 1e3,
            if figures.input_rows > 0 { format!("{rate:.1}") } else { String::from("-") },
            figures.spilled_bytes as f64 / 1e6,
            before.map_or_else(String::new, |before| compare(median, *before)),
        );
        statements.push(json!({
            "name": case.name,
            "runs": figures.micros.len(),
            "p50_ms": median,
            "p90_ms": at(0.9),
            "min_ms": figures.micros.min() as f64 / 1e3,
            "max_ms": figures.micros.max() as f64 / 1e3,
            "rows": figures.rows,
            "input_rows": figures.input_rows,
            "peak_granted_bytes": figures.peak_granted_bytes,
            "spilled_bytes": figures.spilled_bytes,
        }));
    }
    if let Some(path) = &options.json {
        let report = json!({
            "engine": "gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "benchmark": benchmark,
            "threads": options.threads,
            "memory_limit": options.memory_limit,
            "statements": statements,
        });
        fs::write(path, format!("{report:#}\n"))
            .map_err(|e| format!("cannot write '{}': {e}", path.display()))?;
    }
    Ok(())
}

fn figures_of(session: &Session, case: &Case, runs: u32) -> Result<Figures, String> {
    let mut figures = Figures {
        micros: Histogram::new(3).map_err(|e| e.to_string())?,
        input_rows: case.input_rows,
        rows: 0,
        peak_granted_bytes: 0,
        spilled_bytes: 0,
    };
    for run in 0..=runs {
        let started = Instant::now();
        let mut stream =
            session.query(&case.sql).and_then(gristmill::Query::stream).map_err(|e| e.to_string())?;
        figures.rows = 0;
        for batch in stream.by_ref() {
            figures.rows += batch.map_err(|e| e.to_string())?.num_rows() as u64;
        }
        if run > 0 {
            figures.micros.saturating_record(started.elapsed().as_micros() as u64);
        }
        let metrics = stream.metrics();
        figures.peak_granted_bytes = figures.peak_granted_bytes.max(metrics.peak_granted_bytes);
        figures.spilled_bytes = figures.spilled_bytes.max(metrics.spilled_bytes);
    }
    Ok(figures)
}

fn compare(now: f64, before: f64) -> String {
    let ratio = now / before.max(1e-6);
    let mark = if ratio > NOTABLE_RATIO {
        "  SLOWER"
    } else if ratio < 1.0 / NOTABLE_RATIO {
        "  faster"
    } else {
        ""
    };
    format!("{ratio:.2}x{mark}")
}

/// The medians, in milliseconds, of a run's figures.
fn read_medians(path: &PathBuf) -> Result<BTreeMap<String, f64>, String> {
    let wrong = |what: String| format!("cannot compare with '{}': {what}", path.display());
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let statements = report["statements"].as_array().ok_or_else(|| wrong("it has no statements".into()))?;
    let median =
        |statement: &Value| Some((statement["name"].as_str()?.to_owned(), statement["p50_ms"].as_f64()?));
    statements
        .iter()
        .map(|statement| {
            median(statement).ok_or_else(|| wrong("a statement lacks its name or median".into()))
        })
        .collect()
}
