//! A source of kept rows.

use super::keep::Part;
use super::sink::Kept;
use super::{BUFFER_BYTES, row_bytes};
use crate::data::{Batch, DataType};
use crate::error::{Error, Result};
use crate::exec::{Handoff, LaneCx, Need, OpenCx, Pull, Source};
use crate::mem::Knobs;
use crate::spill::{SpillFile, SpillReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) struct MaterializedSource {
    types: Arc<[DataType]>,
    handoff: Handoff<Kept>,
}

/// What lanes take the next of.
enum Item {
    File(Arc<SpillFile>),
    Block(Batch),
}

/// The rows of one reader, and how many of the items have been taken.
pub(super) struct Items {
    items: Vec<Item>,
    next: AtomicUsize,
    /// Accounts the blocks' memory belongs to.
    _parts: Arc<[Part]>,
}

#[derive(Default)]
pub(super) struct Local {
    /// The file in work.
    reader: Option<SpillReader>,
    /// A batch larger than those to emit, and how many of its rows are out.
    rest: Option<(Batch, usize)>,
}

impl MaterializedSource {
    pub(super) fn new(types: Arc<[DataType]>, handoff: Handoff<Kept>) -> Self {
        Self { types, handoff }
    }
}

impl Source for MaterializedSource {
    type Shared = Items;
    type Local = Local;

    fn name(&self) -> String {
        "Materialized".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        // A block as it comes from disk, which is no larger than these two unless a single row is, and parts of it.
        let bytes = knobs.block_bytes.max(knobs.batch_rows * row_bytes(&self.types));
        Need { lane_bytes: 2 * bytes + self.types.len() * BUFFER_BYTES, shared_bytes: 0 }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<Items> {
        let kept = self.handoff.get()?;
        let parts = kept.ready.get().ok_or_else(|| Error::internal("rows are read before they are kept"))?;
        let files = parts.iter().filter_map(|part| part.file.clone()).map(Item::File);
        let blocks = parts.iter().flat_map(|part| part.blocks.iter().cloned()).map(Item::Block);
        // Files first: they take longest.
        let items = files.chain(blocks).collect();
        Ok(Items { items, next: AtomicUsize::new(0), _parts: Arc::clone(parts) })
    }

    fn local(&self, _shared: &Items, _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local::default())
    }

    fn pull(&self, shared: &Items, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            if let Some((batch, out)) = &mut local.rest {
                let rows = (batch.rows() - *out).min(cx.batch_rows());
                let part = batch.slice(*out, rows, cx.account)?;
                *out += rows;
                if *out == batch.rows() {
                    local.rest = None;
                }
                return Ok(Pull::Emit(part));
            }
            let batch = match &mut local.reader {
                Some(reader) => match reader.next(cx.account, &cx.query.ids)? {
                    Some(batch) => batch,
                    None => {
                        local.reader = None;
                        continue;
                    }
                },
                None => match shared.items.get(shared.next.fetch_add(1, Relaxed)) {
                    Some(Item::Block(batch)) => batch.clone(),
                    Some(Item::File(file)) => {
                        local.reader = Some(file.reader(0));
                        continue;
                    }
                    None => return Ok(Pull::Done),
                },
            };
            if batch.rows() <= cx.batch_rows() {
                return Ok(Pull::Emit(batch));
            }
            local.rest = Some((batch, 0));
        }
    }
}
