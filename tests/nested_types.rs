//! Nested and odd types from Parquet, through filters, joins, sorts that spill, and results.

mod support;

use arrow::array::types::Int32Type;
use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Fields, i256};
use gristmill::{Engine, Error, Session};
use parquet::arrow::ArrowWriter;
use parquet::data_type::{Int96, Int96Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::rows;

const ROWS: i64 = 6000;

fn is_null(row: i64) -> bool {
    row % 11 == 3
}

fn lists<T: arrays::ArrayBuilder>(
    mut list: arrays::ListBuilder<T>,
    mut append: impl FnMut(&mut T, i64, i64),
) -> arrays::ListArray {
    for row in 0..ROWS {
        for item in 0..row % 4 {
            append(list.values(), row, item);
        }
        list.append(!is_null(row));
    }
    list.finish()
}

/// A column of every type that is carried as Arrow has it, and `k`, the row's number.
fn table() -> RecordBatch {
    let ints =
        || (0..ROWS).map(|row| (!is_null(row)).then_some(row as i32 * 7)).collect::<arrays::Int32Array>();
    let texts = || {
        let text =
            |row| (row % 7 != 2).then(|| format!("text of row {row}, {}", "x".repeat(row as usize % 40)));
        (0..ROWS).map(text).collect::<arrays::StringArray>()
    };
    let fields =
        Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
    let nulls = || Some((0..ROWS).map(|row| !is_null(row + 1)).collect::<Vec<bool>>().into());
    let structs =
        arrays::StructArray::new(fields.clone(), vec![Arc::new(ints()), Arc::new(texts())], nulls());
    let numbers = lists(arrays::ListBuilder::new(arrays::Int64Builder::new()), |values, row, item| {
        values.append_option((item != 2).then_some(row * 10 + item));
    });
    let deep = arrays::ListBuilder::new(arrays::ListBuilder::new(arrays::StringBuilder::new()));
    let deep = lists(deep, |values, row, item| {
        (0..(row + item) % 3).for_each(|i| values.values().append_value(format!("{row}/{item}/{i}")));
        values.append(item != 1);
    });
    let offsets = OffsetBuffer::from_lengths((0..ROWS as usize).map(|row| usize::from(row % 3 == 0)));
    let inside = structs.slice(0, (ROWS as usize).div_ceil(3));
    let inner = Field::new("item", DataType::Struct(fields), true);
    let struct_lists = arrays::ListArray::new(Arc::new(inner), offsets, Arc::new(inside), None);
    let mut map = arrays::MapBuilder::new(None, arrays::StringBuilder::new(), arrays::Int32Builder::new());
    let mut large = arrays::LargeListBuilder::new(arrays::Int32Builder::new());
    let mut pairs = arrays::FixedSizeListBuilder::new(arrays::Float64Builder::new(), 2);
    for row in 0..ROWS {
        for item in 0..row % 3 {
            map.keys().append_value(format!("key {item}"));
            map.values().append_option((row % 5 > 0).then_some((row + item) as i32));
            large.values().append_value(item as i32);
        }
        map.append(!is_null(row)).expect("as many keys as values");
        large.append(!is_null(row + 2));
        pairs.values().append_slice(&[row as f64 / 4.0, -row as f64]);
        pairs.append(!is_null(row));
    }
    let halves = cast(&ints(), &DataType::Float16).expect("a cast there is");
    let wide: arrays::Decimal256Array =
        (0..ROWS).map(|row| (!is_null(row)).then(|| i256::from_i128(i128::from(row) << 70))).collect();
    let wide = wide.with_precision_and_scale(60, 5).expect("valid");
    let durations: arrays::DurationMicrosecondArray =
        (0..ROWS).map(|row| (!is_null(row)).then_some(row * 1_000)).collect();
    let words: arrays::DictionaryArray<Int32Type> = (0..ROWS)
        .map(|row| (!is_null(row)).then_some(["red", "green", "a much longer blue"][row as usize % 3]))
        .collect();
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(arrays::Int64Array::from_iter_values(0..ROWS)) as ArrayRef, false),
        ("struct", Arc::new(structs), true),
        ("numbers", Arc::new(numbers), true),
        ("deep", Arc::new(deep), true),
        ("struct_lists", Arc::new(struct_lists), true),
        ("map", Arc::new(map.finish()), true),
        ("large", Arc::new(large.finish()), true),
        ("pairs", Arc::new(pairs.finish()), true),
        ("half", halves, true),
        ("wide", Arc::new(wide), true),
        ("duration", Arc::new(durations), true),
        ("words", Arc::new(words), true),
    ])
    .expect("columns of one length")
}

