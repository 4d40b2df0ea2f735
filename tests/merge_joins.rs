//! Merge joins of inputs that are in order already: rows as a hash join's, whatever the kind of join and the order.

mod support;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use gristmill::{Engine, EngineBuilder, Error, Session, TestKnobs};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use support::rows;
use tempfile::TempDir;

/// An order of the columns `k` and `l`.
#[derive(Clone, Copy)]
struct Order {
    descending: bool,
    nulls_first: bool,
}

const ASCENDING: Order = Order { descending: false, nulls_first: false };
const DESCENDING: Order = Order { descending: true, nulls_first: true };

/// Keys `k` and `l` with duplicates, and nulls if `nulls`; a number and a text.
fn table(rows: i64, step: i64, nulls: bool) -> RecordBatch {
    use std::sync::Arc;
    let key = |row: i64| (!nulls || row % 31 != 0).then_some(row * 7919 % 4001 / step * step);
    let keys: Int64Array = (0..rows).map(key).collect();
    let second: Int64Array = (0..rows).map(|row| Some(row * 31 % 5)).collect();
    let numbers: Int64Array = (0..rows).map(|row| Some(row % 1000)).collect();
    let texts: StringArray = (0..rows).map(|row| Some(format!("text of row {row:07}"))).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(keys) as ArrayRef, nulls),
        ("l", Arc::new(second), false),
        ("n", Arc::new(numbers), false),
        ("t", Arc::new(texts), false),
    ])
    .expect("columns of one length")
}

/// Writes `batch` in `order`, declaring it.
fn write(folder: &Path, name: &str, batch: &RecordBatch, order: Order, row_group_rows: usize) {
    let options = SortOptions { descending: order.descending, nulls_first: order.nulls_first };
    let columns = (0..2).map(|at| SortColumn { values: batch.column(at).clone(), options: Some(options) });
    let places = lexsort_to_indices(&columns.collect::<Vec<_>>(), None).expect("sortable");
    let sorted = take_record_batch(batch, &places).expect("rows of the batch");
    write_as_declared(folder, name, &sorted, order, row_group_rows);
}

