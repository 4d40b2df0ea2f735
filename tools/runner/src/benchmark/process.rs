//! The process of a query, seen from the one that starts it.
//!
//! Owns: its command line, the measuring of its memory, its end.
//!
//! Invariants:
//! 1. A query's process does not outlive this one: it is stopped when this one is, and, on Linux, dies with it.
//!
//! Must not know: what the query's process does.

use super::BenchmarkArgs;
use super::figures::Figures;
use super::lifetime::terminate;
use crate::interrupt::Interrupt;
use anyhow::Context;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Name of the hidden subcommand that a query's process runs.
const QUERY_COMMAND: &str = "benchmark-query";
/// When a query's process is asked to end after this one was: Ctrl-C on a terminal tells both, and a second signal would
/// end the other before it has tidied up.
const ASK_AFTER: Duration = Duration::from_millis(200);
/// When it is ended.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// How often the memory of a query's process is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// Runs a query in a process of its own. Failures of the query are among the figures; memory is the most anonymous
/// memory that was seen, 0 where the system does not tell.
pub(super) fn run_process(
    args: &BenchmarkArgs,
    name: &str,
    sql: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<(Figures, u64)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg(QUERY_COMMAND).arg("--path").arg(&args.path).args(["--name", name]);
    command.args(["--runs", &args.runs.to_string()]).args(args.engine.to_flags());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for the query")?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why by its exit status.
        let _ = stdin.write_all(sql.as_bytes());
    }
    let (exit, peak_rss_bytes) =
        watch(&mut child, interrupt).context("cannot wait for the query's process")?;
    interrupt.check()?;
    let mut line = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut line).context("cannot read what the query's process printed")?;
    }
    let figures = Figures::parse(&line).unwrap_or_else(|| Figures {
        error: Some(format!("its process ended without an answer: {exit}")),
        ..Figures::default()
    });
    Ok((figures, peak_rss_bytes))
}

/// Waits for the end of a process, which comes soon after an interrupt; the most anonymous memory that was seen.
fn watch(child: &mut Child, interrupt: &Interrupt) -> std::io::Result<(ExitStatus, u64)> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    let mut interrupted: Option<Instant> = None;
    let mut asked = false;
    loop {
        if interrupt.check().is_err() {
            let elapsed = interrupted.get_or_insert_with(Instant::now).elapsed();
            if elapsed >= KILL_AFTER {
                child.kill()?;
            } else if elapsed >= ASK_AFTER && !asked {
                terminate(child)?;
                asked = true;
            }
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        peak_bytes = peak_bytes.max(kib.unwrap_or(0) << 10);
        if let Some(exit) = child.try_wait()? {
            return Ok((exit, peak_bytes));
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
}