fn write(path: &Path, batch: &RecordBatch, version: WriterVersion, row_group_rows: usize) {
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_data_page_row_count_limit(300)
        .set_write_batch_size(100)
        .build();
    let file = File::create(path).expect("writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(batch).expect("encodes");
    writer.close().expect("written");
}

fn session(folder: &Path, memory_bytes: usize) -> Session {
    let engine = Engine::builder().threads(2).memory_limit(memory_bytes).temp_directory(folder).build();
    let session = engine.expect("starts").session();
    session.register_parquet("t", folder.join("t.parquet")).expect("a good file");
    session
}

/// All rows of a query, in one batch.
fn answer(session: &Session, sql: &str) -> RecordBatch {
    let query = session.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let schema = query.schema();
    let batches = query.collect().unwrap_or_else(|e| panic!("{sql}: {e}"));
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    concat_batches(&schema, &batches).expect("batches of one schema")
}

/// That the answer, whose first column is `k`, has the rows `expected`, in that order, as `batch` has them.
fn assert_rows(answer: &RecordBatch, batch: &RecordBatch, expected: &[i64], what: &str) {
    let picked = arrays::Int64Array::from(expected.to_vec());
    let columns: Vec<ArrayRef> =
        batch.columns().iter().map(|c| take(c, &picked, None).expect("in bounds")).collect();
    let picked = RecordBatch::try_new(batch.schema(), columns).expect("columns of one length");
    assert_eq!(answer.num_rows(), expected.len(), "{what}");
    let (is, should) = (rows::texts(std::slice::from_ref(answer)), rows::texts(&[picked]));
    for (row, (is, should)) in is.iter().zip(&should).enumerate() {
        assert_eq!(is, should, "{what}, row {row}");
    }
}

fn sorted(answer: &RecordBatch) -> RecordBatch {
    let order = arrow::compute::sort_to_indices(answer.column(0), None, None).expect("sortable");
    let columns = answer.columns().iter().map(|c| take(c, &order, None).expect("in bounds")).collect();
    RecordBatch::try_new(answer.schema(), columns).expect("columns of one length")
}

#[test]
fn they_pass_through_filters_joins_and_sorts() {
    let batch = table();
    for (version, row_group_rows) in
        [(WriterVersion::PARQUET_1_0, 100_000), (WriterVersion::PARQUET_2_0, 1000)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("t.parquet"), &batch, version, row_group_rows);
        let session = session(folder.path(), 64 << 20);
        let what = |query: &str| format!("{version:?}, {row_group_rows} rows: {query}");
        let all = sorted(&answer(&session, "select * from t"));
        assert_rows(&all, &batch, &(0..ROWS).collect::<Vec<_>>(), &what("all"));
        let some = sorted(&answer(&session, "select * from t where k % 1000 between 10 and 14 or k = 5999"));
        let expected: Vec<i64> =
            (0..ROWS).filter(|k| (10..=14).contains(&(k % 1000)) || *k == 5999).collect();
        assert_rows(&some, &batch, &expected, &what("a filter"));
        // On either side of the join.
        for side in ["a", "b"] {
            let sql = format!(
                "select {side}.* from t a join t b on a.k = b.k + 100 where a.k % 7 = 1 and b.k < 3000"
            );
            let joined = sorted(&answer(&session, &sql));
            let pairs = (0..3000i64).filter(|k| (k + 100) % 7 == 1);
            let expected: Vec<i64> = pairs.map(|k| if side == "a" { k + 100 } else { k }).collect();
            assert_rows(&joined, &batch, &expected, &what(&sql));
        }
        let descending = answer(&session, "select * from t order by k desc");
        assert_rows(&descending, &batch, &(0..ROWS).rev().collect::<Vec<_>>(), &what("a sort"));
    }
}

