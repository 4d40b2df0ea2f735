//! Every optimizer rule that may be left out, left out: queries give the same rows without it. And in whatever order
//! their joins are done.
//!
//! The queries are those of TPC-H at scale factor 0.01 and those of `tests/slt`. By default each rule is tried on a
//! sample, another one for every rule; `GRISTMILL_TEST_MATRIX=full` tries all.

mod support;

use gristmill::{Engine, Error, Query, Session, TestKnobs};
use sqllogictest::{DefaultColumnType, QueryExpect, Record, StatementExpect};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{rows, tables};

/// Of so many queries one is in a rule's sample.
const TPCH_SAMPLE: usize = 4;
const SLT_SAMPLE: usize = 20;

/// A plan with an operator that is expected to emit more is not run: without some rules a join is a product.
const MOST_ROWS: u64 = 2_000_000;

/// Longer is a hang, also on a slow machine under a debug build.
const TIMEOUT: Duration = Duration::from_secs(120);

fn engine(rules: &[&str], join_order_seed: Option<u64>) -> Engine {
    let knobs = TestKnobs { join_order_seed, ..TestKnobs::default() };
    let builder = Engine::builder().threads(2).memory_limit(1 << 30).testing(knobs);
    builder.disabled_optimizers(rules.iter().copied()).build().expect("starts")
}

fn session(engine: &Engine) -> Session {
    let session = engine.session();
    for (name, file) in tables::all() {
        session.register_parquet(&name, file).expect("a good file");
    }
    session
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .{extension} files in {}", folder.display());
    files
}

fn tpch() -> Vec<String> {
    let read =
        |file: PathBuf| fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    files("tools/runner/tpch/queries", "sql").into_iter().map(read).collect()
}

/// The queries of the SQL tests that return rows, without those of files that make views for them.
fn slt() -> Vec<String> {
    let records = files("tests/slt", "slt").into_iter().flat_map(|file| {
        let records = sqllogictest::parse_file::<DefaultColumnType>(&file)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let makes_views =
            |record: &Record<_>| matches!(record, Record::Statement { expected: StatementExpect::Ok, .. });
        if records.iter().any(makes_views) { Vec::new() } else { records }
    });
    let queries = records.filter_map(|record| match record {
        Record::Query { sql, expected: QueryExpect::Results { .. }, .. } => Some(sql),
        _ => None,
    });
    queries.collect()
}

/// The rows in an order of their own, as far as the plan is expected to end.
fn sorted_rows(query: Query) -> Option<Result<Vec<Vec<String>>, Error>> {
    let estimates = query.explain();
    let largest = estimates.lines().filter_map(|line| {
        let (_, estimate) = line.rsplit_once(" (about ")?;
        estimate.split_once(' ')?.0.parse::<u64>().ok()
    });
    if largest.max().is_some_and(|rows| rows > MOST_ROWS) {
        return None;
    }
    Some(query.with_timeout(TIMEOUT).collect().map(|batches| {
        let mut rows = rows::texts(&batches);
        rows.sort();
        rows
    }))
}

/// Compares the rows of each engine, on a sample of its own, with those of an engine as it should be.
fn check(queries: &[String], sample: usize, engines: impl Iterator<Item = (String, Engine)>) {
    let is_full = std::env::var_os("GRISTMILL_TEST_MATRIX").is_some_and(|v| v == "full");
    let sample = if is_full { 1 } else { sample };
    let (mut checked, mut skipped) = (0, 0);
    let usual = engine(&[], None);
    let usual = session(&usual);
    let mut expected = vec![None; queries.len()];
    for (number, (how, engine)) in engines.enumerate() {
        let other = session(&engine);
        for (at, sql) in queries.iter().enumerate().skip(number % sample).step_by(sample) {
            // A query that asks for its own plan has another one.
            if sql.trim_start().to_lowercase().starts_with("explain") {
                continue;
            }
            let query = other.query(sql).unwrap_or_else(|e| panic!("{sql}\n{how}: {e}"));
            let Some(actual) = sorted_rows(query) else {
                skipped += 1;
                continue;
            };
            let actual = actual.unwrap_or_else(|e| panic!("{sql}\n{how}: {e}"));
            let expected = expected[at].get_or_insert_with(|| {
                let query = usual.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
                let rows = sorted_rows(query).unwrap_or_else(|| panic!("too many rows:\n{sql}"));
                rows.unwrap_or_else(|e| panic!("{sql}: {e}"))
            });
            assert_eq!(actual, *expected, "{sql}\n{how}");
            checked += 1;
        }
    }
    assert!(
        checked > 0 && skipped * 10 <= checked,
        "{checked} queries checked, {skipped} left out as products"
    );
}

fn without_each_rule() -> impl Iterator<Item = (String, Engine)> {
    Engine::optional_rules().map(|rule| (format!("without {rule}"), engine(&[rule], None)))
}

fn in_random_orders() -> impl Iterator<Item = (String, Engine)> {
    (1..=6).map(|seed| (format!("joined in order {seed}"), engine(&[], Some(seed))))
}

#[test]
fn tpch_gives_the_same_rows_without_any_one_rule() {
    check(&tpch(), TPCH_SAMPLE, without_each_rule());
}

#[test]
fn sql_tests_give_the_same_rows_without_any_one_rule() {
    check(&slt(), SLT_SAMPLE, without_each_rule());
}

#[test]
fn tpch_gives_the_same_rows_in_any_join_order() {
    check(&tpch(), TPCH_SAMPLE, in_random_orders());
}

#[test]
fn sql_tests_give_the_same_rows_in_any_join_order() {
    check(&slt(), SLT_SAMPLE, in_random_orders());
}

#[test]
fn what_is_no_optional_rule_cannot_be_left_out() {
    for name in ["no_such_rule", "unnest_subqueries"] {
        let built = Engine::builder().disabled_optimizers([name]).build();
        assert!(matches!(built, Err(Error::Plan(_))), "{name}");
    }
}
