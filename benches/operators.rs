//! One operator at a time through the public interface: scans of each encoding, filters, joins, aggregations, sorts.
//!
//! `cargo bench --bench operators -- --only sort --json now.json --baseline before.json`. The tables are made in a
//! temporary folder from row numbers, so that every run has the same.

mod support;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use support::{Case, Options};

const ROWS: u64 = 4_000_000;
const SMALL_ROWS: u64 = 400_000;
const BATCH_ROWS: u64 = 1 << 16;

fn main() -> ExitCode {
    support::exit(Options::parse().and_then(|options| run(&options)))
}

fn run(options: &Options) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let engine = options.engine()?;
    let session = engine.session();
    for (name, rows, properties) in tables() {
        let path = folder.path().join(name).with_extension("parquet");
        write(&path, rows, properties).map_err(|e| format!("cannot write '{}': {e}", path.display()))?;
        session.register_parquet(name, &path).map_err(|e| e.to_string())?;
    }
    support::measure("operators", &session, cases(), options)
}

fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::UNCOMPRESSED)
}

/// A table for each encoding, and a small one to join with.
fn tables() -> Vec<(&'static str, u64, WriterProperties)> {
    let numbers = |encoding| plain().set_column_encoding(ColumnPath::from("id"), encoding);
    let strings = |encoding| plain().set_column_encoding(ColumnPath::from("text"), encoding);
    let floats = |encoding| plain().set_column_encoding(ColumnPath::from("amount"), encoding);
    vec![
        ("plain", ROWS, plain().build()),
        ("dictionary", ROWS, WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).build()),
        ("delta", ROWS, numbers(Encoding::DELTA_BINARY_PACKED).build()),
        ("delta_length", ROWS, strings(Encoding::DELTA_LENGTH_BYTE_ARRAY).build()),
        ("delta_strings", ROWS, strings(Encoding::DELTA_BYTE_ARRAY).build()),
        ("split", ROWS, floats(Encoding::BYTE_STREAM_SPLIT).build()),
        ("small", SMALL_ROWS, plain().build()),
    ]
}

fn cases() -> Vec<Case> {
    [
        ("scan_plain_numbers", "select sum(id) from plain"),
        ("scan_plain_strings", "select max(text) from plain"),
        ("scan_dictionary", "select max(word) from dictionary"),
        ("scan_delta", "select sum(id) from delta"),
        ("scan_delta_length", "select max(text) from delta_length"),
        ("scan_delta_strings", "select max(text) from delta_strings"),
        ("scan_byte_stream_split", "select sum(amount) from split"),
        ("filter_one_in_100", "select count(*) from plain where shuffled % 100 = 7"),
        ("filter_half", "select sum(id) from plain where shuffled < 2000000"),
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
    .map(|(name, sql)| Case { name: name.to_owned(), sql: sql.to_owned(), input_rows: ROWS })
    .collect()
}

/// Rows of a number, the same numbers shuffled, a float, one of a hundred words and a string of its own.
fn write(path: &Path, rows: u64, properties: WriterProperties) -> Result<(), Box<dyn Error>> {
    let batch = |start: u64| {
        let numbers = || start..(start + BATCH_ROWS).min(rows);
        // The multiplier is odd and no multiple of five, so this is a permutation of 0..rows.
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
                Arc::new(StringArray::from_iter_values(numbers().map(|i| format!("word {}", i * i % 100)))),
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
