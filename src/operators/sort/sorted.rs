//! The runs of all lanes on their way out, as one: merged, on disk first if they are too many for one merge.
//!
//! Invariants:
//! 1. A refusal of blocks ends the merge it befalls; what is left of its runs is merged fewer at a time.
//! 2. Runs in memory go to disk before that, and when others want memory.
//! 3. Who has nothing more to give waits for others, and for the client, before the budget is called too small.
//! 4. Of what reads rows by turns, one at a time reduces its runs: they may share the account for that.

use super::consumer::Victim;
use super::merge::Merge;
use super::picked::{Picked, Portion};
use super::run::Run;
use super::sink::{SortShared, turn};
use super::spill::Spill;
use super::{SLICE, SortSpec};
use crate::data::FlatVector;
use crate::error::{Error, Result};
use crate::exec::{Handoff, LaneCx, Retry, Wait};
use crate::mem::{Account, Knobs};
use crate::metrics::MERGE_NANOS;
use crate::spill::SpillWriter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The fewest runs a merge can do something with.
const LEAST_FAN_IN: usize = 2;

/// What a sort's rows are read by, once its sink has finished.
pub(in crate::operators) struct SortedSide {
    spec: Arc<SortSpec>,
    handoff: Handoff<SortShared>,
}

/// What [`SortedRows::next`] answers.
pub(in crate::operators) enum Sorted<T = Vec<FlatVector>> {
    /// So many rows.
    Rows(usize, T),
    /// Call again after the waker was called.
    Wait(Wait),
    /// There are no more.
    End,
}

/// Memory that the merge was refused; it is as it was.
struct Refused(Error);

/// Rows in order. For one lane at a time.
pub(in crate::operators) struct SortedRows {
    spec: Arc<SortSpec>,
    stage: Stage,
    /// Whether the keys come along, as a last column.
    has_keys: bool,
    /// Rows still wanted.
    missing: u64,
    /// The most runs to merge at a time, once a merge of more was refused memory.
    fan_in: usize,
    /// Whether runs in memory are to be written to disk.
    must_spill: bool,
    /// Refusals injected so far.
    forced: u32,
    waiting: Retry,
    victim: Victim,
    blocks: Account,
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

impl SortedSide {
    pub(super) fn new(spec: Arc<SortSpec>, handoff: Handoff<SortShared>) -> Self {
        Self { spec, handoff }
    }

    pub(in crate::operators) fn spec(&self) -> &Arc<SortSpec> {
        &self.spec
    }

    /// The floor of the account that blocks are read into.
    pub(in crate::operators) fn read_floor_bytes(&self, knobs: &Knobs) -> usize {
        self.spec.read_floor_bytes(knobs)
    }

    /// The floor of the account for rows that go to disk once more.
    pub(in crate::operators) fn spill_floor_bytes(&self, knobs: &Knobs) -> usize {
        self.spec.spill_floor_bytes(knobs)
    }

    /// What a batch of rows takes, which is laid out in the lane's memory.
    pub(in crate::operators) fn batch_bytes(&self, knobs: &Knobs) -> usize {
        knobs.batch_rows * (self.spec.row_bytes() + 1) + self.spec.columns_bytes()
    }

    /// The rows, taken from the sink.
    pub(in crate::operators) fn rows(
        &self,
        blocks: Account,
        spill: &Account,
        has_keys: bool,
        cx: &LaneCx<'_>,
    ) -> Result<SortedRows> {
        let runs = std::mem::take(&mut *self.handoff.get()?.runs.lock());
        let victim = Victim::register(self.spec.name(), &cx.query.pool);
        victim.exempt(&blocks);
        victim.exempt(spill);
        victim.publish(runs.iter().map(Run::allocated_bytes).sum());
        Ok(SortedRows {
            spec: Arc::clone(&self.spec),
            stage: Stage::Runs(runs),
            has_keys,
            missing: self.spec.fetch_rows(),
            fan_in: usize::MAX,
            must_spill: false,
            forced: 0,
            waiting: Retry::default(),
            victim,
            blocks,
        })
    }
}

impl SortedRows {
    /// How many runs to merge at a time: each has two blocks in memory, and one more while it is read.
    fn fan_in(&self, cx: &LaneCx<'_>) -> usize {
        let block_bytes = self.spec.read_floor_bytes(&cx.query.knobs) / 4;
        let free_bytes = cx.query.pool.growable_bytes() / 4 * 3 + 4 * block_bytes;
        (free_bytes / (2 * block_bytes)).min(self.fan_in).max(LEAST_FAN_IN)
    }

