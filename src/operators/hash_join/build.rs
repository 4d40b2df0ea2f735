//! The end that takes the build side: lanes fill chunks of their own, then the directory is made of all.
//!
//! Invariants:
//! 1. A lane hands its chunks over once, in `combine`; they never change after that.
//! 2. The directory is made in three rounds of tasks: rows are counted by partition, put there, ordered by slot. Each
//!    task works on about as many rows as take a millisecond or two.

use super::directory::{Directory, DirectoryBuilder, count, split_bits};
use super::keys::KeyEncoder;
use super::plan::{Plan, Stored};
use super::store::{Chunk, ChunkBuilder, Store};
use super::table::{Flags, Table};
use crate::data::{Batch, BufMut, Vector};
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, OperatorTask, Sink};
use crate::expr::{EvalCx, Evaluator};
use crate::mem::{Account, Knobs, MemoryConsumer, Registration};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Rows of a task that goes over chunks.
const TASK_ROWS: usize = 256 << 10;

/// See the module.
pub(super) struct HashJoinBuild {
    plan: Arc<Plan>,
    handoff: Handoff<HashJoinShared>,
}

/// A join between its two ends.
pub(super) struct HashJoinShared {
    plan: Arc<Plan>,
    /// Memory of lanes that have not started or have combined.
    accounts: Mutex<Vec<Account>>,
    stage: Mutex<Stage>,
    build_rows: AtomicUsize,
    has_null_key: AtomicBool,
    consumer: Arc<TableConsumer>,
    registration: Mutex<Option<Registration>>,
    /// What the probe reads, once the build has finished.
    table: Mutex<Option<Arc<Table>>>,
}

/// How far the build is.
enum Stage {
    /// Lanes hand over chunks: of rows to look up, and of others.
    Combining { keyed: Vec<Chunk>, others: Vec<Chunk> },
    /// Tasks count the rows of their chunks by partition.
    Counting(Chunks, Vec<Option<BufMut<u32>>>),
    /// Tasks put the rows of their chunks into the directory's partitions.
    Scattering(Chunks, Arc<DirectoryBuilder>),
    /// Tasks order partitions.
    Ordering(Chunks, Arc<DirectoryBuilder>),
    /// The probe may start.
    Finished,
}

/// All chunks, those to look up first.
#[derive(Clone)]
struct Chunks {
    all: Arc<Vec<Chunk>>,
    lookup_rows: usize,
}

/// The table as memory errors name it. It cannot give anything back.
struct TableConsumer {
    name: String,
    used_bytes: AtomicUsize,
}

impl MemoryConsumer for TableConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn revocable_bytes(&self) -> usize {
        0
    }

    fn request_reclaim(&self, _target_bytes: usize) {}
}

/// A lane that builds.
pub(super) struct HashJoinBuildLocal {
    evaluator: Option<Evaluator>,
    encoder: KeyEncoder,
    /// `None` once combined.
    lane: Option<Lane>,
}

