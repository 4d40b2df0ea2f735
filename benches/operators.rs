//! One operator at a time through the public interface: scans of each encoding, filters, joins, aggregations, sorts.
//!
//! `cargo bench --bench operators -- --only sort --json now.json --baseline before.json`. The tables are made of row
//! numbers, so that every run has the same. All statements run in this process, one after the other.

mod support;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use gristmill::Session;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use support::figures::Spread;
use support::options::{Arguments, Options};
use support::report::{Baseline, Measurement, OURS, Report};
use support::table::{Table, mebibytes};

/// Rows of a large table by default; the small one has a tenth.
const ROWS: u64 = 4_000_000;
const BATCH_ROWS: u64 = 1 << 16;
const RUNS: u32 = 5;

const USAGE: &str = "cargo bench --bench operators -- [FLAGS]

  --rows N              rows of the tables [default: 4000000]
  --path DIR            keep the tables in DIR, and take those it has [default: made for each run]
  --runs N              measured runs of each statement, after one that does not count [default: 5]";

fn main() -> ExitCode {
    support::exit(run())
}

fn run() -> Result<(), String> {
    let (mut rows, mut kept) = (ROWS, None);
    let own = |flag: &str, arguments: &mut Arguments| {
        match flag {
            "--rows" => rows = arguments.number(flag)?,
            "--path" => kept = Some(PathBuf::from(arguments.value(flag)?)),
            _ => return Ok(false),
        }
        Ok(true)
    };
    let Some(options) = Options::parse(Arguments::of_process(), RUNS, USAGE, own)? else { return Ok(()) };
    support::warn_if_unoptimized();
    let temporary = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let folder = kept.as_deref().unwrap_or(temporary.path());
    let mut cases = cases(rows);
    cases.retain(|(name, _)| options.selects(name));
    let session = options.engine()?.session();
    make_tables(&session, &cases, rows, folder)?;
    measure(&session, &cases, rows, &options)
}

/// Measures the statements, prints a line for each, writes the figures.
fn measure(session: &Session, cases: &[(&str, String)], rows: u64, options: &Options) -> Result<(), String> {
    let mut report = Report::new("operators", options, &format!("{rows} rows"));
    let baseline = Baseline::read(options.baseline.as_deref(), &report)?;
    let mut columns = vec![("statement", 24), ("median ms", 9), ("p25 - p75 ms", 18), ("best ms", 9)];
    columns.extend([("Mrows/s", 7), ("granted MiB", 0), ("spilled MiB", 0)]);
    columns.extend(baseline.iter().map(|_| ("vs. baseline", 0)));
    let table = Table::new(columns);
    println!("{}", table.heading());
    let mut failed = Vec::new();
    for (name, sql) in cases {
        let measurement = measure_one(session, name, sql, rows, options.runs);
        let mut cells = vec![(*name).to_owned()];
        match (measurement.spread(), &measurement.error) {
            (Some(spread), _) => cells.extend(figures(&spread, &measurement)),
            (None, error) => {
                let error = error.as_deref().unwrap_or("not measured");
                eprintln!("{name}: {error}");
                failed.push(*name);
                cells.push(String::from("error"));
            }
        }
        if let (Some(baseline), None) = (&baseline, &measurement.error) {
            cells.push(baseline.change(&measurement));
        }
        println!("{}", table.line(&cells));
        report.push(&measurement);
    }
    report.write(options.json.as_deref())?;
    if failed.is_empty() { Ok(()) } else { Err(format!("statements failed: {}", failed.join(", "))) }
}

/// The cells of a statement that ran, after its name.
fn figures(spread: &Spread, measurement: &Measurement) -> [String; 6] {
    let millis = |seconds: f64| format!("{:.2}", seconds * 1e3);
    let rate = measurement.input_rows.unwrap_or_default() as f64 / spread.median.max(1e-9) / 1e6;
    let bytes = |bytes: Option<u64>| bytes.map_or_else(String::new, mebibytes);
    [
        millis(spread.median),
        format!("{} - {}", millis(spread.p25), millis(spread.p75)),
        millis(spread.best),
        format!("{rate:.1}"),
        bytes(measurement.peak_granted_bytes),
        bytes(measurement.spilled_bytes),
    ]
}

fn measure_one(session: &Session, name: &str, sql: &str, rows: u64, runs: u32) -> Measurement {
    let mut measurement = Measurement { input_rows: Some(rows), ..Measurement::new(name, OURS) };
    for run in 0..=runs {
        match support::run_once(session, sql) {
            Ok(_) if run == 0 => {}
            Ok(run) => {
                measurement.seconds.push(run.seconds);
                measurement.rows = Some(run.rows);
                measurement.peak_granted_bytes =
                    measurement.peak_granted_bytes.max(Some(run.peak_granted_bytes));
                measurement.spilled_bytes = measurement.spilled_bytes.max(Some(run.spilled_bytes));
            }
            Err(error) => {
                measurement.error = Some(error);
                break;
            }
        }
    }
    measurement
}

