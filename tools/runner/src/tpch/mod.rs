//! `gristmill tpch`: data, queries, times and checked answers in one command.
//!
//! Owns: the command's flags, the table it prints, the JSON it writes.
//!
//! Invariants:
//! 1. Every result is compared with the stored answer of its scale; "unchecked" where none is stored.
//! 2. The command fails if a check or a query fails. A query the engine does not run yet fails it only when the query
//!    was named.
//!
//! Must not know: how data is made or answers are compared.

mod check;
mod files;
mod plans;
mod report;

use crate::engine::{EngineArgs, parse_count};
use crate::folder::open_folders;
use crate::generate::{Request, Table, missing_tables, parse_scale};
use crate::interrupt::Interrupt;
use crate::output::Target;
use crate::progress::QueryProgress;
use anyhow::bail;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use clap::{Args, ValueEnum};
use files::QUERIES;
use gristmill::{Error, Session};
pub use plans::{PlanArgs, run as run_plans};
use report::{Check, Report, Row};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Flags of `gristmill tpch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill tpch
  gristmill tpch --sf 10 --queries 1,5-9 --runs 3 --memory-limit 256MB --spill-dir /mnt/scratch")]
pub struct TpchArgs {
    /// Scale factor; answers are stored for 0.01, 0.1, 1 and 10
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_scale)]
    sf: f64,
    /// Folder of the tables; made on first use [default: data/tpch-sfN]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Queries to run, such as 1,5-9 [default: all the engine can run]
    #[arg(long, value_name = "LIST", value_parser = QuerySet::parse)]
    queries: Option<QuerySet>,
    /// Runs of each query; the fastest counts
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN, value_parser = parse_count)]
    runs: NonZeroUsize,
    #[command(flatten)]
    engine: EngineArgs,
    /// Write the figures of every run to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Query numbers, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QuerySet(Vec<usize>);

impl QuerySet {
    fn parse(text: &str) -> Result<Self, String> {
        let usage = || {
            format!("'{text}' is not a list of queries: write 1,5-9 with numbers from 1 to {}", QUERIES.len())
        };
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |n: &str| {
                n.trim()
                    .trim_start_matches(['q', 'Q'])
                    .parse::<usize>()
                    .ok()
                    .filter(|n| (1..=QUERIES.len()).contains(n))
            };
            let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(usage()) };
            if first > last {
                return Err(usage());
            }
            numbers.extend(first..=last);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(Self(numbers))
    }
}

/// Runs the command.
pub fn run(args: &TpchArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let folder = args.data.clone().unwrap_or_else(|| Path::new("data").join(format!("tpch-sf{}", args.sf)));
    let missing = missing_tables(&folder, Table::value_variants())?;
    let engine = args.engine.build()?;
    if !missing.contains(&Table::Orders) {
        // Before anything is added to what is there.
        let session = engine.session();
        open_folders(&session, &[&folder])?;
        check_scale(&session, args.sf, &folder)?;
    }
    if !missing.is_empty() {
        eprintln!("making TPC-H data at scale factor {} in '{}'", args.sf, folder.display());
        Request::standard(args.sf).generate(&missing, &folder, interrupt)?;
    }
    // Before the queries, so that none is lost for a file that cannot be written.
    let json = args.json.as_deref().map(|path| Target::of(path, interrupt)).transpose()?;
    let session = engine.session();
    open_folders(&session, &[&folder])?;

    let all: Vec<usize> = (1..=QUERIES.len()).collect();
    let named = args.queries.is_some();
    let numbers = args.queries.as_ref().map_or(&all, |set| &set.0);
    let mut report = Report::new(args.sf, &args.engine);
    Report::print_header()?;
    for &number in numbers {
        interrupt.check()?;
        let row = run_query(&session, number, args, interrupt);
        row.print()?;
        report.push(row);
    }
    report.print_footer()?;
    if let Some(mut json) = json {
        json.writer().write_all(report.to_json().as_bytes())?;
        json.commit()?;
    }
    interrupt.check()?;
    let failed = report.failures(named);
    if !failed.is_empty() {
        bail!("{} of {} queries failed: {}", failed.len(), numbers.len(), failed.join(", "));
    }
    Ok(())
}

/// Fails if the tables are of another scale factor: every answer would be wrong, or unchecked.
fn check_scale(session: &Session, scale: f64, folder: &Path) -> anyhow::Result<()> {
    let found = session.query("select count(*) from orders")?.collect()?;
    let found = found
        .iter()
        .find_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>()?.values().first().copied());
    // TPC-H 4.2.5; of a fraction generators make a row more or less.
    let expected = (scale * 1_500_000.0).round() as i64;
    match found {
        Some(rows) if rows.abs_diff(expected) > 1 => bail!(
            "the tables in '{}' are not those of scale factor {scale}: orders has {rows} rows, not {expected}; give \
             --sf as they were made, or another folder as --data",
            folder.display()
        ),
        _ => Ok(()),
    }
}

/// Name and text of every query, for data of scale factor `scale`.
pub fn queries_at(scale: f64) -> Vec<(String, String)> {
    QUERIES.iter().map(|query| (query.name.to_owned(), query.sql_at(scale))).collect()
}

/// Figures of one run.
struct Run {
    seconds: f64,
    batches: Vec<RecordBatch>,
    peak_granted_bytes: usize,
    spilled_bytes: u64,
}

fn run_query(session: &Session, number: usize, args: &TpchArgs, interrupt: &Interrupt) -> Row {
    let query = &QUERIES[number - 1];
    let sql = query.sql_at(args.sf);
    let mut row = Row::new(query.name);
    for run in 0..args.runs.get() {
        let Run { seconds, batches, peak_granted_bytes, spilled_bytes } =
            match run_once(session, query.name, &sql, interrupt) {
                Ok(run) => run,
                Err(Error::Unsupported(what)) => {
                    row.check = Check::Unsupported(what.message);
                    return row;
                }
                Err(error) => {
                    row.check = Check::Error(error.to_string());
                    return row;
                }
            };
        row.seconds.push(seconds);
        row.peak_granted_bytes = row.peak_granted_bytes.max(peak_granted_bytes);
        row.spilled_bytes = row.spilled_bytes.max(spilled_bytes);
        row.rows = batches.iter().map(RecordBatch::num_rows).sum();
        // Every run is checked: a race shows in some runs only.
        row.check = match query.answer_at(args.sf) {
            None => Check::Unchecked,
            Some(answer) => match check::compare(&batches, answer, &check::order_columns(&sql, answer)) {
                Ok(()) => Check::Passed,
                Err(difference) => {
                    row.check = Check::Wrong(format!("run {}: {difference}", run + 1));
                    return row;
                }
            },
        };
    }
    row
}

fn run_once(session: &Session, name: &str, sql: &str, interrupt: &Interrupt) -> Result<Run, Error> {
    let start = Instant::now();
    let mut stream = session.query(sql)?.stream()?;
    let _watch = interrupt.watch(stream.handle());
    let _progress = QueryProgress::of(name, stream.handle());
    let batches = stream.by_ref().collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let metrics = stream.metrics();
    Ok(Run {
        seconds,
        batches,
        peak_granted_bytes: metrics.peak_granted_bytes,
        spilled_bytes: metrics.spilled_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_another_scale_are_refused() {
        let folder = tempfile::tempdir().expect("writable");
        let tables = Table::value_variants();
        Request::standard(0.001).generate(tables, folder.path(), &Interrupt::default()).expect("generates");
        let session = gristmill::Engine::builder().build().expect("starts").session();
        open_folders(&session, &[folder.path()]).expect("tables");
        check_scale(&session, 0.001, folder.path()).expect("as they were made");
        let error = check_scale(&session, 1.0, folder.path()).expect_err("another scale").to_string();
        assert!(error.contains("1500 rows, not 1500000") && error.contains("--sf"), "{error}");
    }

    #[test]
    fn query_lists() {
        assert_eq!(QuerySet::parse("1,5-7, 6").map(|s| s.0), Ok(vec![1, 5, 6, 7]));
        assert_eq!(QuerySet::parse("q22").map(|s| s.0), Ok(vec![22]));
        for wrong in ["", "0", "23", "7-5", "1,,2", "one"] {
            assert!(QuerySet::parse(wrong).is_err(), "{wrong}");
        }
    }
}
