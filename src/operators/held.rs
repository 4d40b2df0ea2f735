//! Rows that are kept until the last of their group has come.
//!
//! Invariants:
//! 1. The rows are all in memory or all on disk, in the order in which they came.
//! 2. A block in memory becomes whole blocks on disk, so that a reader goes on where it was.
//! 3. What was refused and could be had later is an error that is a refusal, and nothing has changed.
//! 4. Rows in memory and what they are written with have an account each: spilling needs no memory but its floor.

use super::rows::RowsBuilder;
use super::sort::Victim;
use crate::data::{Batch, BufMut, DataType, FlatVector, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::mem::Account;
use crate::spill::{SpillFile, SpillReader, SpillWriter};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The memory of held rows.
pub(super) struct HeldMemory {
    /// For rows, and for blocks of them read back.
    pub(super) rows: Account,
    /// For rows on their way to disk.
    pub(super) spill: Account,
    pub(super) victim: Victim,
}

/// Some of the rows.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) columns: Vec<FlatVector>,
    pub(super) rows: usize,
}

/// Rows of a group.
#[derive(Default)]
pub(super) struct HeldRows {
    rows: usize,
    blocks: Vec<Block>,
    writer: Option<SpillWriter>,
    file: Option<Arc<SpillFile>>,
    is_closed: bool,
}

impl HeldRows {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Adds the rows from `start` to `end` of `columns`, which are of `types`.
    pub(super) fn add(
        &mut self,
        types: &[DataType],
        columns: &[FlatVector],
        (start, end): (usize, usize),
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        if self.writer.is_none() && !(may_spill(types) && cx.must_refuse()) {
            match copied(columns, start, end, memory, cx) {
                Ok(block) => {
                    self.blocks.push(block);
                    self.rows += end - start;
                    memory.victim.publish(memory.rows.used_bytes());
                    return Ok(());
                }
                Err(error) if error.is_refusal() && may_spill(types) => {}
                Err(error) => return Err(error),
            }
        }
        self.spill(types, memory, cx)?;
        let slice =
            |column: &FlatVector| Vector::Flat(column.clone()).slice(start, end - start, &memory.spill);
        let slices = columns.iter().map(slice).collect::<Result<_, _>>()?;
        self.write(&Batch::new(slices, end - start), memory, cx)?;
        self.rows += end - start;
        Ok(())
    }

    /// Ends collecting.
    pub(super) fn close(&mut self) -> Result<()> {
        self.is_closed = true;
        self.end_file()
    }

    /// Brings the rows to disk, if they are not there. Bytes of memory that this frees.
    pub(super) fn spill(
        &mut self,
        types: &[DataType],
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        let before = memory.rows.used_bytes();
        if self.file.is_some() || !may_spill(types) {
            return Ok(0);
        }
        if self.writer.is_none() {
            let writer = cx.query.spill.writer(types, &memory.spill, cx.query.knobs.block_bytes);
            self.writer = Some(writer.map_err(|error| cx.made_final(error))?);
            cx.metrics.counter("spilled_keys").fetch_add(1, Relaxed);
        }
        for Block { columns, rows } in std::mem::take(&mut self.blocks) {
            cx.check()?;
            let batch = Batch::new(columns.into_iter().map(Vector::Flat).collect(), rows);
            self.write(&batch, memory, cx)?;
        }
        memory.rows.trim();
        memory.victim.publish(0);
        if self.is_closed {
            self.end_file()?;
        }
        Ok(before.saturating_sub(memory.rows.used_bytes()))
    }

    fn write(&mut self, batch: &Batch, memory: &HeldMemory, cx: &LaneCx<'_>) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Err(Error::internal("rows without a writer")) };
        writer.write(0, batch, &memory.spill).map_err(|error| cx.made_final(error))
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            self.file = Some(Arc::new(writer.finish()?));
        }
        Ok(())
    }
}

/// Goes through the rows of a group, block by block.
#[derive(Default)]
pub(super) struct HeldReader {
    /// Rows before the next block.
    ordinal: usize,
    /// Blocks in memory before the next one.
    at: usize,
    reader: Option<SpillReader>,
}

impl HeldReader {
    /// The next block, and how many rows come before it.
    pub(super) fn next(
        &mut self,
        held: &HeldRows,
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<Option<(usize, Block)>> {
        let before = self.ordinal;
        let Some(file) = &held.file else {
            let Some(block) = held.blocks.get(self.at) else { return Ok(None) };
            self.at += 1;
            self.ordinal += block.rows;
            return Ok(Some((before, block.clone())));
        };
        let mut reader = match &mut self.reader {
            Some(reader) => reader.clone(),
            None => file.reader(0),
        };
        // Seen while they were in memory.
        let mut skipped = if self.reader.is_some() { before } else { 0 };
        loop {
            cx.check()?;
            let Some(batch) = reader.next(&memory.rows, &cx.query.ids)? else { return Ok(None) };
            if skipped < before {
                skipped += batch.rows();
                continue;
            }
            self.reader = Some(reader);
            let flat = |column: &Vector| match column {
                Vector::Flat(flat) => Ok(flat.clone()),
                Vector::Constant { .. } | Vector::Dict { .. } => {
                    Err(Error::internal("a spilled column is not flat"))
                }
            };
            let columns = batch.columns().iter().map(flat).collect::<Result<_>>()?;
            self.ordinal += batch.rows();
            return Ok(Some((before, Block { columns, rows: batch.rows() })));
        }
    }
}

/// Rows of no columns take no memory.
fn may_spill(types: &[DataType]) -> bool {
    !types.is_empty()
}

fn copied(
    columns: &[FlatVector],
    start: usize,
    end: usize,
    memory: &HeldMemory,
    cx: &LaneCx<'_>,
) -> Result<Block> {
    let rows = end - start;
    let mut positions = BufMut::<u32>::with_len(cx.account, rows)?;
    positions.iter_mut().zip(start..).for_each(|(to, row)| *to = row as u32);
    let physical_rows = columns.first().map_or(end, FlatVector::len);
    let batch = Batch::new(columns.iter().cloned().map(Vector::Flat).collect(), physical_rows);
    let mut builder = RowsBuilder::with_room(columns.len(), rows);
    builder.append(&batch, &positions, &memory.rows)?;
    Ok(Block { columns: builder.take()?, rows })
}
