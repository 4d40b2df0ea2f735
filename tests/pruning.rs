//! What statistics, page indexes and Bloom filters rule out is not read, and the rows are the same as if it were.

mod support;

use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use gristmill::{Engine, Session};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::rows;

const ROWS: i64 = 20_000;
const ROW_GROUP_ROWS: usize = 5_000;
const PAGE_ROWS: usize = 250;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Columns that ascend more or less, of every type that has bounds; about one value in 40 is null, in runs. `scattered`
/// has no order and few values.
fn table() -> RecordBatch {
    let mut random = Random(7);
    let raw: Vec<Option<i64>> = (0..ROWS)
        .map(|row| {
            let is_null = row % 10_000 < 300;
            let value = row / 3 - 1_000 + random.below(60) as i64;
            (!is_null).then_some(value)
        })
        .collect();
    macro_rules! column {
        ($array:ty, $convert:expr) => {
            Arc::new(raw.iter().map(|v| v.map($convert)).collect::<$array>()) as ArrayRef
        };
    }
    let decimal = |precision, scale, factor: i128| {
        let values: arrays::Decimal128Array = raw.iter().map(|v| v.map(|v| i128::from(v) * factor)).collect();
        Arc::new(values.with_precision_and_scale(precision, scale).expect("valid")) as ArrayRef
    };
    let scattered: arrays::Int64Array = (0..ROWS).map(|_| Some(random.below(1 << 31) as i64)).collect();
    let floats = |v: i64| if v % 97 == 0 { f64::NAN } else { v as f64 / 4.0 };
    RecordBatch::try_from_iter([
        ("i32", column!(arrays::Int32Array, |v| v as i32)),
        ("i64", column!(arrays::Int64Array, |v| v * 1_000_003)),
        ("u64", column!(arrays::UInt64Array, |v| (v + 1_000) as u64 * (1 << 51))),
        ("f64", column!(arrays::Float64Array, floats)),
        ("narrow", decimal(9, 2, 1)),
        ("wide", decimal(30, 4, 1_000_000_000_000_007)),
        ("date", column!(arrays::Date32Array, |v| v as i32)),
        ("micros", column!(arrays::TimestampMicrosecondArray, |v| v * 3_600_000_000)),
        ("text", column!(arrays::StringArray, |v| format!("text {:07}", v + 1_000))),
        ("scattered", Arc::new(scattered)),
    ])
    .expect("columns of one length")
}

fn write(path: &Path, batch: &RecordBatch) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_bloom_filter_enabled(true)
        .build();
    let file = File::create(path).expect("writable");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a good schema");
    writer.write(batch).expect("encodes");
    writer.close().expect("written");
}

fn session(folder: &Path) -> Session {
    let engine = Engine::builder().threads(2).memory_limit(256 << 20).build().expect("starts");
    let session = engine.session();
    session.register_parquet("t", folder.join("t.parquet")).expect("a good file");
    session
}

/// The rows, and rows page indexes and Bloom filters have left out.
fn answer(session: &Session, sql: &str) -> (Vec<Vec<String>>, [u64; 2]) {
    let mut stream = session.query(sql).expect("a good query").stream().expect("starts");
    let batches: Vec<RecordBatch> =
        stream.by_ref().collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = rows::texts(&batches);
    rows.sort();
    let profile = stream.profile();
    let counted = |name: &str| {
        let counters = profile.iter().flat_map(|operator| &operator.counters);
        counters.filter(|(known, _)| *known == name).map(|(_, count)| *count).sum()
    };
    (rows, [counted("page_pruned_rows"), counted("bloom_pruned_rows")])
}

