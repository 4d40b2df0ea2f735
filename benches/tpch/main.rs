//! The queries of TPC-H, or others, in this engine and, with `--peers`, in others on the same files in the same run.
//!
//! Owns: the flags, the order of measurement, this engine's side of the protocol.
//!
//! Invariants:
//! 1. All engines are measured alike: for each query, in `--rounds` rounds, each engine in turn gets a fresh process, one
//!    run that does not count and `--runs` that do. So a machine that slows down for a while slows all of them down.
//! 2. A query that fails or takes too long in one engine is a mark in the table, and the others go on.

#[path = "../support/mod.rs"]
mod support;

mod comparison;
mod engine;
mod floor;
mod process;

use comparison::Comparison;
use engine::Engine;
use floor::Floor;
use gristmill::Session;
use process::{Answer, Outcome};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use support::options::{Arguments, Options};
use support::report::{Baseline, Measurement, Report};

/// Suppliers of TPC-H at scale factor 1 (TPC-H 4.2.5).
const SUPPLIERS: f64 = 10_000.0;
/// Query 11's fraction at scale factor 1, as it is written in the text (TPC-H 2.4.11.3).
const Q11_FRACTION: &str = "0.0001000000";
const QUERIES: usize = 22;
const RUNS: u32 = 3;
const ROUNDS: u32 = 3;
/// Has this program be the process of one query of ours, whose text it reads.
const QUERY_PROCESS: &str = "--query-process";
/// The same for the decode floor.
const FLOOR_PROCESS: &str = "--floor-process";

const USAGE: &str = "cargo bench --bench tpch -- [FLAGS]

  --path DIR            folder of the tables: NAME.parquet or folders NAME/ [default: data/tpch-sf1]
  --queries DIR         folder of queries, one NAME.sql each [default: those of TPC-H]
  --runs N              measured runs in a process, after one that does not count [default: 3]
  --rounds N            processes of each engine for a query, in turns [default: 3]
  --timeout SECONDS     longest time of a single run [default: 120]
  --peers [NAMES]       measure these too: duckdb,polars,datafusion [default: all three]
  --floor               measure beside them what merely decoding each query's columns takes
  --peers-venv DIR      Python environment that has them [default: one is made in the target folder]";

/// The flags only this benchmark has.
struct Flags {
    path: PathBuf,
    queries: Option<PathBuf>,
    rounds: u32,
    timeout: Duration,
    peers: Vec<Engine>,
    venv: Option<PathBuf>,
    has_floor: bool,
    is_query_process: bool,
    is_floor_process: bool,
}

fn main() -> ExitCode {
    support::exit(run())
}

fn run() -> Result<(), String> {
    let mut flags = Flags {
        path: PathBuf::from("data/tpch-sf1"),
        queries: None,
        rounds: ROUNDS,
        timeout: Duration::from_secs(120),
        peers: Vec::new(),
        venv: None,
        has_floor: false,
        is_query_process: false,
        is_floor_process: false,
    };
    let own = |flag: &str, arguments: &mut Arguments| {
        match flag {
            "--path" => flags.path = arguments.value(flag)?.into(),
            "--queries" => flags.queries = Some(arguments.value(flag)?.into()),
            "--rounds" => flags.rounds = arguments.number(flag)?,
            "--timeout" => flags.timeout = Duration::from_secs(arguments.number(flag)?),
            "--peers" => flags.peers = engine::peers(arguments.optional_value().as_deref())?,
            "--peers-venv" => flags.venv = Some(arguments.value(flag)?.into()),
            "--floor" => flags.has_floor = true,
            QUERY_PROCESS => flags.is_query_process = true,
            FLOOR_PROCESS => flags.is_floor_process = true,
            _ => return Ok(false),
        }
        Ok(true)
    };
    let Some(options) = Options::parse(Arguments::of_process(), RUNS, USAGE, own)? else { return Ok(()) };
    if flags.is_query_process {
        process::answer(options.runs, || {
            let session = options.engine()?.session();
            register(&session, &flags.path)?;
            Ok(move |sql: &str| support::run_once(&session, sql))
        });
        return Ok(());
    }
    if flags.is_floor_process {
        process::answer(options.runs, || {
            let floor = Floor::open(&flags.path, &tables(&flags.path)?, options.threads)?;
            Ok(move |sql: &str| floor.run(sql))
        });
        return Ok(());
    }
    measure(&options, &flags)
}

fn measure(options: &Options, flags: &Flags) -> Result<(), String> {
    support::warn_if_unoptimized();
    let queries = match &flags.queries {
        Some(folder) => queries_in(folder)?,
        None => tpch_queries(scale(options, &flags.path)?)?,
    };
    let python = match (&flags.peers[..], &flags.venv) {
        ([], _) => None,
        (peers, Some(venv)) => Some(engine::existing_venv(venv, peers)?),
        (_, None) => Some(engine::own_venv()?),
    };
    let mut engines = vec![Engine::Gristmill];
    engines.extend(&flags.peers);
    engines.extend(flags.has_floor.then_some(Engine::Floor));

    let mut report = Report::new("tpch", options, &flags.path.display().to_string());
    let baseline = Baseline::read(options.baseline.as_deref(), &report)?;
    let mut comparison = Comparison::new(engines.clone(), baseline);
    println!("{}", comparison.heading());
    for (name, sql) in queries.iter().filter(|(name, _)| options.selects(name)) {
        let mut measurements: Vec<_> =
            engines.iter().map(|engine| Measurement::new(name, engine.name())).collect();
        for _ in 0..flags.rounds {
            for (engine, measurement) in engines.iter().zip(&mut measurements) {
                if measurement.error.is_some() {
                    continue;
                }
                let command = command_of(*engine, python.as_deref())?;
                let outcome = one_process(command, sql, options, flags)?;
                if let Some(version) = &outcome.version {
                    report.versions.insert(engine.name(), version.clone());
                }
                add(measurement, outcome);
            }
        }
        measurements.iter().for_each(|measurement| report.push(measurement));
        println!("{}", comparison.add(measurements));
    }
    println!("{}", comparison.footer());
    println!("\n{}", conditions(options, flags, &report));
    report.write(options.json.as_deref())?;
    if comparison.failures().is_empty() {
        Ok(())
    } else {
        Err(format!("queries failed: {}", comparison.failures().join(", ")))
    }
}