/// Makes the tables that the statements read, and their names known.
fn make_tables(session: &Session, cases: &[(&str, String)], rows: u64, folder: &Path) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_read = |table: &str| cases.iter().any(|(_, sql)| sql.split(|c| !is_word(c)).any(|w| w == table));
    // The name has all that the file depends on beside the code.
    let tables: Vec<(&str, u64, WriterProperties, PathBuf)> = tables(rows)
        .into_iter()
        .filter(|(name, ..)| is_read(name))
        .map(|(name, rows, properties)| {
            (name, rows, properties, folder.join(format!("{name}-{rows}.parquet")))
        })
        .collect();
    fs::create_dir_all(folder).map_err(|e| format!("cannot make folder '{}': {e}", folder.display()))?;
    tables.par_iter().filter(|(.., path)| !path.exists()).try_for_each(|(_, rows, properties, path)| {
        let unfinished = path.with_extension("unfinished");
        write(&unfinished, *rows, properties.clone())
            .and_then(|()| Ok(fs::rename(&unfinished, path)?))
            .map_err(|e| format!("cannot write '{}': {e}", path.display()))
    })?;
    for (name, .., path) in &tables {
        session.register_parquet(name, path).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::UNCOMPRESSED)
}

/// A table for each encoding, and a small one to join with.
fn tables(rows: u64) -> Vec<(&'static str, u64, WriterProperties)> {
    let numbers = |encoding| plain().set_column_encoding(ColumnPath::from("id"), encoding);
    let strings = |encoding| plain().set_column_encoding(ColumnPath::from("text"), encoding);
    let floats = |encoding| plain().set_column_encoding(ColumnPath::from("amount"), encoding);
    vec![
        ("plain", rows, plain().build()),
        ("dictionary", rows, WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).build()),
        ("delta", rows, numbers(Encoding::DELTA_BINARY_PACKED).build()),
        ("delta_length", rows, strings(Encoding::DELTA_LENGTH_BYTE_ARRAY).build()),
        ("delta_strings", rows, strings(Encoding::DELTA_BYTE_ARRAY).build()),
        ("split", rows, floats(Encoding::BYTE_STREAM_SPLIT).build()),
        ("small", (rows / 10).max(1), plain().build()),
    ]
}

/// The statements by name; those that read a large table read `rows` rows of it.
fn cases(rows: u64) -> Vec<(&'static str, String)> {
    let half = format!("select sum(id) from plain where shuffled < {}", rows / 2);
    [
        ("scan_plain_numbers", "select sum(id) from plain"),
        ("scan_plain_strings", "select max(text) from plain"),
        ("scan_dictionary", "select max(word) from dictionary"),
        ("scan_delta", "select sum(id) from delta"),
        ("scan_delta_length", "select max(text) from delta_length"),
        ("scan_delta_strings", "select max(text) from delta_strings"),
        ("scan_byte_stream_split", "select sum(amount) from split"),
        ("filter_one_in_100", "select count(*) from plain where shuffled % 100 = 7"),
        ("filter_half", half.as_str()),
        ("filter_words", "select count(*) from dictionary where word in ('word 3', 'word 50')"),
        ("filter_like", "select count(*) from plain where text like '%77%'"),
        ("join_small_build", "select count(*) from plain p join small s on p.shuffled = s.id"),
        ("join_large_build", "select count(*) from plain p join delta d on p.shuffled = d.shuffled"),
        ("join_strings", "select count(*) from plain p join small s on p.text = s.text"),
        ("semi_join", "select count(*) from plain where shuffled in (select id from small)"),
        ("aggregate_few_groups", "select word, count(*), sum(amount) from dictionary group by word"),
        ("aggregate_many_groups", "select shuffled, sum(amount) from plain group by shuffled"),
        ("aggregate_strings", "select text, count(*) from plain group by text"),
        ("count_distinct", "select count(distinct shuffled) from plain"),
        ("sort_number", "select shuffled from plain order by shuffled"),
        ("sort_number_payload", "select * from plain order by shuffled"),
        ("sort_strings", "select text from plain order by text desc"),
        ("sort_two_keys", "select id from dictionary order by word, id desc"),
        ("top_100", "select * from plain order by shuffled limit 100"),
    ]
    .into_iter()
    .map(|(name, sql)| (name, sql.to_owned()))
    .collect()
}

/// Rows of a number, the same numbers shuffled, a float, one of a hundred words and a string of its own.
fn write(path: &Path, rows: u64, properties: WriterProperties) -> Result<(), Box<dyn Error + Send + Sync>> {
    let batch = |start: u64| {
        let numbers = || start..(start + BATCH_ROWS).min(rows);
        // The multiplier is a prime above any number of rows, so this is a permutation of 0..rows.
        let shuffled = |i: u64| (i.wrapping_mul(2_654_435_761) % rows) as i64;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(numbers().map(|i| i as i64)))),
            ("shuffled", Arc::new(Int64Array::from_iter_values(numbers().map(shuffled)))),
            (
                "amount",
                Arc::new(Float64Array::from_iter_values(numbers().map(|i| shuffled(i) as f64 / 100.0))),
            ),
            (
                "word",
                Arc::new(StringArray::from_iter_values(
                    numbers().map(|i| format!("word {}", shuffled(i) % 100)),
                )),
            ),
            (
                "text",
                Arc::new(StringArray::from_iter_values(
                    numbers().map(|i| format!("text of row {}", shuffled(i))),
                )),
            ),
        ];
        RecordBatch::try_from_iter(columns)
    };
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch(0)?.schema(), Some(properties))?;
    for start in (0..rows).step_by(BATCH_ROWS as usize) {
        writer.write(&batch(start)?)?;
    }
    writer.close()?;
    Ok(())
}
