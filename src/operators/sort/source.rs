//! The source: emits the rows of all lanes in order.
//!
//! One lane emits. All lanes take rounds from the merge, one at a time, and then, at the same time, put what they took in
//! order and lay it out; whoever takes notes its place among what comes next. So only reading blocks and finding out which
//! rows come next is work for one lane, and the lane that emits is left with handing on what others laid out.
//!
//! Invariants:
//! 1. Whoever works with the merge has taken it out of the shared state, and puts it back before it waits or fails.
//! 2. What is taken ahead gets its place before the merge is put back: places are in order, and what comes first is emitted
//!    first.
//! 3. Working ahead is a matter of free memory: refused, a lane leaves the merge as it is, or what it took in its place, to
//!    the one that emits, which works as if it were alone. So a sort needs no more than on a single lane.

use super::picked::{Picked, Rows};
use super::rounds::RoundSorter;
use super::sorted::{Sorted, SortedRows, SortedSide};
use super::{SLICE, sink::turn};
use crate::data::{Batch, FlatVector, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Retry, Source, Wait, WaitReason};
use crate::mem::{Account, Knobs};
use crate::metrics::MERGE_NANOS;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

/// More lanes than can be kept busy by one that takes rounds.
const MOST_LANES: usize = 8;
/// Batches taken ahead at the most, for each lane.
const MOST_AHEAD: usize = 2;

pub(super) struct SortSource {
    side: SortedSide,
}

/// The run.
pub(super) struct Shared {
    state: Mutex<State>,
    /// What the lane that emits lays out ahead is in memory that nobody has promised, so that its own is there for what comes
    /// next.
    ahead: Account,
}

struct State {
    merge: Taken,
    /// What comes before the merge's rows, in order.
    ahead: VecDeque<Ahead>,
    /// Places of `ahead` that are gone.
    gone: usize,
    lanes: usize,
    /// The lane that emits, if it waits for the others.
    emitting: Option<Waker>,
    /// The others, if they wait until there is more for them to do.
    waiting: Vec<Waker>,
}

/// Where the merge is.
enum Taken {
    /// No lane has started: memory for blocks read, and for rows to be written.
    Unopened(Account, Account),
    /// Nobody works with it.
    Free(Box<Ordered>),
    /// A lane works with it.
    Away,
    /// All rows have been emitted.
    Over,
}

/// Rows that were taken of the merge.
enum Ahead {
    /// A lane lays them out.
    Away,
    /// What is laid out, and what comes after it and is not, for want of memory.
    Here(VecDeque<Rows>, Option<Picked>),
}

/// The rows in order, and the memory to write them with.
struct Ordered {
    rows: SortedRows,
    spill: Account,
}

/// What taking rows ahead comes to.
enum TakenAhead {
    /// Rows, which have this place.
    Rows(usize, Picked),
    /// Try again after the waker was called.
    Wait(Wait),
    /// There are none, or there is no memory.
    Nothing,
}

pub(super) struct Local {
    role: Role,
    sorter: RoundSorter,
}

enum Role {
    /// Emits.
    Emitting(Emitting),
    /// Works ahead.
    Ahead,
}

/// What a lane emits.
#[derive(Default)]
struct Emitting {
    /// What it lays out itself.
    current: Option<Picked>,
    waiting: Retry,
}

impl State {
    /// Takes the merge, if it is there.
    fn take(&mut self) -> Option<Box<Ordered>> {
        match std::mem::replace(&mut self.merge, Taken::Away) {
            Taken::Free(merge) => Some(merge),
            other => {
                self.merge = other;
                None
            }
        }
    }

    /// What is laid out and comes next, or is to be laid out by who asks.
    fn next_ahead(&mut self) -> Option<Result<Rows, Picked>> {
        let Some(Ahead::Here(laid_out, rest)) = self.ahead.front_mut() else { return None };
        let next = laid_out.pop_front().map(Ok).or_else(|| rest.take().map(Err));
        if laid_out.is_empty() && rest.is_none() {
            self.ahead.pop_front();
            self.gone += 1;
        }
        next
    }

    /// Takes the merge, if it is there and more may be taken ahead. A lane alone has nobody to be ahead of.
    fn take_with_room(&mut self, cx: &LaneCx<'_>) -> Option<Box<Ordered>> {
        let has_room = self.lanes > 1 && self.ahead.len() < MOST_AHEAD * self.lanes;
        if has_room && cx.query.pool.growable_bytes() > 0 { self.take() } else { None }
    }

