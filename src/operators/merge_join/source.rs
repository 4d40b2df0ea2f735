//! The source: both sides in step.
//!
//! Invariants:
//! 1. A call does one thing after the other, in the order in which [`Local::advance`] names them: what is made of rows in
//!    hand comes before other rows are taken.
//! 2. A batch of the build side is let go only when nothing is owed of it; one of the probe side when all its rows have
//!    been answered.

use super::super::hash_join::HashJoinKind;
use super::super::held::{Block, HeldMemory, HeldReader};
use super::super::sort::{Victim, turn};
use super::cursor::Cursor;
use super::held::Held;
use super::input::{SideInput, SideRun};
use super::pairs::Pairs;
use super::plan::{NullFinder, Origin, Plan};
use super::residual::Residual;
use crate::data::{Batch, BitmapMut, BufMut, FlatVector, Selection, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Retry, Source, Wait};
use crate::mem::{Account, Knobs};
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::sync::Arc;

/// Steps of a call without rows to emit.
const MOST_STEPS: usize = 32;
/// Below one row alive in this many, copying survivors costs less than what follows saves.
const SPARSE: usize = 4;

pub(super) struct MergeJoinSource {
    plan: Arc<Plan>,
    build: SideInput,
    probe: SideInput,
}

/// The run.
pub(super) struct Shared {
    /// Memory of the lane, until it starts.
    accounts: Mutex<Option<Accounts>>,
}

struct Accounts {
    build: SideRun,
    probe: SideRun,
    /// For rows of either side that go to disk once more, one side at a time.
    spill: Account,
    held: Account,
    held_spill: Account,
}

pub(super) struct Local {
    plan: Arc<Plan>,
    probe: Cursor,
    build: Cursor,
    residual: Residual,
    nulls: NullFinder,
    /// What is known of the build side as a whole, once its first batch has come.
    facts: Option<Facts>,
    /// The build rows of the least key not done with.
    group: Group,
    /// Probe rows that are being paired with held ones.
    replay: Option<Replay>,
    /// Held rows that are done with and may have to come out.
    owing: Option<(Box<Held>, HeldReader)>,
    pairs: Pairs,
    /// Of the pairs, once it is known which match, how many have come out.
    emitted: Option<usize>,
    waiting: Retry,
    /// Of the rows of the probe batch, which have a match, and for which the residual is null.
    matched: Option<BitmapMut>,
    unknown: Option<BitmapMut>,
    /// Of the rows of the build batch, which have a match, where that is not the same for all of a key.
    flags: Option<BitmapMut>,
    /// Rows of the build batch that may have to come out.
    owed: BufMut<u32>,
    is_done: bool,
    spill: Account,
    memory: HeldMemory,
}

#[derive(Clone, Copy, Default)]
struct Facts {
    has_rows: bool,
    has_null_key: bool,
}

/// The rows of a key.
enum Group {
    /// They begin with the build side's next row.
    None,
    /// They lie in the batch, from its next row to `end`. `next` comes next for the probe row in hand.
    Here { end: usize, next: usize, is_null: bool, is_matched: bool },
    /// They were copied, and there may be more.
    Open(Box<Held>),
    /// They were copied.
    Held(Box<Held>),
}

/// Probe rows of one key on their way past the held rows.
struct Replay {
    start: usize,
    end: usize,
    reader: HeldReader,
    /// With how many held rows come before it.
    block: Option<(usize, Block)>,
    /// The next pair: a probe row and a row of the block.
    next: (usize, usize),
}

/// What a step comes to.
enum Step {
    Again,
    Emit(Batch),
    Wait(Wait),
    Done,
}

impl MergeJoinSource {
    pub(super) fn new(plan: Arc<Plan>, build: SideInput, probe: SideInput) -> Self {
        Self { plan, build, probe }
    }

    fn spill_bytes(&self, knobs: &Knobs) -> usize {
        self.build.spill_bytes(knobs).max(self.probe.spill_bytes(knobs))
    }
}

impl Source for MergeJoinSource {
    type Shared = Shared;
    type Local = Local;

