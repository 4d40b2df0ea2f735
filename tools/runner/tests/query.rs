//! `gristmill query` from the outside: what it reads, what it refuses, what its messages point at.

mod support;

use arrow::array::{Int64Array, TimestampMicrosecondArray};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use support::{answer, failure, gristmill, run, text, write_parquet};

#[test]
fn places_in_errors_count_in_the_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.sql");
    fs::write(&file, "select 1;\n\n  select nothing;\n").expect("a file");
    let (code, message) = failure(&["query", "-f", text(&file)]);
    assert_eq!(code, 1);
    assert!(message.contains("line 3, column 10") && message.contains("    select nothing"), "{message}");
    let (_, message) = failure(&["query", "--explain-analyze", "-c", "select 1; select nothing"]);
    assert!(message.contains("line 1, column 18"), "{message}");
}

#[test]
fn texts_without_statements_are_refused_and_byte_order_marks_are_not() {
    for sql in ["", " ;\n", "-- nothing"] {
        let (code, message) = failure(&["query", "-c", sql]);
        assert!(code == 2 && message.contains("no statement"), "{message}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.sql");
    fs::write(&file, "\u{feff}select 1 as one").expect("a file");
    assert_eq!(answer(&["query", "--format", "csv", "-f", text(&file)]), "one\n1\n");
    let mut child = gristmill(&["query", "--format", "csv", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    child.stdin.take().expect("piped").write_all("\u{feff}select 2 as two".as_bytes()).expect("it reads");
    assert_eq!(child.wait_with_output().expect("it ends").stdout, b"two\n2\n");
}

#[test]
fn wrong_arguments_have_an_exit_code_of_their_own() {
    for (flags, named) in [
        (["--memory-limit", "abc"], "'256MB' (10^6) or '64MiB' (2^20)"),
        (["--threads", "0"], "at least 1"),
        (["--threads", "100000"], "at most 1024"),
        (["--timeout", "soon"], "'500ms', '30s'"),
        (["--disabled-optimizers", "x"], "'x' is no rule"),
    ] {
        let (code, message) = failure(&[&["query", "-c", "select 1"], &flags[..]].concat());
        assert!(code == 2 && message.contains(named), "{flags:?}, {code}: {message}");
    }
}

#[test]
fn a_document_holds_one_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out");
    for format in ["json", "arrow", "parquet"] {
        for (sql, named) in [
            ("set timeout = '1m'", "no statement returns rows"),
            ("select 1; create view v as select 2; select * from v", "2 statements return rows"),
        ] {
            let (code, message) =
                failure(&["query", "--format", format, "--output", text(&output), "-c", sql]);
            assert!(code == 2 && message.contains(named) && message.contains(format), "{message}");
            assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "no file is left");
        }
    }
    let sql = "create view v as select 2 as two; select * from v";
    assert_eq!(answer(&["query", "--format", "json", "-c", sql]), "[{\"two\":2}]\n");
    assert_eq!(
        answer(&["query", "--format", "ndjson", "-c", "select 1 as a; select 2 as a"]),
        "{\"a\":1}\n{\"a\":2}\n"
    );
}

#[test]
fn times_with_named_zones_are_printed_in_their_zone() {
    let folder = tempfile::tempdir().expect("a folder");
    let times = TimestampMicrosecondArray::from(vec![Some(0), None]).with_timezone("Europe/Berlin");
    write_parquet(&folder.path().join("t.parquet"), vec![("at", Arc::new(times))]);
    for format in ["table", "csv", "tsv", "json", "ndjson"] {
        let rows = answer(&["query", "--data", text(folder.path()), "--format", format, "-c", "from t"]);
        assert!(rows.contains("1970-01-01T01:00:00+01:00"), "{format}: {rows}");
    }
}

#[test]
fn intervals_and_wide_integers_become_parquet() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("t.parquet");
    let write = |sql| ["query", "--format", "parquet", "--output", text(&output), "-c", sql];
    answer(&write("select interval '3' day as i, 7::hugeint as h"));
    let rows = answer(&["query", "--data", text(folder.path()), "--format", "csv", "-c", "from t"]);
    assert_eq!(rows, "i,h\n3 days,7\n");
    let (code, message) = failure(&write("select 100000000000000000000000000000000000000::hugeint as h"));
    assert!(code == 1 && message.contains("column 'h'") && message.contains("38 digits"), "{message}");
}

#[test]
fn tables_are_those_whose_names_say_so_and_open_when_they_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let rows = |n: i64| vec![("n", Arc::new(Int64Array::from(vec![n])) as _)];
    write_parquet(&first.join("one.PARQUET"), rows(1));
    write_parquet(&first.join("parts/a.parquet"), rows(2));
    write_parquet(&first.join("parts/B.PARQUET"), rows(4));
    write_parquet(&first.join("parts/.hidden.parquet"), rows(8));
    write_parquet(&first.join("parts/_temporary.parquet"), rows(16));
    write_parquet(&first.join("hive/year=2020/a.parquet"), rows(32));
    fs::write(first.join("broken.parquet"), "not Parquet").expect("a file");
    let data = ["query", "--format", "csv", "--data", text(&first)];
    let output =
        run(&[&data[..], &["-c", "select sum(n) as s from (from one union all from parts)"]].concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "s\n7\n");
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.lines().count() == 1 && warnings.contains("hive' is not a table"), "{warnings}");
    let (code, message) = failure(&[&data[..], &["-c", "from broken"]].concat());
    assert!(code == 1 && message.contains("broken.parquet"), "{message}");
    let (_, message) = failure(&[&data[..], &["-c", "from prats"]].concat());
    assert!(message.contains("parts"), "a suggestion: {message}");

    write_parquet(&second.join("ONE.parquet"), rows(64));
    let (_, message) = failure(&[&data[..], &["--data", text(&second), "-c", "select 1"]].concat());
    assert!(
        message.contains("first/one.PARQUET' and '") && message.contains("second/ONE.parquet' both"),
        "{message}"
    );
}
