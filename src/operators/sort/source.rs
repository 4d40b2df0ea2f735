//! The source: emits the rows of all lanes in order.
//!
//! One lane emits. A second one, where there is one, merges ahead of it: it reads and decompresses blocks and picks the
//! rows that come next, so that all that is left to the first is to lay them out.
//!
//! Invariants:
//! 1. Whoever works with the merge has taken it out of the shared state, and puts it back before it waits or fails.
//! 2. Rows picked ahead are emitted before the merge is asked for more: the first lane asks it only when there are none.
//! 3. Running ahead is a matter of free memory: refused, the second lane leaves the merge as it is to the first, which
//!    works with it as if it were alone. So a sort needs no more than on a single lane.

use super::picked::Picked;
use super::sorted::{Sorted, SortedRows, SortedSide};
use super::{SLICE, sink::turn};
use crate::data::{Batch, FlatVector, Vector};
use crate::error::Result;
use crate::exec::{LaneCx, Need, OpenCx, Pull, Retry, Source, Wait, WaitReason};
use crate::mem::{Account, Knobs};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

/// Batches picked ahead at the most.
const MOST_AHEAD: usize = 4;

pub(super) struct SortSource {
    side: SortedSide,
}

/// The run.
pub(super) struct Shared {
    state: Mutex<State>,
}

struct State {
    merge: Taken,
    /// Rows picked, in order.
    ahead: VecDeque<Picked>,
    /// Lanes to be woken by any change.
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

/// The rows in order, and the memory to write them with.
struct Ordered {
    rows: SortedRows,
    spill: Account,
}

pub(super) enum Local {
    /// Emits.
    Emitting(Emitting),
    /// Picks ahead.
    Ahead,
}

/// What a lane emits.
#[derive(Default)]
pub(super) struct Emitting {
    /// What of the rows picked is being laid out.
    current: Option<Picked>,
    waiting: Retry,
}

impl Shared {
    /// Takes the merge, if it is there.
    fn take(state: &mut State) -> Option<Box<Ordered>> {
        match std::mem::replace(&mut state.merge, Taken::Away) {
            Taken::Free(merge) => Some(merge),
            other => {
                state.merge = other;
                None
            }
        }
    }

    /// Puts the merge back.
    fn put_back(&self, merge: Box<Ordered>) {
        let mut state = self.state.lock();
        state.merge = Taken::Free(merge);
        Self::wake(state);
    }

    /// Tells the others that something has changed.
    fn wake(mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A wait for a change.
    fn wait(state: &mut State, cx: &LaneCx<'_>) -> Pull {
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker)) {
            state.waiting.push(cx.waker.clone());
        }
        Pull::Wait(Wait::registered(WaitReason::Queue, ()))
    }
}

impl SortSource {
    pub(super) fn new(side: SortedSide) -> Self {
        Self { side }
    }

