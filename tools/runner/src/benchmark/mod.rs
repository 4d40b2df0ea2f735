//! `gristmill benchmark-parquet`: times and memory of queries over a folder of tables, one process for each query.
//!
//! Owns: the command's flags, what a query's process does, the JSON.
//!
//! Invariants:
//! 1. A query runs in a process of its own, so that none sees another's warm caches or freed memory, and one that
//!    takes its process down is one failed query. It does not outlive this one (`process`).
//! 2. Its process answers with one line of JSON. What its memory was is measured from outside.
//!
//! Must not know: what the queries ask, whether the rows are right (see `tpch`).

mod figures;
mod lifetime;
mod process;

use crate::engine::{EngineArgs, parse_count};
use crate::folder::{open_folders, register_folders, warn_of_nested};
use crate::interrupt::Interrupt;
use crate::output::Target;
use crate::print::outln;
use crate::progress::QueryProgress;
use crate::tpch;
use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::Args;
use figures::{Figures, pressure};
use gristmill::{Error, Session};
use process::run_process;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN, value_parser = parse_count)]
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
    /// What its progress bar is called
    #[arg(long, allow_hyphen_values = true)]
    name: String,
    #[arg(long)]
    runs: NonZeroUsize,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the command.
pub fn run(args: &BenchmarkArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    // Before the work, so that none is lost for a file that cannot be written.
    let json = args.json.as_deref().map(|path| Target::of(path, interrupt)).transpose()?;
    let queries = match &args.queries {
        Some(folder) => queries_in(folder)?,
        None => tpch::queries_at(scale_of(args, interrupt)?),
    };
    let mut rows = Vec::with_capacity(queries.len());
    let mut failed = Vec::new();
    warn_of_nested(&[&args.path])?;
    outln!(
        "{:12}  {:>9}  {:>9}  {:>10}  {:>10}  {:>10}",
        "query",
        "seconds",
        "rows",
        "RSS",
        "granted",
        "spilled"
    )?;
    for (name, sql) in queries {
        interrupt.check()?;
        let (figures, peak_rss_bytes) = run_process(args, &name, &sql, interrupt)?;
        print_row(&name, &figures, peak_rss_bytes)?;
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
    if let Some(mut json) = json {
        let report = json!({
            "engine": "gristmill",
            "version": env!("CARGO_PKG_VERSION"),
            "threads": args.engine.thread_count(),
            "memory_limit": args.engine.memory_limit,
            "queries": rows,
        });
        writeln!(json.writer(), "{report:#}")?;
        json.commit()?;
    }
    if !failed.is_empty() {
        bail!("{} queries failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

fn print_row(name: &str, figures: &Figures, peak_rss_bytes: u64) -> std::io::Result<()> {
    let size = |bytes: u64| ByteSize(bytes).display().iec().to_string();
    match (&figures.error, figures.seconds.iter().copied().reduce(f64::min)) {
        (None, Some(best)) => outln!(
            "{name:12}  {best:9.3}  {:9}  {:>10}  {:>10}  {:>10}",
            figures.rows,
            size(peak_rss_bytes),
            size(figures.peak_granted_bytes),
            size(figures.spilled_bytes)
        ),
        (error, _) => {
            let error = error.as_deref().unwrap_or("it did not run");
            outln!("{name:12}  ERROR: {}", error.lines().next().unwrap_or_default())
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
fn scale_of(args: &BenchmarkArgs, interrupt: &Interrupt) -> anyhow::Result<f64> {
    let engine = args.engine.build()?;
    let session = engine.session();
    register_folders(&session, &[&args.path])?;
    let suppliers = Runs::default().execute(&session, "", "select s_suppkey from supplier", interrupt);
    let suppliers =
        suppliers.context("the default queries are those of TPC-H; name others with --queries")?;
    Ok(suppliers as f64 / SUPPLIERS)
}

/// The query's process: runs what comes on standard input and prints its figures.
pub fn run_query(args: &QueryProcessArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    lifetime::die_with_parent()?;
    let mut sql = String::new();
    let waiting = interrupt.waiting()?;
    std::io::stdin().read_to_string(&mut sql).context("cannot read SQL from standard input")?;
    drop(waiting);
    let engine = args.engine.build()?;
    let session = engine.session();
    open_folders(&session, &[&args.path])?;
    let mut runs = Runs::default();
    for _ in 0..args.runs.get() {
        // What a run defines the next one defines again.
        let session = session.fork();
        let started = Instant::now();
        match runs.execute(&session, &args.name, &sql, interrupt) {
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
    // An interrupt is among them, and for the one that started this process to report.
    outln!("{}", runs.0.to_json())?;
    Ok(())
}

/// The figures of runs so far.
#[derive(Default)]
struct Runs(Figures);

impl Runs {
    /// Runs the statements of `sql` and lets go of their rows; how many the last one had. `name` is that of a bar on the
    /// terminal.
    fn execute(
        &mut self,
        session: &Session,
        name: &str,
        sql: &str,
        interrupt: &Interrupt,
    ) -> Result<u64, Error> {
        let mut rows = 0;
        for statement in session.statements(sql)? {
            rows = 0;
            let mut stream = session.query_statement(&statement)?.stream()?;
            let _watch = interrupt.watch(stream.handle());
            let _progress = QueryProgress::of(name, stream.handle());
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

#[cfg(test)]
mod tests {
    use super::*;

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
