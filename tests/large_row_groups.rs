//! A row group far larger than the memory there is, scanned within it, whatever its encodings.

mod support;

use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use gristmill::{Engine, Session};
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::rows;

const ROWS: i64 = 400_000;

/// 400,000 rows of about 150 bytes.
fn table() -> RecordBatch {
    let scattered = |row: i64| row.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 20;
    let text = |row: i64| format!("{:020} and a tail of {:040}", row / 3, scattered(row));
    let columns: [(&str, ArrayRef); 5] = [
        ("k", Arc::new(arrays::Int64Array::from_iter_values(0..ROWS))),
        ("scattered", Arc::new(arrays::Int64Array::from_iter_values((0..ROWS).map(scattered)))),
        ("small", Arc::new(arrays::Int32Array::from_iter_values((0..ROWS).map(|row| row as i32 % 1000)))),
        ("ratio", Arc::new(arrays::Float64Array::from_iter_values((0..ROWS).map(|row| row as f64 / 4.0)))),
        ("text", Arc::new(arrays::StringArray::from_iter_values((0..ROWS).map(text)))),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn write(path: &Path, batch: &RecordBatch, properties: WriterPropertiesBuilder) {
    let properties = properties.set_max_row_group_row_count(None).build();
    let file = File::create(path).expect("writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(batch).expect("encodes");
    assert_eq!(writer.close().expect("written").num_row_groups(), 1);
}

fn answer(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(gristmill::Query::collect);
    rows::texts(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")))
}

#[test]
fn it_is_scanned_within_the_budget() {
    let batch = table();
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let delta = || {
        plain()
            .set_column_encoding("k".into(), Encoding::DELTA_BINARY_PACKED)
            .set_column_encoding("scattered".into(), Encoding::DELTA_BINARY_PACKED)
            .set_column_encoding("small".into(), Encoding::DELTA_BINARY_PACKED)
            .set_column_encoding("ratio".into(), Encoding::BYTE_STREAM_SPLIT)
    };
    for (name, properties, budget_bytes) in [
        ("plain", plain(), 6 << 20),
        // Each lane holds a dictionary of a megabyte and its page for every column.
        ("dictionaries", WriterProperties::builder(), 16 << 20),
        ("lengths", delta().set_column_encoding("text".into(), Encoding::DELTA_LENGTH_BYTE_ARRAY), 6 << 20),
        ("prefixes", delta().set_column_encoding("text".into(), Encoding::DELTA_BYTE_ARRAY), 6 << 20),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        write(&path, &batch, properties.set_data_page_row_count_limit(5000));
        for threads in [1, 2] {
            let engine =
                Engine::builder().threads(threads).memory_limit(budget_bytes).build().expect("starts");
            let session = engine.session();
            session.register_parquet("t", &path).expect("a good file");
            let sql =
                "select count(*), sum(k), sum(ratio), min(scattered), max(length(text)), count(text) from t";
            let all = answer(&session, sql);
            let sum = ROWS * (ROWS - 1) / 2;
            assert_eq!(all[0][..2], [ROWS.to_string(), sum.to_string()], "{name}");
            assert_eq!(all[0][2], rows::float(sum as f64 / 4.0), "{name}");
            assert_eq!(all[0][5], ROWS.to_string(), "{name}");
            let some =
                answer(&session, "select count(*), min(text), max(k) from t where small = 77 and k > 200000");
            let least = batch.column(4).clone();
            let least = arrays::AsArray::as_string::<i32>(&least).value(200_077).to_owned();
            assert_eq!(some, [["200".to_owned(), least, (ROWS - 923).to_string()]], "{name}");
            let peak = engine.memory_peak();
            assert!(peak <= budget_bytes, "{name}, {threads} threads: {peak} bytes were granted");
        }
    }
}

#[test]
fn keys_computed_from_dictionaries_leave_floors_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.parquet");
    write(&path, &table(), WriterProperties::builder().set_data_page_row_count_limit(5000));
    for budget_bytes in [12 << 20, 16 << 20, 20 << 20, 24 << 20] {
        for threads in [1, 2] {
            let engine =
                Engine::builder().threads(threads).memory_limit(budget_bytes).build().expect("starts");
            let session = engine.session();
            session.register_parquet("t", &path).expect("a good file");
            for sql in [
                "select count(*), max(a.k) from t a join t b on a.k * 3 = b.k * 3",
                "select count(*), max(k) from (select k * 3 as tripled, max(k) as k from t group by k * 3) t",
            ] {
                let context = format!("{sql}, {budget_bytes} bytes, {threads} threads");
                assert_eq!(answer(&session, sql), [[ROWS.to_string(), (ROWS - 1).to_string()]], "{context}");
            }
        }
    }
}