/// What a lane has collected.
struct Lane {
    keyed: ChunkBuilder,
    /// Rows with null keys, where they count.
    others: ChunkBuilder,
    /// Bytes the consumer knows of.
    known_bytes: usize,
    /// After the chunks, so that their slabs return to it.
    account: Account,
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
        let quantum_bytes = (cx.query.pool.limit_bytes() / (64 * cx.lanes)).clamp(4 << 10, 256 << 10);
        let accounts = cx.lane_accounts(self.plan.store_floor_bytes(), quantum_bytes, 0);
        let consumer = Arc::new(TableConsumer { name: self.name(), used_bytes: AtomicUsize::new(0) });
        let registration = cx.query.pool.register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        let shared = Arc::new(HashJoinShared {
            plan: Arc::clone(&self.plan),
            accounts: Mutex::new(accounts),
            stage: Mutex::new(Stage::Combining { keyed: Vec::new(), others: Vec::new() }),
            build_rows: AtomicUsize::new(0),
            has_null_key: AtomicBool::new(false),
            consumer,
            registration: Mutex::new(Some(registration)),
            table: Mutex::new(None),
        });
        self.handoff.put(Arc::clone(&shared))?;
        Ok(shared)
    }

    fn local(&self, shared: &Arc<HashJoinShared>, _cx: &LaneCx<'_>) -> Result<HashJoinBuildLocal> {
        let plan = &self.plan;
        let evaluator = match plan.has_keys() {
            true => Some(Evaluator::new(&plan.build_keys, &plan.build_layout)?),
            false => None,
        };
        let columns = plan.stored.len();
        let lane = Lane {
            keyed: ChunkBuilder::new(columns, plan.has_keys()),
            others: ChunkBuilder::new(columns, false),
            known_bytes: 0,
            account: shared.take_account()?,
        };
        Ok(HashJoinBuildLocal { evaluator, encoder: KeyEncoder::new(&plan.keys), lane: Some(lane) })
    }

    fn push(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        batch: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        let plan = &self.plan;
        let HashJoinBuildLocal { evaluator, encoder, lane } = local;
        let Some(lane) = lane else { return Err(Error::internal("rows after the lane has combined")) };
        lane.account.relieve();
        let rows = batch.physical_rows();
        let keys = match evaluator {
            Some(evaluator) => {
                evaluator.evaluate(&batch, &mut EvalCx { account: cx.account, ids: &cx.query.ids })?
            }
            None => Vec::new(),
        };
        let keys = encoder.encode(&plan.keys, &keys, rows, batch.selection(), cx.account)?;
        let column = |stored: &Stored| match *stored {
            Stored::Input(at) => batch.column(at).flatten(cx.account).map(Vector::Flat),
            Stored::Key(key) => Ok(Vector::Flat(keys[key].clone())),
        };
        let stored = Batch::new(plan.stored.iter().map(column).collect::<Result<_, _>>()?, rows);
        lane.keyed.append(&stored, encoder.words(), encoder.positions(), &lane.account)?;
        let null_rows = encoder.null_positions();
        if plan.kind.keeps_null_keys() {
            lane.others.append(&stored, &[], null_rows, &lane.account)?;
        }
        lane.publish(&shared.consumer);
        shared.build_rows.fetch_add(batch.rows(), Relaxed);
        if !null_rows.is_empty() {
            shared.has_null_key.store(true, Relaxed);
        }
        Ok(if shared.is_answer_known() { Flow::Done } else { Flow::NeedInput })
    }

    fn combine(
        &self,
        shared: &Arc<HashJoinShared>,
        local: &mut HashJoinBuildLocal,
        _cx: &LaneCx<'_>,
    ) -> Result<Combine> {
        let Some(lane) = local.lane.take() else { return Ok(Combine::Ready) };
        let (mut new_keyed, mut new_others) = (lane.keyed.finish()?, lane.others.finish()?);
        let mut stage = shared.stage.lock();
        let Stage::Combining { keyed, others } = &mut *stage else {
            return Err(Error::internal("a lane combines after the build has finished"));
        };
        keyed.append(&mut new_keyed);
        others.append(&mut new_others);
        shared.accounts.lock().push(lane.account);
        Ok(Combine::Ready)
    }

    fn finish(&self, shared: &Arc<HashJoinShared>, _cx: &LaneCx<'_>) -> Result<Finish> {
        let mut stage = shared.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Finished) {
            Stage::Combining { mut keyed, mut others } => {
                let lookup_rows = keyed.iter().map(|chunk| chunk.rows).sum();
                keyed.append(&mut others);
                Store::check_chunks(keyed.len())?;
                let chunks = Chunks { all: Arc::new(keyed), lookup_rows };
                if !self.plan.has_keys() || lookup_rows == 0 {
                    shared.set_table(chunks, None)?;
                    return Ok(Finish::Ready);
                }
                let ranges = chunks.ranges();
                *stage = Stage::Counting(chunks.clone(), ranges.iter().map(|_| None).collect());
                Ok(Finish::Tasks(count_tasks(shared, &chunks, ranges)))
            }
            Stage::Counting(chunks, counts) => {
                let counted: Option<Vec<_>> = counts.into_iter().collect();
                let mut counts =
                    counted.ok_or_else(|| Error::internal("chunks of a build were not counted"))?;
                let account = shared.take_account()?;
                let builder = DirectoryBuilder::new(&mut counts, chunks.lookup_rows, &account)?;
                shared.accounts.lock().push(account);
                let builder = Arc::new(builder);
                let tasks = scatter_tasks(shared, &chunks, counts, &builder);
                *stage = Stage::Scattering(chunks, builder);
                Ok(Finish::Tasks(tasks))
            }
            Stage::Scattering(chunks, builder) => {
                let tasks = order_tasks(shared, &builder);
                *stage = Stage::Ordering(chunks, builder);
                Ok(Finish::Tasks(tasks))
            }
            Stage::Ordering(chunks, builder) => {
                let builder = Arc::into_inner(builder)
                    .ok_or_else(|| Error::internal("a task of a build has not ended"))?;
                shared.set_table(chunks, Some(builder))?;
                Ok(Finish::Ready)
            }
            Stage::Finished => Ok(Finish::Ready),
        }
    }
}

