//! Aggregation of rows that come in clusters of a group key: groups go on as soon as their cluster is over.
//!
//! A cluster ([`Cluster`]) has all rows of the key values strictly within its bounds. So when a lane's rows begin to be of
//! another one, the groups of those values are finished: their results are emitted, and the table starts empty. What lies
//! at a bound, where one cluster ends and another begins, or has no value, goes into a table that all lanes share. It and
//! what was spilled are emitted in the drain stage, as by a [`HashAggregateSource`](super::source::HashAggregateSource).
//! Nobody waits for the last row, and a lane needs memory for the groups of one cluster only.
//!
//! Invariants:
//! 1. A lane's table holds groups of one cluster. If any of them have been spilled, the rest is spilled when the cluster is
//!    over, and nothing of it is emitted before the drain stage.
//! 2. While groups are being emitted nothing else happens to the table, spilling included.
//! 3. What drains is in the shared table or, if any lane or that table has spilled, all in partitions.

use super::counter::Counter;
use super::groups::Groups;
use super::intake::Intake;
use super::sink::{table_accounts, take_account};
use super::source::{Ready, SourceLane, results};
use super::spec::{Plan, fan_out_bits};
use crate::data::{Batch, BufMut, Cluster, Selection, Values};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Pull, Retry, Transform};
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied, Knobs, size_class_bytes};
use crate::spill::SpillFile;
use parking_lot::Mutex;
use std::sync::Arc;

/// See the module.
pub(super) struct ClusteredAggregate {
    plan: Arc<Plan>,
    /// The group key that clusters are of.
    key: usize,
}

/// What lanes share.
pub(super) struct Shared {
    accounts: Mutex<Vec<Account>>,
    floor_bytes: usize,
    /// Until the drain stage begins.
    left: Mutex<Option<Left>>,
    /// In the drain stage.
    ready: Mutex<Option<Arc<Ready>>>,
}

/// What is left for the drain stage.
struct Left {
    /// Groups at the bounds of clusters.
    edges: Intake,
    files: Vec<Arc<SpillFile>>,
}

/// A lane.
pub(super) struct Lane {
    counter: Counter,
    /// The cluster of the rows counted last.
    cluster: Option<Cluster>,
    stage: Stage,
    /// The most groups emitted at a time: fewer than a batch where they are wide.
    most_rows: usize,
    /// Tries to get memory for results.
    waiting: Retry,
}

/// What a lane is at.
enum Stage {
    /// Counts rows.
    Counting(Intake),
    /// Emits the groups of a cluster, from `next` on, those in hand first.
    Closing { intake: Intake, cluster: Cluster, next: usize, in_hand: Option<Results> },
    /// Emits what is left.
    Draining(SourceLane),
    /// In between, or failed.
    Over,
}

impl ClusteredAggregate {
    /// The aggregation `plan` of batches with clusters by its group key `key`, a plain integer column.
    pub(super) fn new(plan: Arc<Plan>, key: usize) -> Self {
        Self { plan, key }
    }

