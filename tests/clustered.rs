//! Groups of a column by which a table is clustered go on as soon as their row group, or the pages of it, are over: the
//! rows are those of an aggregation that keeps all groups to the end, in any memory and however its rows are mixed.

mod support;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use gristmill::{Engine, Query, Session, TestKnobs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use support::matrix::Setting;
use support::{rows, tables};

const ROWS: i64 = 150_000;
const ROW_GROUP_ROWS: usize = 4_000;
const WORDS: [&str; 4] = ["air", "rail", "a lorry on a winding road", "ship"];

/// How the rows of a table lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// By key, from below zero on; keys have two rows, so that row groups and pages end within keys.
    Ascending,
    /// Keys of 1,000 rows mixed, so that pages overlap; row groups do not.
    Mixed,
    /// As `Ascending`, but now and then a key is null.
    WithNulls,
}

const ORDERS: [Order; 3] = [Order::Ascending, Order::Mixed, Order::WithNulls];

impl Order {
    fn key(self, row: i64) -> Option<i64> {
        let row = match self {
            Self::Ascending | Self::WithNulls => row,
            Self::Mixed => row / 1_000 * 1_000 + row * 7 % 1_000,
        };
        (self != Self::WithNulls || row % 97 != 3).then_some(row / 2 - 20_000)
    }

    fn value(row: i64) -> i64 {
        row * 31 % 1_009
    }

    fn batch(self, rows: std::ops::Range<i64>) -> RecordBatch {
        let keys: Int64Array = rows.clone().map(|row| self.key(row)).collect();
        let days: Int32Array = rows.clone().map(|row| self.key(row).map(|key| key as i32)).collect();
        let values: Int64Array = rows.clone().map(|row| Some(Self::value(row))).collect();
        let words: StringArray = rows.map(|row| Some(WORDS[(row * row % 4) as usize])).collect();
        RecordBatch::try_from_iter([
            ("k", Arc::new(keys) as ArrayRef),
            ("k32", Arc::new(days) as ArrayRef),
            ("v", Arc::new(values) as ArrayRef),
            ("w", Arc::new(words) as ArrayRef),
        ])
        .expect("columns of one length")
    }

    /// Two files, of which the one that is read first has the greater keys.
    fn write(self, folder: &Path) {
        std::fs::create_dir(folder).expect("creatable");
        let middle = ROWS / 3;
        tables::write(&folder.join("a.parquet"), [self.batch(middle..ROWS)], ROW_GROUP_ROWS);
        tables::write(&folder.join("b.parquet"), [self.batch(0..middle)], ROW_GROUP_ROWS);
    }
}

const QUERIES: [&str; 5] = [
    "select k, count(*), sum(v), min(w) from t group by k",
    "select k32, w, max(v), count(w) from t group by w, k32",
    "select key, sum(w) from (select k + 0 as other, k as key, v as w from t where v % 3 <> 1) group by key having count(*) > 1",
    "select count(*), sum(n), sum(k * n) from (select k, count(*) as n from t group by k)",
    "select k, avg(v) from t where v < 900 group by k order by k desc nulls last limit 10",
];

fn session(engine: &Engine, folder: &Path) -> Session {
    let session = engine.session();
    session.register_parquet("t", folder).expect("good files");
    session
}

fn answer(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(Query::collect).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = rows::texts(&batches);
    rows.sort();
    rows
}

/// The rows of all queries by an aggregation that knows of no clusters.
fn expected(folder: &Path) -> [Vec<Vec<String>>; QUERIES.len()] {
    let ample = Engine::builder().threads(2).memory_limit(1 << 30).build().expect("starts");
    let reference = session(&ample, folder);
    reference.set("enable_stats_pruning", "false").expect("a setting");
    QUERIES.map(|sql| answer(&reference, sql))
}

/// Every table, in a folder of its own.
fn folders(root: &Path) -> Vec<std::path::PathBuf> {
    let write = |order: &Order| {
        let folder = root.join(format!("{order:?}"));
        order.write(&folder);
        folder
    };
    ORDERS.iter().map(write).collect()
}

#[test]
fn groups_that_go_early_are_those_that_stay() {
    let root = tempfile::tempdir().expect("a folder");
    for folder in folders(root.path()) {
        let expected = expected(&folder);
        for (threads, bytes) in [(1, 1 << 30), (3, 1 << 30), (8, 1 << 30), (1, 6 << 20), (4, 8 << 20)] {
            let engine = Engine::builder().threads(threads).memory_limit(bytes).build().expect("starts");
            let session = session(&engine, &folder);
            for (sql, expected) in QUERIES.iter().zip(&expected) {
                let plan = session.query(sql).expect("a good query").explain();
                assert!(plan.contains("ClusteredAggregate"), "{plan}");
                let rows = answer(&session, sql);
                assert!(rows == *expected, "{} {threads} {bytes} {sql}", folder.display());
            }
        }
    }
}

