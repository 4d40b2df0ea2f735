//! The source: merges the runs of all lanes, on disk first if they are too many for one merge.
//!
//! Invariants:
//! 1. A refusal of blocks ends the merge it befalls; what is left of its runs is merged fewer at a time.
//! 2. Runs in memory go to disk before that, and when others want memory.

use super::consumer::Victim;
use super::merge::{Merge, Portion, is_refusal};
use super::run::Run;
use super::sink::{SortShared, turn};
use super::spill::Spill;
use super::{SLICE, SortSpec};
use crate::data::{Batch, Vector};
use crate::error::{Error, Result};
use crate::exec::{Handoff, LaneCx, Need, OpenCx, Pull, Source};
use crate::mem::{Account, Knobs};
use crate::spill::SpillWriter;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The fewest runs a merge can do something with.
const LEAST_FAN_IN: usize = 2;

pub(super) struct SortSource {
    spec: Arc<SortSpec>,
    handoff: Handoff<SortShared>,
}

/// The run.
pub(super) struct Shared {
    sort: Arc<SortShared>,
    /// Memory of the lane, until it starts: for blocks read, and for rows to be written.
    accounts: Mutex<Option<(Account, Account)>>,
}

pub(super) struct Local {
    stage: Stage,
    /// Rows still wanted.
    missing: u64,
    /// The most runs to merge at a time, once a merge of more was refused memory.
    fan_in: usize,
    /// Whether runs in memory are to be written to disk.
    must_spill: bool,
    /// Refusals injected so far.
    forced: u32,
    victim: Victim,
    blocks: Account,
    spill: Account,
}

enum Stage {
    /// Runs in order, nothing read.
    Runs(Vec<Run>),
    /// Some of the runs are being made one.
    Reducing(Box<Reduction>),
    /// The last merge.
    Emitting(Box<Merge>),
    /// Over.
    Done,
}

/// Makes one run of `spill`'s, which were between `before` and `after`.
struct Reduction {
    before: Vec<Run>,
    spill: Spill,
    after: Vec<Run>,
    writer: SpillWriter,
}

impl SortSource {
    pub(super) fn new(spec: Arc<SortSpec>, handoff: Handoff<SortShared>) -> Self {
        Self { spec, handoff }
    }

    /// How many runs to merge at a time: each has two blocks in memory, and one more while it is read.
    fn fan_in(&self, local: &Local, cx: &LaneCx<'_>) -> usize {
        let block_bytes = self.spec.read_floor_bytes(&cx.query.knobs) / 4;
        let free_bytes = cx.query.pool.available_bytes() / 4 * 3 + 4 * block_bytes;
        (free_bytes / (2 * block_bytes)).min(local.fan_in).max(LEAST_FAN_IN)
    }

    /// What to do with `runs`: merge them, or make fewer of them.
    fn plan(&self, mut runs: Vec<Run>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Stage> {
        let fan_in = self.fan_in(local, cx);
        let window = if local.must_spill && runs.iter().any(Run::is_in_memory) {
            in_memory(&runs)
        } else if runs.iter().filter(|run| !run.is_in_memory()).count() > fan_in {
            smallest_window(&runs, fan_in)
        } else {
            return Ok(Stage::Emitting(Box::new(Merge::new(runs))));
        };
        let after = runs.split_off(window.end);
        let merged = runs.split_off(window.start);
        let types = self.spec.run_types();
        let writer = cx.query.spill.writer(&types, &local.spill, self.spec.block_bytes(&cx.query.knobs))?;
        let spill = Spill::new(merged, &self.spec, local.missing, &cx.query.knobs);
        Ok(Stage::Reducing(Box::new(Reduction { before: runs, spill, after, writer })))
    }

    /// What to do after a refusal with what is left of the runs.
    fn retreat(&self, runs: Vec<Run>, refused: &Error, local: &mut Local, cx: &LaneCx<'_>) -> Result<Stage> {
        local.blocks.trim();
        if runs.iter().any(Run::is_in_memory) && !local.must_spill {
            local.must_spill = true;
        } else if local.fan_in > LEAST_FAN_IN && runs.len() > LEAST_FAN_IN {
            local.fan_in = (local.fan_in.min(runs.len()) / 2).max(LEAST_FAN_IN);
        } else {
            return Err(self.spec.too_small(refused, &cx.query.pool));
        }
        Ok(Stage::Runs(runs))
    }

    /// Goes on making one run of several for a while.
    fn reduce(&self, mut reduction: Box<Reduction>, local: &mut Local, cx: &LaneCx<'_>) -> Result<Stage> {
        let until = Some(Instant::now() + SLICE);
        let Reduction { spill, writer, .. } = &mut *reduction;
        let outcome = spill.advance(writer, 0, (&local.blocks, &local.spill), until, cx);
        let refused = match outcome {
            Ok(false) => return Ok(Stage::Reducing(reduction)),
            Ok(true) => None,
            Err(error) if is_refusal(&error) => Some(error),
            Err(error) => return Err(error),
        };
        let Reduction { before: mut runs, spill, after, writer } = *reduction;
        if spill.rows > 0 {
            let file = Arc::new(writer.finish()?);
            runs.push(Run::of_file(file.reader(0), spill.rows));
        }
        if let Some(refused) = refused {
            runs.extend(spill.into_runs());
            runs.extend(after);
            return self.retreat(runs, &refused, local, cx);
        }
        runs.extend(after);
        local.blocks.trim();
        if !runs.iter().any(Run::is_in_memory) {
            local.victim.publish(0);
        }
        Ok(Stage::Runs(runs))
    }

    /// Whether the fault injector wants a merge of `runs` refused: it may while that makes a difference.
    fn is_forced(&self, runs: &[Run], local: &mut Local, cx: &LaneCx<'_>) -> bool {
        const MOST_FORCED: u32 = 3;
        let can_retreat = runs.len() > LEAST_FAN_IN && local.fan_in > LEAST_FAN_IN;
        let is_forced = can_retreat && local.forced < MOST_FORCED && cx.must_refuse();
        local.forced += u32::from(is_forced);
        is_forced
    }
}

/// The first runs in memory that are next to each other.
fn in_memory(runs: &[Run]) -> Range<usize> {
    let start = runs.iter().position(Run::is_in_memory).unwrap_or(0);
    let len = runs[start..].iter().take_while(|run| run.is_in_memory()).count();
    start..start + len
}

/// Neighbours with the fewest rows, as many as may be merged at once or, if fewer do, as many as leave `fan_in` runs.
fn smallest_window(runs: &[Run], fan_in: usize) -> Range<usize> {
    let len = (runs.len() - fan_in + 1).clamp(LEAST_FAN_IN, fan_in);
    let rows = |start: &usize| runs[*start..*start + len].iter().map(|run| run.rows).sum::<u64>();
    let start = (0..=runs.len() - len).min_by_key(rows).unwrap_or(0);
    start..start + len
}

impl Source for SortSource {
    type Shared = Shared;
    type Local = Local;

