//! The source: emits the rows of all lanes in order.

use super::sorted::{Sorted, SortedRows, SortedSide};
use crate::data::{Batch, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Source};
use crate::mem::{Account, Knobs};
use parking_lot::Mutex;

pub(super) struct SortSource {
    side: SortedSide,
}

/// The run.
pub(super) struct Shared {
    /// Memory of the lane, until it starts: for blocks read, and for rows to be written.
    accounts: Mutex<Option<(Account, Account)>>,
}

pub(super) struct Local {
    rows: SortedRows,
    spill: Account,
}

impl SortSource {
    pub(super) fn new(side: SortedSide) -> Self {
        Self { side }
    }
}

impl Source for SortSource {
    type Shared = Shared;
    type Local = Local;

    fn name(&self) -> String {
        self.side.spec().name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let shared_bytes = self.side.read_floor_bytes(knobs) + self.side.spill_floor_bytes(knobs);
        Need { lane_bytes: self.side.batch_bytes(knobs), shared_bytes }
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        let spill_bytes = self.side.spill_floor_bytes(&cx.query.knobs);
        let spill = cx.account(spill_bytes, 4 << 10, spill_bytes);
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let blocks = cx.shared_account(quantum_bytes, 4 << 20);
        Ok(Shared { accounts: Mutex::new(Some((blocks, spill))) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Local> {
        let accounts = shared.accounts.lock().take();
        let (blocks, spill) = accounts.ok_or_else(|| Error::internal("a sort is read by one lane"))?;
        Ok(Local { rows: self.side.rows(blocks, &spill, false, cx)?, spill })
    }

    fn pull(&self, _shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        Ok(match local.rows.next(&local.spill, cx)? {
            Sorted::Rows(rows, columns) => {
                Pull::Emit(Batch::new(columns.into_iter().map(Vector::Flat).collect(), rows))
            }
            Sorted::Wait(wait) => Pull::Wait(wait),
            Sorted::End => Pull::Done,
        })
    }
}
