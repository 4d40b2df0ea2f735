//! How the process of a query ends with the one that started it.
//!
//! Owns: the calls to the system for it; where the system has none, a process that is left alone ends with its query.

use std::io;
use std::process::Child;

/// Has the system end this process when the thread that started it ends.
#[cfg(target_os = "linux")]
pub(super) fn die_with_parent() -> io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Asks a process to end: a query's cancels the query, and takes its bar off the terminal.
#[cfg(target_os = "linux")]
pub(super) fn terminate(child: &Child) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    match kill_process(Pid::from_child(child), Signal::TERM) {
        // It has ended by itself and was not waited for yet.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// There is no such call.
#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// The caller kills it after a while.
#[cfg(not(target_os = "linux"))]
pub(super) fn terminate(_child: &Child) -> io::Result<()> {
    Ok(())
}
