//! The sink: collects rows and seals runs.

use super::SortSpec;
use super::keys::{KeyEncoder, Keys, prefix};
use super::merge::Merge;
use super::run::{Run, RunBuilder};
use crate::data::{Batch, BufMut, FlatVector};
use crate::error::Result;
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Sink};
use crate::expr::{EvalCx, Evaluator};
use crate::mem::Knobs;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rows of a run: sorting so many takes a few milliseconds.
const RUN_ROWS: usize = 64 << 10;
const LARGEST_RUN_BYTES: usize = 4 << 20;
const LEAST_RUN_BYTES: usize = 128 << 10;
/// With a small fetch a lane merges its runs when it has this many.
const MOST_RUNS: usize = 8;
const PAGE_BYTES: usize = 4096;
/// A guess, for the floor, of what a key takes besides the value.
const KEY_BYTES: usize = 16;

pub(super) struct SortSink {
    spec: Arc<SortSpec>,
    handoff: Handoff<SortShared>,
}

/// What sink and source share.
pub(super) struct SortShared {
    encoder: KeyEncoder,
    run_bytes: usize,
    /// The runs of lanes that have combined.
    pub(super) runs: Mutex<Vec<Run>>,
    /// No row whose key's prefix is greater can be among the first; set only with a fetch.
    cutoff: AtomicU64,
}

pub(super) struct Local {
    evaluator: Evaluator,
    builder: RunBuilder,
    runs: Vec<Run>,
    /// The keys of the batch in work.
    keys: Keys,
    /// Positions of rows: of a batch without a selection, and of those worth keeping.
    all: BufMut<u32>,
    kept: BufMut<u32>,
}

impl SortSink {
    pub(super) fn new(spec: Arc<SortSpec>, handoff: Handoff<SortShared>) -> Self {
        Self { spec, handoff }
    }

    /// The fetch, where it is small enough to be worth looking at row by row.
    fn small_fetch(&self) -> Option<usize> {
        let fetch = self.spec.fetch.and_then(|fetch| usize::try_from(fetch).ok())?;
        (fetch <= RUN_ROWS / 2).then_some(fetch)
    }

    fn run_rows(&self, cx: &LaneCx<'_>) -> usize {
        match self.small_fetch() {
            Some(fetch) => (2 * fetch).clamp(cx.batch_rows().min(RUN_ROWS), RUN_ROWS),
            None => RUN_ROWS,
        }
    }

    /// Makes a run of what the lane has collected.
    fn seal(&self, shared: &SortShared, local: &mut Local, cx: &LaneCx<'_>) -> Result<()> {
        if local.builder.rows() == 0 {
            return Ok(());
        }
        let fetch = self.spec.fetch.map_or(usize::MAX, |f| usize::try_from(f).unwrap_or(usize::MAX));
        let run = local.builder.seal(shared.encoder.is_prefix_enough(), fetch, cx)?;
        local.runs.push(run);
        let Some(fetch) = self.small_fetch() else { return Ok(()) };
        if local.runs.len() == MOST_RUNS {
            let mut merge = Merge::new(std::mem::take(&mut local.runs));
            let mut first = Run::default();
            let mut missing = fetch;
            while missing > 0
                && let Some(chunk) = merge.next_chunk(missing.min(cx.batch_rows()), cx.account)?
            {
                cx.check()?;
                missing -= chunk.rows();
                first.chunks.push_back(chunk);
            }
            local.runs.push(first);
        }
        if let Some(last) = local.runs.last()
            && last.rows() == fetch
            && let Some(key) = last.last_key()
        {
            shared.cutoff.fetch_min(prefix(key), Relaxed);
        }
        Ok(())
    }
}

impl Sink for SortSink {
    type Shared = Arc<SortShared>;
    type Local = Local;