    /// What to do with `runs`: merge them, or make fewer of them.
    fn plan(&self, mut runs: Vec<Run>, spill: &Account, cx: &LaneCx<'_>) -> Result<Stage> {
        let fan_in = self.fan_in(cx);
        let window = if self.must_spill && runs.iter().any(Run::is_in_memory) {
            in_memory(&runs)
        } else if runs.iter().filter(|run| !run.is_in_memory()).count() > fan_in {
            smallest_window(&runs, fan_in)
        } else {
            return Ok(Stage::Emitting(Box::new(Merge::new(runs))));
        };
        let after = runs.split_off(window.end);
        let merged = runs.split_off(window.start);
        let types = self.spec.run_types();
        let writer = cx.query.spill.writer(&types, spill, self.spec.block_bytes(&cx.query.knobs))?;
        let spill = Spill::new(merged, &self.spec, self.missing, &cx.query.knobs);
        Ok(Stage::Reducing(Box::new(Reduction { before: runs, spill, after, writer })))
    }

    /// After a refusal, makes a merge of `runs` need less; whether there was a way.
    fn retreat(&mut self, runs: usize, is_in_memory: bool) -> bool {
        self.blocks.trim();
        if is_in_memory && !self.must_spill {
            self.must_spill = true;
        } else if self.fan_in > LEAST_FAN_IN && runs > LEAST_FAN_IN {
            self.fan_in = (self.fan_in.min(runs) / 2).max(LEAST_FAN_IN);
        } else {
            return false;
        }
        true
    }

    /// Waits for what was `refused` and nothing here can be given back for.
    ///
    /// # Errors
    /// `BudgetTooSmall` once nobody else is about to give back anything.
    fn wait(&mut self, refused: &Error, cx: &LaneCx<'_>) -> Result<Wait> {
        self.waiting
            .wait(refused.refused_bytes(), cx)
            .ok_or_else(|| self.spec.made_final(refused.clone(), &cx.query.pool))
    }