#[test]
fn sorts_and_joins_of_them_spill() {
    let batch = table();
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("t.parquet"), &batch, WriterVersion::PARQUET_1_0, 1000);
    let session = session(folder.path(), 12 << 20);
    // Each row twenty times, so that it is more than there is memory.
    let copies: Vec<String> = (0..20).map(|i| format!("({i})")).collect();
    let sql = format!("select t.* from t, (values {}) v(i) order by k desc, i", copies.join(", "));
    let mut stream = session.query(&sql).expect("a good query").stream().expect("starts");
    let batches: Vec<RecordBatch> =
        stream.by_ref().collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{sql}: {e}"));
    let answer = concat_batches(&batches[0].schema(), &batches).expect("batches of one schema");
    let expected: Vec<i64> = (0..ROWS).rev().flat_map(|k| [k; 20]).collect();
    assert_rows(&answer, &batch, &expected, "a sort that spills");
    let spilled = stream.metrics().spilled_bytes;
    assert!(spilled > 1 << 20, "{spilled} bytes were spilled");
}

#[test]
fn what_they_cannot_do_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("t.parquet"), &table(), WriterVersion::PARQUET_1_0, 1000);
    let session = session(folder.path(), 64 << 20);
    for (sql, part) in [
        ("select sum(wide) from t", "Decimal256"),
        ("select wide + 1 from t", "Decimal256"),
        ("select * from t order by numbers", "List"),
        ("select numbers, count(*) from t group by numbers", "List"),
        ("select a.k from t a join t b on a.duration = b.duration", "Duration"),
    ] {
        match session.query(sql).and_then(gristmill::Query::collect) {
            Err(error @ (Error::Unsupported(_) | Error::Plan(_))) => {
                assert!(error.to_string().contains(part), "{sql}: {error}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn dictionaries_are_their_values() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("t.parquet"), &table(), WriterVersion::PARQUET_1_0, 1000);
    let session = session(folder.path(), 64 << 20);
    let count = |word: i64| (0..ROWS).filter(|row| !is_null(*row) && row % 3 == word).count().to_string();
    let mut groups = rows::texts(&[answer(
        &session,
        "select words, count(*) from t where words is not null group by words",
    )]);
    groups.sort();
    let expected =
        [("a much longer blue", 2), ("green", 1), ("red", 0)].map(|(w, at)| [w.to_owned(), count(at)]);
    assert_eq!(groups, expected);
}

#[test]
fn int96_timestamps() {
    let folder = tempfile::tempdir().expect("a folder");
    let schema = "message m { required int64 k; optional int96 at; }";
    let schema = Arc::new(parse_message_type(schema).expect("a good schema"));
    let file = File::create(folder.path().join("t.parquet")).expect("writable");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).expect("a good schema");
    const JULIAN_DAY_OF_EPOCH: u32 = 2_440_588;
    for group in 0..3i64 {
        let mut group_writer = writer.next_row_group().expect("writable");
        let mut keys = group_writer.next_column().expect("writable").expect("two columns");
        let values: Vec<i64> = (group * 1000..group * 1000 + 1000).collect();
        keys.typed::<parquet::data_type::Int64Type>().write_batch(&values, None, None).expect("encodes");
        keys.close().expect("written");
        let mut times = group_writer.next_column().expect("writable").expect("two columns");
        let present: Vec<i64> = values.iter().copied().filter(|k| k % 10 != 4).collect();
        let levels: Vec<i16> = values.iter().map(|k| i16::from(k % 10 != 4)).collect();
        let time = |k: &i64| {
            let (day, nanos) = (JULIAN_DAY_OF_EPOCH + *k as u32, *k as u64 * 1_000_000_000);
            let mut value = Int96::new();
            value.set_data(nanos as u32, (nanos >> 32) as u32, day);
            value
        };
        let present: Vec<Int96> = present.iter().map(time).collect();
        times.typed::<Int96Type>().write_batch(&present, Some(&levels), None).expect("encodes");
        times.close().expect("written");
        group_writer.close().expect("written");
    }
    writer.close().expect("written");
    let session = session(folder.path(), 64 << 20);
    let days = answer(
        &session,
        "select k, at::date, extract(epoch from at) % 86400 from t where k % 500 = 3 order by k",
    );
    let expected = [("3", "1970-01-04", "3"), ("503", "1971-05-19", "503"), ("1003", "1972-09-30", "1003")];
    let texts = rows::texts(&[days]);
    for (row, (k, day, seconds)) in texts.iter().zip(expected) {
        assert_eq!(row, &[k, day, seconds]);
    }
    assert_eq!(texts.len(), 6);
    let nulls = answer(&session, "select count(*), count(at), max(at)::date from t");
    assert_eq!(rows::texts(&[nulls]), [["3000", "2700", "1978-03-19"]]);
}
