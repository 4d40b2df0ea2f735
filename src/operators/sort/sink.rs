//! The sink: collects rows, seals runs, spills them when memory is short.

use super::consumer::Victim;
use super::keys::{KeyEncoder, Keys, prefix};
use super::merge::Merge;
use super::run::{Chunk, Run, RunBuilder};
use super::spill::Spill;
use super::{KEY_BYTES, PAGE_BYTES, SLICE, SortSpec};
use crate::data::{Batch, BufMut, FlatVector};
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Retry, Sink, Wait, WaitReason};
use crate::expr::{EvalCx, Evaluator};
use crate::mem::{Account, Knobs};
use crate::spill::SpillWriter;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Rows of a run: sorting so many takes a few milliseconds.
const RUN_ROWS: usize = 64 << 10;
const LARGEST_RUN_BYTES: usize = 4 << 20;
const LEAST_RUN_BYTES: usize = 128 << 10;
/// With a small fetch a lane merges its runs when it has this many.
const MOST_RUNS: usize = 8;

pub(super) struct SortSink {
    spec: Arc<SortSpec>,
    /// The columns to keep; all if it does not say.
    kept: Option<Vec<usize>>,
    handoff: Handoff<SortShared>,
}

/// What sink and source share.
pub(super) struct SortShared {
    encoder: KeyEncoder,
    run_bytes: usize,
    /// Memory of lanes that have not started.
    accounts: Mutex<Vec<Accounts>>,
    /// The runs of lanes that have combined.
    pub(super) runs: Mutex<Vec<Run>>,
    /// No row whose key's prefix is greater can be among the first; set only with a fetch.
    cutoff: AtomicU64,
}

/// A lane's memory.
struct Accounts {
    /// For rows and runs: revocable but for a batch.
    rows: Account,
    /// For what is on its way to disk.
    spill: Account,
}

pub(super) struct Local {
    evaluator: Evaluator,
    builder: RunBuilder,
    /// Runs in memory.
    runs: Vec<Run>,
    /// The keys of the batch in work.
    keys: Keys,
    /// Numbers of rows: of a batch without a selection; of those worth keeping; and of their keys.
    all: BufMut<u32>,
    kept: BufMut<u32>,
    kept_keys: BufMut<u32>,
    pending: Option<Pending>,
    spilling: Option<Spill>,
    /// Tries to get memory to write with.
    waiting: Retry,
    /// Made at the start, for its memory is in the floor; `None` if rows of such types cannot be written.
    writer: Option<SpillWriter>,
    /// Rows of the runs written so far, each a partition of the writer's.
    spilled: Vec<u64>,
    /// Rows the lane must hold before an injected refusal is heeded. Doubled each time, so that what is tested is that
    /// spilling works at any moment, not that runs of single rows are slow.
    forced_rows: usize,
    victim: Victim,
    accounts: Accounts,
}

/// A batch that is not in the builder yet, or not all of it.
struct Pending {
    batch: Batch,
    /// The columns of its keys; `None` until they are evaluated.
    columns: Option<Vec<FlatVector>>,
    /// Which of its rows comes next.
    at: usize,
    /// Rows from `at` to here have their keys in the lane's.
    encoded: usize,
    /// How many rows to encode at once.
    step: usize,
    /// How many of those that have keys and are kept are in the builder, and how many more to try at once.
    appended: usize,
    append_step: usize,
    waiting: Retry,
}

impl Pending {
    fn new(batch: Batch) -> Self {
        let step = batch.rows();
        Self {
            batch,
            columns: None,
            at: 0,
            encoded: 0,
            step,
            appended: 0,
            append_step: step,
            waiting: Retry::default(),
        }
    }
}

