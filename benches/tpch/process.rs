//! One query in a process of its own, and what is measured of it.
//!
//! Owns: the protocol. The process opens its engine and says `{"ready": VERSION}`. It then gets the query on standard
//! input, to its end, and answers each run with `{"seconds", "rows"}` (ours adds `peak_granted_bytes` and
//! `spilled_bytes`), or says `{"error": TEXT}` and ends. The first run does not count. Lines that are no JSON are not
//! part of it.
//!
//! Invariants:
//! 1. Times are taken inside the process, memory outside: starting an interpreter is nobody's query.
//! 2. Every process is ended and reaped, whatever it did.
//!
//! Must not know: which engine it is.

use crate::support::Run;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often a process's memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// What became of a query in a process.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of the engine.
    pub version: Option<String>,
    /// Of the runs that count.
    pub answers: Vec<Answer>,
    /// Most anonymous memory seen, and that before the first run.
    pub peak_anonymous_bytes: Option<u64>,
    pub rest_anonymous_bytes: Option<u64>,
    pub error: Option<String>,
}

/// A run that counts.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub seconds: f64,
    pub rows: u64,
    pub peak_granted_bytes: Option<u64>,
    pub spilled_bytes: Option<u64>,
}

/// What a process says.
#[derive(Debug)]
enum Message {
    Ready(String),
    Answer(Answer),
    Error(String),
}

impl Message {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        if let Some(version) = value["ready"].as_str() {
            return Some(Self::Ready(version.to_owned()));
        }
        if let Some(error) = value["error"].as_str() {
            return Some(Self::Error(error.to_owned()));
        }
        Some(Self::Answer(Answer {
            seconds: value["seconds"].as_f64()?,
            rows: value["rows"].as_u64()?,
            peak_granted_bytes: value["peak_granted_bytes"].as_u64(),
            spilled_bytes: value["spilled_bytes"].as_u64(),
        }))
    }
}

/// Starts `command` and asks it for `runs` runs of `sql` beside the first. Being ready, and each run, may take as long
/// as `timeout`.
pub fn ask(mut command: Command, sql: &str, runs: u32, timeout: Duration) -> Outcome {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            let error = format!("cannot start '{}': {e}", command.get_program().display());
            return Outcome { error: Some(error), ..Outcome::default() };
        }
    };
    let mut outcome = Outcome::default();
    outcome.error = talk(&mut child, sql, runs, timeout, &mut outcome).err();
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

fn talk(
    child: &mut Child,
    sql: &str,
    runs: u32,
    timeout: Duration,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let lines = lines_of(child.stdout.take().expect("it was asked for a pipe"));
    let last_words = lines_of(child.stderr.take().expect("it was asked for a pipe"));
    let mut stdin = child.stdin.take();
    let mut runs_to_come = runs + 1;
    let mut since = Instant::now();
    while runs_to_come > 0 {
        let memory = anonymous_bytes(child.id());
        outcome.peak_anonymous_bytes = outcome.peak_anonymous_bytes.max(memory);
        let message = match lines.recv_timeout(SAMPLE_EVERY) {
            Ok(line) => Message::parse(&line),
            Err(RecvTimeoutError::Timeout) if since.elapsed() < timeout => continue,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("timeout: no answer within {} s", timeout.as_secs_f64()));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(end_of(child, &last_words)),
        };
        match message {
            None => continue,
            Some(Message::Ready(version)) => {
                outcome.version = Some(version);
                outcome.rest_anonymous_bytes = anonymous_bytes(child.id());
                if let Some(mut stdin) = stdin.take() {
                    // One that has ended already says why by its exit status.
                    let _ = stdin.write_all(sql.as_bytes());
                }
            }
            Some(Message::Error(error)) => return Err(error),
            Some(Message::Answer(answer)) => {
                if runs_to_come <= runs {
                    outcome.answers.push(answer);
                }
                runs_to_come -= 1;
            }
        }
        since = Instant::now();
    }
    Ok(())
}

/// The lines of a pipe as they come, read by a thread that ends with the pipe.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Nobody listens any more once all answers are there; the pipe is read on so that none blocks.
            let _ = sender.send(line);
        }
    });
    lines
}

/// How a process ended that should not have: its exit status and the last line of its errors.
fn end_of(child: &mut Child, last_words: &Receiver<String>) -> String {
    let exit = child.wait().map_or_else(|e| e.to_string(), |exit| exit.to_string());
    let words = last_words.iter().filter(|line| !line.trim().is_empty()).last();
    format!(
        "the process ended: {exit}{}",
        words.map_or_else(String::new, |words| format!("; {}", words.trim()))
    )
}

/// Anonymous resident memory of a process; `None` where the system does not tell and after its end.
fn anonymous_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(kibibytes.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// This engine's side: opens, says so, reads the query and answers `runs` runs beside the first.
pub fn answer<R>(runs: u32, open: impl FnOnce() -> Result<R, String>)
where
    R: FnMut(&str) -> Result<Run, String>,
{
    let outcome = open().and_then(|mut run| {
        println!("{}", json!({"ready": env!("CARGO_PKG_VERSION")}));
        let mut sql = String::new();
        std::io::stdin().read_to_string(&mut sql).map_err(|e| format!("cannot read the query: {e}"))?;
        for _ in 0..=runs {
            let Run { seconds, rows, peak_granted_bytes, spilled_bytes } = run(&sql)?;
            println!(
                "{}",
                json!({
                    "seconds": seconds,
                    "rows": rows,
                    "peak_granted_bytes": peak_granted_bytes,
                    "spilled_bytes": spilled_bytes,
                })
            );
        }
        Ok(())
    });
    if let Err(error) = outcome {
        println!("{}", json!({"error": error}));
    }
}
