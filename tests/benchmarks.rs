//! The sums, tables and processes of the benchmarks in `benches/`, whose binaries have no test harness.

#![allow(dead_code, reason = "the benchmarks use the rest")]

#[path = "../benches/tpch/comparison.rs"]
mod comparison;
#[path = "../benches/tpch/engine.rs"]
mod engine;
#[path = "../benches/tpch/floor.rs"]
mod floor;
#[path = "../benches/tpch/process.rs"]
mod process;
#[path = "../benches/support/mod.rs"]
mod support;

use comparison::Comparison;
use engine::Engine;
use floor::Floor;
use gristmill::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use process::{Answer, Outcome};
use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::figures::Spread;
use support::options::{Arguments, Options};
use support::report::{Baseline, Measurement, OURS, Report};
use support::table::{Table, mebibytes};

fn near(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 2e-4
}

#[test]
fn quantiles_are_those_of_the_runs() {
    let spread = Spread::of(&[5.0, 0.001, 3.0, 1.0, 2.0]).expect("runs");
    assert!(spread.best == 0.001, "the best is exact");
    assert!(near(spread.p25, 1.0) && near(spread.median, 2.0) && near(spread.p75, 3.0), "{spread:?}");
    assert_eq!(Spread::of(&[]), None);
}

#[test]
fn long_and_short_runs_are_told_apart() {
    let spread = Spread::of(&[3600.0]).expect("a run");
    assert!(near(spread.median, 3600.0), "{spread:?}");
    let spread = Spread::of(&[0.000_02]).expect("a run");
    assert!(near(spread.median, 0.000_02), "{spread:?}");
}

#[test]
fn a_change_is_one_beyond_the_noise() {
    let quiet = |median: f64| Spread { best: median, p25: median, median, p75: median };
    let noisy = |median: f64| Spread { best: 0.1, p25: median * 0.5, median, p75: median * 2.0 };
    assert_eq!(quiet(2.0).change_since(&quiet(1.0)), "2.00x SLOWER");
    assert_eq!(quiet(0.5).change_since(&quiet(1.0)), "0.50x faster");
    assert_eq!(quiet(1.04).change_since(&quiet(1.0)), "1.04x");
    assert_eq!(noisy(1.5).change_since(&noisy(1.0)), "1.50x");
}

#[test]
fn lines_are_aligned_and_wide_cells_are_whole() {
    let table = Table::new([("query", 6), ("s", 5)]);
    assert_eq!(table.heading(), "| query  |     s |\n| ------ | ----: |");
    assert_eq!(table.line(&["q01".into(), "1.5".into()]), "| q01    |   1.5 |");
    assert_eq!(table.line(&["q01".into()]), "| q01    |       |");
    assert_eq!(table.line(&["a | b".into(), "1234567".into()]), "| a \\| b | 1234567 |");
    assert_eq!(mebibytes(3 << 20), "3");
}

fn parse(arguments: &[&str]) -> Result<(Options, Vec<String>), String> {
    let mut seen = Vec::new();
    let own = |flag: &str, arguments: &mut Arguments| {
        seen.push(format!("{flag}={:?}", arguments.optional_value()));
        Ok(flag == "--own")
    };
    let options = Options::parse(Arguments::of(arguments.iter().copied()), 7, "", own)?;
    Ok((options.expect("no help asked for"), seen))
}

#[test]
fn flags_are_read() {
    let (options, own) =
        parse(&["--own", "--only", "q1,q07", "--memory-limit", "64MiB", "--own", "x"]).expect("legal");
    assert_eq!((options.runs, options.memory_limit), (7, Some(64 << 20)));
    assert!(options.selects("q11") && options.selects("q07") && !options.selects("q02"));
    assert_eq!(own, ["--own=None", "--own=Some(\"x\")"]);
    assert!(parse(&[]).expect("legal").0.selects("all"));
}

