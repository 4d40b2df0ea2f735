//! How much anonymous memory the process has, looked at now and then while a query runs.
//!
//! Owns: [`ResidentMeter`].
//!
//! Invariants:
//! 1. Looking costs a few microseconds, and nobody looks within [`INTERVAL`] of the last look.
//!
//! Must not know: who has that memory. Queries run side by side, and the process has memory of its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// The most anonymous memory seen.
#[derive(Debug)]
pub(crate) struct ResidentMeter {
    started: Instant,
    /// When the next look is due, nanoseconds after the start.
    due_nanos: AtomicU64,
    peak_bytes: AtomicU64,
}

impl ResidentMeter {
    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), due_nanos: AtomicU64::new(0), peak_bytes: AtomicU64::new(0) }
    }

    /// Looks, if it is time to.
    pub(crate) fn sample(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.started).as_nanos() as u64;
        let due = self.due_nanos.load(Relaxed);
        let next = nanos + INTERVAL.as_nanos() as u64;
        if nanos >= due && self.due_nanos.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            self.peak_bytes.fetch_max(anonymous_bytes().unwrap_or(0), Relaxed);
        }
    }

    /// The most bytes seen; 0 where the system does not tell.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Relaxed)
    }
}

/// Resident pages less those of files and shared memory, by `/proc/self/statm`.
#[cfg(target_os = "linux")]
fn anonymous_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

#[cfg(not(target_os = "linux"))]
fn anonymous_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_seen_and_looks_are_apart() {
        let meter = ResidentMeter::new();
        let start = Instant::now();
        meter.sample(start);
        let before = meter.peak_bytes();
        assert!(before > 100 << 10, "{before}");
        let memory = vec![1u8; 64 << 20];
        meter.sample(start + INTERVAL / 2);
        assert_eq!(meter.peak_bytes(), before, "it is not time yet");
        meter.sample(start + 2 * INTERVAL);
        assert!(meter.peak_bytes() >= before + (48 << 20), "{} after {before}", meter.peak_bytes());
        drop(std::hint::black_box(memory));
    }
}