fn write_as_declared(folder: &Path, name: &str, batch: &RecordBatch, order: Order, row_group_rows: usize) {
    let Order { descending, nulls_first } = order;
    let declared = (0..2).map(|column_idx| SortingColumn { column_idx, descending, nulls_first });
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_sorting_columns(Some(declared.collect()))
        .build();
    let file = File::create(folder.join(format!("{name}.parquet"))).expect("writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(batch).expect("encodes");
    writer.close().expect("written");
}

fn session(folder: &Path, builder: EngineBuilder) -> Session {
    let session = builder.temp_directory(folder.join("spill")).build().expect("starts").session();
    for name in ["a", "b"] {
        session.register_parquet(name, folder.join(format!("{name}.parquet"))).expect("a good file");
    }
    session
}

fn builder() -> EngineBuilder {
    Engine::builder().threads(2).memory_limit(256 << 20)
}

fn forced() -> EngineBuilder {
    builder().testing(TestKnobs { merge_joins: true, ..TestKnobs::default() })
}

fn answer(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(gristmill::Query::collect);
    let mut rows = rows::texts(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")));
    rows.sort();
    rows
}

fn plan(session: &Session, sql: &str) -> String {
    session.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).explain()
}

const QUERIES: &[&str] = &[
    "select a.n, b.t from a join b on a.k = b.k and a.l = b.l",
    "select a.k, a.t, b.t from a left join b on a.k = b.k and a.l = b.l and a.n > b.n",
    "select a.n, b.n, b.k from a full join b on a.k = b.k and a.l = b.l",
    "select n, t from a where exists (select 1 from b where b.k = a.k and b.l = a.l)",
    "select n, t from a where not exists (select 1 from b where b.l = a.l and b.k = a.k and b.n < a.n)",
    "select count(*), min(a.t), max(b.t) from a join b on a.k = b.k",
    "select k, exists (select 1 from b where b.k = a.k and b.n > 990) from a",
    "select t from a where k not in (select k from b where n < 900)",
    "select t from a where k in (select k from b where n < 90)",
];

const STREAMED: &str = "because both inputs are sorted";

#[test]
fn files_in_order_are_joined_without_sorting() {
    for (order, nulls, row_group_rows) in [
        (ASCENDING, false, 700),
        (DESCENDING, false, 5000),
        (ASCENDING, true, 1 << 20),
        (DESCENDING, true, 1 << 20),
    ] {
        let folder = TempDir::new().expect("temporary folder");
        write(folder.path(), "a", &table(6000, 1, nulls), order, row_group_rows);
        write(folder.path(), "b", &table(3000, 3, nulls), order, 1 << 20);
        let hashed = session(folder.path(), builder().enable_sort_merge_join(false));
        let merged = session(folder.path(), forced());
        let one_row = TestKnobs { merge_joins: true, one_row_batches: true, ..TestKnobs::default() };
        let slow = session(folder.path(), builder().testing(one_row));
        for sql in QUERIES {
            let expected = answer(&hashed, sql);
            assert!(!plan(&hashed, sql).contains("SortMergeJoin"));
            let text = plan(&merged, sql);
            assert!(text.contains("SortMergeJoin"), "{text}");
            assert!(answer(&merged, sql) == expected, "{sql}\n{text}");
            assert!(answer(&slow, sql) == expected, "{sql}\n{text}");
        }
        // Two keys in order need that no value of the first lies in two row groups.
        let two = plan(&merged, QUERIES[0]);
        assert!(row_group_rows <= 6000 || two.contains(STREAMED), "{two}");
        let one = plan(&merged, QUERIES[5]);
        assert!(one.contains(STREAMED), "{one}");
    }
}

#[test]
fn a_side_in_order_streams_past_one_that_is_sorted() {
    let folder = TempDir::new().expect("temporary folder");
    write(folder.path(), "a", &table(6000, 1, false), ASCENDING, 700);
    write(folder.path(), "b", &table(3000, 3, false), DESCENDING, 700);
    let hashed = session(folder.path(), builder().enable_sort_merge_join(false));
    let tiny = TestKnobs { merge_joins: true, refuse_grant: u16::MAX, ..TestKnobs::default() };
    for builder in [forced(), forced().memory_limit(10 << 20), builder().testing(tiny)] {
        let merged = session(folder.path(), builder);
        for sql in QUERIES {
            assert!(answer(&merged, sql) == answer(&hashed, sql), "{sql}");
        }
        let text = plan(&merged, QUERIES[5]);
        assert!(text.contains("the probe side being sorted"), "{text}");
    }
    // A sort with a limit has an order, too.
    let sql = "select count(*), sum(x.n + x.k), min(b.t) from (select * from a order by n, k limit 4000) x \
               join b on x.n = b.n";
    let merged = session(folder.path(), forced());
    let text = plan(&merged, sql);
    assert!(text.contains("side being sorted"), "{text}");
    assert_eq!(answer(&merged, sql), answer(&hashed, sql));
}

#[test]
fn an_order_that_is_not_kept_is_an_error_and_not_a_wrong_row() {
    let folder = TempDir::new().expect("temporary folder");
    write(folder.path(), "a", &table(6000, 1, false), ASCENDING, 1 << 20);
    write_as_declared(folder.path(), "b", &table(3000, 3, false), ASCENDING, 1 << 20);
    let sql = QUERIES[5];
    let failed = session(folder.path(), forced()).query(sql).expect("plans").collect();
    assert!(matches!(failed, Err(Error::Data(_))), "{failed:?}");
    // Where row groups overlap nobody believes it.
    write_as_declared(folder.path(), "b", &table(3000, 3, false), ASCENDING, 100);
    let merged = session(folder.path(), forced());
    assert!(!plan(&merged, sql).contains(STREAMED));
    let hashed = session(folder.path(), builder().enable_sort_merge_join(false));
    assert_eq!(answer(&merged, sql), answer(&hashed, sql));
}

#[test]
fn inputs_in_order_are_merged_where_hashing_would_cost_more() {
    let folder = TempDir::new().expect("temporary folder");
    write(folder.path(), "a", &table(80_000, 1, false), ASCENDING, 1 << 20);
    write(folder.path(), "b", &table(60_000, 1, false), ASCENDING, 1 << 20);
    let sql = "select count(*), min(a.t), max(b.t) from a join b on a.k = b.k and a.l = b.l";
    let ample = session(folder.path(), builder());
    assert!(!plan(&ample, sql).contains("SortMergeJoin"));
    let small = session(folder.path(), builder().memory_limit(10 << 20));
    assert!(plan(&small, sql).contains(STREAMED), "{}", plan(&small, sql));
    assert_eq!(answer(&small, sql), answer(&ample, sql));
    let never = builder().memory_limit(10 << 20).enable_sort_merge_join(false);
    assert!(!plan(&session(folder.path(), never), sql).contains("SortMergeJoin"));
}
