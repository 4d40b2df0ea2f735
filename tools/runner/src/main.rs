//! The `gristmill` command: SQL over Parquet files, and TPC-H from data to checked answers.
//!
//! Owns: the command line, exit codes and the one message an error ends in.
//!
//! Invariants:
//! 1. An error is one message on stderr and exit code 1, or 2 if the arguments are wrong; results go to stdout (or
//!    `--output`) and nothing else does.
//! 2. A file or folder the command makes appears whole or not at all: it is written under a temporary name and
//!    renamed.
//! 3. Ctrl-C (or SIGTERM) cancels what runs; a second one ends the process at once.
//! 4. A reader of stdout that goes away ends the command quietly.
//!
//! Must not know: anything of the engine but its public interface.

#![deny(clippy::print_stdout)] // `print` says why.

mod benchmark;
mod engine;
mod folder;
mod generate;
mod interrupt;
mod output;
mod print;
mod progress;
mod query;
mod tpch;
mod usage;

use clap::{Parser, Subcommand};
use interrupt::Interrupt;
use std::io;
use std::process::ExitCode;
use usage::UsageError;

/// Exit code of arguments that cannot be followed: the one the parser of the command line has for what it refuses.
const EXIT_USAGE: u8 = 2;

/// SQL over Parquet files, inside the memory you give it.
#[derive(Debug, Parser)]
#[command(
    name = "gristmill",
    version,
    about,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 a query or a file failed; 2 the arguments are wrong; 130 interrupted twice."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run SQL over folders of Parquet files and print the rows.
    Query(query::QueryArgs),
    /// Run TPC-H: make the data on first use, time the queries, check every answer.
    Tpch(tpch::TpchArgs),
    /// Show how good the plans of TPC-H are.
    #[command(hide = true)]
    TpchPlans(tpch::PlanArgs),
    /// Write the TPC-H tables as Parquet files.
    GenerateParquet(generate::GenerateArgs),
    /// Time queries over a folder of Parquet files, each in a process of its own.
    BenchmarkParquet(benchmark::BenchmarkArgs),
    /// One query of `benchmark-parquet`.
    #[command(hide = true)]
    BenchmarkQuery(benchmark::QueryProcessArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Interrupt::install().and_then(|interrupt| match &cli.command {
        Command::Query(args) => query::run(args, &interrupt),
        Command::Tpch(args) => tpch::run(args, &interrupt),
        Command::TpchPlans(args) => tpch::run_plans(args, &interrupt),
        Command::GenerateParquet(args) => generate::run(args, &interrupt),
        Command::BenchmarkParquet(args) => benchmark::run(args, &interrupt),
        Command::BenchmarkQuery(args) => benchmark::run_query(args, &interrupt),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output went away (`gristmill query … | head`): nobody is left to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            if error.is::<UsageError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// What went wrong and why, each once: some errors say their cause themselves.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        before if before.ends_with(&cause) => text,
        before => format!("{before}: {cause}"),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