    /// A wait until there is room ahead and the merge is there, or the end of a lane that works ahead.
    fn rest(&mut self, cx: &LaneCx<'_>) -> Pull {
        if let Taken::Over = self.merge {
            return Pull::Done;
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker)) {
            self.waiting.push(cx.waker.clone());
        }
        Pull::Wait(Wait::registered(WaitReason::Queue, ()))
    }

    /// A wait for what comes next.
    fn wait_for_rows(&mut self, cx: &LaneCx<'_>) -> Wait {
        self.emitting = Some(cx.waker.clone());
        Wait::registered(WaitReason::Queue, ())
    }
}

impl Shared {
    /// Puts the merge back.
    fn put_back(&self, merge: Box<Ordered>) {
        let mut state = self.state.lock();
        let is_pickable = merge.rows.is_pickable();
        state.merge = Taken::Free(merge);
        if is_pickable {
            Self::wake_ahead(state);
        }
    }

    /// Tells the lanes that work ahead that there is more to do.
    fn wake_ahead(mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Tells the lane that emits that rows or the merge may be there.
    fn wake_emitting(mut state: MutexGuard<'_, State>) {
        let emitting = state.emitting.take();
        drop(state);
        emitting.into_iter().for_each(Waker::wake);
    }

    /// Takes the next rows of the merge, puts it back and gives them a place.
    fn take_ahead(&self, mut merge: Box<Ordered>, cx: &LaneCx<'_>) -> Result<TakenAhead> {
        let picked = merge.rows.pick_ahead(&merge.spill, cx);
        let mut state = self.state.lock();
        state.merge = Taken::Free(merge);
        let taken = match picked? {
            Some(Sorted::Rows(_, picked)) => {
                state.ahead.push_back(Ahead::Away);
                TakenAhead::Rows(state.gone + state.ahead.len() - 1, picked)
            }
            Some(Sorted::Wait(wait)) => TakenAhead::Wait(wait),
            // The lane that emits finds that out when it has emitted everything, or goes on with less memory.
            Some(Sorted::End) | None => TakenAhead::Nothing,
        };
        // The merge is there again for all. Those that work ahead could only do the same where it came to nothing.
        let emitting = state.emitting.take();
        if let TakenAhead::Rows(..) = taken {
            Self::wake_ahead(state);
        } else {
            drop(state);
        }
        emitting.into_iter().for_each(Waker::wake);
        Ok(taken)
    }

    /// Lays out what was taken, as far as `account` has memory, and puts it in its place.
    fn lay_out(
        &self,
        (place, mut picked): (usize, Picked),
        sorter: &mut RoundSorter,
        account: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let mut laid_out = VecDeque::new();
        let rest = loop {
            match next_rows(&mut picked, sorter, account, cx) {
                Ok(Some(rows)) => laid_out.push_back(rows),
                Ok(None) => break None,
                Err(error) if error.is_refusal() => break Some(picked),
                Err(error) => return Err(error),
            }
        };
        let mut state = self.state.lock();
        let at = place - state.gone;
        let Some(ahead) = state.ahead.get_mut(at) else {
            return Err(Error::internal("a place among sorted rows is gone before its rows are there"));
        };
        *ahead = Ahead::Here(laid_out, rest);
        Self::wake_emitting(state);
        Ok(())
    }
}

impl SortSource {
    pub(super) fn new(side: SortedSide) -> Self {
        Self { side }
    }

