//! The end that probe rows go through.
//!
//! Invariants:
//! 1. A probe row is answered at once unless build rows it may match are on disk; then it goes to the same partition of
//!    its own side, and is answered in the drain stage.
//! 2. Without spilled build rows no row is looked at but by the [`Prober`].

use super::drain::Drain;
use super::finish::HashJoinShared;
use super::intake::{Intake, Taken, too_small};
use super::plan::Plan;
use super::prober::{Matches, Prober, Share, alive_where};
use super::queue::Queue;
use super::scatter::ordered_rows;
use super::spec::HashJoinKind;
use super::table::Table;
use crate::data::{Batch, BitmapMut, BufMut, FlatVector};
use crate::error::{Error, Result};
use crate::exec::{Handoff, LaneCx, Need, OpenCx, Output, Pull, Retry, Transform};
use crate::mem::{Account, Knobs};
use crate::spill::SpillFile;
use parking_lot::Mutex;
use std::sync::Arc;

/// Free slabs a lane keeps: what is collected for one block of each partition comes and goes all the time.
const CACHE_BYTES: usize = 4 << 20;

/// See the module.
pub(super) struct HashJoinProbe {
    plan: Arc<Plan>,
    handoff: Handoff<HashJoinShared>,
}

/// What lanes share.
pub(super) struct ProbeShared {
    /// Until the drain stage.
    pub(super) table: Mutex<Option<Arc<Table>>>,
    accounts: Mutex<Vec<Account>>,
    /// Probe rows that wait.
    pub(super) files: Mutex<Vec<Arc<SpillFile>>>,
    pub(super) queue: Queue,
}

/// A lane that probes.
pub(super) struct HashJoinLocal {
    pub(super) prober: Prober,
    /// Until the lane has drained it.
    pub(super) table: Option<Arc<Table>>,
    /// Probe rows on their way to disk, if there may be any.
    intake: Option<Intake>,
    /// Positions of such rows in a batch.
    deferred: BufMut<u32>,
    /// The batch they are of, until they are on their way.
    pending: Option<Pending>,
    /// Tries to get memory for one of them.
    waiting: Retry,
    pub(super) drain: Drain,
    /// Memory of rows collected or loaded.
    pub(super) account: Account,
}

/// A batch some of whose rows wait for build rows on disk.
struct Pending {
    batch: Batch,
    /// The values of its keys.
    keys: Vec<FlatVector>,
    /// How many of those rows are on their way to disk.
    put_off: usize,
}

impl HashJoinProbe {
    /// The probe side of `plan`, of the table that the build leaves in `handoff`.
    pub(super) fn new(plan: Arc<Plan>, handoff: Handoff<HashJoinShared>) -> Self {
        Self { plan, handoff }
    }
}

impl Transform for HashJoinProbe {
    type Shared = ProbeShared;
    type Local = HashJoinLocal;

