//! `gristmill query`: statements in, rows out.
//!
//! Owns: where the SQL comes from, running statement after statement. Must not know: formats (see `output`).

use crate::engine::{EngineArgs, parse_duration, register_folder};
use crate::interrupt::Interrupt;
use crate::output::{Format, Output};
use crate::progress::QueryProgress;
use anyhow::Context;
use clap::Args;
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
    /// Give up after this time, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
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

impl SqlSource {
    fn read(&self) -> anyhow::Result<String> {
        match (&self.command, &self.file) {
            (Some(sql), _) => Ok(sql.clone()),
            (None, Some(file)) => {
                fs::read_to_string(file).with_context(|| format!("cannot read SQL file '{}'", file.display()))
            }
            (None, None) => {
                let mut sql = String::new();
                std::io::stdin().read_to_string(&mut sql).context("cannot read SQL from standard input")?;
                Ok(sql)
            }
        }
    }
}

/// Runs the statements and prints those that return rows.
pub fn run(args: &QueryArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let sql = args.source.read()?;
    let engine = args.engine.build()?;
    let session = engine.session();
    for dir in &args.data {
        register_folder(&session, dir)?;
    }
    let mut output = Output::open(args.output.as_deref(), args.format)?;
    let shares_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    for statement in session.statements(&sql)? {
        interrupt.check()?;
        let text = if args.explain_analyze { format!("EXPLAIN ANALYZE {statement}") } else { statement };
        let mut query = session.query(&text)?;
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
