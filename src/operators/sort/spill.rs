//! A merge whose rows go to disk, a slice of time after the other.

use super::SortSpec;
use super::keys::prefix;
use super::merge::Merge;
use super::picked::Portion;
use super::run::Run;
use crate::data::{Batch, FlatVector, Values, Vector};
use crate::error::Result;
use crate::exec::LaneCx;
use crate::mem::{Account, Knobs};
use crate::metrics::MERGE_NANOS;
use crate::spill::SpillWriter;
use std::sync::Arc;
use std::time::Instant;

/// Makes one run on disk of several.
pub(super) struct Spill {
    spec: Arc<SortSpec>,
    merge: Merge,
    /// Of a block to write.
    block_bytes: usize,
    /// Rows still wanted.
    missing: u64,
    /// Rows written.
    pub(super) rows: u64,
    /// The prefix of the last key written.
    pub(super) last_prefix: u64,
}

impl Spill {
    /// The first `fetch` rows of `runs`.
    pub(super) fn new(runs: Vec<Run>, spec: &Arc<SortSpec>, fetch: u64, knobs: &Knobs) -> Self {
        let block_bytes = spec.block_bytes(knobs);
        let (spec, merge) = (Arc::clone(spec), Merge::new(runs));
        Self { spec, merge, block_bytes, missing: fetch, rows: 0, last_prefix: u64::MAX }
    }

    /// Writes rows to `partition` until everything is written (then it answers true) or `until`. Blocks are read into
    /// `blocks`, rows laid out in `account`. After a refusal of blocks the merge can be taken apart.
    pub(super) fn advance(
        &mut self,
        writer: &mut SpillWriter,
        partition: u32,
        (blocks, account): (&Account, &Account),
        until: Option<Instant>,
        cx: &LaneCx<'_>,
    ) -> Result<bool> {
        while self.missing > 0 {
            let rows = usize::try_from(self.missing).unwrap_or(usize::MAX).min(cx.batch_rows());
            let portion = Portion { rows, bytes: self.block_bytes, has_keys: true };
            let started = self.merge.reads_disk().then(Instant::now);
            let next = self.merge.next_rows(portion, &cx.query.ids, blocks, account);
            started.into_iter().for_each(|started| cx.metrics.add_time(MERGE_NANOS, started));
            let Some((rows, columns)) = next? else { return Ok(true) };
            self.last_prefix = columns.last().map_or(u64::MAX, |keys| last_prefix(keys, rows));
            let batch = Batch::new(columns.into_iter().map(Vector::Flat).collect(), rows);
            writer.write(partition, &batch, account).map_err(|e| self.spec.made_final(e, &cx.query.pool))?;
            self.rows += rows as u64;
            self.missing -= rows as u64;
            cx.check()?;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is left of the runs.
    pub(super) fn into_runs(self) -> Vec<Run> {
        self.merge.into_runs()
    }
}

fn last_prefix(keys: &FlatVector, rows: usize) -> u64 {
    match &keys.values {
        Values::View(keys) if rows > 0 => prefix(keys.get(rows - 1)),
        _ => u64::MAX,
    }
}
