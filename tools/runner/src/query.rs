//! `gristmill query`: statements in, rows out.
//!
//! Owns: where the SQL comes from, running statement after statement. Must not know: formats (see `output`).

use crate::engine::EngineArgs;
use crate::folder::{register_folders, warn_of_nested};
use crate::interrupt::Interrupt;
use crate::output::{Format, Output};
use crate::progress::QueryProgress;
use crate::usage::UsageError;
use anyhow::Context;
use clap::Args;
use gristmill::{SqlStatement, parse_duration};
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `gristmill query`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill query --data data/tpch-sf1 -c 'select count(*) from lineitem'
  gristmill query --data data/tpch-sf1 -f report.sql --format csv --output report.csv
  echo 'select 1' | gristmill query -")]
pub struct QueryArgs {
    /// Folder of tables: every NAME.parquet, and every folder NAME/ of Parquet files (repeatable)
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    source: SqlSource,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the rows to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Give up after this time, such as 500ms, 30s or 5m; a number alone is seconds
    #[arg(long, value_name = "TIME", value_parser = parse_duration, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Run each statement and print its plan with measured rows and times, as text, instead of its rows
    #[arg(long)]
    explain_analyze: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SqlSource {
    /// SQL to run; several statements are separated by semicolons
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    command: Option<String>,
    /// File of SQL to run
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read the SQL from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
}

/// What some editors put in front of UTF-8; it is no part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

impl SqlSource {
    fn read(&self, interrupt: &Interrupt) -> anyhow::Result<String> {
        let text = match (&self.command, &self.file) {
            (Some(sql), _) => return Ok(sql.clone()),
            (None, Some(file)) => fs::read_to_string(file)
                .with_context(|| format!("cannot read SQL file '{}'", file.display()))?,
            (None, None) => {
                let _waiting = interrupt.waiting()?;
                let mut sql = String::new();
                std::io::stdin().read_to_string(&mut sql).context("cannot read SQL from standard input")?;
                sql
            }
        };
        Ok(text.strip_prefix(BYTE_ORDER_MARK).map_or(text.clone(), str::to_owned))
    }
}

/// Runs the statements and prints those that return rows.
pub fn run(args: &QueryArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let sql = args.source.read(interrupt)?;
    let engine = args.engine.build()?;
    let session = engine.session();
    let statements = session.statements(&sql)?;
    if statements.is_empty() {
        return Err(UsageError::new("no statement: the SQL is empty, or nothing but comments").into());
    }
    if !args.explain_analyze {
        args.format.check_results(statements.iter().filter(|s| s.returns_rows()).count())?;
    }
    warn_of_nested(&args.data)?;
    register_folders(&session, &args.data)?;
    let mut output = Output::open(args.output.as_deref(), args.format, interrupt)?;
    let shares_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    for statement in statements {
        interrupt.check()?;
        let statement =
            if args.explain_analyze { SqlStatement::explain_analyze(statement) } else { statement };
        let mut query = session.query_statement(&statement)?;
        if let Some(timeout) = args.timeout {
            query = query.with_timeout(timeout);
        }
        let stream = query.stream()?;
        let _watch = interrupt.watch(stream.handle());
        let schema = stream.schema();
        let mut progress = QueryProgress::of("", stream.handle());
        // Rows and a bar on one terminal would be in each other's way.
        let stream = stream.inspect(|_| {
            if shares_terminal {
                progress.clear();
            }
        });
        if schema.fields().is_empty() {
            stream.collect::<Result<Vec<_>, _>>()?;
        } else if args.explain_analyze {
            output.write_lines(stream)?;
        } else {
            output.write_result(&schema, stream)?;
        }
    }
    output.commit()
}
