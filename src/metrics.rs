//! Counters of what ran: per operator (filled by the driver) and per query.
//!
//! Owns: [`OperatorMetrics`], [`OperatorProfile`], [`QueryMetrics`] with [`SpillMetrics`] and [`WaitMetrics`], and named
//! counters.
//!
//! Invariants:
//! 1. Counters only grow during a query; readers may see any recent value.
//! 2. The driver measures rows, time and waits; operators add only named counters.
//!
//! Must not know: any other room.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The counter of nanoseconds spent merging what was spilled.
pub(crate) const MERGE_NANOS: &str = "merge_nanos";

/// Figures of one operator, summed over its lanes.
#[derive(Debug)]
pub struct OperatorMetrics {
    /// Name as in the plan, such as `Scan lineitem`.
    pub name: String,
    /// Rows given to the operator.
    pub rows_in: AtomicU64,
    /// Rows it emitted.
    pub rows_out: AtomicU64,
    /// Batches it emitted.
    pub batches_out: AtomicU64,
    /// Time spent inside its calls, nanoseconds over all lanes.
    pub busy_nanos: AtomicU64,
    /// Number of times it answered with a wait.
    pub waits: AtomicU64,
    /// Of these, waits for memory.
    pub memory_waits: AtomicU64,
    /// And waits for room in a queue, or for rows from one.
    pub queue_waits: AtomicU64,
    /// Rows of its table, if it is a scan.
    pub table_rows: u64,
    /// Rows of its table it is past: read, pruned, or wanted by nobody.
    pub passed_rows: AtomicU64,
    counters: Mutex<Vec<(&'static str, Arc<AtomicU64>)>>,
}

impl OperatorMetrics {
    /// Metrics of an operator named as in the plan.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Self::of_scan(name, 0)
    }

    /// Metrics of a scan of a table of `table_rows`.
    pub fn of_scan(name: impl Into<String>, table_rows: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            batches_out: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            memory_waits: AtomicU64::new(0),
            queue_waits: AtomicU64::new(0),
            table_rows,
            passed_rows: AtomicU64::new(0),
            counters: Mutex::default(),
        })
    }

    /// The counter `name`, made on first use. Keep the returned handle rather than look it up per batch.
    pub fn counter(&self, name: &'static str) -> Arc<AtomicU64> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = counters.iter().find(|(n, _)| *n == name) {
            return Arc::clone(counter);
        }
        let counter = Arc::new(AtomicU64::new(0));
        counters.push((name, Arc::clone(&counter)));
        counter
    }

    /// Adds the time since `started` to the counter `name` of nanoseconds.
    pub(crate) fn add_time(&self, name: &'static str, started: Instant) {
        self.counter(name).fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
    }

    /// All named counters with their values, in order of first use.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(n, c)| (*n, c.load(Relaxed))).collect()
    }

    /// Time spent inside the operator's calls, over all lanes.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Relaxed))
    }
}

/// What was expected of one node of a query's plan, and what it did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OperatorProfile {
    /// Its depth in the plan; 0 is the top.
    pub depth: usize,
    /// Its line in EXPLAIN, without figures.
    pub title: String,
    /// Rows the planner expected, if it had an idea.
    pub estimated_rows: Option<u64>,
    /// Rows it emitted. Fewer than there are, if somebody above had enough.
    pub rows: u64,
    /// Rows on the build side of a join.
    pub build_rows: Option<u64>,
    /// Time spent inside its calls, over all lanes.
    pub busy: Duration,
    /// What else it counts, by name; names may change from version to version.
    pub counters: Vec<(&'static str, u64)>,
}

/// Figures of one query.
#[derive(Debug, Default, Clone)]
pub struct QueryMetrics {
    /// Time of parsing, binding, optimising and lowering.
    pub planning: Duration,
    /// Time from the end of planning to the last row.
    pub execution: Duration,
    /// Rows returned.
    pub rows: u64,
    /// Highest number of bytes granted to the query at any moment.
    pub peak_granted_bytes: usize,
    /// The most anonymous memory the whole process was seen to have while the query ran, bytes: its own and everybody
    /// else's. It is looked at about every 10 ms; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Bytes its operators were sure of before it started: what it needs to run at all with these lanes and batches.
    pub floor_bytes: usize,
    /// Bytes written to spill files, before the file system.
    pub spilled_bytes: u64,
    /// What was spilled, and what that took.
    pub spill: SpillMetrics,
    /// How often its lanes waited.
    pub waits: WaitMetrics,
    /// Lanes the query's widest pipeline ran with.
    pub lanes: usize,
    /// Rows in a full batch under the budget it had.
    pub batch_rows: usize,
}

/// What a query spilled and read back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillMetrics {
    /// Partitions of joins and aggregations that did not stay in memory.
    pub partitions: u64,
    /// How often what was spilled had to be partitioned again; 1 if never.
    pub depth: u64,
    /// Files created.
    pub files: u64,
    /// Blocks written.
    pub blocks_written: u64,
    /// Bytes written, compressed.
    pub bytes_written: u64,
    /// Blocks read back; one read twice counts twice.
    pub blocks_read: u64,
    /// Bytes read back, compressed.
    pub bytes_read: u64,
    /// Time to encode, compress and write blocks, over all lanes.
    pub write_time: Duration,
    /// Time to read, decompress and decode blocks, over all lanes.
    pub read_time: Duration,
    /// Time to merge sorted runs and partitions of groups that were spilled, reading them included, over all lanes.
    pub merge_time: Duration,
}

/// How often the lanes of a query could not go on, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitMetrics {
    /// For bytes that others held.
    pub memory: u64,
    /// For room in a queue, such as that of a client that reads slowly, or for rows from one.
    pub queue: u64,
    /// For others to have their turn.
    pub other: u64,
}
