//! The source: merges the runs of all lanes.

use super::SortSpec;
use super::merge::Merge;
use super::sink::SortShared;
use crate::data::{Batch, Vector};
use crate::error::Result;
use crate::exec::{Handoff, LaneCx, Need, OpenCx, Pull, Source};
use crate::mem::Knobs;
use std::sync::Arc;

pub(super) struct SortSource {
    spec: Arc<SortSpec>,
    handoff: Handoff<SortShared>,
}

pub(super) struct Local {
    /// Made by the first pull.
    merge: Option<Merge>,
    /// Rows still wanted.
    missing: u64,
}

impl SortSource {
    pub(super) fn new(spec: Arc<SortSpec>, handoff: Handoff<SortShared>) -> Self {
        Self { spec, handoff }
    }
}

impl Source for SortSource {
    type Shared = Arc<SortShared>;
    type Local = Local;

    fn name(&self) -> String {
        self.spec.name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        Need { lane_bytes: knobs.batch_rows * (self.spec.row_bytes() + 1), shared_bytes: 0 }
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<Arc<SortShared>> {
        self.handoff.get()
    }

    fn local(&self, _shared: &Arc<SortShared>, _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local { merge: None, missing: self.spec.fetch.unwrap_or(u64::MAX) })
    }

    fn pull(&self, shared: &Arc<SortShared>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        let merge = match &mut local.merge {
            Some(merge) => merge,
            none => none.insert(Merge::new(std::mem::take(&mut *shared.runs.lock()))),
        };
        let most = usize::try_from(local.missing).unwrap_or(usize::MAX).min(cx.batch_rows());
        let rows = if most == 0 { None } else { merge.next_rows(most, cx.account)? };
        let Some((rows, columns)) = rows else {
            // Frees what a fetch has left over.
            *merge = Merge::new(Vec::new());
            local.missing = 0;
            return Ok(Pull::Done);
        };
        local.missing -= rows as u64;
        Ok(Pull::Emit(Batch::new(columns.into_iter().map(Vector::Flat).collect(), rows)))
    }
}
