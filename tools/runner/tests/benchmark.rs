//! `gristmill benchmark-parquet` from the outside: its JSON, and that a failing query does not end the others.

use serde_json::Value;
use std::fs;
use std::process::Command;

#[test]
fn every_query_has_its_process_and_its_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, queries) = (folder.path().join("data"), folder.path().join("queries"));
    let (spill, json) = (folder.path().join("spill"), folder.path().join("figures.json"));
    let made = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["generate-parquet", "--sf", "0.01", "--tables", "lineitem,supplier", "--output"])
        .arg(&data)
        .status();
    assert!(made.expect("the command starts").success());
    fs::create_dir(&queries).expect("a folder");
    fs::create_dir(&spill).expect("a folder");
    for (name, sql) in [
        ("a_count", "select count(*) from lineitem"),
        ("b_wrong", "select no_such_column from lineitem"),
        ("c_sort", "select * from lineitem order by l_comment, l_orderkey"),
    ] {
        fs::write(queries.join(name).with_extension("sql"), sql).expect("a file");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["benchmark-parquet", "--runs", "2", "--memory-limit", "12MB", "--threads", "1", "--path"])
        .arg(&data)
        .arg("--queries")
        .arg(&queries)
        .arg("--spill-dir")
        .arg(&spill)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("1 queries failed: b_wrong"), "{errors}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(&json).expect("written")).expect("valid JSON");
    assert_eq!((&report["engine"], &report["threads"]), (&"gristmill".into(), &1.into()));
    assert_eq!(report["memory_limit"], 12_000_000);
    let queries = report["queries"].as_array().expect("a list");
    let names: Vec<_> = queries.iter().map(|query| query["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["a_count", "b_wrong", "c_sort"]);
    assert!(queries[1]["error"].as_str().is_some_and(|error| error.contains("no_such_column")));
    for (query, rows) in [(&queries[0], 1), (&queries[2], 60_175)] {
        assert_eq!(query["error"], Value::Null);
        assert_eq!(query["rows"], rows);
        assert_eq!(query["seconds"].as_array().map(Vec::len), Some(2));
        let granted = query["peak_granted_bytes"].as_u64().expect("a number");
        assert!(granted > 0 && granted <= 12_000_000, "{granted}");
        if cfg!(target_os = "linux") {
            assert!(query["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
        }
    }
    assert!(queries[2]["spilled_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "a sort of 8 MB in 12");
    assert_eq!(fs::read_dir(&spill).expect("readable").count(), 0);
}