impl SortSink {
    pub(super) fn new(spec: Arc<SortSpec>, kept: Option<Vec<usize>>, handoff: Handoff<SortShared>) -> Self {
        Self { spec, kept, handoff }
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

    /// Memory of a lane that holds one batch.
    fn rows_floor_bytes(&self, knobs: &Knobs) -> usize {
        let row_bytes = self.spec.row_bytes() + (1 + self.spec.keys.len()) * KEY_BYTES + size_of::<u128>();
        knobs.batch_rows * row_bytes * 3 / 2 + self.spec.columns_bytes()
    }

    /// Makes a run of what the lane has collected, laid out in order if there is memory for that.
    fn seal(&self, shared: &SortShared, local: &mut Local, cx: &LaneCx<'_>) -> Result<()> {
        if local.builder.rows() == 0 {
            return Ok(());
        }
        let account = &local.accounts.rows;
        let run = local.builder.sort(self.spec.fetch_rows(), account)?;
        // All at once: each column is small enough to stay in the cache while its values are picked at random. Merging
        // then goes through the chunks from front to back.
        let (chunks, rest) = lay_out(vec![run.clone()], u64::MAX, usize::MAX, cx, account)?;
        local.runs.push(if rest.is_empty() { Run::of_chunks(chunks) } else { run });
        let Some(fetch) = self.small_fetch() else { return Ok(()) };
        if local.runs.len() == MOST_RUNS {
            let (chunks, rest) =
                lay_out(std::mem::take(&mut local.runs), fetch as u64, cx.batch_rows(), cx, account)?;
            local.runs.push(Run::of_chunks(chunks));
            local.runs.extend(rest);
        }
        if let Some(last) = local.runs.last()
            && last.rows == fetch as u64
            && let Some(key) = last.last_key()
        {
            shared.cutoff.fetch_min(prefix(key), Relaxed);
        }
        Ok(())
    }

    fn writer(&self, account: &Account, cx: &LaneCx<'_>) -> Result<SpillWriter> {
        let (types, block_bytes) = (self.spec.run_types(), self.spec.block_bytes(&cx.query.knobs));
        cx.query.spill.writer(&types, account, block_bytes)
    }

    /// Begins to write everything in memory to disk.
    fn start_spill(&self, local: &mut Local, cx: &LaneCx<'_>) -> Result<()> {
        let account = &local.accounts.rows;
        if local.builder.rows() > 0 {
            local.runs.push(local.builder.sort(self.spec.fetch_rows(), account)?);
        }
        if local.writer.is_none() {
            local.writer = Some(self.writer(&local.accounts.spill, cx)?);
        }
        local.spilling = Some(Spill::new(
            std::mem::take(&mut local.runs),
            &self.spec,
            self.spec.fetch_rows(),
            &cx.query.knobs,
        ));
        cx.metrics.counter("spills").fetch_add(1, Relaxed);
        Ok(())
    }

    /// Goes on writing until `until`; what to wait for before it goes on, if something is left to be written.
    ///
    /// # Errors
    /// `BudgetTooSmall` if a row cannot be written and nobody is about to give back anything.
    fn spill_on(
        &self,
        shared: &SortShared,
        local: &mut Local,
        until: Instant,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Wait>> {
        match self.write_on(shared, local, Some(until), cx) {
            Ok(is_over) => {
                local.waiting.end();
                Ok((!is_over).then(|| turn(cx)))
            }
            Err(error) if error.is_refusal() => {
                let wait = local.waiting.wait(error.refused_bytes(), cx);
                wait.map(Some).ok_or_else(|| self.spec.made_final(error, &cx.query.pool))
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on writing, until `until`; whether nothing is left to be written. After a refusal it can be called again.
    fn write_on(
        &self,
        shared: &SortShared,
        local: &mut Local,
        until: Option<Instant>,
        cx: &LaneCx<'_>,
    ) -> Result<bool> {
        let (Some(spill), Some(writer)) = (&mut local.spilling, &mut local.writer) else { return Ok(true) };
        let accounts = (&local.accounts.rows, &local.accounts.spill);
        let partition = local.spilled.len() as u32;
        let is_over = spill.advance(writer, partition, accounts, until, cx)?;
        if is_over {
            if self.small_fetch().is_some_and(|fetch| spill.rows == fetch as u64) {
                shared.cutoff.fetch_min(spill.last_prefix, Relaxed);
            }
            local.spilled.push(spill.rows);
            local.spilling = None;
            local.accounts.rows.trim();
        }
        local.publish();
        Ok(is_over)
    }

    /// Takes the pending batch in, spilling as often as it takes.
    fn go_on(&self, shared: &SortShared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Flow> {
        let until = Instant::now() + SLICE;
        loop {
            if let Some(wait) = self.spill_on(shared, local, until, cx)? {
                return Ok(Flow::Wait(wait));
            }
            match self.take_in(shared, local, cx) {
                Ok(true) => {
                    local.pending = None;
                    return Ok(Flow::NeedInput);
                }
                Ok(false) => {}
                Err(error) if error.is_refusal() => {
                    if let Some(wait) = self.make_room(local, &error, cx)? {
                        return Ok(Flow::Wait(wait));
                    }
                    if Instant::now() >= until {
                        return Ok(Flow::Wait(turn(cx)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in as many rows of the pending batch as are tried at once; whether that was the last of them. After a
    /// refusal it can be called again: nothing was taken in.
    fn take_in(&self, shared: &SortShared, local: &mut Local, cx: &LaneCx<'_>) -> Result<bool> {
        let Some(pending) = &mut local.pending else { return Ok(true) };
        let columns = match &pending.columns {
            Some(columns) => columns,
            None => {
                let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
                let columns = local.evaluator.evaluate(&pending.batch, &mut eval)?;
                let columns = columns.iter().map(|c| c.flatten(cx.account));
                let columns = columns.collect::<Result<Vec<FlatVector>, _>>()?;
                if pending.batch.selection().is_none() {
                    number(&mut local.all, pending.batch.physical_rows(), cx)?;
                }
                if let Some(kept) = &self.kept {
                    let kept = kept.iter().map(|&at| pending.batch.column(at).clone()).collect();
                    pending.batch = pending.batch.with_columns(kept);
                }
                pending.columns.insert(columns)
            }
        };
        let rows = match pending.batch.selection() {
            Some(selection) => selection.indices(),
            None => &local.all[..pending.batch.rows()],
        };
        if pending.at == rows.len() {
            return Ok(true);
        }
        if pending.encoded == pending.at {
            let end = (pending.at + pending.step).min(rows.len());
            let rows = &rows[pending.at..end];
            shared.encoder.encode(columns, rows, &mut local.keys, cx.account)?;
            let cutoff = shared.cutoff.load(Relaxed);
            for kept in [&mut local.kept, &mut local.kept_keys] {
                kept.set_len(0);
                kept.reserve(cx.account, rows.len())?;
            }
            for (at, row) in rows.iter().enumerate() {
                if prefix(local.keys.get(at)) <= cutoff {
                    local.kept.push(*row);
                    local.kept_keys.push(at as u32);
                }
            }
            (pending.encoded, pending.appended) = (end, 0);
        }
        let end = (pending.appended + pending.append_step).min(local.kept.len());
        if pending.appended < end {
            let part = pending.appended..end;
            let keys = local.kept_keys[part.clone()].iter().map(|number| local.keys.get(*number as usize));
            local.builder.append(&pending.batch, &local.kept[part], keys, &local.accounts.rows)?;
            pending.appended = end;
        }
        if end == local.kept.len() {
            pending.at = pending.encoded;
        }
        pending.waiting.end();
        let is_last = pending.at == rows.len();
        let full_bytes = shared.run_bytes.max(2 * PAGE_BYTES * self.spec.types.len());
        if local.builder.rows() >= self.run_rows(cx) || local.builder.allocated_bytes() >= full_bytes {
            self.seal(shared, local, cx)?;
        }
        local.publish();
        Ok(is_last)
    }

    /// Makes room for what the pending batch was refused, so that it can be tried again; or what to wait for first.
    ///
    /// # Errors
    /// `BudgetTooSmall` if a single row does not fit and nobody is about to give back anything.
    fn make_room(&self, local: &mut Local, refused: &Error, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        if local.holds_rows() {
            self.start_spill(local, cx)?;
            return Ok(None);
        }
        // What more rows have grown may have used up what a few rows need. Keys that are made already stay: room for
        // them would have to be found again.
        let Some(pending) = &mut local.pending else { return Ok(None) };
        if pending.encoded > pending.at {
            local.builder = RunBuilder::new(self.spec.types.len(), &local.accounts.rows)?;
            let tried = pending.append_step.min(local.kept.len() - pending.appended);
            if tried > 1 {
                pending.append_step = tried.div_ceil(2);
                return Ok(None);
            }
        } else {
            local.keys.release();
            let tried = pending.step.min(pending.batch.rows() - pending.at);
            if tried > 1 {
                pending.step = tried.div_ceil(2);
                return Ok(None);
            }
        }
        // Somebody may be about to give back what was asked for.
        let wait = pending.waiting.wait(refused.refused_bytes(), cx);
        wait.map(Some).ok_or_else(|| self.spec.made_final(refused.clone(), &cx.query.pool))
    }
}

/// A wait for no more than others' turn.
pub(in crate::operators) fn turn(cx: &LaneCx<'_>) -> Wait {
    cx.waker.wake_by_ref();
    Wait::registered(WaitReason::Turn, ())
}

/// The first `fetch` rows of runs in memory as chunks in order, of `chunk_rows` each, and what is left if memory was
/// refused.
fn lay_out(
    runs: Vec<Run>,
    fetch: u64,
    chunk_rows: usize,
    cx: &LaneCx<'_>,
    account: &Account,
) -> Result<(VecDeque<Arc<Chunk>>, Vec<Run>)> {
    let mut merge = Merge::new(runs);
    let mut chunks = VecDeque::new();
    let mut missing = fetch;
    while missing > 0 {
        let rows = usize::try_from(missing).unwrap_or(usize::MAX).min(chunk_rows);
        match merge.next_chunk(rows, &cx.query.ids, account) {
            Ok(Some(chunk)) => {
                missing -= chunk.rows() as u64;
                chunks.push_back(Arc::new(chunk));
            }
            Ok(None) => break,
            Err(error) if error.is_refusal() => {
                return Ok((chunks, merge.into_runs()));
            }
            Err(error) => return Err(error),
        }
        cx.check()?;
    }
    Ok((chunks, Vec::new()))
}

impl Local {
    fn holds_rows(&self) -> bool {
        self.builder.rows() > 0 || !self.runs.is_empty()
    }

    fn held_rows(&self) -> u64 {
        self.builder.rows() as u64 + self.runs.iter().map(|run| run.rows).sum::<u64>()
    }

    fn publish(&self) {
        let used_bytes = if self.holds_rows() { self.accounts.rows.used_bytes() } else { 0 };
        self.victim.publish(used_bytes);
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
        let key_bytes = exprs.len() * KEY_BYTES + 3 * size_of::<u32>();
        let pages = (exprs.len() + 6) * PAGE_BYTES;
        let lane_floors = self.rows_floor_bytes(knobs) + self.spec.spill_floor_bytes(knobs);
        Need {
            lane_bytes: scratch + pages + knobs.batch_rows * key_bytes,
            shared_bytes: knobs.lanes * lane_floors,
        }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Arc<SortShared>> {
        let limit_bytes = cx.query.pool.limit_bytes();
        let share = limit_bytes / (16 * cx.lanes.max(1));
        let quantum_bytes = (limit_bytes / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
        let knobs = &cx.query.knobs;
        let (rows_bytes, spill_bytes) = (self.rows_floor_bytes(knobs), self.spec.spill_floor_bytes(knobs));
        let rows = cx.lane_accounts(rows_bytes, quantum_bytes, rows_bytes);
        let spill = cx.lane_accounts(spill_bytes, 4 << 10, spill_bytes);
        let accounts = rows.into_iter().zip(spill).map(|(rows, spill)| Accounts { rows, spill });
        let shared = Arc::new(SortShared {
            encoder: KeyEncoder::new(&self.spec.keys)?,
            run_bytes: share.clamp(LEAST_RUN_BYTES, LARGEST_RUN_BYTES),
            accounts: Mutex::new(accounts.collect()),
            runs: Mutex::new(Vec::new()),
            cutoff: AtomicU64::new(u64::MAX),
        });
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, shared: &Arc<SortShared>, cx: &LaneCx<'_>) -> Result<Local> {
        let exprs: Vec<_> = self.spec.keys.iter().map(|key| key.expr.clone()).collect();
        let accounts = shared.accounts.lock().pop();
        let accounts = accounts.ok_or_else(|| Error::internal("more lanes than the sort was opened for"))?;
        let victim = Victim::register(self.spec.name(), &cx.query.pool);
        victim.exempt(&accounts.rows);
        victim.exempt(&accounts.spill);
        let writer = match self.writer(&accounts.spill, cx) {
            Ok(writer) => Some(writer),
            // Such rows can be sorted, if they fit.
            Err(Error::Unsupported(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Local {
            evaluator: Evaluator::new(&exprs, &self.spec.layout)?,
            builder: RunBuilder::new(self.spec.types.len(), &accounts.rows)?,
            runs: Vec::new(),
            keys: Keys::new(cx.account)?,
            all: BufMut::empty(),
            kept: BufMut::empty(),
            kept_keys: BufMut::empty(),
            pending: None,
            spilling: None,
            waiting: Retry::default(),
            writer,
            spilled: Vec::new(),
            forced_rows: 1,
            victim,
            accounts,
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
        local.accounts.rows.relieve();
        local.pending = Some(Pending::new(batch));
        let held_rows = local.held_rows();
        let is_forced = held_rows >= local.forced_rows as u64 && cx.must_refuse();
        if is_forced {
            local.forced_rows = (2 * local.forced_rows).min(RUN_ROWS);
        }
        if held_rows > 0 && (local.victim.take_request() || is_forced) {
            self.start_spill(local, cx)?;
        }
        self.go_on(shared, local, cx)
    }

    fn resume(&self, shared: &Arc<SortShared>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Flow> {
        self.go_on(shared, local, cx)
    }

    fn combine(&self, shared: &Arc<SortShared>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Combine> {
        if let Some(wait) = self.spill_on(shared, local, Instant::now() + SLICE, cx)? {
            return Ok(Combine::Wait(wait));
        }
        // Nobody could ask for these rows before the source starts: where memory is short they go now.
        let pool = &cx.query.pool;
        let is_tight = || pool.available_bytes() < pool.limit_bytes() / 4 || local.victim.take_request();
        let used_bytes = local.accounts.rows.used_bytes();
        let may_go =
            || self.small_fetch().is_none() && cx.query.spill.available_bytes() > 2 * used_bytes as u64;
        if local.holds_rows() && (!local.spilled.is_empty() || (may_go() && is_tight())) {
            self.start_spill(local, cx)?;
            return Ok(Combine::Wait(turn(cx)));
        }
        self.seal(shared, local, cx)?;
        let mut runs = Vec::with_capacity(local.spilled.len() + local.runs.len());
        if let Some(writer) = local.writer.take_if(|_| !local.spilled.is_empty()) {
            let file = Arc::new(writer.finish()?);
            let spilled = local.spilled.drain(..).enumerate();
            runs.extend(spilled.map(|(partition, rows)| Run::of_file(file.reader(partition as u32), rows)));
        }
        runs.append(&mut local.runs);
        local.victim.publish(0);
        shared.runs.lock().append(&mut runs);
        Ok(Combine::Ready)
    }

    fn finish(&self, _shared: &Arc<SortShared>, _cx: &LaneCx<'_>) -> Result<Finish> {
        Ok(Finish::Ready)
    }

    fn reclaim(
        &self,
        shared: &Arc<SortShared>,
        local: &mut Local,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        let before = local.accounts.rows.used_bytes();
        if local.spilling.is_none() && local.holds_rows() {
            self.start_spill(local, cx)?;
        }
        match self.write_on(shared, local, None, cx) {
            // What is left is written when the lane goes on.
            Err(error) if error.is_refusal() => {}
            written => _ = written?,
        }
        Ok(before.saturating_sub(local.accounts.rows.used_bytes()))
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