/// What the figures depend on.
fn conditions(options: &Options, flags: &Flags, report: &Report) -> String {
    let limit =
        options.memory_limit.map_or_else(|| String::from("the engine's own"), |bytes| bytes.to_string());
    let versions = report.versions.iter().map(|(engine, version)| format!("{engine} {version}"));
    format!(
        "Seconds are best / median of {} warm runs (processes: {}, runs in each: {}). Threads: {}. Bytes of memory limit: \
         {limit}. Data: {}. Engines: {}.",
        flags.rounds * options.runs,
        flags.rounds,
        options.runs,
        options.threads,
        flags.path.display(),
        versions.collect::<Vec<_>>().join(", ")
    )
}

/// The program that answers a query in an engine.
fn command_of(engine: Engine, python: Option<&Path>) -> Result<Command, String> {
    match engine {
        Engine::Gristmill | Engine::Floor => {
            let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
            let mut command = Command::new(program);
            command.arg(if engine == Engine::Floor { FLOOR_PROCESS } else { QUERY_PROCESS });
            Ok(command)
        }
        Engine::DuckDb | Engine::Polars | Engine::DataFusion => {
            Ok(engine::driver(python.expect("with peers an environment is set up"), engine))
        }
    }
}

/// Runs a query in a process of its own, which spills into a folder of its own.
fn one_process(mut command: Command, sql: &str, options: &Options, flags: &Flags) -> Result<Outcome, String> {
    let spill_root = options.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
    let spill_dir = tempfile::tempdir_in(&spill_root)
        .map_err(|e| format!("cannot make a folder in '{}': {e}", spill_root.display()))?;
    command.arg("--path").arg(&flags.path).arg("--spill-dir").arg(spill_dir.path());
    command.args(["--runs", &options.runs.to_string(), "--threads", &options.threads.to_string()]);
    if let Some(bytes) = options.memory_limit {
        command.args(["--memory-limit", &bytes.to_string()]);
    }
    Ok(process::ask(command, sql, options.runs, flags.timeout))
}

/// Adds what a process measured.
fn add(measurement: &mut Measurement, outcome: Outcome) {
    measurement.peak_anonymous_bytes = measurement.peak_anonymous_bytes.max(outcome.peak_anonymous_bytes);
    measurement.rest_anonymous_bytes = measurement.rest_anonymous_bytes.max(outcome.rest_anonymous_bytes);
    for Answer { seconds, rows, peak_granted_bytes, spilled_bytes } in outcome.answers {
        measurement.seconds.push(seconds);
        measurement.rows = Some(rows);
        measurement.peak_granted_bytes = measurement.peak_granted_bytes.max(peak_granted_bytes);
        measurement.spilled_bytes = measurement.spilled_bytes.max(spilled_bytes);
    }
    measurement.error = outcome.error;
}

fn register(session: &Session, folder: &Path) -> Result<(), String> {
    for table in tables(folder)? {
        let one_file = folder.join(format!("{table}.parquet"));
        let path = if one_file.exists() { one_file } else { folder.join(&table) };
        session.register_parquet(&table, &path).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Names of the tables of a folder: files NAME.parquet and folders NAME/.
fn tables(folder: &Path) -> Result<Vec<String>, String> {
    let make =
        "make tables with `gristmill generate-parquet --sf 1 --output DIR`, name their folder with --path";
    let wrong = |e: &dyn Display| format!("cannot list '{}': {e}\n{make}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| wrong(&e))? {
        let path = entry.map_err(|e| wrong(&e))?.path();
        let is_table = path.is_dir() || path.extension().is_some_and(|extension| extension == "parquet");
        names.extend(path.file_stem().filter(|_| is_table).map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    if names.is_empty() { Err(wrong(&"it has no tables")) } else { Ok(names) }
}

/// The scale factor of the tables.
fn scale(options: &Options, folder: &Path) -> Result<f64, String> {
    let session = options.engine()?.session();
    register(&session, folder)?;
    Ok(support::run_once(&session, "select s_suppkey from supplier")?.rows as f64 / SUPPLIERS)
}

/// The texts of a folder, by name.
fn queries_in(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let wrong = |e: &dyn Display| format!("cannot read the queries in '{}': {e}", folder.display());
    let mut queries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| wrong(&e))? {
        let path = entry.map_err(|e| wrong(&e))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let sql = fs::read_to_string(&path).map_err(|e| wrong(&e))?;
            queries.extend(path.file_stem().map(|name| (name.to_string_lossy().into_owned(), sql)));
        }
    }
    queries.sort();
    if queries.is_empty() { Err(wrong(&"there are none")) } else { Ok(queries) }
}

/// The texts the command line ships, by name.
fn tpch_queries(scale: f64) -> Result<Vec<(String, String)>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/runner/tpch/queries");
    let fraction = format!("{:.10}", 0.0001 / scale);
    let text = |number: usize| {
        let name = format!("q{number:02}");
        let path = folder.join(&name).with_extension("sql");
        let sql = fs::read_to_string(&path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?;
        Ok((name, sql.replace(Q11_FRACTION, &fraction)))
    };
    (1..=QUERIES).map(text).collect()
}
