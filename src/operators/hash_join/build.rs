//! The end that takes the build side: lanes fill chunks of their own, and spill them when memory is refused or wanted.
//!
//! Invariants:
//! 1. A lane hands its chunks over once, in `combine`; they never change after that.
//! 2. What is known of the build as a whole (its rows, whether a key is null) is counted when rows come, wherever they
//!    go.
//! 3. A lane takes a batch in as a whole before the next; where a row of it is refused memory, it waits with the rows from
//!    that one on.

use super::finish::HashJoinShared;
use super::intake::{Intake, Taken, too_small};
use super::keys::KeyEncoder;
use super::plan::{Plan, Stored};
use super::split::Split;
use crate::data::{Batch, Vector};
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Retry, Sink};
use crate::expr::{EvalCx, Evaluator};
use crate::mem::{Account, Knobs, MemoryConsumer, Registration};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// See the module.
pub(super) struct HashJoinBuild {
    plan: Arc<Plan>,
    handoff: Handoff<HashJoinShared>,
}

/// A lane that builds.
pub(super) struct HashJoinBuildLocal {
    evaluator: Option<Evaluator>,
    /// Keys of the pending rows.
    encoder: KeyEncoder,
    pending: Option<Pending>,
    /// Tries to get memory for the pending rows.
    waiting: Retry,
    /// `None` once combined.
    lane: Option<Lane>,
}

/// A batch that has not been taken in wholly.
enum Pending {
    /// As it came.
    Batch(Batch),
    /// What is stored of its rows. So many of those with keys, and of the others, have been taken.
    Rows { stored: Batch, keyed: usize, others: usize },
}

/// What a lane has collected.
struct Lane {
    intake: Intake,
    consumer: Arc<LaneConsumer>,
    _registration: Registration,
    /// After the chunks, so that their slabs return to it.
    account: Account,
}

/// A lane's chunks as reclaim sees them.
struct LaneConsumer {
    name: String,
    floor_bytes: usize,
    used_bytes: AtomicUsize,
    requested_bytes: AtomicUsize,
}

impl MemoryConsumer for LaneConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn revocable_bytes(&self) -> usize {
        self.used_bytes().saturating_sub(self.floor_bytes)
    }

    fn request_reclaim(&self, target_bytes: usize) {
        self.requested_bytes.fetch_max(target_bytes, Relaxed);
    }
}

impl HashJoinBuild {
    /// The build side of `plan`; the table goes to the probe that shares `handoff`.
    pub(super) fn new(plan: Arc<Plan>, handoff: Handoff<HashJoinShared>) -> Self {
        Self { plan, handoff }
    }
}

impl Sink for HashJoinBuild {
    type Shared = Arc<HashJoinShared>;
    type Local = HashJoinBuildLocal;

