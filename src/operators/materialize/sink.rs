//! The end that keeps rows.

use super::keep::{Keep, Part};
use super::{BUFFER_BYTES, row_bytes};
use crate::data::{Batch, DataType};
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Sink};
use crate::mem::{Account, Knobs};
use crate::spill::SpillWriter;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// All lanes together keep at most one part in so many of the budget in memory.
const MEMORY_SHARE: usize = 4;

pub(super) struct MaterializeSink {
    types: Arc<[DataType]>,
    handoff: Handoff<Kept>,
}

/// What sink and sources share.
pub(super) struct Kept {
    /// Memory of lanes that have not started.
    accounts: Mutex<Vec<Account>>,
    floor_bytes: usize,
    most_bytes: usize,
    parts: Mutex<Vec<Part>>,
    /// What sources read, once the sink has finished.
    pub(super) ready: OnceLock<Arc<[Part]>>,
}

impl MaterializeSink {
    pub(super) fn new(types: Arc<[DataType]>, handoff: Handoff<Kept>) -> Self {
        Self { types, handoff }
    }

    /// A batch copied, and the like of it being made of two.
    fn keep_bytes(&self, knobs: &Knobs) -> usize {
        2 * (knobs.batch_rows * (row_bytes(&self.types) + size_of::<u32>()))
            + (3 * self.types.len() + 2) * BUFFER_BYTES
    }
}

impl Sink for MaterializeSink {
    type Shared = Arc<Kept>;
    /// `None` once combined.
    type Local = Option<Keep>;

    fn name(&self) -> String {
        "Materialize".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let columns_bytes = 2 * self.types.len() * BUFFER_BYTES;
        let spill_bytes = SpillWriter::staging_bytes(knobs.block_bytes) + 3 * knobs.block_bytes;
        Need { lane_bytes: spill_bytes + columns_bytes, shared_bytes: knobs.lanes * self.keep_bytes(knobs) }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Arc<Kept>> {
        let floor_bytes = self.keep_bytes(&cx.query.knobs);
        let limit_bytes = cx.query.pool.limit_bytes();
        let quantum_bytes = (limit_bytes / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
        let shared = Arc::new(Kept {
            accounts: Mutex::new(cx.lane_accounts(floor_bytes, quantum_bytes, floor_bytes)),
            floor_bytes,
            most_bytes: limit_bytes / (MEMORY_SHARE * cx.lanes),
            parts: Mutex::new(Vec::new()),
            ready: OnceLock::new(),
        });
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, shared: &Arc<Kept>, cx: &LaneCx<'_>) -> Result<Option<Keep>> {
        let account = shared.accounts.lock().pop();
        let account = account.ok_or_else(|| Error::internal("more lanes than rows are kept for"))?;
        Ok(Some(Keep::new(&self.types, account, shared.floor_bytes, shared.most_bytes, cx)))
    }

    fn push(
        &self,
        _shared: &Arc<Kept>,
        local: &mut Option<Keep>,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        let keep = local.as_mut().ok_or_else(|| Error::internal("rows after the lane has combined"))?;
        keep.add(&batch, cx)?;
        Ok(Flow::NeedInput)
    }

    fn combine(&self, shared: &Arc<Kept>, local: &mut Option<Keep>, cx: &LaneCx<'_>) -> Result<Combine> {
        if let Some(keep) = local.take() {
            let part = keep.finish(cx)?;
            shared.parts.lock().push(part);
        }
        Ok(Combine::Ready)
    }

    fn finish(&self, shared: &Arc<Kept>, _cx: &LaneCx<'_>) -> Result<Finish> {
        let parts = std::mem::take(&mut *shared.parts.lock());
        shared.ready.set(parts.into()).map_err(|_| Error::internal("kept rows were finished twice"))?;
        Ok(Finish::Ready)
    }

    fn reclaim(
        &self,
        _shared: &Arc<Kept>,
        local: &mut Option<Keep>,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        local.as_mut().map_or(Ok(0), |keep| keep.reclaim(cx))
    }
}