#[test]
fn the_first_query_is_what_it_should_be() {
    let root = tempfile::tempdir().expect("a folder");
    for (order, folder) in ORDERS.iter().zip(folders(root.path())) {
        let mut expected: BTreeMap<Option<i64>, (i64, i64, &str)> = BTreeMap::new();
        for row in 0..ROWS {
            let word = WORDS[(row * row % 4) as usize];
            let group = expected.entry(order.key(row)).or_insert((0, 0, word));
            *group = (group.0 + 1, group.1 + Order::value(row), group.2.min(word));
        }
        let text = |(key, (count, sum, word)): (Option<i64>, (i64, i64, &str))| {
            let key = key.map_or_else(|| "NULL".to_owned(), |key| key.to_string());
            vec![key, count.to_string(), sum.to_string(), word.to_owned()]
        };
        let mut expected: Vec<_> = expected.into_iter().map(text).collect();
        expected.sort();
        let engine = Engine::builder().threads(2).memory_limit(64 << 20).build().expect("starts");
        assert!(answer(&session(&engine, &folder), QUERIES[0]) == expected, "{order:?}");
    }
}

#[test]
fn under_every_kind_of_trouble() {
    let root = tempfile::tempdir().expect("a folder");
    let spill = tempfile::tempdir().expect("a folder");
    let settings = Setting::selected().into_iter().filter(|setting| !setting.merge_joins);
    let settings: Vec<Setting> = settings.collect();
    for folder in folders(root.path()) {
        let expected = expected(&folder);
        for setting in &settings {
            for (sql, expected) in QUERIES.iter().zip(&expected).take(3) {
                let mut attempt = 0;
                let rows = loop {
                    let engine = setting.engine(spill.path(), attempt).expect("starts");
                    match session(&engine, &folder).query(sql).and_then(Query::collect) {
                        Ok(batches) => break rows::texts(&batches),
                        Err(error) if setting.may_retry(&error, attempt) => attempt += 1,
                        Err(error) => panic!("{setting:?} {sql}: {error}"),
                    }
                };
                let mut rows = rows;
                rows.sort();
                assert!(rows == *expected, "{} {setting:?} {sql}", folder.display());
            }
        }
    }
}

/// Clusters of which a part is on disk are emitted from there, those next to them early.
#[test]
fn spilled_clusters_come_back() {
    let root = tempfile::tempdir().expect("a folder");
    for folder in folders(root.path()) {
        let expected = expected(&folder);
        for (threads, refuse_grant) in [(1, 1 << 12), (4, 1 << 12), (3, u16::MAX)] {
            // Several batches to a cluster.
            let knobs = TestKnobs {
                refuse_grant,
                batch_rows: Some(500),
                seed: threads as u64,
                ..TestKnobs::default()
            };
            let builder = Engine::builder().threads(threads).memory_limit(64 << 20).testing(knobs);
            let engine = builder.build().expect("starts");
            let session = session(&engine, &folder);
            for (sql, expected) in QUERIES.iter().zip(&expected).take(3) {
                let mut stream = session.query(sql).expect("a good query").stream().expect("starts");
                let batches: Vec<RecordBatch> =
                    stream.by_ref().map(|batch| batch.unwrap_or_else(|e| panic!("{sql}: {e}"))).collect();
                let mut rows = rows::texts(&batches);
                rows.sort();
                assert!(rows == *expected, "{} {threads} {refuse_grant} {sql}", folder.display());
                assert!(stream.metrics().spilled_bytes > 0, "{sql}: nothing was spilled");
            }
        }
    }
}

/// What is not clustered, or has few groups, is left to hashing.
#[test]
fn other_tables_are_not_taken_for_clustered() {
    let root = tempfile::tempdir().expect("a folder");
    let engine = Engine::builder().threads(2).memory_limit(64 << 20).build().expect("starts");
    let folder = &folders(root.path())[0];
    let session = session(&engine, folder);
    for sql in [
        "select v, count(*) from t group by v",
        "select k % 1000, count(*) from t group by k % 1000",
        "select k, count(*) from t where k between 10 and 500 group by k",
        "select t.k, count(*) from t join t as s on t.k = s.k group by t.k",
        "select count(*) from t",
    ] {
        let plan = session.query(sql).expect("a good query").explain();
        assert!(!plan.contains("ClusteredAggregate"), "{sql}\n{plan}");
    }
    // The same keys in no order.
    let scattered = root.path().join("scattered");
    std::fs::create_dir(&scattered).expect("creatable");
    let keys: Int64Array = (0..ROWS).map(|row| Some(row * 7_919 % ROWS / 2)).collect();
    let batch = RecordBatch::try_from_iter([("k", Arc::new(keys) as ArrayRef)]).expect("one column");
    tables::write(&scattered.join("a.parquet"), [batch], ROW_GROUP_ROWS);
    session.register_parquet("scattered", &scattered).expect("good files");
    let plan = session.query("select k, count(*) from scattered group by k").expect("good").explain();
    assert!(!plan.contains("ClusteredAggregate"), "{plan}");
}