    fn name(&self) -> String {
        "HashJoin build".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        self.plan.build_need(knobs)
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Arc<HashJoinShared>> {
        self.plan.check()?;
        let split = Split::first(&self.plan, &cx.query.knobs, cx.query.pool.limit_bytes());
        let quantum_bytes = (cx.query.pool.limit_bytes() / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
        let accounts = cx.lane_accounts(self.plan.roles.store_floor_bytes(), quantum_bytes, 0);
        let shared = HashJoinShared::new(&self.plan, self.name(), split, accounts, &cx.query.pool);
        let shared = Arc::new(shared);
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, shared: &Arc<HashJoinShared>, _cx: &LaneCx<'_>) -> Result<HashJoinBuildLocal> {
        let plan = &self.plan;
        let evaluator = match plan.roles.has_keys() {
            true => Some(Evaluator::new(&plan.build_keys, &plan.build_layout)?),
            false => None,
        };
        let account = shared.take_account()?;
        let consumer = Arc::new(LaneConsumer {
            name: self.name(),
            floor_bytes: plan.roles.store_floor_bytes(),
            used_bytes: AtomicUsize::new(0),
            requested_bytes: AtomicUsize::new(0),
        });
        let registration = account.pool().register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        account.ask_as(registration.id());
        let intake = Intake::new(&plan.roles.stored_types, plan.roles.has_keys(), shared.split);
        let lane = Lane { intake, consumer, _registration: registration, account };
        Ok(HashJoinBuildLocal {
            evaluator,
            encoder: KeyEncoder::new(&plan.roles.keys),
            pending: None,
            waiting: Retry::default(),
            lane: Some(lane),
        })
    }

    fn push(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        local.pending = Some(Pending::Batch(batch));
        self.go_on(shared, local, cx)
    }

    fn resume(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        self.go_on(shared, local, cx)
    }

    fn combine(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        cx: &LaneCx<'_>,
    ) -> Result<Combine> {
        let Some(lane) = local.lane.take() else { return Ok(Combine::Ready) };
        let collected = lane.intake.finish(&self.plan.roles.keys, &lane.account, cx)?;
        let bytes = if collected.file.is_some() { 0 } else { lane.consumer.used_bytes() };
        shared.gather(collected, bytes, lane.account)?;
        Ok(Combine::Ready)
    }

    fn finish(&self, shared: &Arc<HashJoinShared>, cx: &LaneCx<'_>) -> Result<Finish> {
        shared.finish(cx)
    }

    fn reclaim(
        &self,
        _shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        local.lane.as_mut().map_or(Ok(0), |lane| lane.reclaim(&self.plan, cx))
    }
}

impl HashJoinBuild {
    /// Takes the pending rows in, or waits for the memory that one of them needs.
    fn go_on(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        let plan = &*self.plan;
        let HashJoinBuildLocal { evaluator, encoder, pending, waiting, lane } = local;
        let Some(lane) = lane else { return Err(Error::internal("rows after the lane has combined")) };
        lane.heed_requests(plan, cx)?;
        let wait = |waiting: &mut Retry, bytes, error| waiting.wait(bytes, cx).map(Flow::Wait).ok_or(error);
        loop {
            match pending {
                None => break,
                Some(Pending::Batch(batch)) => {
                    match stored_rows(plan, evaluator.as_mut(), encoder, batch, cx) {
                        Ok(stored) => {
                            shared.build_rows.fetch_add(batch.rows(), Relaxed);
                            if !encoder.null_positions().is_empty() {
                                shared.has_null_key.store(true, Relaxed);
                            }
                            *pending = Some(Pending::Rows { stored, keyed: 0, others: 0 });
                        }
                        Err(error) if error.is_refusal() && lane.intake.rows() > 0 => {
                            lane.intake.spill(&plan.roles.keys, &lane.account, cx)?;
                            lane.publish();
                        }
                        Err(error) if error.is_refusal() => {
                            return wait(waiting, error.refused_bytes(), error);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Some(Pending::Rows { stored, keyed, others }) => {
                    let all_keyed = encoder.positions();
                    let all_others =
                        if plan.roles.kind.keeps_null_keys() { encoder.null_positions() } else { &[] };
                    let (words, rest) = (encoder.words(), (&all_keyed[*keyed..], &all_others[*others..]));
                    let mut taken = Taken { words, keyed: rest.0, others: rest.1 };
                    let added = lane.intake.add(stored, &mut taken, &plan.roles.keys, &lane.account, cx)?;
                    (*keyed, *others) =
                        (all_keyed.len() - taken.keyed.len(), all_others.len() - taken.others.len());
                    lane.publish();
                    if let Err(denied) = added {
                        return wait(waiting, denied.bytes, too_small(denied, &lane.account, cx));
                    }
                    *pending = None;
                    waiting.end();
                }
            }
        }
        Ok(if shared.is_answer_known() { Flow::Done } else { Flow::NeedInput })
    }
}

/// What is stored of each row of `batch`, whose keys the encoder then has.
fn stored_rows(
    plan: &Plan,
    evaluator: Option<&mut Evaluator>,
    encoder: &mut KeyEncoder,
    batch: &Batch,
    cx: &LaneCx<'_>,
) -> Result<Batch> {
    let rows = batch.physical_rows();
    let keys = match evaluator {
        Some(evaluator) => {
            evaluator.evaluate(batch, &mut EvalCx { account: cx.account, ids: &cx.query.ids })?
        }
        None => Vec::new(),
    };
    let keys = encoder.encode(&plan.roles.keys, &keys, rows, batch.selection(), cx.account)?;
    let column = |stored: &Stored| match *stored {
        Stored::Input(at) => batch.column(at).flatten(cx.account).map(Vector::Flat),
        Stored::Key(key) => Ok(Vector::Flat(keys[key].clone())),
    };
    Ok(Batch::new(plan.stored.iter().map(column).collect::<Result<_, _>>()?, rows))
}

impl Lane {
    /// Gives memory back if somebody asked for it.
    fn heed_requests(&mut self, plan: &Plan, cx: &LaneCx<'_>) -> Result<()> {
        self.account.relieve();
        if self.consumer.requested_bytes.swap(0, Relaxed) > 0 {
            self.reclaim(plan, cx)?;
        }
        Ok(())
    }

    /// Spills everything if that frees anything; the bytes freed.
    fn reclaim(&mut self, plan: &Plan, cx: &LaneCx<'_>) -> Result<usize> {
        let before = self.account.used_bytes();
        if self.consumer.revocable_bytes() > 0 {
            self.intake.spill(&plan.roles.keys, &self.account, cx)?;
            self.publish();
        }
        Ok(before.saturating_sub(self.account.used_bytes()))
    }

    fn publish(&self) {
        self.consumer.used_bytes.store(self.intake.allocated_bytes(), Relaxed);
    }
}