    fn name(&self) -> String {
        "SortMergeJoin".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let sides = [&self.build, &self.probe];
        let batches: usize = sides.iter().map(|side| side.lane_bytes(knobs)).sum();
        let lane_bytes = batches + self.plan.pairs_bytes(knobs);
        let held = self.plan.build.sort_spec();
        let shared_bytes = sides.iter().map(|side| side.shared_bytes(knobs)).sum::<usize>()
            + self.spill_bytes(knobs)
            + held.read_floor_bytes(knobs)
            + held.spill_floor_bytes(knobs);
        Need { lane_bytes, shared_bytes }
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        self.plan.check()?;
        let knobs = &cx.query.knobs;
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let spill = |bytes: usize| cx.account(bytes, 4 << 10, bytes);
        let held = self.plan.build.sort_spec();
        let accounts = Accounts {
            build: self.build.open(quantum_bytes, cx)?,
            probe: self.probe.open(quantum_bytes, cx)?,
            spill: spill(self.spill_bytes(knobs)),
            held: cx.account(held.read_floor_bytes(knobs), quantum_bytes, 4 << 20),
            held_spill: spill(held.spill_floor_bytes(knobs)),
        };
        Ok(Shared { accounts: Mutex::new(Some(accounts)) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Local> {
        let accounts = shared.accounts.lock().take();
        let accounts = accounts.ok_or_else(|| Error::internal("a merge join is read by one lane"))?;
        let Accounts { build, probe, spill, held, held_spill } = accounts;
        let victim = Victim::register(self.name(), &cx.query.pool);
        victim.exempt(&held);
        victim.exempt(&held_spill);
        Ok(Local {
            plan: Arc::clone(&self.plan),
            probe: Cursor::new(self.probe.rows(probe, &spill, cx)?),
            build: Cursor::new(self.build.rows(build, &spill, cx)?),
            residual: Residual::new(&self.plan)?,
            nulls: self.plan.null_finder()?,
            facts: None,
            group: Group::None,
            replay: None,
            owing: None,
            pairs: Pairs::new(),
            emitted: None,
            waiting: Retry::default(),
            matched: None,
            unknown: None,
            flags: None,
            owed: BufMut::empty(),
            is_done: false,
            spill,
            memory: HeldMemory { rows: held, spill: held_spill, victim },
        })
    }

    fn pull(&self, _shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        local.memory.rows.relieve();
        if local.memory.victim.take_request() {
            local.give_way(cx)?;
        }
        for _ in 0..MOST_STEPS {
            cx.check()?;
            match local.advance(cx)? {
                Step::Again => {}
                Step::Emit(batch) => return Ok(Pull::Emit(batch)),
                Step::Wait(wait) => return Ok(Pull::Wait(wait)),
                Step::Done => return Ok(Pull::Done),
            }
        }
        Ok(Pull::Wait(turn(cx)))
    }

    fn reclaim(
        &self,
        _shared: &Shared,
        local: &mut Local,
        target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        let mut freed = local.give_way(cx)?;
        for cursor in [&mut local.build, &mut local.probe] {
            if freed < target_bytes {
                freed += cursor.input.reclaim(target_bytes - freed, cx)?;
            }
        }
        Ok(freed)
    }
}

impl Local {
    /// Brings held rows to disk; the bytes freed.
    fn give_way(&mut self, cx: &LaneCx<'_>) -> Result<usize> {
        match &mut self.group {
            Group::Open(held) | Group::Held(held) => {
                held.rows.spill(&self.plan.build.types, &self.memory, cx)
            }
            Group::None | Group::Here { .. } => Ok(0),
        }
    }

    /// Does what comes next.
    fn advance(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        if self.is_done {
            return Ok(Step::Done);
        }
        if self.pairs.len() > 0 {
            if self.emitted.is_none() {
                match self.decide_pairs(cx) {
                    Err(error) if error.is_refusal() => return self.wait(error, cx),
                    decided => decided?,
                }
            }
            return self.emit_pairs(cx);
        }
        if let Some((held, reader)) = &mut self.owing {
            let (before, block) = match reader.next(&held.rows, &self.memory, cx) {
                Ok(Some(next)) => next,
                Ok(None) => {
                    self.owing = None;
                    return Ok(Step::Again);
                }
                Err(error) if error.is_refusal() => return self.wait(error, cx),
                Err(error) => return Err(error),
            };
            self.waiting.end();
            let has_match = self.plan.kind.drains() == Some(true);
            let is_matched = |row: u32| match &held.flags {
                Some(flags) => flags.get(before + row as usize),
                None => held.is_matched,
            };
            self.owed.set_len(0);
            self.owed.reserve(cx.account, block.rows)?;
            (0..block.rows as u32)
                .filter(|&row| is_matched(row) == has_match)
                .for_each(|row| self.owed.push(row));
            return self.emit_build_rows(&block.columns, cx);
        }
        if self.replay.is_some() {
            return match self.pair_with_held(cx) {
                Ok(()) => {
                    self.waiting.end();
                    Ok(Step::Again)
                }
                Err(error) if error.is_refusal() => self.wait(error, cx),
                Err(error) => Err(error),
            };
        }
        if self.facts.is_some_and(|facts| facts.has_null_key && self.plan.is_null_aware_anti()) {
            return Ok(self.done());
        }
        if !self.probe.has_row() {
            if self.probe.batch.is_some() {
                return Ok(self.answer_probe_rows(cx)?.map_or(Step::Again, Step::Emit));
            }
            if self.probe.is_over {
                return self.drain_build(cx);
            }
            let is_rest_unmatched = self.build.is_over && matches!(self.group, Group::None);
            if is_rest_unmatched && !self.plan.emits_unmatched_probe_rows() {
                return Ok(self.done());
            }
            return self.load_probe(cx);
        }
        match &self.group {
            Group::Open(_) => self.load_build(cx),
            Group::None if !self.build.has_row() && !self.build.is_over => self.load_build(cx),
            Group::None | Group::Here { .. } | Group::Held(_) => {
                self.merge(cx)?;
                Ok(Step::Again)
            }
        }
    }

    fn done(&mut self) -> Step {
        self.is_done = true;
        Step::Done
    }

    fn load_probe(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        (self.matched, self.unknown) = (None, None);
        if let Some(wait) = self.probe.load(&self.spill, cx)? {
            return Ok(Step::Wait(wait));
        }
        let rows = self.probe.batch.as_ref().map_or(0, |batch| batch.rows);
        let bits = |is_asked: bool| is_asked.then(|| BitmapMut::with_len(cx.account, rows)).transpose();
        self.matched = bits(self.plan.asks_matches())?;
        self.unknown = bits(self.plan.asks_unknown())?;
        Ok(Step::Again)
    }

    /// Gets the next build batch, once nothing is owed of this one.
    fn load_build(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        if !self.owed.is_empty() {
            return self.emit_owed(cx);
        }
        self.flags = None;
        if let Some(wait) = self.build.load(&self.spill, cx)? {
            return Ok(Step::Wait(wait));
        }
        let rows = self.build.batch.as_ref().map_or(0, |batch| batch.rows);
        if self.facts.is_none() {
            let has_null_key = rows > 0 && self.nulls.has_null(self.build.key(0).bytes);
            self.facts = Some(Facts { has_rows: rows > 0, has_null_key });
        }
        if self.plan.kind.drains().is_some() {
            self.owed.reserve(cx.account, rows)?;
        }
        if self.plan.needs_flags() {
            self.flags = Some(BitmapMut::with_len(cx.account, rows)?);
        }
        let Group::Open(held) = &mut self.group else { return Ok(Step::Again) };
        let goes_on = rows > 0 && self.build.key(0).cmp(&held.key()).is_eq();
        if goes_on && let Some(batch) = &self.build.batch {
            let end = self.build.end_of_key(0);
            held.add(&self.plan, &batch.columns, (0, end), &self.memory, cx)?;
            self.build.row = end;
            if end == rows {
                return Ok(Step::Again);
            }
        }
        held.close(&self.plan, &self.memory, cx)?;
        if let Group::Open(held) = std::mem::replace(&mut self.group, Group::None) {
            self.group = Group::Held(held);
        }
        Ok(Step::Again)
    }

    /// Goes through both sides until a batch ends, there are pairs enough, or held rows are needed.
    fn merge(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        let Self { plan, probe, build, nulls, group, replay, owing, pairs, matched, owed, memory, .. } = self;
        let most = cx.batch_rows();
        let (needs_pairs, drains) = (plan.needs_pairs(), plan.kind.drains());
        let is_settled_by_match = plan.kind.asks_whether_probe_rows_match();
        if needs_pairs {
            pairs.restart(most, cx.account)?;
        }
        let probe_rows = probe.batch.as_ref().map_or(0, |batch| batch.rows);
        let build_rows = build.batch.as_ref().map_or(0, |batch| batch.rows);
        while probe.row < probe_rows {
            match group {
                Group::None => {
                    if build.row == build_rows {
                        if build.is_over {
                            probe.row = probe_rows;
                        }
                        break;
                    }
                    let (start, key) = (build.row, build.key(build.row));
                    let order = probe.key(probe.row).cmp(&key);
                    if order == Ordering::Greater && drains.is_none() {
                        build.row = build.skip_less(start, &probe.key(probe.row));
                        continue;
                    }
                    let end = build.end_of_key(start);
                    if order == Ordering::Greater {
                        if drains == Some(false) {
                            (start..end).for_each(|row| owed.push(row as u32));
                        }
                        build.row = end;
                        continue;
                    }
                    let is_null = nulls.has_null(key.bytes);
                    if end < build_rows {
                        *group = Group::Here { end, next: start, is_null, is_matched: false };
                    } else if let Some(batch) = &build.batch {
                        let mut held = Held::new(key.bytes, is_null, memory, cx)?;
                        held.add(plan, &batch.columns, (start, end), memory, cx)?;
                        build.row = end;
                        *group = Group::Open(Box::new(held));
                        break;
                    }
                }
                Group::Here { end, next, is_null, is_matched } => {
                    let key = build.key(build.row);
                    match probe.key(probe.row).cmp(&key) {
                        Ordering::Less => probe.row = probe.skip_less(probe.row, &key),
                        Ordering::Greater => {
                            // With flags it is not known yet.
                            if drains.is_some_and(|has_match| plan.needs_flags() || *is_matched == has_match)
                            {
                                (build.row..*end).for_each(|row| owed.push(row as u32));
                            }
                            build.row = *end;
                            *group = Group::None;
                        }
                        Ordering::Equal if *is_null => probe.row += 1,
                        Ordering::Equal => {
                            *is_matched = true;
                            let known = matched.as_ref().is_some_and(|matched| matched.get(probe.row));
                            if !needs_pairs {
                                if let Some(matched) = matched {
                                    matched.set(probe.row, true);
                                }
                            } else if !(known && is_settled_by_match) {
                                *next = pairs.add(probe.row, *next, *end, most);
                                if *next < *end {
                                    break;
                                }
                            }
                            *next = build.row;
                            probe.row += 1;
                        }
                    }
                }
                Group::Held(held) => match probe.key(probe.row).cmp(&held.key()) {
                    Ordering::Less => probe.row = probe.skip_less(probe.row, &held.key()),
                    Ordering::Greater => {
                        if let Group::Held(held) = std::mem::replace(group, Group::None)
                            && drains.is_some_and(|has| held.flags.is_some() || held.is_matched == has)
                        {
                            *owing = Some((held, HeldReader::default()));
                            break;
                        }
                    }
                    Ordering::Equal if held.is_null => probe.row += 1,
                    Ordering::Equal => {
                        held.is_matched = true;
                        if needs_pairs {
                            let (start, end) = (probe.row, probe.end_of_key(probe.row));
                            let reader = HeldReader::default();
                            *replay = Some(Replay { start, end, reader, block: None, next: (start, 0) });
                            break;
                        }
                        if let Some(matched) = matched {
                            matched.set(probe.row, true);
                        }
                        probe.row += 1;
                    }
                },
                Group::Open(_) => break,
            }
        }
        Ok(())
    }

    /// Makes the next pairs of probe rows and held rows; after a refusal it can be called again.
    fn pair_with_held(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        let (Some(replay), Group::Held(held)) = (&mut self.replay, &self.group) else {
            return Err(Error::internal("held rows are replayed where there are none"));
        };
        let most = cx.batch_rows();
        self.pairs.restart(most, cx.account)?;
        let Replay { start, end, reader, block, next } = replay;
        if block.is_none() || next.0 == *end {
            *block = None;
            *block = reader.next(&held.rows, &self.memory, cx)?;
            *next = (*start, 0);
        }
        let Some((_, block)) = block else {
            self.probe.row = *end;
            self.replay = None;
            return Ok(());
        };
        let is_settled_by_match = self.plan.kind.asks_whether_probe_rows_match();
        let (mut position, mut row) = *next;
        while position < *end {
            let is_known = self.matched.as_ref().is_some_and(|matched| matched.get(position));
            if !(is_known && is_settled_by_match) {
                row = self.pairs.add(position, row, block.rows, most);
                if row < block.rows {
                    break;
                }
            }
            (position, row) = (position + 1, 0);
        }
        *next = (position, row);
        Ok(())
    }

    /// The pairs' build rows, and how many held rows come before them.
    fn paired_build(&self) -> Result<(&[FlatVector], usize)> {
        match (&self.replay, &self.build.batch) {
            (Some(Replay { block: Some((before, block)), .. }), _) => Ok((&block.columns, *before)),
            (_, Some(batch)) => Ok((&batch.columns, 0)),
            (_, None) => Err(Error::internal("pairs without build rows")),
        }
    }

    /// Makes rows of the pairs that match, of fewer at a time where memory is short.
    fn emit_pairs(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        let start = self.emitted.unwrap_or(0);
        let left = self.pairs.len() - start;
        if left == 0 || !self.plan.kind.emits_pairs() {
            self.pairs.clear();
            self.emitted = None;
            return Ok(Step::Again);
        }
        let Some(probe) = &self.probe.batch else { return Err(Error::internal("pairs without probe rows")) };
        let (build, _) = self.paired_build()?;
        let mut rows = left;
        let joined = loop {
            let some = start..start + rows;
            match Plan::join(&self.plan.output, &probe.columns, build, &self.pairs, some, cx.account) {
                Err(error) if error.is_refusal() && rows > 1 => rows /= 2,
                answer => break answer,
            }
        };
        match joined {
            Ok(batch) => {
                self.waiting.end();
                self.emitted = Some(start + rows);
                Ok(Step::Emit(batch))
            }
            Err(error) if error.is_refusal() => self.wait(error, cx),
            Err(error) => Err(error),
        }
    }

    /// Waits for what was refused, after which everything is as it was: what was emitted before may be about to go, and
    /// others may give back what they hold.
    fn wait(&mut self, refused: Error, cx: &LaneCx<'_>) -> Result<Step> {
        self.waiting.wait(refused.refused_bytes(), cx).map(Step::Wait).ok_or(refused)
    }

    /// Asks the residual which pairs match, and keeps those.
    fn decide_pairs(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        let Self { plan, probe, build, residual, replay, pairs, matched, unknown, flags, group, .. } = self;
        let is_held = replay.is_some();
        let Some(probe) = &probe.batch else { return Err(Error::internal("pairs without probe rows")) };
        let (build, before): (&[FlatVector], usize) = match (replay, &build.batch) {
            (Some(Replay { block: Some((before, block)), .. }), _) => (&block.columns, *before),
            (_, Some(batch)) => (&batch.columns, 0),
            (_, None) => return Err(Error::internal("pairs without build rows")),
        };
        if !residual.is_nothing() {
            let all = 0..pairs.len();
            let batch = Plan::join(&plan.residual_columns, &probe.columns, build, pairs, all, cx.account)?;
            residual.apply(&batch, pairs, unknown, cx)?;
        }
        let flags = match group {
            Group::Held(held) if is_held => &mut held.flags,
            Group::None | Group::Here { .. } | Group::Open(_) | Group::Held(_) => flags,
        };
        if let Some(flags) = flags {
            pairs.rows().iter().for_each(|&row| flags.set(before + row as usize, true));
        }
        if let Some(matched) = matched {
            for &position in pairs.positions() {
                if plan.kind == HashJoinKind::ProbeSingle && matched.get(position as usize) {
                    let message = "a scalar subquery returned more than one row; use LIMIT 1 or an aggregate";
                    return Err(Error::plan(message, None));
                }
                matched.set(position as usize, true);
            }
        }
        self.emitted = Some(0);
        Ok(())
    }

    /// What is to come out of the probe batch besides pairs, all its rows having met all they could. Lets it go.
    fn answer_probe_rows(&mut self, cx: &LaneCx<'_>) -> Result<Option<Batch>> {
        let Some(batch) = self.probe.batch.take() else { return Ok(None) };
        let (matched, unknown) = (self.matched.take(), self.unknown.take());
        let Some(matched) = matched else { return Ok(None) };
        let (plan, nulls, account) = (&self.plan, &self.nulls, cx.account);
        let facts = self.facts.unwrap_or_default();
        let is_null_key = |row: usize| nulls.has_null(batch.key(row));
        let mut columns = plan.probe_columns(&batch.columns, batch.rows);
        let selection = match plan.kind {
            HashJoinKind::ProbeSemi => rows_where(batch.rows, account, |row| matched.get(row))?,
            HashJoinKind::ProbeAnti { null_aware } => rows_where(batch.rows, account, |row| {
                !(matched.get(row) || null_aware && facts.has_rows && is_null_key(row))
            })?,
            HashJoinKind::ProbeMark { null_aware } => {
                let is_unknown = |row: usize| {
                    !matched.get(row)
                        && (unknown.as_ref().is_some_and(|unknown| unknown.get(row))
                            || null_aware && facts.has_rows && (facts.has_null_key || is_null_key(row)))
                };
                let mut validity = BitmapMut::with_len(account, batch.rows)?;
                validity.fill_from(|row| !is_unknown(row));
                let validity = validity.freeze();
                let has_nulls = validity.count_ones() < validity.len();
                let mark = Vector::Flat(FlatVector {
                    values: Values::Bool(matched.freeze()),
                    validity: has_nulls.then_some(validity),
                    bounds: None,
                });
                for (column, planned) in columns.iter_mut().zip(&plan.output) {
                    if planned.origin == Origin::Mark {
                        *column = mark.clone();
                    }
                }
                None
            }
            HashJoinKind::ProbeOuter | HashJoinKind::FullOuter | HashJoinKind::ProbeSingle => {
                rows_where(batch.rows, account, |row| !matched.get(row))?
            }
            HashJoinKind::Inner
            | HashJoinKind::BuildOuter
            | HashJoinKind::BuildSemi
            | HashJoinKind::BuildAnti => return Ok(None),
        };
        let rows = Batch::new(columns, batch.rows).with_selection(selection);
        let is_sparse = rows.rows() * SPARSE < batch.rows;
        let rows = if is_sparse { rows.compact(account)? } else { rows };
        Ok((rows.rows() > 0).then_some(rows))
    }

    /// After the last probe row: what the build side owes.
    fn drain_build(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        let Some(has_match) = self.plan.kind.drains() else { return Ok(self.done()) };
        let build_rows = self.build.batch.as_ref().map_or(0, |batch| batch.rows);
        match std::mem::replace(&mut self.group, Group::None) {
            Group::None => {}
            Group::Here { end, is_matched, .. } => {
                if self.plan.needs_flags() || is_matched == has_match {
                    (self.build.row..end).for_each(|row| self.owed.push(row as u32));
                }
                self.build.row = end;
            }
            Group::Open(held) => {
                self.group = Group::Open(held);
                return self.load_build(cx);
            }
            Group::Held(held) => {
                if held.flags.is_some() || held.is_matched == has_match {
                    self.owing = Some((held, HeldReader::default()));
                    return Ok(Step::Again);
                }
            }
        }
        if !has_match {
            (self.build.row..build_rows).for_each(|row| self.owed.push(row as u32));
            self.build.row = build_rows;
        }
        if !self.owed.is_empty() {
            return self.emit_owed(cx);
        }
        if has_match || self.build.is_over { Ok(self.done()) } else { self.load_build(cx) }
    }

    /// Emits what is owed of the build batch.
    fn emit_owed(&mut self, cx: &LaneCx<'_>) -> Result<Step> {
        let has_match = self.plan.kind.drains() == Some(true);
        if let Some(flags) = &self.flags {
            let mut kept = 0;
            for at in 0..self.owed.len() {
                let row = self.owed[at];
                self.owed[kept] = row;
                kept += usize::from(flags.get(row as usize) == has_match);
            }
            self.owed.set_len(kept);
        }
        let Some(batch) = self.build.batch.take() else {
            return Err(Error::internal("rows are owed of a batch that is gone"));
        };
        let step = self.emit_build_rows(&batch.columns, cx);
        self.build.batch = Some(batch);
        step
    }

    /// Emits the rows `owed` of `columns`.
    fn emit_build_rows(&mut self, columns: &[FlatVector], cx: &LaneCx<'_>) -> Result<Step> {
        let rows = self.plan.build_rows(columns, &self.owed, cx.account)?;
        self.owed.set_len(0);
        Ok(if rows.rows() > 0 { Step::Emit(rows) } else { Step::Again })
    }
}

impl Plan {
    fn is_null_aware_anti(&self) -> bool {
        matches!(self.kind, HashJoinKind::ProbeAnti { null_aware: true })
    }

    /// Whether probe rows come out that no build row has an equal key for.
    fn emits_unmatched_probe_rows(&self) -> bool {
        self.asks_matches() && self.kind != HashJoinKind::ProbeSemi
    }
}

/// The rows for which `f` is true; `None` if all rows are.
fn rows_where(rows: usize, account: &Account, f: impl Fn(usize) -> bool) -> Result<Option<Selection>> {
    // One more, so that every row may be written before it is known whether it counts.
    let mut kept = BufMut::<u32>::with_len(account, rows + 1)?;
    let mut count = 0;
    for row in 0..rows {
        kept[count] = row as u32;
        count += usize::from(f(row));
    }
    kept.set_len(count);
    Ok((count < rows).then(|| Selection::new(kept.freeze())))
}
