//! `gristmill benchmark-parquet`: times and memory of queries over a folder of tables, one process for each query.
//!
//! Owns: the command's flags, the process of a query and what it reports, the JSON.
//!
//! Invariants:
//! 1. A query runs in a process of its own, so that none sees another's warm caches or freed memory, and one that
//!    takes its process down is one failed query.
//! 2. Its process answers with one line of JSON. What its memory was is measured from outside.
//!
//! Must not know: what the queries ask, whether the rows are right (see `tpch`).

use crate::engine::{EngineArgs, register_folder};
use crate::interrupt::Interrupt;
use crate::tpch;
use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::Args;
use gristmill::{Error, QueryMetrics, Session};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Name of the hidden subcommand that a query's process runs.
const QUERY_COMMAND: &str = "benchmark-query";
/// How often the memory of a query's process is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// Suppliers of TPC-H at scale factor 1 (TPC-H 4.2.5).
const SUPPLIERS: f64 = 10_000.0;

/// Flags of `gristmill benchmark-parquet`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill benchmark-parquet --path data/tpch-sf1 --runs 5 --json tpch.json
  gristmill benchmark-parquet --path data/events --queries sql/ --memory-limit 256mb --spill-dir /mnt/scratch")]
pub struct BenchmarkArgs {
    /// Folder of tables: every NAME.parquet, and every folder NAME/ of Parquet files
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    /// Folder of queries, one NAME.sql each [default: the 22 of TPC-H]
    #[arg(long, value_name = "DIR")]
    queries: Option<PathBuf>,
    /// Runs of each query, one after the other in its process
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    runs: NonZeroUsize,
    #[command(flatten)]
    engine: EngineArgs,
    /// Write the figures to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Flags of a query's process, which reads its SQL from standard input.
#[derive(Debug, Args)]
pub struct QueryProcessArgs {
    #[arg(long)]
    path: PathBuf,
    #[arg(long)]
    runs: NonZeroUsize,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Figures of a query.
#[derive(Debug, Default)]
struct Figures {
    seconds: Vec<f64>,
    rows: u64,
    peak_granted_bytes: u64,
    spilled_bytes: u64,
    /// What was spilled and waited for, of the run that spilled most.
    pressure: Value,
    error: Option<String>,
}

/// Runs the command.
pub fn run(args: &BenchmarkArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let queries = match &args.queries {
        Some(folder) => queries_in(folder)?,
        None => tpch::queries_at(scale_of(args)?),
    };
    let mut rows = Vec::with_capacity(queries.len());
    let mut failed = Vec::new();
    println!(
        "{:12}  {:>9}  {:>9}  {:>10}  {:>10}  {:>10}",
        "query", "seconds", "rows", "RSS", "granted", "spilled"
    );
    for (name, sql) in queries {
        interrupt.check()?;
        let (figures, peak_rss_bytes) = run_process(args, &sql)?;
        print_row(&name, &figures, peak_rss_bytes);
        rows.push(json!({
            "name": name,
            "seconds": figures.seconds,
            "rows": figures.rows,
            "peak_rss_bytes": peak_rss_bytes,
            "peak_granted_bytes": figures.peak_granted_bytes,
            "spilled_bytes": figures.spilled_bytes,
            "pressure": figures.pressure,
            "error": figures.error,
        }));
        if figures.error.is_some() {
            failed.push(name);
        }
    }
    interrupt.check()?;
    if let Some(path) = &args.json {
        let report = json!({
            "engine": "gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "threads": args.engine.thread_count(),
            "memory_limit": args.engine.memory_limit.map(|limit| limit.as_u64()),
            "queries": rows,
        });
        fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    if !failed.is_empty() {
        bail!("{} queries failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

fn print_row(name: &str, figures: &Figures, peak_rss_bytes: u64) {
    let size = |bytes: u64| ByteSize(bytes).display().iec().to_string();
    match (&figures.error, figures.seconds.iter().copied().reduce(f64::min)) {
        (None, Some(best)) => println!(
            "{name:12}  {best:9.3}  {:9}  {:>10}  {:>10}  {:>10}",
            figures.rows,
            size(peak_rss_bytes),
            size(figures.peak_granted_bytes),
            size(figures.spilled_bytes)
        ),
        (error, _) => {
            let error = error.as_deref().unwrap_or("it did not run");
            println!("{name:12}  ERROR: {}", error.lines().next().unwrap_or_default());
        }
    }
}

/// Every `NAME.sql` of `folder` by name.
fn queries_in(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let context = || format!("cannot read folder of queries '{}'", folder.display());
    let mut queries = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_none_or(|e| e != "sql") {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            bail!("'{}': a query's file name must be UTF-8", path.display());
        };
        let sql = fs::read_to_string(&path)
            .with_context(|| format!("cannot read SQL file '{}'", path.display()))?;
        queries.push((name.to_owned(), sql));
    }
    if queries.is_empty() {
        bail!("folder '{}' holds no queries; a query is a file NAME.sql", folder.display());
    }
    queries.sort();
    Ok(queries)
}

/// The scale factor of TPC-H tables, which query 11 depends on.
fn scale_of(args: &BenchmarkArgs) -> anyhow::Result<f64> {
    let engine = args.engine.build()?;
    let session = engine.session();
    register_folder(&session, &args.path)?;
    let suppliers =
        Runs::default().execute(&session, "select s_suppkey from supplier", &Interrupt::default());
    let suppliers =
        suppliers.context("the default queries are those of TPC-H; name others with --queries")?;
    Ok(suppliers as f64 / SUPPLIERS)
}

/// Runs a query in a process of its own. Failures of the query are among the figures; memory is the most anonymous
/// memory that was seen, 0 where the system does not tell.
fn run_process(args: &BenchmarkArgs, sql: &str) -> anyhow::Result<(Figures, u64)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg(QUERY_COMMAND).arg("--path").arg(&args.path).args(["--runs", &args.runs.to_string()]);
    if let Some(limit) = args.engine.memory_limit {
        command.args(["--memory-limit", &limit.as_u64().to_string()]);
    }
    for folder in &args.engine.spill_dir {
        command.arg("--spill-dir").arg(folder);
    }
    if let Some(threads) = args.engine.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if !args.engine.disabled_optimizers.is_empty() {
        command.args(["--disabled-optimizers", &args.engine.disabled_optimizers.join(",")]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for the query")?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why by its exit status.
        let _ = stdin.write_all(sql.as_bytes());
    }
    let (exit, peak_rss_bytes) = watch(&mut child).context("cannot wait for the query's process")?;
    let mut line = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut line).context("cannot read what the query's process printed")?;
    }
    let figures = Figures::parse(&line).unwrap_or_else(|| Figures {
        error: Some(format!("its process ended without an answer: {exit}")),
        ..Figures::default()
    });
    Ok((figures, peak_rss_bytes))
}

/// Waits for the end of a process; the most anonymous memory that was seen.
fn watch(child: &mut Child) -> std::io::Result<(ExitStatus, u64)> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        peak_bytes = peak_bytes.max(kib.unwrap_or(0) << 10);
        if let Some(exit) = child.try_wait()? {
            return Ok((exit, peak_bytes));
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
}

/// The query's process: runs what comes on standard input and prints its figures.
pub fn run_query(args: &QueryProcessArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut sql = String::new();
    std::io::stdin().read_to_string(&mut sql).context("cannot read SQL from standard input")?;
    let engine = args.engine.build()?;
    let session = engine.session();
    register_folder(&session, &args.path)?;
    let mut runs = Runs::default();
    for _ in 0..args.runs.get() {
        let started = Instant::now();
        match runs.execute(&session, &sql, interrupt) {
            Ok(rows) => {
                runs.0.rows = rows;
                runs.0.seconds.push(started.elapsed().as_secs_f64());
            }
            Err(error) => {
                runs.0.error = Some(error.to_string());
                break;
            }
        }
    }
    println!("{}", runs.0.to_json());
    interrupt.check()
}

/// The figures of runs so far.
#[derive(Default)]
struct Runs(Figures);

impl Runs {
    /// Runs the statements of `sql` and lets go of their rows; how many the last one had.
    fn execute(&mut self, session: &Session, sql: &str, interrupt: &Interrupt) -> Result<u64, Error> {
        let mut rows = 0;
        for statement in session.statements(sql)? {
            rows = 0;
            let mut stream = session.query(&statement)?.stream()?;
            let _watch = interrupt.watch(stream.handle());
            for batch in stream.by_ref() {
                rows += batch?.num_rows() as u64;
            }
            let metrics = stream.metrics();
            let Self(figures) = self;
            figures.peak_granted_bytes = figures.peak_granted_bytes.max(metrics.peak_granted_bytes as u64);
            if figures.pressure.is_null() || metrics.spilled_bytes > figures.spilled_bytes {
                figures.pressure = pressure(&metrics);
            }
            figures.spilled_bytes = figures.spilled_bytes.max(metrics.spilled_bytes);
        }
        Ok(rows)
    }
}

/// What memory being short came to.
fn pressure(metrics: &QueryMetrics) -> Value {
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
    fn to_json(&self) -> Value {
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
    fn parse(line: &str) -> Option<Self> {
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

    #[test]
    fn queries_are_the_sql_files_of_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(queries_in(folder.path()).is_err());
        for (name, text) in [("q2.sql", "select 2"), ("q1.sql", "select 1"), ("notes.txt", "none")] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let queries = queries_in(folder.path()).expect("readable");
        assert_eq!(
            queries,
            [("q1".to_owned(), "select 1".to_owned()), ("q2".to_owned(), "select 2".to_owned())]
        );
    }
}