    /// Emits the next rows.
    fn emit(
        &self,
        shared: &Shared,
        local: &mut Emitting,
        sorter: &mut RoundSorter,
        cx: &LaneCx<'_>,
    ) -> Result<Pull> {
        let until = Instant::now() + SLICE;
        shared.ahead.relieve();
        loop {
            if let Some(picked) = &mut local.current {
                match next_rows(picked, sorter, cx.account, cx) {
                    Ok(Some(rows)) => {
                        local.waiting.end();
                        return Ok(Pull::Emit(batch(rows)));
                    }
                    Ok(None) => local.current = None,
                    Err(error) if error.is_refusal() => {
                        return self.wait_to_lay_out(shared, local, &error, cx).map(Pull::Wait);
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut state = shared.state.lock();
            match state.next_ahead() {
                Some(Ok(rows)) => {
                    Shared::wake_ahead(state);
                    return Ok(Pull::Emit(batch(rows)));
                }
                Some(Err(picked)) => {
                    Shared::wake_ahead(state);
                    local.current = Some(picked);
                    continue;
                }
                None => {}
            }
            if let Some(merge) = state.take_with_room(cx) {
                drop(state);
                match shared.take_ahead(merge, cx)? {
                    TakenAhead::Rows(place, picked) => {
                        shared.lay_out((place, picked), sorter, &shared.ahead, cx)?;
                        cx.check()?;
                        if Instant::now() >= until {
                            return Ok(Pull::Wait(turn(cx)));
                        }
                        continue;
                    }
                    TakenAhead::Wait(wait) => return Ok(Pull::Wait(wait)),
                    TakenAhead::Nothing => state = shared.state.lock(),
                }
            }
            let merge = if state.ahead.is_empty() { state.take() } else { None };
            let Some(mut merge) = merge else {
                if let Some(Ahead::Here(..)) = state.ahead.front() {
                    continue;
                }
                return Ok(match state.merge {
                    Taken::Over => Pull::Done,
                    Taken::Away | Taken::Free(_) | Taken::Unopened(..) => Pull::Wait(state.wait_for_rows(cx)),
                });
            };
            drop(state);
            let next = merge.rows.next(&merge.spill, cx.account, cx);
            if let Ok(Sorted::End) = next {
                drop(merge);
                let mut state = shared.state.lock();
                state.merge = Taken::Over;
                Shared::wake_ahead(state);
                return Ok(Pull::Done);
            }
            shared.put_back(merge);
            return Ok(match next? {
                Sorted::Rows(rows, columns) => Pull::Emit(batch((rows, columns))),
                Sorted::Wait(wait) => Pull::Wait(wait),
                Sorted::End => Pull::Done,
            });
        }
    }

    /// What to wait for before trying once more to lay rows out, which was refused.
    fn wait_to_lay_out(
        &self,
        shared: &Shared,
        local: &mut Emitting,
        refused: &Error,
        cx: &LaneCx<'_>,
    ) -> Result<Wait> {
        shared.ahead.trim();
        // What the merge holds may be all that there is to give back.
        let merge = shared.state.lock().take();
        if let Some(mut merge) = merge {
            let wait = merge.rows.give_way(&merge.spill, cx);
            shared.put_back(merge);
            if let Some(wait) = wait? {
                return Ok(wait);
            }
        }
        let wait = local.waiting.wait(refused.refused_bytes(), cx);
        wait.ok_or_else(|| self.side.spec().made_final(refused.clone(), &cx.query.pool))
    }

    /// Works while there is room for what comes of it, for a while.
    fn work_ahead(shared: &Shared, sorter: &mut RoundSorter, cx: &LaneCx<'_>) -> Result<Pull> {
        let until = Instant::now() + SLICE;
        loop {
            let merge = {
                let mut state = shared.state.lock();
                match state.take_with_room(cx) {
                    Some(merge) => merge,
                    None => return Ok(state.rest(cx)),
                }
            };
            match shared.take_ahead(merge, cx)? {
                TakenAhead::Rows(place, picked) => {
                    shared.lay_out((place, picked), sorter, cx.account, cx)?;
                }
                TakenAhead::Wait(wait) => return Ok(Pull::Wait(wait)),
                TakenAhead::Nothing => return Ok(shared.state.lock().rest(cx)),
            }
            if Instant::now() >= until {
                return Ok(Pull::Wait(turn(cx)));
            }
            cx.check()?;
        }
    }
}

/// Lays a batch of `picked` out in `account`, in the time of merges if its runs are on disk.
fn next_rows(
    picked: &mut Picked,
    sorter: &mut RoundSorter,
    account: &Account,
    cx: &LaneCx<'_>,
) -> Result<Option<Rows>> {
    let started = picked.reads_disk().then(Instant::now);
    let rows = picked.next_rows(cx.batch_rows(), sorter, account);
    started.into_iter().for_each(|started| cx.metrics.add_time(MERGE_NANOS, started));
    rows
}

fn batch((rows, columns): (usize, Vec<FlatVector>)) -> Batch {
    Batch::new(columns.into_iter().map(Vector::Flat).collect(), rows)
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
        MOST_LANES
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        let spill_bytes = self.side.spill_floor_bytes(&cx.query.knobs);
        let spill = cx.account(spill_bytes, 4 << 10, spill_bytes);
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let blocks = cx.shared_account(quantum_bytes, 4 << 20);
        let merge = Taken::Unopened(blocks, spill);
        let state =
            State { merge, ahead: VecDeque::new(), gone: 0, lanes: 0, emitting: None, waiting: Vec::new() };
        Ok(Shared { state: Mutex::new(state), ahead: cx.account(0, quantum_bytes, 4 << 20) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Local> {
        let mut state = shared.state.lock();
        state.lanes += 1;
        let role = match std::mem::replace(&mut state.merge, Taken::Away) {
            Taken::Unopened(blocks, spill) => {
                let rows = self.side.rows(blocks, &spill, false, cx)?;
                state.merge = Taken::Free(Box::new(Ordered { rows, spill }));
                Role::Emitting(Emitting::default())
            }
            opened => {
                state.merge = opened;
                Role::Ahead
            }
        };
        Ok(Local { role, sorter: RoundSorter::default() })
    }

    fn pull(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        let Local { role, sorter } = local;
        match role {
            Role::Emitting(emitting) => self.emit(shared, emitting, sorter, cx),
            Role::Ahead => Self::work_ahead(shared, sorter, cx),
        }
    }
}
