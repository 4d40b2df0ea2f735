//! Runs `tests/slt/*.slt` under every selected setting of the matrix. Expected rows come from DuckDB
//! (`tests/slt/generate.py`).
//!
//! A test is a file under a setting and is named so: `cargo test --test slt -- decimals::tiny`.

mod support;

use arrow::datatypes::DataType;
use gristmill::{Engine, Error, Session};
use sqllogictest::harness::{Arguments, Failed, Trial};
use sqllogictest::{DBOutput, DefaultColumnType, Runner};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::matrix::Setting;
use support::{rows, tables};
use tempfile::TempDir;

/// Longer is a hang, also on a slow machine under a debug build.
const TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    let arguments = Arguments::from_args();
    // Before the tests start, also for `--list`: the generator reads these tables too.
    tables::folder();
    let mut trials = Vec::new();
    for file in slt_files() {
        let stem = file.file_stem().and_then(|n| n.to_str()).expect("names are UTF-8").to_owned();
        for setting in Setting::selected() {
            let file = file.clone();
            trials.push(Trial::test(format!("{stem}::{}", setting.name()), move || run(&file, setting)));
        }
    }
    sqllogictest::harness::run(&arguments, trials).exit();
}

fn slt_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let entries = std::fs::read_dir(folder).expect("tests/slt is readable");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("tests/slt is readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .slt files");
    files
}

fn run(file: &Path, setting: Setting) -> Result<(), Failed> {
    let mut runner = Runner::new(|| async { Database::new(setting, 0) });
    runner.with_column_validator(sqllogictest::strict_column_validator);
    // All that is wrong in a file at once, not only the first.
    let records = sqllogictest::parse_file(file)?;
    let failures: Vec<String> =
        records.into_iter().filter_map(|record| runner.run(record).err()).map(|e| e.to_string()).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n\n").into()) }
}

/// What a test sees of an error: its kind, so that files do not depend on wording.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Parse(_) => "Parse",
            Error::Plan(_) => "Plan",
            Error::Unsupported(_) => "Unsupported",
            Error::Data(_) => "Data",
            Error::Memory(_) => "Memory",
            Error::SpillQuota { .. } => "SpillQuota",
            Error::Cancelled => "Cancelled",
            Error::Timeout { .. } => "Timeout",
            Error::Io { .. } => "Io",
            Error::Internal(_) => "Internal",
            _ => "Other",
        };
        Self(format!("{kind}: {error}"))
    }
}

struct Database {
    setting: Setting,
    attempt: u64,
    engine: Engine,
    session: Session,
    spill: TempDir,
    /// Statements that made or dropped views, for a session that takes the place of this one.
    definitions: Vec<String>,
}

impl Database {
    fn new(setting: Setting, attempt: u64) -> Result<Self, Failure> {
        let spill = tempfile::tempdir().map_err(|e| Failure(format!("no temporary folder: {e}")))?;
        let engine = setting.engine(spill.path(), attempt)?;
        let session = engine.session();
        for (name, file) in tables::all() {
            session.register_parquet(&name, file)?;
        }
        Ok(Self { setting, attempt, engine, session, spill, definitions: Vec::new() })
    }

    /// The same views in a new engine.
    fn again(&self, attempt: u64) -> Result<Self, Failure> {
        let mut new = Self::new(self.setting, attempt)?;
        for sql in &self.definitions {
            new.query(sql)?;
        }
        new.definitions.clone_from(&self.definitions);
        Ok(new)
    }

    /// What must hold after every query, however it ended.
    fn check_baseline(&self) -> Result<(), Failure> {
        let (peak, limit) = (self.engine.memory_peak(), self.setting.budget_bytes());
        if peak > limit {
            return Err(Failure(format!("{peak} bytes were granted of a budget of {limit}")));
        }
        let left = std::fs::read_dir(self.spill.path()).map_or(0, Iterator::count);
        if left > 0 {
            return Err(Failure(format!("{left} files stayed in the spill directory")));
        }
        Ok(())
    }

    fn query(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let stream = self.session.query(sql)?.with_timeout(TIMEOUT).stream()?;
        if stream.schema().fields().is_empty() {
            stream.collect::<Result<Vec<_>, _>>()?;
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = stream.schema().fields().iter().map(|f| column_type(f.data_type())).collect();
        let batches = stream.collect::<Result<Vec<_>, _>>()?;
        Ok(DBOutput::Rows { types, rows: rows::texts(&batches) })
    }
}

/// `I` whole numbers, `R` numbers with fractions, `T` strings, `?` the rest.
fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        DataType::Decimal128(_, 0) => DefaultColumnType::Integer,
        DataType::Decimal128(..) => DefaultColumnType::FloatingPoint,
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_floating() => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    }
}

impl sqllogictest::DB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        loop {
            let outcome = self.query(sql);
            self.check_baseline()?;
            match outcome {
                Err(error) if self.setting.may_retry(&error, self.attempt) => {
                    *self = self.again(self.attempt + 1)?;
                }
                Err(error) => return Err(error.into()),
                Ok(output) => {
                    if matches!(&output, DBOutput::StatementComplete(_)) {
                        self.definitions.push(sql.to_owned());
                    }
                    // The next statement has all its attempts again.
                    if self.attempt > 0 {
                        *self = self.again(0)?;
                    }
                    return Ok(output);
                }
            }
        }
    }

    fn engine_name(&self) -> &str {
        "gristmill"
    }
}