#[test]
fn what_is_wrong_is_named() {
    for (arguments, named) in [
        (["--runs", "0"], "'0'"),
        (["--threads", "two"], "'two'"),
        (["--memory-limit", "9 parsecs"], "'9 parsecs'"),
        (["--runs", "--only"], "--runs lacks"),
        (["--other", "x"], "'--other'"),
    ] {
        let Err(error) = parse(&arguments) else { panic!("{arguments:?} is legal") };
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn sizes_have_units() {
    let size = |text| parse(&["--memory-limit", text]).ok().and_then(|(options, _)| options.memory_limit);
    assert_eq!(size("1000"), Some(1000));
    assert_eq!(size("256MB"), Some(256_000_000));
    assert_eq!(size("2gib"), Some(2 << 30));
    assert_eq!((size("MB"), size("-1"), size("99999999999999999999")), (None, None, None));
}

fn report(benchmark: &'static str) -> Report {
    Report::new(benchmark, &parse(&[]).expect("legal").0, "some data")
}

#[test]
fn a_report_is_the_baseline_of_the_next() {
    let measured =
        |engine, seconds| Measurement { seconds: vec![seconds; 3], ..Measurement::new("q01", engine) };
    let failed = Measurement { error: Some("no".into()), ..Measurement::new("q02", OURS) };
    let mut before = report("b");
    for measurement in [measured("peer", 9.0), measured(OURS, 2.0), failed.clone()] {
        before.push(&measurement);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("before.json");
    before.write(Some(&path)).expect("written");
    let baseline = Baseline::read(Some(&path), &report("b")).expect("readable").expect("asked for");
    assert_eq!(baseline.change(&measured(OURS, 1.0)), "0.50x faster");
    assert_eq!(baseline.change(&failed), "");
    let other = Measurement { statement: "q03".into(), ..measured(OURS, 1.0) };
    assert_eq!(baseline.change(&other), "");
    assert!(Baseline::read(Some(&path), &report("c")).is_err());
    assert!(Baseline::read(None, &report("b")).expect("nothing to read").is_none());
}

#[test]
fn peers_are_named() {
    assert_eq!(engine::peers(None), Ok(Engine::PEERS.to_vec()));
    assert_eq!(engine::peers(Some("polars,duckdb")), Ok(vec![Engine::Polars, Engine::DuckDb]));
    assert!(engine::peers(Some("gristmill")).is_err(), "it is no peer of its own");
}

#[test]
fn every_peer_is_pinned_and_driven() {
    let requirements = fs::read_to_string(engine::requirements()).expect("readable");
    let driver = fs::read_to_string(engine::driver_path()).expect("readable");
    for peer in Engine::PEERS {
        assert!(requirements.lines().any(|line| line.starts_with(&format!("{}==", peer.name()))));
        assert!(driver.contains(&format!("def open_{}(", peer.name())));
    }
}

#[test]
fn a_missing_environment_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = engine::existing_venv(folder.path(), &[Engine::Polars]).expect_err("nothing there");
    assert!(error.contains("pip install -r") && error.contains("bin/python"), "{error}");
}

fn ask_shell(script: &str, timeout: Duration) -> Outcome {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    process::ask(command, "select 1", 2, timeout)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_first_run_does_not_count() {
    let script = r#"echo '{"ready": "1.0"}'; test "$(cat)" = "select 1" || exit 1; echo noise
        echo '{"seconds": 9, "rows": 4}'; echo '{"seconds": 1, "rows": 4}'
        echo '{"seconds": 2, "rows": 4, "spilled_bytes": 7}'; exec sleep 60"#;
    let outcome = ask_shell(script, LONG);
    assert_eq!((outcome.error, outcome.version), (None, Some("1.0".into())));
    let run = |seconds, spilled_bytes| Answer { seconds, rows: 4, peak_granted_bytes: None, spilled_bytes };
    assert_eq!(outcome.answers, [run(1.0, None), run(2.0, Some(7))]);
    if cfg!(target_os = "linux") {
        assert!(outcome.rest_anonymous_bytes > Some(0));
        assert!(outcome.peak_anonymous_bytes > Some(0));
    }
}

#[test]
fn failures_are_told() {
    let error = |script| ask_shell(script, LONG).error.expect("it fails");
    assert_eq!(error(r#"echo '{"error": "no such table"}'; exec sleep 60"#), "no such table");
    let crash = error("echo '{\"ready\": \"1.0\"}'; echo one >&2; echo out of memory >&2; exit 3");
    assert!(crash.contains("exit status: 3") && crash.ends_with("; out of memory"), "{crash}");
    let missing = process::ask(Command::new("/no/such/program"), "", 1, LONG);
    assert!(missing.error.is_some_and(|e| e.contains("/no/such/program")));
}

#[test]
fn one_that_takes_too_long_is_ended() {
    let started = Instant::now();
    let script = r#"echo '{"ready": "1.0"}'; exec sleep 60"#;
    let error = ask_shell(script, Duration::from_millis(200)).error.expect("it takes too long");
    assert!(error.starts_with("timeout") && started.elapsed() < Duration::from_secs(30), "{error}");
}

fn measured(statement: &str, engine: Engine, seconds: &[f64], rows: u64) -> Measurement {
    Measurement {
        seconds: seconds.to_vec(),
        rows: Some(rows),
        peak_anonymous_bytes: Some(64 << 20),
        rest_anonymous_bytes: Some(16 << 20),
        ..Measurement::new(statement, engine.name())
    }
}

fn failed(statement: &str, engine: Engine, error: &str) -> Measurement {
    Measurement { error: Some(error.into()), ..Measurement::new(statement, engine.name()) }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn means_are_over_what_all_answered() {
    use Engine::{DuckDb, Gristmill, Polars};
    let mut comparison = Comparison::new(vec![Gristmill, DuckDb, Polars], None);
    let heading = comparison.heading();
    assert_eq!(
        cells(heading.lines().next().expect("a line")),
        [
            "query",
            "Gristmill s",
            "DuckDB s",
            "Polars s",
            "ratio to best peer",
            "Gristmill MiB",
            "DuckDB MiB",
            "Polars MiB"
        ]
    );
    let line = comparison.add(vec![
        measured("q01", Gristmill, &[1.0, 3.0, 2.0], 4),
        measured("q01", DuckDb, &[2.0], 4),
        measured("q01", Polars, &[8.0], 4),
    ]);
    assert_eq!(
        cells(&line),
        ["q01", "1.000 / 2.000", "2.000 / 2.000", "8.000 / 8.000", "0.50", "64", "64", "64"]
    );
    // The fastest answer is another one.
    let line = comparison.add(vec![
        measured("q02", Gristmill, &[1.0], 4),
        measured("q02", DuckDb, &[0.1], 5),
        measured("q02", Polars, &[4.0], 4),
    ]);
    assert_eq!(cells(&line)[2..5], ["0.100 / 0.100 ≠", "4.000 / 4.000", "0.25"]);
    let line = comparison.add(vec![
        measured("q03", Gristmill, &[4.0], 4),
        measured("q03", DuckDb, &[1.0], 4),
        measured("q03", Polars, &[2.0], 4),
    ]);
    assert_eq!(cells(&line)[4], "4.00");
    let line = comparison.add(vec![
        measured("q04", Gristmill, &[1.0], 4),
        failed("q04", DuckDb, "timeout: no answer"),
        failed("q04", Polars, "no memory\nfor this"),
    ]);
    assert_eq!(cells(&line)[2..6], ["timeout", "error", "", "64"]);
    assert!(comparison.failures().is_empty());

    let footer = comparison.footer();
    let lines: Vec<&str> = footer.lines().collect();
    // Of q01 and q03: 1 and 4, 2 and 1, 8 and 2.
    let mean = cells(lines[0]);
    assert!(mean[1].starts_with("2.000 /") && mean[2].starts_with("1.414 /"), "{mean:?}");
    assert!(mean[3].starts_with("4.000 /") && mean[4].is_empty(), "{mean:?}");
    let total = cells(lines[1]);
    assert!(total[1].starts_with("5.000 /") && total[3].starts_with("10.000 /"), "{total:?}");
    assert_eq!(cells(lines[2])[5..], ["16", "16", "16"]);
    // By DuckDB 1/2 and 4, by Polars 1/8, 1/4 and 2, by the fastest 1/2, 1/4 and 4.
    assert_eq!(cells(lines[3])[1..5], ["", "1.41 (2 of 4)", "0.40 (3 of 4)", "0.79"]);
    assert_eq!(cells(lines[4])[..4], ["answered", "4 of 4", "2 of 4", "3 of 4"]);
    assert!(footer.contains("over the 2 of 4 queries") && footer.contains("below 1 in 2 of 3"), "{footer}");
    assert!(footer.contains("- q02 DuckDB: ≠ 5 rows, Gristmill has 4"), "{footer}");
    assert!(footer.ends_with("- q04 DuckDB: timeout: no answer\n- q04 Polars: no memory"), "{footer}");
}

#[test]
fn an_engine_without_answers_empties_nothing() {
    use Engine::{DataFusion, Gristmill};
    let mut comparison = Comparison::new(vec![Gristmill, DataFusion], None);
    comparison.add(vec![measured("q01", Gristmill, &[1.0], 4), failed("q01", DataFusion, "no")]);
    let footer = comparison.footer();
    assert_eq!(cells(footer.lines().next().expect("a line"))[1..4], ["1.000 / 1.000", "-", ""]);
    comparison.add(vec![failed("q02", Gristmill, "no"), failed("q02", DataFusion, "no")]);
    assert_eq!(comparison.failures(), ["q02"]);
}

#[test]
fn alone_there_is_no_ratio() {
    let mut comparison = Comparison::new(vec![Engine::Gristmill], None);
    let line = comparison.add(vec![measured("q01", Engine::Gristmill, &[1.0], 4)]);
    assert_eq!(cells(&line), ["q01", "1.000 / 1.000", "64"]);
    assert!(!comparison.footer().contains("peer"));
}

#[test]
fn the_floor_is_nobodys_peer() {
    use Engine::{DuckDb, Floor, Gristmill};
    let mut comparison = Comparison::new(vec![Gristmill, DuckDb, Floor], None);
    let line = comparison.add(vec![
        measured("q01", Gristmill, &[1.0], 4),
        measured("q01", DuckDb, &[2.0], 4),
        measured("q01", Floor, &[0.5], 6000),
    ]);
    assert_eq!(cells(&line)[1..5], ["1.000 / 1.000", "2.000 / 2.000", "0.500 / 0.500", "0.50"]);
    assert!(!comparison.footer().contains('≠'));
}

#[test]
fn the_floor_decodes_the_columns_a_text_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, rows: i64| {
        let column =
            |by: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * by))) };
        let batch = RecordBatch::try_from_iter([("a", column(1)), ("b", column(2))]).expect("two columns");
        let file = File::create(folder.path().join(name)).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    };
    write("t.parquet", 10_000);
    fs::create_dir(folder.path().join("u")).expect("a folder");
    write("u/0.parquet", 5);
    write("u/1.parquet", 6);
    let floor = Floor::open(folder.path(), &["t".into(), "u".into()], 2).expect("two tables");
    let rows = |sql| floor.run(sql).expect("readable").rows;
    assert_eq!(rows("select sum(a) from t where b>3"), 10_000);
    assert_eq!((rows("select b from u"), rows("select b from u, t"), rows("select 1")), (11, 10_011, 0));
    assert!(Floor::open(folder.path(), &["v".into()], 2).is_err_and(|e| e.contains("/v'")));
}