/// A literal near a value of the column, as SQL.
fn literal(column: &str, random: &mut Random) -> String {
    let value = random.below(9_000) as i64 - 1_500;
    match column {
        "i32" => value.to_string(),
        "i64" => (value * 1_000_003).to_string(),
        "u64" => (i128::from(value + 1_000).max(0) * (1 << 51)).to_string(),
        "f64" => format!("{}::double", value as f64 / 4.0),
        "narrow" => format!("{}.{:02}", value.abs() / 100, value.abs() % 100),
        "wide" => format!("({value} * 100000000000.0007)"),
        "date" => format!("(date '1970-01-01' + {value})"),
        "micros" => format!("(timestamp '1970-01-01 00:00:00' + interval '{value}' hour)"),
        "text" => format!("'text {:07}'", (value + 1_000).max(0)),
        _ => random.below(1 << 31).to_string(),
    }
}

fn comparison(random: &mut Random) -> String {
    let columns = ["i32", "i64", "u64", "f64", "narrow", "wide", "date", "micros", "text", "scattered"];
    let column = columns[random.below(columns.len() as u64) as usize];
    let a = literal(column, random);
    match random.below(10) {
        0 => format!("{column} is null"),
        1 => format!("{column} is not null"),
        2 => format!("{column} <> {a}"),
        3 | 4 => format!("{column} = {a}"),
        5 => format!("{column} in ({a}, {}, {})", literal(column, random), literal(column, random)),
        6 => format!("{column} < {a}"),
        7 => format!("{column} >= {a}"),
        8 => format!("{a} > {column}"),
        _ => format!("{column} between {a} and {}", literal(column, random)),
    }
}

#[test]
fn pruned_scans_have_the_rows_of_whole_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("t.parquet"), &table());
    let (pruning, plain) = (session(folder.path()), session(folder.path()));
    plain.set("enable_stats_pruning", "false").expect("a setting");
    let mut random = Random(11);
    let mut total = [0; 2];
    for _ in 0..300 {
        let mut filter = comparison(&mut random);
        for _ in 0..random.below(3) {
            let connective = if random.below(2) == 0 { "and" } else { "or" };
            filter = format!("({filter}) {connective} {}", comparison(&mut random));
        }
        let sql = format!("select i32, text, scattered, f64 from t where {filter}");
        let (rows, pruned) = answer(&pruning, &sql);
        let (expected, unpruned) = answer(&plain, &sql);
        assert!(rows == expected, "{sql}: {} rows for {}", rows.len(), expected.len());
        assert_eq!(unpruned, [0, 0]);
        total = [total[0] + pruned[0], total[1] + pruned[1]];
    }
    assert!(total[0] > 0 && total[1] > 0, "pruned {total:?}");
}

#[test]
fn pages_and_row_groups_without_a_row_asked_for_are_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("t.parquet"), &table());
    let session = session(folder.path());
    let all = ROWS as u64;
    for column in ["i32", "i64", "u64", "narrow", "wide", "date", "micros", "text"] {
        let sql = format!(
            "select count(*) from t where {column} between (select min({column}) from t where i32 >= 3000)
             and (select max({column}) from t where i32 <= 3010)"
        );
        let (rows, _) = answer(&session, &sql);
        assert_ne!(rows, [["0"]], "{column}");
    }
    // One row group of the four holds it, and of that few pages.
    let (rows, [by_pages, _]) = answer(&session, "select count(*) from t where i32 between 1000 and 1010");
    assert_ne!(rows, [["0"]]);
    assert!(by_pages >= ROW_GROUP_ROWS as u64 * 8 / 10, "{by_pages} rows left out");
    // No statistics tell, but Bloom filters do.
    let (rows, [_, by_bloom]) = answer(&session, "select count(*) from t where scattered = 1111111111");
    assert_eq!((rows, by_bloom), (vec![vec!["0".to_owned()]], all));
    // A join's keys rule pages out as well.
    let sql = "select count(*) from t join (values (1500), (1501)) v(k) on t.i32 = v.k";
    let (rows, [by_pages, _]) = answer(&session, sql);
    assert_ne!(rows, [["0"]]);
    assert!(by_pages >= ROW_GROUP_ROWS as u64 * 8 / 10, "{by_pages} rows left out");
}
