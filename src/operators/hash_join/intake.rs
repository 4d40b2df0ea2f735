//! Rows a lane collects, until they must leave for partitions.
//!
//! Invariants:
//! 1. A row is in a chunk or in one partition on disk; a row whose memory is refused is in neither and offered again.
//! 2. What a lane cannot hold leaves as a whole: after [`Intake::spill`] the lane holds its floor and no row.

use super::keys::KeyPlan;
use super::scatter::Scatter;
use super::split::Split;
use super::store::{Chunk, ChunkBuilder};
use crate::data::{Batch, DataType};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::mem::{Account, Denied};
use crate::spill::SpillFile;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most rows a table must hold before an injected refusal is heeded: what is tested is that spilling works at any
/// moment, not that blocks of single rows are slow.
const MOST_FORCED_ROWS: usize = 4096;

/// See the module.
pub(super) struct Intake {
    keyed: ChunkBuilder,
    /// Rows that no key finds, where they count.
    others: ChunkBuilder,
    scatter: Scatter,
    /// How many rows there must be before an injected refusal is heeded.
    forced_rows: usize,
}

/// Which rows of a batch to take.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    /// By position; not looked at without keys.
    pub(super) words: &'a [u64],
    pub(super) keyed: &'a [u32],
    pub(super) others: &'a [u32],
}

/// What an intake leaves.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) keyed: Vec<Chunk>,
    pub(super) others: Vec<Chunk>,
    pub(super) file: Option<Arc<SpillFile>>,
}

impl Intake {
    /// No rows. They have columns of `types`.
    pub(super) fn new(types: &[DataType], has_words: bool, split: Split) -> Self {
        Self {
            keyed: ChunkBuilder::new(types.len(), has_words),
            others: ChunkBuilder::new(types.len(), false),
            scatter: Scatter::new(types, has_words, split),
            forced_rows: 1,
        }
    }

    /// Rows in memory.
    pub(super) fn rows(&self) -> usize {
        self.keyed.rows() + self.others.rows()
    }

    /// Bytes of memory behind them.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.keyed.allocated_bytes() + self.others.allocated_bytes()
    }

    /// Adds rows of `batch`, whose columns are flat, in `account`, and spills as often as it takes. If a single row does not
    /// fit an empty lane, that is refused, and `taken` are the rows from that one on.
    pub(super) fn add(
        &mut self,
        batch: &Batch,
        taken: &mut Taken<'_>,
        keys: &KeyPlan,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<Result<(), Denied>> {
        if self.rows() >= self.forced_rows && cx.must_refuse() {
            self.forced_rows = (self.forced_rows * 2).min(MOST_FORCED_ROWS);
            self.spill(keys, account, cx)?;
        }
        let words = taken.words;
        for is_keyed in [true, false] {
            let rest = if is_keyed { &mut taken.keyed } else { &mut taken.others };
            let mut step = rest.len();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(step.min(rest.len()));
                let mut left = now;
                let rows = if is_keyed { &mut self.keyed } else { &mut self.others };
                let outcome = rows.append(batch, words, &mut left, account)?;
                *rest = &rest[now.len() - left.len()..];
                let Err(denied) = outcome else {
                    debug_assert_eq!(rest.len(), later.len(), "all were taken");
                    continue;
                };
                cx.check()?;
                if self.rows() > 0 {
                    self.spill(keys, account, cx)?;
                } else if step > 1 {
                    step = step.min(rest.len()).div_ceil(2);
                } else {
                    return Ok(Err(denied));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Sends `chunks` to their partitions as they are.
    pub(super) fn pass_on(&mut self, chunks: Vec<Chunk>, keys: &KeyPlan, cx: &LaneCx<'_>) -> Result<()> {
        chunks.into_iter().try_for_each(|chunk| self.scatter.put(&chunk, keys, cx))
    }

    /// Writes all rows to their partitions and gives their memory back.
    pub(super) fn spill(&mut self, keys: &KeyPlan, account: &Account, cx: &LaneCx<'_>) -> Result<()> {
        self.write_out(keys, cx)?;
        account.trim();
        Ok(())
    }

    /// The same, but the account may keep their memory for the next rows.
    pub(super) fn write_out(&mut self, keys: &KeyPlan, cx: &LaneCx<'_>) -> Result<()> {
        if self.rows() > 0 {
            for chunk in self.keyed.take()?.into_iter().chain(self.others.take()?) {
                self.scatter.put(&chunk, keys, cx)?;
            }
            cx.metrics.counter("spills").fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Spills what is left and ends the file; the intake may be used again.
    pub(super) fn take_file(
        &mut self,
        keys: &KeyPlan,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Arc<SpillFile>>> {
        self.spill(keys, account, cx)?;
        self.scatter.finish(cx)
    }

    /// Everything collected: in memory, or, once some was spilled, all on disk.
    pub(super) fn finish(mut self, keys: &KeyPlan, account: &Account, cx: &LaneCx<'_>) -> Result<Collected> {
        if self.scatter.has_spilled() {
            let file = self.take_file(keys, account, cx)?;
            return Ok(Collected { file, ..Collected::default() });
        }
        Ok(Collected { keyed: self.keyed.take()?, others: self.others.take()?, file: None })
    }
}

/// What is to be said if the least there is does not fit.
pub(super) fn too_small(denied: Denied, account: &Account, cx: &LaneCx<'_>) -> Error {
    Error::too_small(denied.bytes, account.pool().limit_bytes(), cx.metrics.name.clone())
}