    fn name(&self) -> String {
        self.spec.name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let batch_bytes = knobs.batch_rows * (self.spec.row_bytes() + 1) + self.spec.columns_bytes();
        let shared_bytes = self.spec.read_floor_bytes(knobs) + self.spec.spill_floor_bytes(knobs);
        Need { lane_bytes: batch_bytes, shared_bytes }
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        let spill_bytes = self.spec.spill_floor_bytes(&cx.query.knobs);
        // One lane: what is left after the first account is the second one's.
        let spill = cx.lane_accounts(spill_bytes, 4 << 10, spill_bytes).pop();
        let spill = spill.ok_or_else(|| Error::internal("a sort is read by no lane"))?;
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let blocks = cx.shared_account(quantum_bytes, 4 << 20);
        Ok(Shared { sort: self.handoff.get()?, accounts: Mutex::new(Some((blocks, spill))) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Local> {
        let accounts = shared.accounts.lock().take();
        let (blocks, spill) = accounts.ok_or_else(|| Error::internal("a sort is read by one lane"))?;
        let runs = std::mem::take(&mut *shared.sort.runs.lock());
        let victim = Victim::register(self.spec.name(), &cx.query.pool);
        victim.exempt(&blocks);
        victim.exempt(&spill);
        victim.publish(runs.iter().map(Run::allocated_bytes).sum());
        Ok(Local {
            stage: Stage::Runs(runs),
            missing: self.spec.fetch_rows(),
            fan_in: usize::MAX,
            must_spill: false,
            forced: 0,
            victim,
            blocks,
            spill,
        })
    }

    fn pull(&self, _shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        let is_asked = local.victim.take_request();
        local.blocks.relieve();
        loop {
            local.stage = match std::mem::replace(&mut local.stage, Stage::Done) {
                Stage::Runs(runs) if self.is_forced(&runs, local, cx) => {
                    let refused = crate::mem::Denied { bytes: 0 }.into();
                    self.retreat(runs, &refused, local, cx)?
                }
                Stage::Runs(runs) => self.plan(runs, local, cx)?,
                Stage::Reducing(reduction) => {
                    local.stage = self.reduce(reduction, local, cx)?;
                    return Ok(Pull::Wait(turn(cx)));
                }
                Stage::Emitting(merge) if is_asked && !local.must_spill && merge.is_in_memory() => {
                    local.must_spill = true;
                    Stage::Runs(merge.into_runs())
                }
                Stage::Emitting(mut merge) => {
                    let rows = usize::try_from(local.missing).unwrap_or(usize::MAX).min(cx.batch_rows());
                    let bytes = cx.batch_rows() * (self.spec.row_bytes() + 32) + cx.query.knobs.block_bytes;
                    let portion = Portion { rows, bytes, has_keys: false };
                    let next = match rows {
                        0 => Ok(None),
                        _ => merge.next_rows(portion, &cx.query.ids, &local.blocks, cx.account),
                    };
                    match next {
                        Ok(Some((rows, columns))) => {
                            local.missing -= rows as u64;
                            local.stage = Stage::Emitting(merge);
                            let columns = columns.into_iter().map(Vector::Flat).collect();
                            return Ok(Pull::Emit(Batch::new(columns, rows)));
                        }
                        Ok(None) => {
                            local.victim.publish(0);
                            return Ok(Pull::Done);
                        }
                        Err(error) if is_refusal(&error) => {
                            self.retreat(merge.into_runs(), &error, local, cx)?
                        }
                        Err(error) => return Err(error),
                    }
                }
                Stage::Done => return Ok(Pull::Done),
            };
        }
    }
}