    /// Emits the next results of the cluster that is over, or waits for the memory to do so; `None`, and the table is empty,
    /// after the last.
    fn close(&self, shared: &Shared, lane: &mut Lane, cx: &LaneCx<'_>) -> Result<Option<Output>> {
        let Lane { stage, most_rows, waiting, .. } = lane;
        let Stage::Closing { intake, cluster, next, in_hand } = stage else { return Ok(None) };
        let groups = intake.groups();
        while *next < groups.len() {
            cx.check()?;
            let held = match &mut *in_hand {
                Some(held) => held,
                none => {
                    let rows = cx.batch_rows().min(groups.len() - *next);
                    let made = results(&self.plan, (groups, *next, rows), most_rows, cx)
                        .and_then(|(batch, _)| Results::new(batch, *next, self.key, *cluster, cx));
                    match made {
                        Ok(made) => none.insert(made),
                        Err(error) if error.is_refusal() => {
                            let wait = waiting.wait(error.refused_bytes(), cx);
                            return wait.map(|wait| Some(Output::Wait(wait))).ok_or(error);
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let added = held.share_edges(groups, shared, cx)?;
            if let Err(denied) = added {
                let wait = waiting.wait(denied.bytes, cx).map(|wait| Some(Output::Wait(wait)));
                return wait.ok_or_else(|| intake.too_small(denied));
            }
            waiting.end();
            let Some(Results { batch, within, at_edge, .. }) = in_hand.take() else { continue };
            let rows = within.len() + at_edge.len();
            *next += rows;
            match within.len() {
                0 => {}
                len if len == rows => return Ok(Some(Output::EmitMore(batch))),
                _ => {
                    let within = Selection::new(within.freeze());
                    return Ok(Some(Output::EmitMore(batch.with_selection(Some(within)))));
                }
            }
        }
        let Stage::Closing { mut intake, .. } = std::mem::replace(&mut lane.stage, Stage::Over) else {
            return Err(Error::internal("a lane closes nothing"));
        };
        intake.clear();
        lane.stage = Stage::Counting(intake);
        Ok(None)
    }

    /// Emits what is to be emitted, then counts what is pending.
    fn go_on(&self, shared: &Shared, lane: &mut Lane, cx: &LaneCx<'_>) -> Result<Output> {
        if let Some(output) = self.close(shared, lane, cx)? {
            return Ok(output);
        }
        match lane.counter.go_on(lane.stage.counting()?, cx)? {
            Some(wait) => Ok(Output::Wait(wait)),
            None => Ok(Output::NeedInput),
        }
    }
}

impl Transform for ClusteredAggregate {
    type Shared = Shared;
    type Local = Lane;

    fn name(&self) -> String {
        "ClusteredAggregate".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let (counting, draining) = (self.plan.sink_need(knobs), self.plan.source_need(knobs));
        let parted_bytes = 2 * size_class_bytes(knobs.batch_rows * size_of::<u32>());
        Need {
            lane_bytes: counting.lane_bytes + draining.lane_bytes + parted_bytes,
            // One more for the groups between clusters.
            shared_bytes: counting.shared_bytes + self.plan.table_floor_bytes(knobs),
        }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        self.plan.check()?;
        let floor_bytes = self.plan.table_floor_bytes(&cx.query.knobs);
        let accounts = Mutex::new(table_accounts(floor_bytes, cx.lanes + 1, cx));
        let account = take_account(&accounts)?;
        let edges = Intake::new(&self.plan, account, floor_bytes, cx.query.knobs.fan_out)?;
        let left = Mutex::new(Some(Left { edges, files: Vec::new() }));
        Ok(Shared { accounts, floor_bytes, left, ready: Mutex::new(None) })
    }

    fn local(&self, shared: &Shared, cx: &LaneCx<'_>) -> Result<Lane> {
        let account = take_account(&shared.accounts)?;
        let mut intake = Intake::new(&self.plan, account, shared.floor_bytes, cx.query.knobs.fan_out)?;
        // What ascends from cluster to cluster is likely to ascend within them.
        intake.expect_ascent(true);
        Ok(Lane {
            counter: Counter::new(&self.plan)?,
            cluster: None,
            stage: Stage::Counting(intake),
            most_rows: cx.batch_rows(),
            waiting: Retry::default(),
        })
    }

    fn push(&self, shared: &Shared, lane: &mut Lane, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let cluster = batch.cluster();
        let cluster =
            cluster.ok_or_else(|| Error::internal("rows of no cluster are to be aggregated by it"))?;
        if lane.cluster != Some(cluster) {
            lane.end_cluster(cx)?;
            lane.cluster = Some(cluster);
        }
        lane.counter.take(batch);
        self.go_on(shared, lane, cx)
    }

    fn resume(&self, shared: &Shared, lane: &mut Lane, cx: &LaneCx<'_>) -> Result<Output> {
        self.go_on(shared, lane, cx)
    }

    fn flush(&self, shared: &Shared, lane: &mut Lane, cx: &LaneCx<'_>) -> Result<Output> {
        lane.end_cluster(cx)?;
        if let Some(output) = self.close(shared, lane, cx)? {
            return Ok(output);
        }
        let intake = lane.stage.counting()?;
        if let Some(file) = intake.finish_spill(cx)? {
            shared.with_left(|left| {
                left.files.push(file);
                Ok(())
            })?;
        }
        Ok(Output::Done(None))
    }

    fn has_drain(&self) -> bool {
        true
    }

    fn drain(&self, shared: &Shared, lane: &mut Lane, cx: &LaneCx<'_>) -> Result<Pull> {
        lane.stage = match std::mem::replace(&mut lane.stage, Stage::Over) {
            Stage::Counting(mut intake) => {
                // A lane that had nothing to do with the stage before was not flushed.
                intake.expect_ascent(false);
                Stage::Draining(SourceLane::new(&self.plan, intake, shared.ready(cx)?, cx))
            }
            other => other,
        };
        match &mut lane.stage {
            Stage::Draining(source) => source.pull(&shared.ready, cx),
            _ => Err(Error::internal("a lane drains while it emits a cluster")),
        }
    }

    fn reclaim(
        &self,
        shared: &Shared,
        lane: &mut Lane,
        target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        let mut freed = match &mut lane.stage {
            Stage::Counting(intake) => intake.reclaim(cx)?,
            // Invariant 2.
            Stage::Closing { .. } | Stage::Draining(_) | Stage::Over => 0,
        };
        // Who has it locked is about to heed requests himself.
        if freed < target_bytes
            && let Some(mut left) = shared.left.try_lock()
            && let Some(left) = &mut *left
        {
            freed += left.edges.reclaim(cx)?;
        }
        Ok(freed)
    }
}

impl Lane {
    /// The rows counted so far are all there are of their cluster: its groups are to be emitted, or spilled if some of them
    /// are.
    fn end_cluster(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        let Some(cluster) = self.cluster.take() else { return Ok(()) };
        let Stage::Counting(mut intake) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(Error::internal("a cluster ends while another is emitted"));
        };
        if intake.take_has_left() {
            intake.make_room(cx)?;
            intake.take_has_left();
            self.stage = Stage::Counting(intake);
        } else {
            intake.open_headroom();
            self.stage = Stage::Closing { intake, cluster, next: 0, in_hand: None };
        }
        Ok(())
    }
}

impl Stage {
    fn counting(&mut self) -> Result<&mut Intake> {
        match self {
            Self::Counting(intake) => Ok(intake),
            Self::Closing { .. } | Self::Draining(_) | Self::Over => {
                Err(Error::internal("a lane counts rows while it emits groups"))
            }
        }
    }
}

impl Shared {
    fn with_left<T>(&self, then: impl FnOnce(&mut Left) -> Result<T>) -> Result<T> {
        let mut left = self.left.lock();
        then(left.as_mut().ok_or_else(|| Error::internal("rows are counted after the last was"))?)
    }

    /// What is to be drained; made ready by the lane that asks first.
    fn ready(&self, cx: &LaneCx<'_>) -> Result<Option<Arc<Ready>>> {
        let mut left = self.left.lock();
        if let Some(Left { mut edges, mut files }) = left.take() {
            let ready = if files.is_empty() && !edges.has_spilled() {
                edges.settle();
                Ready::merging(vec![(edges, None)])
            } else {
                files.extend(edges.finish_spill(cx)?);
                let ready = Ready::partitions(&files, fan_out_bits(cx.query.knobs.fan_out));
                ready.note_spilled(1, cx.metrics);
                ready
            };
            *self.ready.lock() = Some(Arc::new(ready));
        }
        Ok(self.ready.lock().clone())
    }
}

/// Results of some groups, by where their key lies.
struct Results {
    batch: Batch,
    /// Rows within the cluster, which has all of their groups.
    within: BufMut<u32>,
    /// Groups at its bounds, or nowhere, and how many of them are in the table that lanes share.
    at_edge: BufMut<u32>,
    edges_shared: usize,
}

impl Results {
    /// The results in `batch` of the groups from `first` on, by column `key`.
    fn new(batch: Batch, first: usize, key: usize, cluster: Cluster, cx: &LaneCx<'_>) -> Result<Self> {
        let keys = batch.column(key).flatten(cx.account)?;
        let mut within = BufMut::with_capacity(cx.account, keys.len())?;
        let mut at_edge = BufMut::with_capacity(cx.account, keys.len())?;
        macro_rules! part {
            ($($variant:ident)*) => {
                match &keys.values {
                    $(Values::$variant(values) => for (row, value) in values.iter().enumerate() {
                        let is_within = cluster.is_whole(i64::from(*value)) && !keys.is_null(row);
                        match is_within {
                            true => within.push(row as u32),
                            false => at_edge.push((first + row) as u32),
                        }
                    },)*
                    _ => return Err(Error::internal("clusters of a key that is no integer")),
                }
            };
        }
        part!(I8 I16 I32 I64 U8 U16 U32);
        Ok(Self { batch, within, at_edge, edges_shared: 0 })
    }

    /// Counts the groups at bounds, of the table `groups`, into the table that lanes share.
    fn share_edges(
        &mut self,
        groups: &Groups,
        shared: &Shared,
        cx: &LaneCx<'_>,
    ) -> Result<Result<(), Denied>> {
        if self.edges_shared == self.at_edge.len() {
            return Ok(Ok(()));
        }
        shared.with_left(|left| {
            left.edges.heed_requests(cx)?;
            let rest = &self.at_edge[self.edges_shared..];
            let (merged, added) = left.edges.merge(groups, GroupSet::At(rest), cx)?;
            self.edges_shared += merged;
            Ok(added)
        })
    }
}