    /// Goes on making one run of several for a while.
    fn reduce(
        &mut self,
        mut reduction: Box<Reduction>,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<(Stage, Wait)> {
        let until = Some(Instant::now() + SLICE);
        let Reduction { spill, writer, .. } = &mut *reduction;
        let outcome = spill.advance(writer, 0, (&self.blocks, account), until, cx);
        let refused = match outcome {
            Ok(false) => {
                self.waiting.end();
                return Ok((Stage::Reducing(reduction), turn(cx)));
            }
            Ok(true) => None,
            Err(error) if error.is_refusal() => Some(error),
            Err(error) => return Err(error),
        };
        let Reduction { before: mut runs, spill, after, writer } = *reduction;
        if spill.rows > 0 {
            let file = Arc::new(writer.finish()?);
            runs.push(Run::of_file(file.reader(0), spill.rows));
            self.waiting.end();
        }
        if let Some(refused) = refused {
            runs.extend(spill.into_runs());
            runs.extend(after);
            let has_given = self.retreat(runs.len(), runs.iter().any(Run::is_in_memory));
            let wait = if has_given { turn(cx) } else { self.wait(&refused, cx)? };
            return Ok((Stage::Runs(runs), wait));
        }
        runs.extend(after);
        self.blocks.trim();
        if !runs.iter().any(Run::is_in_memory) {
            self.victim.publish(0);
        }
        Ok((Stage::Runs(runs), turn(cx)))
    }

    /// Whether the fault injector wants a merge of `runs` refused: it may while that makes a difference.
    fn is_forced(&mut self, runs: &[Run], cx: &LaneCx<'_>) -> bool {
        const MOST_FORCED: u32 = 3;
        let can_retreat = runs.len() > LEAST_FAN_IN && self.fan_in > LEAST_FAN_IN;
        let is_forced = can_retreat && self.forced < MOST_FORCED && cx.must_refuse();
        self.forced += u32::from(is_forced);
        is_forced
    }

    /// The next rows, laid out in `account`. `spill` is what rows are written to disk with.
    pub(in crate::operators) fn next(
        &mut self,
        spill: &Account,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<Sorted> {
        let next = self.step(spill, cx, |merge, portion, _, blocks| {
            merge.next_rows(portion, &cx.query.ids, blocks, account)
        });
        match next? {
            Ok(next) => {
                if let Sorted::Rows(..) = next {
                    self.waiting.end();
                }
                Ok(next)
            }
            Err(Refused(error)) => {
                let wait = self.give_way(spill, cx)?;
                Ok(Sorted::Wait(wait.map_or_else(|| self.wait(&error, cx), Ok)?))
            }
        }
    }

    /// Whether rows may be picked ahead.
    pub(super) fn is_pickable(&self) -> bool {
        match &self.stage {
            Stage::Emitting(merge) => merge.is_alike(),
            Stage::Runs(_) | Stage::Reducing(_) | Stage::Done => true,
        }
    }

    /// The next rows, neither in order nor laid out; `None` if there is no memory for that, and nothing has changed. Nor are
    /// rows picked ahead that may be large: their chunks would take what laying them out needs.
    pub(super) fn pick_ahead(&mut self, spill: &Account, cx: &LaneCx<'_>) -> Result<Option<Sorted<Picked>>> {
        if !self.is_pickable() {
            return Ok(None);
        }
        let picked = self.step(spill, cx, |merge, portion, missing, blocks| {
            merge.next_picked(portion, missing, &cx.query.ids, blocks)
        });
        Ok(picked?.ok())
    }

    /// Gives memory back after a refusal, by taking the merge apart or going on to reduce its runs; what to wait for before
    /// the next try, or `None` if there is nothing to give.
    pub(super) fn give_way(&mut self, spill: &Account, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        let (runs, is_in_memory) = match &self.stage {
            Stage::Emitting(merge) => (merge.runs(), merge.is_in_memory()),
            Stage::Runs(runs) => (runs.len(), runs.iter().any(Run::is_in_memory)),
            Stage::Reducing(_) | Stage::Done => (0, false),
        };
        let may_reduce = self.retreat(runs, is_in_memory);
        let (stage, wait) = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Emitting(merge) if may_reduce => (Stage::Runs(merge.into_runs()), Some(turn(cx))),
            Stage::Runs(runs) if may_reduce => (Stage::Runs(runs), Some(turn(cx))),
            Stage::Reducing(reduction) => {
                let (stage, wait) = self.reduce(reduction, spill, cx)?;
                (stage, Some(wait))
            }
            stage => (stage, None),
        };
        self.stage = stage;
        Ok(wait)
    }

    /// Goes on to the next rows, which `take` takes from the merge, told how many are still wanted. A refusal leaves the
    /// merge as it is.
    fn step<T>(
        &mut self,
        spill: &Account,
        cx: &LaneCx<'_>,
        take: impl Fn(&mut Merge, Portion, usize, &Account) -> Result<Option<(usize, T)>>,
    ) -> Result<Result<Sorted<T>, Refused>> {
        let is_asked = self.victim.take_request();
        self.blocks.relieve();
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Runs(runs) if self.is_forced(&runs, cx) => {
                    self.retreat(runs.len(), runs.iter().any(Run::is_in_memory));
                    Stage::Runs(runs)
                }
                Stage::Runs(runs) => self.plan(runs, spill, cx)?,
                Stage::Reducing(reduction) => {
                    let (stage, wait) = self.reduce(reduction, spill, cx)?;
                    self.stage = stage;
                    return Ok(Ok(Sorted::Wait(wait)));
                }
                Stage::Emitting(merge) if is_asked && !self.must_spill && merge.is_in_memory() => {
                    self.must_spill = true;
                    Stage::Runs(merge.into_runs())
                }
                Stage::Emitting(mut merge) => {
                    let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
                    let rows = missing.min(cx.batch_rows());
                    let bytes = cx.batch_rows() * (self.spec.row_bytes() + 32) + cx.query.knobs.block_bytes;
                    let portion = Portion { rows, bytes, has_keys: self.has_keys };
                    let started = merge.reads_disk().then(Instant::now);
                    let next = match rows {
                        0 => Ok(None),
                        _ => take(&mut merge, portion, missing, &self.blocks),
                    };
                    started.into_iter().for_each(|started| cx.metrics.add_time(MERGE_NANOS, started));
                    match next {
                        Ok(Some((rows, columns))) => {
                            self.missing -= rows as u64;
                            self.stage = Stage::Emitting(merge);
                            return Ok(Ok(Sorted::Rows(rows, columns)));
                        }
                        Ok(None) => {
                            self.victim.publish(0);
                            return Ok(Ok(Sorted::End));
                        }
                        Err(error) if error.is_refusal() => {
                            self.stage = Stage::Emitting(merge);
                            return Ok(Err(Refused(error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Stage::Done => return Ok(Ok(Sorted::End)),
            };
        }
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
