//! What the process really holds: anonymous resident memory, sampled from outside, against the limit the engine was
//! given. The promise is limit × 1.25 above what `select 1` takes with the same threads and tables.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT_BYTES: usize = 10_000_000;

/// Runs `sql` and returns the most anonymous memory that was seen, and what it printed.
fn peak_of(data: &Path, spill: &Path, threads: usize, sql: &str) -> (usize, String) {
    let output = spill.join("rows.csv");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["query", "--format", "csv", "--memory-limit", "10MB", "--data"])
        .arg(data)
        .arg("--spill-dir")
        .arg(spill)
        .arg("--output")
        .arg(&output)
        .args(["--threads", &threads.to_string(), "-c", sql])
        .stdout(Stdio::null())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    let exit = loop {
        if let Ok(text) = std::fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("RssAnon:"))
            && let Some(kib) = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok())
        {
            peak_bytes = peak_bytes.max(kib << 10);
        }
        if let Some(exit) = child.try_wait().expect("the command can be waited for") {
            break exit;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(exit.success(), "{sql}");
    (peak_bytes, std::fs::read_to_string(&output).expect("it wrote its rows"))
}

#[test]
fn anonymous_memory_stays_within_the_limit_and_a_quarter() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, spill) = (folder.path().join("data"), folder.path().join("spill"));
    std::fs::create_dir(&spill).expect("a folder");
    let made = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["generate-parquet", "--sf", "0.1", "--tables", "lineitem", "--output"])
        .arg(&data)
        .status();
    assert!(made.expect("the command starts").success());
    let queries = [
        (
            "select count(*), sum(q) from (select l_orderkey, sum(l_quantity) as q from lineitem group by l_orderkey)",
            "150000,",
        ),
        ("select count(*) from (select l_comment, l_extendedprice from lineitem group by all)", ""),
        (
            "select l_returnflag, sum(l_extendedprice * (1 - l_discount)) from lineitem group by 1 order by 1",
            "",
        ),
    ];
    for threads in [1, 2, 8] {
        let (idle_bytes, _) = peak_of(&data, &spill, threads, "select 1");
        for (sql, expected) in queries {
            let (peak_bytes, rows) = peak_of(&data, &spill, threads, sql);
            assert!(rows.contains(expected), "{sql}: {rows}");
            let most_bytes = idle_bytes + LIMIT_BYTES * 5 / 4;
            eprintln!("{threads} threads: idle {idle_bytes}, peak {peak_bytes}, allowed {most_bytes}: {sql}");
            assert!(
                peak_bytes <= most_bytes,
                "{sql} with {threads} threads: {peak_bytes} bytes resident, {most_bytes} allowed"
            );
        }
    }
}
