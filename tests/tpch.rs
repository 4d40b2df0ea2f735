//! TPC-H at scale factor 0.01, every answer checked under every selected setting of the matrix.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::matrix::Setting;
use support::{rows, tables};

/// Queries the engine runs.
const QUERIES: &[&str] = &[
    "q01", "q02", "q03", "q04", "q05", "q06", "q07", "q08", "q09", "q10", "q11", "q12", "q13", "q14", "q15",
    "q16", "q17", "q18", "q19", "q20", "q21", "q22",
];

const RELATIVE_TOLERANCE: f64 = 1e-9;

fn tpch_file(path: &str) -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/runner/tpch").join(path);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// By value: as text, or as numbers within 1e-9.
fn equal(actual: &str, expected: &str) -> bool {
    actual == expected
        || match (actual.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(a), Ok(e)) => (a - e).abs() <= RELATIVE_TOLERANCE * a.abs().max(e.abs()),
            _ => false,
        }
}

fn run(query: &str, setting: Setting) {
    // Query 11 asks for a share that falls with the scale (TPC-H 2.4.11.3).
    let sql = tpch_file(&format!("queries/{query}.sql")).replace("0.0001000000", "0.0100000000");
    let answer = tpch_file(&format!("answers/sf0.01/{query}.csv"));
    let expected: Vec<Vec<&str>> = answer.lines().skip(1).map(|line| line.split('|').collect()).collect();
    let spill = tempfile::tempdir().expect("temporary folder");
    let mut attempt = 0;
    let batches = loop {
        let engine = setting.engine(spill.path(), attempt).expect("starts");
        let session = engine.session();
        for (name, file) in tables::all() {
            session.register_parquet(&name, file).expect("a good file");
        }
        match session.query(&sql).and_then(gristmill::Query::collect) {
            Ok(batches) => {
                let peak = engine.memory_peak();
                assert!(
                    peak <= setting.budget_bytes(),
                    "{query} under {}: {peak} bytes granted",
                    setting.name()
                );
                break batches;
            }
            Err(error) if setting.may_retry(&error, attempt) => attempt += 1,
            Err(error) => panic!("{query} under {}: {error}", setting.name()),
        }
    };
    let actual = rows::texts(&batches);
    assert_eq!(actual.len(), expected.len(), "{query} under {}: rows", setting.name());
    for (actual, expected) in actual.iter().zip(&expected) {
        let same = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| equal(a, e));
        assert!(same, "{query} under {}:\n  {actual:?}\n  {expected:?}", setting.name());
    }
}

#[test]
fn answers_are_the_same_under_every_setting() {
    for setting in Setting::selected() {
        for query in QUERIES {
            run(query, setting);
        }
    }
}
