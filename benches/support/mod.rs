//! What the benchmarks share: flags, one run of a statement, the figures of many, the table, the report and its
//! comparison with an earlier one.
//!
//! Must not know: what the statements are, other engines (see `benches/tpch`).

pub mod figures;
pub mod options;
pub mod report;
pub mod table;

use gristmill::{Query, Session};
use std::process::ExitCode;
use std::time::Instant;

/// What one run of a statement took.
pub struct Run {
    /// From the text of the statement to its last row, whose rows are let go of as they come.
    pub seconds: f64,
    pub rows: u64,
    pub peak_granted_bytes: u64,
    pub spilled_bytes: u64,
}

/// Runs a statement once.
pub fn run_once(session: &Session, sql: &str) -> Result<Run, String> {
    let started = Instant::now();
    let mut stream = session.query(sql).and_then(Query::stream).map_err(|e| e.to_string())?;
    let mut rows = 0;
    for batch in stream.by_ref() {
        rows += batch.map_err(|e| e.to_string())?.num_rows() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    let metrics = stream.metrics();
    Ok(Run {
        seconds,
        rows,
        peak_granted_bytes: metrics.peak_granted_bytes as u64,
        spilled_bytes: metrics.spilled_bytes,
    })
}

/// Prints what went wrong, if anything did.
pub fn exit(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Says that figures of an unoptimized build mean little.
pub fn warn_if_unoptimized() {
    if cfg!(debug_assertions) {
        eprintln!("warning: this build has debug assertions; measure with plain `cargo bench`");
    }
}
