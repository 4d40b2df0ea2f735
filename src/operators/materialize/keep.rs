//! What one lane keeps.

use super::super::rows::RowsBuilder;
use crate::data::{Batch, BufMut, DataType, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::mem::{Account, MemoryConsumer, Registration};
use crate::spill::{SpillFile, SpillWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where the rows are, once the lane has ended: first the file's, then the blocks'.
pub(super) struct Part {
    pub(super) file: Option<Arc<SpillFile>>,
    // Before the account, so that their slabs return to it.
    pub(super) blocks: Vec<Batch>,
    _account: Account,
}

/// A lane's rows on their way.
pub(super) struct Keep {
    types: Arc<[DataType]>,
    writer: Option<SpillWriter>,
    blocks: Vec<Batch>,
    /// Rows of a block that is not put together with others any more.
    full_rows: usize,
    /// The most bytes of blocks the lane keeps in memory.
    most_bytes: usize,
    consumer: Arc<KeepConsumer>,
    _registration: Registration,
    account: Account,
}

/// The blocks as reclaim sees them.
struct KeepConsumer {
    floor_bytes: usize,
    used_bytes: AtomicUsize,
    requested_bytes: AtomicUsize,
}

impl MemoryConsumer for KeepConsumer {
    fn name(&self) -> &'static str {
        "Materialize"
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn revocable_bytes(&self) -> usize {
        self.used_bytes().saturating_sub(self.floor_bytes)
    }

    fn request_reclaim(&self, target_bytes: usize) {
        self.requested_bytes.fetch_max(target_bytes, Relaxed);
    }
}

impl Keep {
    /// Nothing yet, in `account`, whose floor is `floor_bytes`.
    pub(super) fn new(
        types: &Arc<[DataType]>,
        account: Account,
        floor_bytes: usize,
        most_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Self {
        let consumer = Arc::new(KeepConsumer {
            floor_bytes,
            used_bytes: AtomicUsize::new(0),
            requested_bytes: AtomicUsize::new(0),
        });
        let registration = account.pool().register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        Self {
            types: Arc::clone(types),
            writer: None,
            blocks: Vec::new(),
            full_rows: cx.batch_rows().div_ceil(2),
            most_bytes,
            consumer,
            _registration: registration,
            account,
        }
    }

    /// Keeps the rows of a batch.
    pub(super) fn add(&mut self, batch: &Batch, cx: &LaneCx<'_>) -> Result<()> {
        self.account.relieve();
        if self.consumer.requested_bytes.swap(0, Relaxed) > 0 {
            self.reclaim(cx)?;
        }
        match self.copied(&[batch]) {
            Ok(block) => {
                self.blocks.push(block);
                let has_room = self.put_together()?;
                if !has_room || self.account.used_bytes() > self.most_bytes {
                    self.spill(cx)?;
                }
                // Not for each of many small batches: what is tested is that spilling works at any moment.
                let last_rows = self.blocks.last().map_or(0, Batch::rows);
                if (self.blocks.len() == 1 || last_rows >= self.full_rows) && cx.must_refuse() {
                    self.spill(cx)?;
                }
            }
            Err(Error::Memory(_)) => {
                self.spill(cx)?;
                self.write(batch, cx)?;
            }
            Err(error) => return Err(error),
        }
        self.publish();
        Ok(())
    }

    /// Spills everything if that frees anything; the bytes freed.
    pub(super) fn reclaim(&mut self, cx: &LaneCx<'_>) -> Result<usize> {
        let before = self.account.used_bytes();
        if self.consumer.revocable_bytes() > 0 {
            self.spill(cx)?;
        }
        Ok(before.saturating_sub(self.account.used_bytes()))
    }

    /// Ends the lane's part.
    pub(super) fn finish(mut self, cx: &LaneCx<'_>) -> Result<Part> {
        if !self.blocks.is_empty() && cx.must_refuse() {
            self.spill(cx)?;
        }
        let Self { writer, blocks, account, .. } = self;
        let file = writer.map(|writer| writer.finish().map(Arc::new)).transpose()?;
        account.trim();
        Ok(Part { file, blocks, _account: account })
    }

    /// Makes one block of the last two while both are small and of like size, so that each row is copied a few times
    /// at most. Whether there was memory for that.
    fn put_together(&mut self) -> Result<bool> {
        while let [.., a, b] = self.blocks.as_slice()
            && a.rows() < self.full_rows
            && a.rows() <= 2 * b.rows()
        {
            let merged = match self.copied(&[a, b]) {
                Ok(merged) => merged,
                Err(Error::Memory(_)) => return Ok(false),
                Err(error) => return Err(error),
            };
            self.blocks.truncate(self.blocks.len() - 2);
            self.blocks.push(merged);
        }
        Ok(true)
    }

    /// The rows of batches in slabs of the lane's own.
    fn copied(&self, batches: &[&Batch]) -> Result<Batch> {
        let mut builder = RowsBuilder::with_room(self.types.len(), batches.iter().map(|b| b.rows()).sum());
        let mut rows = 0;
        for batch in batches {
            rows += batch.rows();
            match batch.selection() {
                Some(selection) => builder.append(batch, selection.indices(), &self.account)?,
                None => {
                    let mut all: BufMut<u32> = BufMut::with_len(&self.account, batch.rows())?;
                    all.iter_mut().enumerate().for_each(|(row, to)| *to = row as u32);
                    builder.append(batch, &all, &self.account)?;
                }
            }
        }
        Ok(Batch::new(builder.take()?.into_iter().map(Vector::Flat).collect(), rows))
    }

    fn spill(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        for block in std::mem::take(&mut self.blocks) {
            self.write(&block, cx)?;
            cx.check()?;
        }
        self.account.trim();
        self.publish();
        cx.metrics.counter("spills").fetch_add(1, Relaxed);
        Ok(())
    }

    fn write(&mut self, batch: &Batch, cx: &LaneCx<'_>) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let block_bytes = cx.query.knobs.block_bytes;
                none.insert(cx.query.spill.writer(&self.types, cx.account, block_bytes)?)
            }
        };
        writer.write(0, batch, cx.account)
    }

    fn publish(&self) {
        let held = if self.blocks.is_empty() { 0 } else { self.account.used_bytes() };
        self.consumer.used_bytes.store(held, Relaxed);
    }
}
