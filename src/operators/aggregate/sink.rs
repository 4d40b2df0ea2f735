//! The end that counts rows: a table per lane.
//!
//! Invariants:
//! 1. A lane's table is handed over once, in `combine`; a lane that has spilled spills the rest first.
//! 2. `finish` ends with the tables all in memory or all in partitions, never both.

use super::counter::Counter;
use super::groups::Groups;
use super::intake::Intake;
use super::source::Ready;
use super::spans::Spans;
use super::spec::{Plan, fan_out_bits};
use super::spill::PartitionOrder;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, OperatorTask, Sink};
use crate::mem::{Account, Knobs};
use crate::spill::SpillFile;
use parking_lot::Mutex;
use std::sync::Arc;

/// Merged tables are split into ranges of about so many groups, which stay in cache while they are merged.
const RANGE_GROUPS: usize = 32 << 10;
/// Ranges per lane at least, so that lanes end together.
const RANGES_PER_LANE: usize = 4;
const MOST_RANGE_BITS: u32 = 10;

/// See the module.
pub(super) struct HashAggregateSink {
    plan: Arc<Plan>,
    handoff: Handoff<Aggregation>,
}

/// An aggregation between its two ends.
pub(super) struct Aggregation {
    /// Memory of lanes that have not started.
    accounts: Mutex<Vec<Account>>,
    floor_bytes: usize,
    lanes: usize,
    stage: Mutex<Stage>,
    /// What the source reads, once the sink has finished.
    pub(super) ready: Mutex<Option<Arc<Ready>>>,
}

/// How far the sink is.
enum Stage {
    /// Lanes hand over what they have.
    Combining(Gathered),
    /// Tables are cut into spans, if their keys ascend; nothing until that is known.
    Cutting(Option<(Vec<Intake>, Option<Spans>)>),
    /// Tables are ordered by hash range; those that could not be have no order.
    Ordering(Vec<(Intake, Option<PartitionOrder>)>),
    /// Tables are spilled.
    Spilling(Vec<Arc<SpillFile>>),
    /// The source may read.
    Finished,
}

/// What lanes have handed over.
#[derive(Default)]
struct Gathered {
    tables: Vec<Intake>,
    files: Vec<Arc<SpillFile>>,
}

/// A lane that counts.
pub(super) struct SinkLane {
    counter: Counter,
    /// `None` once combined.
    intake: Option<Intake>,
}

impl HashAggregateSink {
    /// The sink of `plan`, whose groups go to the source that shares `handoff`.
    pub(super) fn new(plan: Arc<Plan>, handoff: Handoff<Aggregation>) -> Self {
        Self { plan, handoff }
    }
}

impl Sink for HashAggregateSink {
    type Shared = Arc<Aggregation>;
    type Local = SinkLane;

