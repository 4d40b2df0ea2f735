//! Files of one table that differ in the order of columns, in the columns they have, and in their types.

mod support;

use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use gristmill::{Engine, Error, Session};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::rows;

fn decimals(values: impl Iterator<Item = i128>, precision: u8, scale: i8) -> ArrayRef {
    let values: arrays::Decimal128Array = values.map(Some).collect();
    Arc::new(values.with_precision_and_scale(precision, scale).expect("valid"))
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(400)).build();
    let file = File::create(path).expect("writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(&batch).expect("encodes");
    writer.close().expect("written");
}

/// Three files of 1000 rows: the second with other order and narrower types, the third without some columns and with
/// one of its own.
fn files(folder: &Path) {
    std::fs::create_dir(folder.join("t")).expect("writable");
    let lists = |rows: std::ops::Range<i32>| {
        let mut list = arrays::ListBuilder::new(arrays::Int32Builder::new());
        for row in rows {
            list.values().append_value(row);
            list.append(true);
        }
        Arc::new(list.finish()) as ArrayRef
    };
    write(
        &folder.join("t/1.parquet"),
        vec![
            ("k", Arc::new(arrays::Int64Array::from_iter_values(0..1000))),
            ("price", decimals((0..1000).map(|v| v * 10_000 + 25), 15, 4)),
            (
                "ratio",
                Arc::new(arrays::Float64Array::from_iter_values((0..1000).map(|v| f64::from(v) / 7.0))),
            ),
            (
                "at",
                Arc::new(arrays::TimestampMicrosecondArray::from_iter_values(
                    (0..1000).map(|v| v * 1_000_000),
                )),
            ),
            (
                "name",
                Arc::new(arrays::StringArray::from_iter_values((0..1000).map(|v| format!("n{}", v % 10)))),
            ),
            ("list", lists(0..1000)),
        ],
    );
    write(
        &folder.join("t/2.parquet"),
        vec![
            ("list", lists(1000..2000)),
            (
                "NAME",
                Arc::new(arrays::StringArray::from_iter_values((0..1000).map(|v| format!("n{}", v % 10)))),
            ),
            ("at", Arc::new(arrays::TimestampSecondArray::from_iter_values(1000..2000))),
            ("ratio", Arc::new(arrays::Float32Array::from_iter_values((0..1000).map(|v| v as f32 / 8.0)))),
            ("price", decimals((1000..2000).map(|v| v * 100 + 50), 9, 2)),
            ("k", Arc::new(arrays::Int32Array::from_iter_values(1000..2000))),
        ],
    );
    write(
        &folder.join("t/3.parquet"),
        vec![
            ("extra", Arc::new(arrays::BooleanArray::from_iter((0..1000).map(|v| Some(v % 2 == 0))))),
            ("k", Arc::new(arrays::Int16Array::from_iter_values(2000..3000))),
            ("price", Arc::new(arrays::Int32Array::from_iter_values(2000..3000))),
        ],
    );
}

fn answer(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(gristmill::Query::collect);
    let mut rows = rows::texts(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")));
    rows.sort();
    rows
}

fn session(folder: &Path) -> Session {
    let engine = Engine::builder().threads(2).memory_limit(64 << 20).build().expect("starts");
    let session = engine.session();
    session.register_parquet("t", folder.join("t")).expect("files of one table");
    for name in ["1", "2", "3"] {
        session
            .register_parquet(&format!("t{name}"), folder.join(format!("t/{name}.parquet")))
            .expect("good");
    }
    session
}

#[test]
fn columns_are_found_by_name_and_widened() {
    let folder = tempfile::tempdir().expect("a folder");
    files(folder.path());
    let session = session(folder.path());
    let schema = session.query("select * from t").expect("a good query").schema();
    let types: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable()))
        .collect();
    assert_eq!(
        types,
        [
            "k Int64 false",
            "price Decimal128(15, 4) false",
            "ratio Float64 true",
            "at Timestamp(µs) true",
            "name Utf8View true",
            "list List(Int32) true",
            "extra Boolean true"
        ]
    );
    let by_hand = "(select k, price, ratio, at, name, list, null::boolean as extra from t1
         union all select k, price, ratio, at, name, list, null from t2
         union all select k, price, null, null, null, null, extra from t3)";
    for query in [
        "select k, price, ratio, at, name, extra from T",
        "select list, k from T where k % 7 = 0",
        "select * from T where k >= 990 and k < 1010",
        "select k from T where price = 1000.50",
        "select k from T where price > 1998 and price <= 2001",
        "select k, extra from T where extra",
        "select count(*), count(name), count(extra), sum(price), sum(ratio::decimal(12, 3)), max(at) from T",
        "select name, count(*), min(k) from T group by name",
        "select k from T where name is null and k < 2100",
        "select k from T where at between timestamp '1970-01-01 00:16:00' and timestamp '1970-01-01 00:17:00'",
        "select k, ratio from T where ratio > 124.0",
        "select a.k, b.price from T a join T b on a.k = b.k + 500 where a.k between 1400 and 2600",
        "select k from T order by price desc limit 5",
    ] {
        let rows = answer(&session, &query.replace(" T", " t"));
        let expected =
            answer(&session, &query.replace(" T", &format!(" {by_hand}")).replace(") where", ") as u where"));
        assert!(!rows.is_empty(), "{query}");
        assert_eq!(rows, expected, "{query}");
    }
}

#[test]
fn what_no_type_holds_is_an_error_that_names_file_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    write(&path("1.parquet"), vec![("k", Arc::new(arrays::Int64Array::from_iter_values(0..10)))]);
    write(&path("2.parquet"), vec![("k", Arc::new(arrays::StringArray::from_iter_values(["a", "b"])))]);
    let engine = Engine::builder().threads(1).memory_limit(64 << 20).build().expect("starts");
    let error = engine.session().register_parquet("t", folder.path()).expect_err("no common type");
    let text = error.to_string();
    assert!(matches!(error, Error::Data(_)), "{text}");
    assert!(text.contains("2.parquet") && text.contains("'k'") && text.contains("BIGINT"), "{text}");
}