impl Lane {
    fn publish(&mut self, consumer: &TableConsumer) {
        let bytes = self.keyed.allocated_bytes() + self.others.allocated_bytes();
        // The difference may be negative; sums wrap around to what they should be.
        consumer.used_bytes.fetch_add(bytes.wrapping_sub(self.known_bytes), Relaxed);
        self.known_bytes = bytes;
    }
}

impl HashJoinShared {
    fn take_account(&self) -> Result<Account> {
        let account = self.accounts.lock().pop();
        account.ok_or_else(|| Error::internal("more lanes than the join was opened for"))
    }

    /// Whether more build rows change nothing: any row matches, or nothing can pass.
    fn is_answer_known(&self) -> bool {
        let any_row_matches = !self.plan.has_keys() && self.plan.is_settled_by_first_match();
        any_row_matches && self.build_rows.load(Relaxed) > 0
            || self.plan.is_null_aware_anti() && self.has_null_key.load(Relaxed)
    }

    fn set_table(&self, chunks: Chunks, builder: Option<DirectoryBuilder>) -> Result<()> {
        let all = Arc::into_inner(chunks.all)
            .ok_or_else(|| Error::internal("a task of a build still reads its chunks"))?;
        let store = Store::new(all, &self.plan.stored_types)?;
        let account = self.take_account()?;
        let flags = match self.plan.kind.drains() {
            Some(_) => Some(Flags::new(&store, &account)?),
            None => None,
        };
        let directory = builder.map(DirectoryBuilder::finish);
        let directory_bytes = directory.as_ref().map_or(0, Directory::allocated_bytes);
        self.consumer.used_bytes.fetch_add(directory_bytes, Relaxed);
        *self.table.lock() = Some(Arc::new(Table {
            store,
            directory,
            lookup_rows: chunks.lookup_rows,
            build_rows: self.build_rows.load(Relaxed),
            has_null_key: self.has_null_key.load(Relaxed),
            flags,
            next_chunk: AtomicUsize::new(0),
            _registration: self.registration.lock().take(),
        }));
        self.accounts.lock().clear();
        Ok(())
    }

    /// The table, for the probe to take.
    pub(super) fn take_table(&self) -> Result<Arc<Table>> {
        self.table.lock().take().ok_or_else(|| Error::internal("a join is probed before it was built"))
    }
}

impl Chunks {
    /// Ranges of chunks for tasks of about equal size.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut rows) = (0, 0);
        for (at, chunk) in self.all.iter().enumerate() {
            rows += chunk.rows;
            if rows >= TASK_ROWS || at + 1 == self.all.len() {
                ranges.push(start..at + 1);
                (start, rows) = (at + 1, 0);
            }
        }
        ranges
    }
}

fn count_tasks(
    shared: &Arc<HashJoinShared>,
    chunks: &Chunks,
    ranges: Vec<Range<usize>>,
) -> Vec<OperatorTask> {
    let task = |(number, range): (usize, Range<usize>)| {
        let (shared, chunks) = (Arc::clone(shared), chunks.clone());
        let task = move |cx: &LaneCx<'_>| {
            let (_, bits) = split_bits(chunks.lookup_rows);
            let counts = count(chunks.all[range].iter(), &shared.plan.keys, bits, cx)?;
            if let Stage::Counting(_, all) = &mut *shared.stage.lock() {
                all[number] = Some(counts);
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    ranges.into_iter().enumerate().map(task).collect()
}

fn scatter_tasks(
    shared: &Arc<HashJoinShared>,
    chunks: &Chunks,
    places: Vec<BufMut<u32>>,
    builder: &Arc<DirectoryBuilder>,
) -> Vec<OperatorTask> {
    let task = |(range, mut places): (Range<usize>, BufMut<u32>)| {
        let (plan, chunks, builder) = (Arc::clone(&shared.plan), chunks.clone(), Arc::clone(builder));
        let task = move |cx: &LaneCx<'_>| {
            let numbered = range.clone().zip(&chunks.all[range]);
            builder.scatter(numbered, &mut places, &plan.keys, cx)
        };
        Box::new(task) as OperatorTask
    };
    chunks.ranges().into_iter().zip(places).map(task).collect()
}

fn order_tasks(shared: &Arc<HashJoinShared>, builder: &Arc<DirectoryBuilder>) -> Vec<OperatorTask> {
    let task = |partitions: Range<usize>| {
        let (plan, builder) = (Arc::clone(&shared.plan), Arc::clone(builder));
        let task = move |cx: &LaneCx<'_>| {
            partitions.into_iter().try_for_each(|partition| builder.order(partition, &plan.keys, cx))
        };
        Box::new(task) as OperatorTask
    };
    builder.tasks().into_iter().map(task).collect()
}
