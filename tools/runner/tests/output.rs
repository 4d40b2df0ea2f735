//! Where `gristmill` writes, and what is left when it is stopped.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::{answer, ended, gristmill, make_fifo, signal, text, until};

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable");
    entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect()
}

#[test]
fn pipes_and_open_files_are_written_to_and_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fifo, link) = (folder.path().join("fifo"), folder.path().join("link"));
    make_fifo(&fifo);
    symlink("/proc/self/fd/1", &link).expect("a link");
    let select = |path: &Path| {
        gristmill(&["query", "--format", "csv", "-c", "select 1 as a", "--output", text(path)])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts")
    };
    let mut child = select(&fifo);
    assert_eq!(fs::read_to_string(&fifo).expect("readable"), "a\n1\n");
    assert!(ended(&mut child).success());
    assert!(fs::metadata(&fifo).expect("there").file_type().is_fifo());

    let mut child = select(&link);
    let mut printed = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut printed).expect("UTF-8");
    assert_eq!(printed, "a\n1\n");
    assert!(ended(&mut child).success() && link.is_symlink());
    assert_eq!(names_in(folder.path()).len(), 2);
}

#[test]
fn a_second_signal_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    fs::create_dir(&data).expect("a folder");
    fs::create_dir(&out).expect("a folder");
    // A table that cannot be opened to the end of days.
    make_fifo(&data.join("t.parquet"));
    let output = out.join("rows.csv");
    let mut child = gristmill(&["query", "--data", text(&data), "--output", text(&output), "-c", "from t"])
        .spawn()
        .expect("the command starts");
    until("a temporary file appears", || !names_in(&out).is_empty());
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("it can be waited for").is_none(), "one signal asks");
    signal(child.id(), "INT");
    assert_eq!(ended(&mut child).code(), Some(130));
    assert_eq!(names_in(&out), Vec::<String>::new());
}

#[test]
fn a_signal_ends_what_waits_for_somebody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    for (arguments, name, code) in [
        (vec!["query", "-"], "INT", 130),
        (vec!["query", "-c", "select 1", "--output", text(&fifo)], "TERM", 143),
    ] {
        let mut child = gristmill(&arguments).stdin(Stdio::piped()).spawn().expect("the command starts");
        let state = || fs::read_to_string(format!("/proc/{0}/task/{0}/stat", child.id())).unwrap_or_default();
        // The handler is installed before the thread that waits for signals is named.
        let signals = || {
            let threads = fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
            threads
                .flatten()
                .any(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c == "signals\n"))
        };
        until("it waits", || signals() && state().contains(") S "));
        std::thread::sleep(Duration::from_millis(300));
        signal(child.id(), name);
        assert_eq!(ended(&mut child).code(), Some(code), "{arguments:?}");
    }
}

/// Starts a command whose output nobody reads.
fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = gristmill(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let status = ended(&mut child);
    let mut errors = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("UTF-8");
    (status.code(), errors)
}

#[test]
fn a_reader_that_goes_away_ends_every_command_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    answer(&["generate-parquet", "--sf", "0.01", "--output", text(&data)]);
    for arguments in [
        vec!["query", "--data", text(&data), "-c", "from lineitem", "--format", "csv"],
        vec!["query", "--data", text(&data), "-c", "from lineitem", "--format", "parquet"],
        vec!["query", "--data", text(&data), "-c", "from nation", "--format", "arrow"],
        vec!["tpch", "--sf", "0.01", "--data", text(&data), "--queries", "6"],
        vec!["tpch-plans", "--sf", "0.01", "--data", text(&data), "--query", "6"],
        vec!["benchmark-parquet", "--path", text(&data)],
    ] {
        assert_eq!(unread(&arguments), (Some(0), String::new()), "{arguments:?}");
    }
}

fn children(of: &Child) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", of.id());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|id| id.parse().expect("a number")).collect()
}

/// Whether a process does anything any more.
fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_process_of_a_query_ends_with_the_benchmark() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, queries) = (folder.path().join("data"), folder.path().join("queries"));
    answer(&["generate-parquet", "--sf", "0.01", "--tables", "supplier", "--output", text(&data)]);
    fs::create_dir(&queries).expect("a folder");
    // 10^12 rows.
    let long = "select max(a.s_suppkey + b.s_suppkey + c.s_suppkey + d.s_suppkey + e.s_suppkey + f.s_suppkey)
        from supplier a, supplier b, supplier c, supplier d, supplier e, supplier f";
    fs::write(queries.join("long.sql"), long).expect("a file");
    for name in ["INT", "TERM", "KILL"] {
        let mut parent =
            gristmill(&["benchmark-parquet", "--path", text(&data), "--queries", text(&queries)])
                .args(["--threads", "1", "--merge-joins", "never"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the command starts");
        until("the query's process starts", || !children(&parent).is_empty());
        let child = children(&parent)[0];
        std::thread::sleep(Duration::from_millis(300));
        assert!(is_alive(child));
        let arguments = fs::read(format!("/proc/{child}/cmdline")).expect("it runs");
        let arguments = String::from_utf8(arguments).expect("UTF-8");
        assert!(arguments.contains("--merge-joins\0never\0"), "{arguments}");
        signal(parent.id(), name);
        assert!(!ended(&mut parent).success());
        until("the query's process ends", || !is_alive(child));
    }
}