    fn name(&self) -> String {
        "HashJoin".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        self.plan.probe_need(knobs)
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<ProbeShared> {
        let quantum_bytes = (cx.query.pool.limit_bytes() / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
        Ok(ProbeShared {
            table: Mutex::new(Some(self.handoff.get()?.take_table()?)),
            accounts: Mutex::new(cx.lane_accounts(
                self.plan.roles.drain_floor_bytes(),
                quantum_bytes,
                CACHE_BYTES,
            )),
            files: Mutex::new(Vec::new()),
            queue: Queue::new(cx.lanes),
        })
    }

    fn local(&self, shared: &ProbeShared, _cx: &LaneCx<'_>) -> Result<HashJoinLocal> {
        let plan = &*self.plan;
        let table = shared.table.lock().clone();
        let spilled = table.as_ref().and_then(|table| table.spilled.as_deref());
        let intake =
            spilled.map(|spilled| Intake::new(&plan.roles.probe_types, plan.roles.has_keys(), spilled.split));
        let account = shared.accounts.lock().pop();
        Ok(HashJoinLocal {
            prober: Prober::new(&plan.roles, plan.probe_evaluator()?)?,
            intake,
            table,
            deferred: BufMut::empty(),
            pending: None,
            waiting: Retry::default(),
            drain: Drain::new(),
            account: account.ok_or_else(|| Error::internal("more lanes than the join was opened for"))?,
        })
    }

    fn push(
        &self,
        _shared: &ProbeShared,
        local: &mut HashJoinLocal,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Output> {
        let plan = &*self.plan;
        let HashJoinLocal { prober, table, intake, deferred, pending, account, .. } = &mut *local;
        let table = table.as_deref().ok_or_else(over)?;
        if plan.needs_no_probe_rows(table) {
            return Ok(Output::Done(None));
        }
        let keys = prober.encode(&plan.roles, &batch, cx)?;
        let (Some(spilled), Some(_)) = (&table.spilled, intake) else {
            prober.start(
                &plan.roles,
                table,
                (batch, keys),
                (Share::Whole, Matches::default()),
                cx.account,
            )?;
            return prober.advance(&plan.roles, table, cx);
        };
        account.relieve();
        let partition_of = spilled.split.partitioner(&plan.roles.keys);
        let waits = |word: u64| spilled.waits[partition_of(word)];
        prober.encoder().divide(waits, deferred, cx.account)?;
        *pending = Some(Pending { batch, keys, put_off: 0 });
        local.put_off(plan, cx)
    }

    fn resume(&self, _shared: &ProbeShared, local: &mut HashJoinLocal, cx: &LaneCx<'_>) -> Result<Output> {
        if local.pending.is_some() {
            return local.put_off(&self.plan, cx);
        }
        let table = local.table.as_deref().ok_or_else(over)?;
        local.prober.advance(&self.plan.roles, table, cx)
    }

    fn flush(&self, shared: &ProbeShared, local: &mut HashJoinLocal, cx: &LaneCx<'_>) -> Result<Output> {
        if let Some(intake) = &mut local.intake {
            let file = intake.take_file(&self.plan.roles.keys, &local.account, cx)?;
            shared.files.lock().extend(file);
        }
        Ok(Output::Done(None))
    }

    fn has_drain(&self) -> bool {
        true
    }

    fn drain(&self, shared: &ProbeShared, local: &mut HashJoinLocal, cx: &LaneCx<'_>) -> Result<Pull> {
        local.drain(&self.plan, shared, cx)
    }
}

fn over() -> Error {
    Error::internal("probe rows after the drain")
}

impl HashJoinLocal {
    /// Sends the rows of the pending batch, which was encoded last, that may match what is spilled to disk; then joins the
    /// others, if any. Waits for the memory that one of them needs.
    fn put_off(&mut self, plan: &Plan, cx: &LaneCx<'_>) -> Result<Output> {
        let Self { prober, table, intake, deferred, pending, waiting, account, .. } = self;
        let (Some(table), Some(intake)) = (table.as_deref(), intake) else { return Err(over()) };
        let Some(Pending { batch, put_off, .. }) = pending else { return Ok(Output::NeedInput) };
        if !deferred.is_empty() {
            let words = prober.encoder().words();
            let mut taken = Taken { words, keyed: &deferred[*put_off..], others: &[] };
            let added = intake.add(batch, &mut taken, &plan.roles.keys, account, cx)?;
            *put_off = deferred.len() - taken.keyed.len();
            if let Err(denied) = added {
                let wait = waiting.wait(denied.bytes, cx).map(Output::Wait);
                return wait.ok_or_else(|| too_small(denied, account, cx));
            }
            waiting.end();
            // A block for each partition is enough to wait for.
            if intake.rows() >= ordered_rows(&plan.roles.probe_types, &cx.query.knobs) {
                intake.write_out(&plan.roles.keys, cx)?;
            }
        }
        let Some(Pending { mut batch, keys, .. }) = pending.take() else { return Ok(Output::NeedInput) };
        if deferred.len() == batch.rows() {
            return Ok(Output::NeedInput);
        }
        if !deferred.is_empty() {
            let mut waits = BitmapMut::with_len(cx.account, batch.physical_rows())?;
            deferred.iter().for_each(|&row| waits.set(row as usize, true));
            let rest = alive_where(&batch, cx.account, |row| !waits.get(row))?;
            batch = batch.with_selection(rest);
        }
        prober.start(&plan.roles, table, (batch, keys), (Share::Whole, Matches::default()), cx.account)?;
        prober.advance(&plan.roles, table, cx)
    }
}

impl Plan {
    /// Whether probe rows change nothing.
    fn needs_no_probe_rows(&self, table: &Table) -> bool {
        match self.roles.kind {
            HashJoinKind::Inner
            | HashJoinKind::BuildOuter
            | HashJoinKind::ProbeSemi
            | HashJoinKind::BuildSemi
            | HashJoinKind::BuildAnti => {
                table.lookup_rows == 0 && table.spilled.as_ref().is_none_or(|spilled| spilled.waiting() == 0)
            }
            HashJoinKind::ProbeAnti { null_aware } => null_aware && table.has_null_key,
            HashJoinKind::ProbeOuter
            | HashJoinKind::FullOuter
            | HashJoinKind::ProbeSingle
            | HashJoinKind::ProbeMark { .. } => false,
        }
    }
}
