//! What is known of a query that runs or has run.
//!
//! Owns: [`Report`], [`Ending`].
//!
//! Invariants:
//! 1. It keeps the query's plan, and nothing of its run: neither tasks nor memory.
//! 2. Progress never goes back: it is made of counters that only grow.

use crate::exec::ResidentMeter;
use crate::mem::{Knobs, Pool};
use crate::metrics::{
    MERGE_NANOS, OperatorMetrics, OperatorProfile, QueryMetrics, SpillMetrics, WaitMetrics,
};
use crate::physical::Profiler;
use crate::spill::SpillDirectory;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Figures of one query, shared by its stream and its handles.
pub(super) struct Report {
    pub(super) profiler: Profiler,
    /// Pipeline by pipeline, upstream first.
    pub(super) operators: Vec<Vec<Arc<OperatorMetrics>>>,
    pub(super) pool: Pool,
    pub(super) knobs: Knobs,
    pub(super) floor_bytes: usize,
    pub(super) resident: Arc<ResidentMeter>,
    pub(super) spill: Arc<SpillDirectory>,
    pub(super) planning: Duration,
    /// Rows the client has taken.
    pub(super) rows: AtomicU64,
    pub(super) ending: Arc<Ending>,
}

/// When a query began, and how it ended once it has.
pub(super) struct Ending {
    started: Instant,
    end: OnceLock<(Duration, bool)>,
}

impl Ending {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), end: OnceLock::new() }
    }

    /// It has ended, well or not. Later calls change nothing.
    pub(super) fn note(&self, is_well: bool) {
        self.end.get_or_init(|| (self.started.elapsed(), is_well));
    }
}

impl Report {
    pub(super) fn profile(&self) -> Vec<OperatorProfile> {
        self.profiler.profile(&self.operators)
    }

    pub(super) fn metrics(&self) -> QueryMetrics {
        QueryMetrics {
            planning: self.planning,
            execution: self.ending.end.get().map_or_else(|| self.ending.started.elapsed(), |(took, _)| *took),
            rows: self.rows.load(Relaxed),
            peak_granted_bytes: self.pool.peak_bytes(),
            peak_rss_bytes: self.resident.peak_bytes(),
            floor_bytes: self.floor_bytes,
            spilled_bytes: self.spill.written_bytes(),
            spill: self.spill_metrics(),
            waits: self.wait_metrics(),
            lanes: self.knobs.lanes,
            batch_rows: self.knobs.batch_rows,
        }
    }

    fn spill_metrics(&self) -> SpillMetrics {
        let (mut partitions, mut depth, mut merge_nanos) = (0, 0, 0);
        for (name, value) in self.operators.iter().flatten().flat_map(|operator| operator.counters()) {
            match name {
                "spilled_partitions" => partitions += value,
                "spill_depth" => depth = value.max(depth),
                MERGE_NANOS => merge_nanos += value,
                _ => {}
            }
        }
        let meter = self.spill.meter();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        SpillMetrics {
            partitions,
            depth,
            files: count(&meter.files),
            blocks_written: count(&meter.blocks_written),
            bytes_written: count(&meter.bytes_written),
            blocks_read: count(&meter.blocks_read),
            bytes_read: count(&meter.bytes_read),
            write_time: Duration::from_nanos(count(&meter.write_nanos)),
            read_time: Duration::from_nanos(count(&meter.read_nanos)),
            merge_time: Duration::from_nanos(merge_nanos),
        }
    }

    fn wait_metrics(&self) -> WaitMetrics {
        let mut waits = WaitMetrics::default();
        for operator in self.operators.iter().flatten() {
            let all = operator.waits.load(Relaxed);
            let (memory, queue) = (operator.memory_waits.load(Relaxed), operator.queue_waits.load(Relaxed));
            waits.memory += memory;
            waits.queue += queue;
            waits.other += all.saturating_sub(memory + queue);
        }
        waits
    }

    /// The share of its tables' rows the query is past, from 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        if let Some((_, true)) = self.ending.end.get() {
            return 1.0;
        }
        let (mut passed, mut all) = (0, 0);
        for operator in self.operators.iter().flatten() {
            passed += operator.passed_rows.load(Relaxed).min(operator.table_rows);
            all += operator.table_rows;
        }
        if all == 0 { 0.0 } else { passed as f64 / all as f64 }
    }
}