    fn name(&self) -> String {
        self.spec.name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let exprs: Vec<_> = self.spec.keys.iter().map(|key| key.expr.clone()).collect();
        let scratch = Evaluator::scratch_bytes(&exprs, knobs.batch_rows);
        let row_bytes = self.spec.row_bytes() + exprs.len() * KEY_BYTES + 32;
        let pages = 2 * (self.spec.types.len() + exprs.len() + 6) * PAGE_BYTES;
        Need { lane_bytes: scratch + pages + 2 * knobs.batch_rows * row_bytes, shared_bytes: 0 }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Arc<SortShared>> {
        let share = cx.query.pool.limit_bytes() / (16 * cx.lanes.max(1));
        let shared = Arc::new(SortShared {
            encoder: KeyEncoder::new(&self.spec.keys)?,
            run_bytes: share.clamp(LEAST_RUN_BYTES, LARGEST_RUN_BYTES),
            runs: Mutex::new(Vec::new()),
            cutoff: AtomicU64::new(u64::MAX),
        });
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, _shared: &Arc<SortShared>, cx: &LaneCx<'_>) -> Result<Local> {
        let exprs: Vec<_> = self.spec.keys.iter().map(|key| key.expr.clone()).collect();
        Ok(Local {
            evaluator: Evaluator::new(&exprs, &self.spec.layout)?,
            builder: RunBuilder::new(self.spec.types.len(), cx.account)?,
            runs: Vec::new(),
            keys: Keys::new(cx.account)?,
            all: BufMut::with_capacity(cx.account, 0)?,
            kept: BufMut::with_capacity(cx.account, 0)?,
        })
    }

    fn push(
        &self,
        shared: &Arc<SortShared>,
        local: &mut Local,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        if self.spec.fetch == Some(0) {
            return Ok(Flow::Done);
        }
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let columns = local.evaluator.evaluate(&batch, &mut eval)?;
        let columns =
            columns.iter().map(|c| c.flatten(cx.account)).collect::<Result<Vec<FlatVector>, _>>()?;
        if batch.selection().is_none() {
            number(&mut local.all, batch.physical_rows(), cx)?;
        }
        let rows = match batch.selection() {
            Some(selection) => selection.indices(),
            None => &local.all[..batch.rows()],
        };
        shared.encoder.encode(&columns, rows, &mut local.keys, cx.account)?;
        drop(columns);
        let keys = &local.keys;
        let cutoff = shared.cutoff.load(Relaxed);
        if cutoff == u64::MAX {
            let keys = (0..rows.len()).map(|at| keys.get(at));
            local.builder.append(&batch, rows, keys, cx.account)?;
        } else {
            local.kept.set_len(0);
            local.kept.reserve(cx.account, rows.len())?;
            let is_kept = |at: &usize| prefix(keys.get(*at)) <= cutoff;
            let kept = (0..rows.len()).filter(is_kept);
            kept.clone().for_each(|at| local.kept.push(rows[at]));
            if !local.kept.is_empty() {
                let keys = kept.map(|at| keys.get(at));
                local.builder.append(&batch, &local.kept, keys, cx.account)?;
            }
        }
        let is_full = local.builder.rows() >= self.run_rows(cx)
            || local.builder.allocated_bytes()
                >= shared.run_bytes.max(2 * PAGE_BYTES * self.spec.types.len());
        if is_full {
            self.seal(shared, local, cx)?;
        }
        Ok(Flow::NeedInput)
    }

    fn combine(&self, shared: &Arc<SortShared>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Combine> {
        self.seal(shared, local, cx)?;
        shared.runs.lock().append(&mut local.runs);
        Ok(Combine::Ready)
    }

    fn finish(&self, _shared: &Arc<SortShared>, _cx: &LaneCx<'_>) -> Result<Finish> {
        Ok(Finish::Ready)
    }
}

/// Makes `all` hold at least `0..rows`.
fn number(all: &mut BufMut<u32>, rows: usize, cx: &LaneCx<'_>) -> Result<()> {
    all.reserve(cx.account, rows)?;
    for row in all.len()..rows {
        all.push(row as u32);
    }
    Ok(())
}
