//! Filters that joins give to scans: with them and without them the rows are the same, and they go where they may.

mod support;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use gristmill::{Engine, Session};
use std::sync::Arc;
use support::{rows, tables};

const LARGE_ROWS: i64 = 40_000;

/// 40,000 rows: a number with nulls, a smaller number, a text, a measure. Numbers repeat.
fn large() -> RecordBatch {
    let number = |row: i64| (row % 97 != 0).then_some(row * 7919 % 20_000);
    let numbers: Int64Array = (0..LARGE_ROWS).map(number).collect();
    let groups: Int64Array = (0..LARGE_ROWS).map(|row| Some(row / 8)).collect();
    let texts: StringArray = (0..LARGE_ROWS).map(|row| Some(format!("text {:05}", row % 9000))).collect();
    let measures: Int64Array = (0..LARGE_ROWS).map(|row| Some(row % 1000)).collect();
    let column = |name, array: ArrayRef| (name, array, true);
    RecordBatch::try_from_iter_with_nullable([
        column("n", Arc::new(numbers)),
        column("g", Arc::new(groups)),
        column("t", Arc::new(texts)),
        column("m", Arc::new(measures)),
    ])
    .expect("columns of one length")
}

/// 60 rows that match some of `large`, with nulls and values it does not have.
fn small() -> RecordBatch {
    let keys: Int64Array =
        (0..60).map(|row| (row % 13 != 0).then_some(if row % 5 == 0 { -row } else { row * 331 })).collect();
    let texts: StringArray = (0..60).map(|row| Some(format!("text {:05}", row * 191))).collect();
    let columns: [(&str, ArrayRef, bool); 2] = [("k", Arc::new(keys), true), ("s", Arc::new(texts), true)];
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
}

fn session(folder: &std::path::Path, without: &[&str]) -> Session {
    let engine = Engine::builder().threads(2).memory_limit(256 << 20);
    let engine = engine.disabled_optimizers(without.iter().copied()).build().expect("starts");
    let session = engine.session();
    for (name, batch) in [("large", large()), ("small", small())] {
        let file = folder.join(format!("{name}.parquet"));
        if !file.exists() {
            tables::write(&file, [batch], 8000);
        }
        session.register_parquet(name, file).expect("a good file");
    }
    session
}

fn answer(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(gristmill::Query::collect);
    let mut rows = rows::texts(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")));
    rows.sort();
    rows
}

/// Scans of `large` that are filtered, with the query.
const QUERIES: &[(usize, &str)] = &[
    (1, "select n, k from large join small on n = k"),
    (1, "select n, t from large join small on t = s"),
    (1, "select n from large where n in (select k from small)"),
    (1, "select n, k from small left join large on n = k"),
    (1, "select k from small where exists (select 1 from large where n = k and m > 500)"),
    (1, "select k from small where not exists (select 1 from large where n = k and m > 500)"),
    // Rows of the large table without a match are wanted.
    (0, "select n, k from large left join small on n = k"),
    (0, "select n, k from large full join small on n = k"),
    (0, "select n from large where n not in (select k from small where k is not null)"),
    (0, "select n, n in (select k from small) from large"),
    // Two nulls are equal.
    (0, "select n, k from large join small on n is not distinct from k"),
    // Below an aggregation that groups by the column, not below another.
    (1, "select k, c from small join (select n, count(*) c from large group by n) on k = n"),
    (0, "select k, c from small join (select max(n) x, count(*) c from large group by g) on k = x"),
    // Not below a limit.
    (0, "select k, n from small join (select n from large order by m, g, n limit 9000) on k = n"),
    // Through another join to both its inputs, by the key they share.
    (2, "select k, a.g, b.m from small join (large a join large b on a.n = b.n and a.g = b.g) on k = a.n"),
];

#[test]
fn rows_are_the_same_with_and_without() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (with, without) = (session(folder.path(), &[]), session(folder.path(), &["runtime_filters"]));
    for (filtered, sql) in QUERIES {
        assert_eq!(answer(&with, sql), answer(&without, sql), "{sql}");
        let plan = answer(&with, &format!("explain {sql}"));
        let scans =
            plan.iter().filter(|line| line[0].contains("Scan large") && line[0].contains("by filter"));
        assert_eq!(scans.count(), *filtered, "{sql}\n{plan:#?}");
        let plan = answer(&without, &format!("explain {sql}"));
        assert!(plan.iter().all(|line| !line[0].contains("filter 1")), "{sql}\n{plan:#?}");
    }
}

#[test]
fn rows_are_dropped_before_the_join() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let session = session(folder.path(), &[]);
    let report = answer(&session, "explain analyze select sum(m) from large join small on n = k");
    let scan = report.iter().map(|line| &line[0]).find(|line| line.contains("Scan large: ")).expect("a scan");
    let counter = |name: &str| -> i64 {
        let (_, rest) = scan.split_once(&format!("{name} ")).unwrap_or_else(|| panic!("{name} in {scan}"));
        rest.split([',', ' ']).next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{scan}"))
    };
    assert_eq!(counter("rows out") + counter("runtime_filtered_rows"), LARGE_ROWS);
    assert!(counter("rows out") < 200, "{scan}");
}
