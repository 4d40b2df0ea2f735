//! Files of one table that differ in the order of columns, in the columns they have, and in their types; files without
//! rows, of rare types, and very many of them.

mod support;

use arrow::array::{self as arrays, Array, ArrayRef, Float16Array, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{ArrowNativeType, ArrowPrimitiveType, Field, Float16Type, Int32Type, Int64Type};
use gristmill::{Engine, Error, Session};
use parquet::arrow::ArrowWriter;
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{SchemaDescriptor, Type};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::rows;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

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
fn lists_structs_and_maps_are_widened_field_by_field() {
    fn nested<T: ArrowPrimitiveType<Native = V>, V: ArrowNativeType + From<i32>>(
        rows: std::ops::Range<i32>,
        (item, names): (&str, [&str; 3]),
        last: ArrayRef,
    ) -> Vec<(&'static str, ArrayRef)> {
        let numbers = || rows.clone().map(|row| Some(V::from(row))).collect::<arrays::PrimitiveArray<T>>();
        let texts: arrays::StringArray =
            rows.clone().map(|row| (row % 2 == 0).then(|| format!("t{row}"))).collect();
        let field =
            |name: &str, array: &dyn Array| Arc::new(Field::new(name, array.data_type().clone(), true));
        let pair = |array: ArrayRef, name: &str| (field(name, &*array), array);
        let structs = arrays::StructArray::from(vec![
            pair(Arc::new(numbers()), names[0]),
            pair(Arc::new(texts), names[1]),
            pair(last, names[2]),
        ]);
        let offsets = || OffsetBuffer::from_lengths(rows.clone().map(|row| usize::from(row % 3 > 0)));
        let values = || {
            let some: arrays::UInt64Array =
                (0..rows.len() as u64).filter(|row| !(rows.start as u64 + row).is_multiple_of(3)).collect();
            take(&numbers(), &some, None).expect("within")
        };
        let of = Arc::new(Field::new(item, numbers().data_type().clone(), true));
        let lists = arrays::ListArray::new(of, offsets(), values(), None);
        let keys: arrays::StringArray = (0..values().len()).map(|_| Some("k")).collect();
        let entries = arrays::StructArray::from(vec![
            (Arc::new(Field::new("key", keys.data_type().clone(), false)), Arc::new(keys) as ArrayRef),
            pair(values(), "value"),
        ]);
        let of = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        let maps = arrays::MapArray::new(of, offsets(), entries, None, false);
        let row: arrays::Int32Array = rows.map(Some).collect();
        vec![("r", Arc::new(row)), ("s", Arc::new(structs)), ("l", Arc::new(lists)), ("m", Arc::new(maps))]
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("t")).expect("writable");
    let flags: arrays::BooleanArray = (0..500).map(|row| Some(row % 2 == 0)).collect();
    let days: arrays::Date32Array = (0..500).map(Some).collect();
    let first = nested::<Int32Type, i32>(0..500, ("item", ["a", "b", "c"]), Arc::new(flags));
    let second = nested::<Int64Type, i64>(500..1000, ("element", ["A", "b", "d"]), Arc::new(days));
    write(&folder.path().join("t/1.parquet"), first);
    write(&folder.path().join("t/2.parquet"), second);
    let ids: ArrayRef = Arc::new(arrays::Int32Array::from_iter_values(1000..1010));
    write(&folder.path().join("t/3.parquet"), vec![("r", ids)]);
    for threads in [1, 2] {
        let engine = Engine::builder().threads(threads).build().expect("starts");
        let session = engine.session();
        session.register_parquet("t", folder.path().join("t")).expect("types there are");
        let found = answer(&session, "select r, s, l, m from t where r in (4, 7, 503, 600, 1004)");
        let expected = [
            ["1004", "NULL", "NULL", "NULL"],
            ["4", "{a: 4, b: t4, c: true, d: }", "[4]", "{k: 4}"],
            ["503", "{a: 503, b: , c: , d: 1970-01-04}", "[503]", "{k: 503}"],
            ["600", "{a: 600, b: t600, c: , d: 1970-04-11}", "[]", "{}"],
            ["7", "{a: 7, b: , c: false, d: }", "[7]", "{k: 7}"],
        ];
        assert_eq!(found, expected);
        assert_eq!(
            answer(&session, "select count(*), count(s), count(l) from t"),
            [["1010", "1000", "1000"]]
        );
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

/// A file with one row group, of no rows, whose chunk of column `x` says where its dictionary would be, as Arrow C++
/// writes them.
fn empty_row_group(path: &Path) {
    let fields =
        vec![Arc::new(Type::primitive_type_builder("x", PhysicalType::INT64).build().expect("a column"))];
    let root = Type::group_type_builder("schema").with_fields(fields).build().expect("a schema");
    let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    let chunk = ColumnChunkMetaData::builder(schema.column(0))
        .set_dictionary_page_offset(Some(4))
        .set_data_page_offset(0)
        .set_total_compressed_size(15)
        .set_total_uncompressed_size(13)
        .build()
        .expect("a chunk");
    let group = RowGroupMetaData::builder(Arc::clone(&schema))
        .set_num_rows(0)
        .set_column_metadata(vec![chunk])
        .build()
        .expect("a row group");
    let file = FileMetaData::new(2, 0, None, None, schema, None);
    let mut bytes = b"PAR1".to_vec();
    let metadata = ParquetMetaData::new(file, vec![group]);
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().expect("written");
    std::fs::write(path, bytes).expect("writable");
}

#[test]
fn row_groups_without_rows_are_passed_over_whatever_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("t")).expect("writable");
    let engine = Engine::builder().build().expect("starts");
    let session = engine.session();
    empty_row_group(&folder.path().join("t/empty.parquet"));
    session.register_parquet("empty", folder.path().join("t/empty.parquet")).expect("a file");
    assert_eq!(answer(&session, "select count(*), sum(x) from empty where x > 3"), [["0", "NULL"]]);
    let x: ArrayRef = Arc::new(arrays::Int64Array::from_iter_values(0..1000));
    write(&folder.path().join("t/full.parquet"), vec![("x", x)]);
    session.register_parquet("t", folder.path().join("t")).expect("files of one table");
    assert_eq!(answer(&session, "select count(*), min(x), max(x) from t where x > 3"), [["996", "4", "999"]]);
}

#[test]
fn half_precision_floats_are_floats() {
    let folder = tempfile::tempdir().expect("a folder");
    let halves =
        (0..1000).map(|i| Float16Array::from(vec![(i % 7 > 0).then(|| Half::from_f32(i as f32 / 8.0))]));
    let halves: Vec<Float16Array> = halves.collect();
    let halves: Vec<&dyn Array> = halves.iter().map(|array| array as _).collect();
    let halves = arrow::compute::concat(&halves).expect("one type");
    write(&folder.path().join("h.parquet"), vec![("h", halves)]);
    let engine = Engine::builder().build().expect("starts");
    let session = engine.session();
    session.register_parquet("t", folder.path().join("h.parquet")).expect("a file");
    let sql =
        "select count(*), count(h), max(h), min(h), count(distinct h) from t where h >= 100 or h is null";
    // Every seventh is null; of the numbers from 800 on 28 are.
    assert_eq!(answer(&session, sql), [["315", "172", "124.875", "100", "172"]]);
}

#[test]
fn a_table_may_have_more_files_than_can_be_open() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("t")).expect("writable");
    for file in 0..300 {
        let x: ArrayRef = Arc::new(arrays::Int64Array::from_iter_values(file * 10..file * 10 + 10));
        write(&folder.path().join(format!("t/{file:03}.parquet")), vec![("x", x)]);
    }
    let engine = Engine::builder().threads(4).build().expect("starts");
    let session = engine.session();
    session.register_parquet("t", folder.path().join("t")).expect("files of one table");
    for _ in 0..3 {
        assert_eq!(answer(&session, "select count(*), sum(x) from t"), [["3000", "4498500"]]);
    }
    std::fs::write(folder.path().join("t/000.parquet"), b"another").expect("writable");
    let error =
        session.query("select sum(x) from t").and_then(gristmill::Query::collect).expect_err("changed");
    assert!(matches!(error, Error::Data(_)), "{error}");
    assert!(error.to_string().contains("000.parquet"), "{error}");
}