    fn name(&self) -> String {
        self.plan.name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        self.plan.sink_need(knobs)
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Self::Shared> {
        self.plan.check()?;
        let floor_bytes = self.plan.table_floor_bytes(&cx.query.knobs);
        let accounts = table_accounts(floor_bytes, cx.lanes, cx);
        let shared = Arc::new(Aggregation {
            accounts: Mutex::new(accounts),
            floor_bytes,
            lanes: cx.lanes,
            stage: Mutex::new(Stage::Combining(Gathered::default())),
            ready: Mutex::new(None),
        });
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<SinkLane> {
        let account = take_account(&shared.accounts)?;
        let fan_out = cx.query.knobs.fan_out;
        let intake = Intake::new(&self.plan, account, shared.floor_bytes, fan_out)?;
        Ok(SinkLane { counter: Counter::new(&self.plan)?, intake: Some(intake) })
    }

    fn push(
        &self,
        shared: &Self::Shared,
        local: &mut SinkLane,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        local.counter.take(batch);
        local.go_on(shared, cx)
    }

    fn resume(&self, shared: &Self::Shared, local: &mut SinkLane, cx: &LaneCx<'_>) -> Result<Flow> {
        local.go_on(shared, cx)
    }

    fn combine(&self, shared: &Self::Shared, local: &mut SinkLane, cx: &LaneCx<'_>) -> Result<Combine> {
        let Some(mut intake) = local.intake.take() else { return Ok(Combine::Ready) };
        let file = if intake.has_spilled() { intake.finish_spill(cx)? } else { None };
        let mut stage = shared.stage.lock();
        let Stage::Combining(gathered) = &mut *stage else {
            return Err(Error::internal("a lane combines after the aggregation has finished"));
        };
        match file {
            Some(file) => gathered.files.push(file),
            None if intake.groups().len() > 0 => {
                intake.settle();
                gathered.tables.push(intake);
            }
            None => {}
        }
        Ok(Combine::Ready)
    }

    fn finish(&self, shared: &Self::Shared, cx: &LaneCx<'_>) -> Result<Finish> {
        let mut stage = shared.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Finished) {
            Stage::Combining(Gathered { tables, files }) if files.is_empty() => {
                let groups: usize = tables.iter().map(|table| table.groups().len()).sum();
                let bits = range_bits(groups, shared.lanes);
                let must_merge = tables.len() > 1 || tables.iter().any(Intake::may_repeat);
                if must_merge && bits > 0 {
                    *stage = Stage::Cutting(None);
                    return Ok(Finish::Tasks(vec![cut_task(tables, shared)]));
                }
                shared.set_ready(Ready::merging(tables.into_iter().map(|table| (table, None)).collect()));
            }
            Stage::Cutting(Some((tables, Some(spans)))) => shared.set_ready(Ready::spans(tables, spans)),
            Stage::Cutting(Some((tables, None))) => {
                let groups: usize = tables.iter().map(|table| table.groups().len()).sum();
                *stage = Stage::Ordering(Vec::with_capacity(tables.len()));
                return Ok(Finish::Tasks(order_tasks(tables, range_bits(groups, shared.lanes), shared)));
            }
            Stage::Cutting(None) => return Err(Error::internal("tables have not been cut")),
            Stage::Combining(Gathered { tables, files }) => {
                *stage = Stage::Spilling(files);
                return Ok(Finish::Tasks(spill_tasks(tables, shared)));
            }
            Stage::Ordering(tables) if tables.iter().any(|(_, order)| order.is_none()) => {
                *stage = Stage::Spilling(Vec::with_capacity(tables.len()));
                let tables = tables.into_iter().map(|(table, _)| table).collect();
                return Ok(Finish::Tasks(spill_tasks(tables, shared)));
            }
            Stage::Ordering(tables) => shared.set_ready(Ready::merging(tables)),
            Stage::Spilling(files) => {
                let bits = fan_out_bits(cx.query.knobs.fan_out);
                let ready = Ready::partitions(&files, bits);
                ready.note_spilled(1, cx.metrics);
                shared.set_ready(ready);
            }
            Stage::Finished => {}
        }
        Ok(Finish::Ready)
    }

    fn reclaim(
        &self,
        _shared: &Self::Shared,
        local: &mut SinkLane,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        local.intake.as_mut().map_or(Ok(0), |intake| intake.reclaim(cx))
    }
}

impl SinkLane {
    /// Counts the pending rows, or waits for the memory that one of them needs.
    fn go_on(&mut self, shared: &Aggregation, cx: &LaneCx<'_>) -> Result<Flow> {
        let intake =
            self.intake.as_mut().ok_or_else(|| Error::internal("rows after the lane has combined"))?;
        if let Some(wait) = self.counter.go_on(intake, cx)? {
            return Ok(Flow::Wait(wait));
        }
        if shared.lanes > 1 {
            intake.watch();
        }
        Ok(Flow::NeedInput)
    }
}

impl Aggregation {
    fn set_ready(&self, ready: Ready) {
        *self.ready.lock() = Some(Arc::new(ready));
    }
}

/// Accounts with the floor of a table, `count` of them.
pub(super) fn table_accounts(floor_bytes: usize, count: usize, cx: &OpenCx<'_>) -> Vec<Account> {
    let quantum_bytes = (cx.query.pool.limit_bytes() / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
    (0..count).map(|_| cx.account(floor_bytes, quantum_bytes, floor_bytes)).collect()
}

/// A lane's account.
pub(super) fn take_account(accounts: &Mutex<Vec<Account>>) -> Result<Account> {
    accounts.lock().pop().ok_or_else(|| Error::internal("more lanes than the aggregation was opened for"))
}

/// Hash bits by which `groups` groups are split for `lanes` lanes; 0 if one lane may as well merge them.
fn range_bits(groups: usize, lanes: usize) -> u32 {
    if groups <= RANGE_GROUPS / 4 {
        return 0;
    }
    let ranges = (groups / RANGE_GROUPS).max(RANGES_PER_LANE * lanes);
    ranges.next_power_of_two().ilog2().min(MOST_RANGE_BITS)
}

/// Finds out whether tables can be read without merging.
fn cut_task(tables: Vec<Intake>, shared: &Arc<Aggregation>) -> OperatorTask {
    let shared = Arc::clone(shared);
    Box::new(move |_: &LaneCx<'_>| {
        let groups: Vec<&Groups> = tables.iter().map(Intake::groups).collect();
        let spans = tables.first().and_then(|table| Spans::of(&groups, table.account()));
        *shared.stage.lock() = Stage::Cutting(Some((tables, spans)));
        Ok(())
    })
}

/// Orders each table by hash range. A table without the memory for that is left as it is.
fn order_tasks(tables: Vec<Intake>, bits: u32, shared: &Arc<Aggregation>) -> Vec<OperatorTask> {
    let task = |table: Intake| {
        let shared = Arc::clone(shared);
        let task = move |_: &LaneCx<'_>| {
            let groups = table.groups();
            let order = PartitionOrder::new(groups, 0, groups.len(), 0, bits, table.account()).ok();
            if let Stage::Ordering(ordered) = &mut *shared.stage.lock() {
                ordered.push((table, order));
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    tables.into_iter().map(task).collect()
}

/// Spills each table.
fn spill_tasks(tables: Vec<Intake>, shared: &Arc<Aggregation>) -> Vec<OperatorTask> {
    let task = |mut table: Intake| {
        let shared = Arc::clone(shared);
        let task = move |cx: &LaneCx<'_>| {
            let file = table.finish_spill(cx)?;
            if let (Some(file), Stage::Spilling(files)) = (file, &mut *shared.stage.lock()) {
                files.push(file);
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    tables.into_iter().map(task).collect()
}