    /// Emits the next rows.
    fn emit(&self, shared: &Shared, local: &mut Emitting, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            if let Some(picked) = &mut local.current {
                match picked.next_rows(false, cx.account) {
                    Ok(Some((rows, columns))) => {
                        local.waiting.end();
                        return Ok(Pull::Emit(batch(rows, columns)));
                    }
                    Ok(None) => local.current = None,
                    Err(error) if error.is_refusal() => {
                        // What the merge holds may be all that there is to give back.
                        let merge = Shared::take(&mut shared.state.lock());
                        if let Some(mut merge) = merge {
                            let wait = merge.rows.give_way(&merge.spill, cx);
                            shared.put_back(merge);
                            if let Some(wait) = wait? {
                                return Ok(Pull::Wait(wait));
                            }
                        }
                        let wait = local.waiting.wait(error.refused_bytes(), cx);
                        let too_small = || self.side.spec().made_final(error.clone(), &cx.query.pool);
                        return wait.map(Pull::Wait).ok_or_else(too_small);
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut state = shared.state.lock();
            local.current = state.ahead.pop_front();
            if local.current.is_some() {
                Shared::wake(state);
                continue;
            }
            let Some(mut merge) = Shared::take(&mut state) else {
                return Ok(match state.merge {
                    Taken::Over => Pull::Done,
                    Taken::Away | Taken::Free(_) | Taken::Unopened(..) => Shared::wait(&mut state, cx),
                });
            };
            drop(state);
            let next = merge.rows.next(&merge.spill, cx.account, cx);
            if let Ok(Sorted::End) = next {
                drop(merge);
                let mut state = shared.state.lock();
                state.merge = Taken::Over;
                Shared::wake(state);
                return Ok(Pull::Done);
            }
            shared.put_back(merge);
            return Ok(match next? {
                Sorted::Rows(rows, columns) => Pull::Emit(batch(rows, columns)),
                Sorted::Wait(wait) => Pull::Wait(wait),
                Sorted::End => Pull::Done,
            });
        }
    }

    /// Picks rows while there is room for them, for a while.
    fn run_ahead(shared: &Shared, cx: &LaneCx<'_>) -> Result<Pull> {
        let until = Instant::now() + SLICE;
        let pool = &cx.query.pool;
        loop {
            let mut state = shared.state.lock();
            let is_full = state.ahead.len() >= MOST_AHEAD || pool.available_bytes() < pool.limit_bytes() / 8;
            if let Taken::Over = state.merge {
                return Ok(Pull::Done);
            }
            let merge = if is_full { None } else { Shared::take(&mut state) };
            let Some(mut merge) = merge else { return Ok(Shared::wait(&mut state, cx)) };
            drop(state);
            let picked = merge.rows.pick_ahead(&merge.spill, cx);
            let mut state = shared.state.lock();
            state.merge = Taken::Free(merge);
            let pull = match picked {
                Ok(Some(Sorted::Rows(_, picked))) => {
                    state.ahead.push_back(picked);
                    None
                }
                Ok(Some(Sorted::Wait(wait))) => Some(Ok(Pull::Wait(wait))),
                // The other lane finds that out when it has emitted everything, or goes on with less memory.
                Ok(Some(Sorted::End) | None) => {
                    let waiting = std::mem::take(&mut state.waiting);
                    waiting.iter().for_each(Waker::wake_by_ref);
                    return Ok(Shared::wait(&mut state, cx));
                }
                Err(error) => Some(Err(error)),
            };
            Shared::wake(state);
            match pull {
                Some(pull) => return pull,
                None if Instant::now() >= until => return Ok(Pull::Wait(turn(cx))),
                None => cx.check()?,
            }
        }
    }
}

fn batch(rows: usize, columns: Vec<FlatVector>) -> Batch {
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

    /// Only one of them emits.
    fn max_lanes(&self) -> usize {
        2
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        let spill_bytes = self.side.spill_floor_bytes(&cx.query.knobs);
        let spill = cx.account(spill_bytes, 4 << 10, spill_bytes);
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let blocks = cx.shared_account(quantum_bytes, 4 << 20);
        let merge = Taken::Unopened(blocks, spill);
        Ok(Shared { state: Mutex::new(State { merge, ahead: VecDeque::new(), waiting: Vec::new() }) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Local> {
        let mut state = shared.state.lock();
        match std::mem::replace(&mut state.merge, Taken::Away) {
            Taken::Unopened(blocks, spill) => {
                let rows = self.side.rows(blocks, &spill, false, cx)?;
                state.merge = Taken::Free(Box::new(Ordered { rows, spill }));
                Ok(Local::Emitting(Emitting::default()))
            }
            opened => {
                state.merge = opened;
                Ok(Local::Ahead)
            }
        }
    }

    fn pull(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Pull> {
        match local {
            Local::Emitting(local) => self.emit(shared, local, cx),
            Local::Ahead => Self::run_ahead(shared, cx),
        }
    }
}
