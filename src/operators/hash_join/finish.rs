//! From the chunks of all lanes to the table the probe reads, through spilled partitions where memory is short.
//!
//! Invariants:
//! 1. Where one integer key of the rows in memory spans few values, rows are first placed by value in one round of tasks.
//!    Otherwise, or if keys repeat, the directory is made in three rounds: rows are counted by partition, put there,
//!    ordered by slot. Each task works on about as many rows as take a millisecond or two.
//! 2. Once a row was spilled all rows are, before any comes back. What comes back stays on disk too, so that a refusal
//!    on the way to the table only means that less is resident.
//! 3. No refusal in here fails the query: the way out is to spill, and, once all is spilled, to keep nothing.

use super::direct::{DirectDirectory, Extent};
use super::directory::{DirectoryBuilder, count, split_bits};
use super::intake::Collected;
use super::load::{Limit, PartitionReader, load};
use super::plan::Plan;
use super::scatter::Scatter;
use super::split::Split;
use super::spread::Spread;
use super::store::{Chunk, Store};
use super::table::{Flags, Lookup, Spilled, Table};
use crate::data::BufMut;
use crate::error::{Error, Result};
use crate::exec::{Finish, LaneCx, OperatorTask};
use crate::mem::{Account, MemoryConsumer, Pool, Registration, refused};
use crate::spill::SpillFile;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Rows of a task that goes over chunks.
const TASK_ROWS: usize = 256 << 10;

/// A join between its two ends.
pub(super) struct HashJoinShared {
    plan: Arc<Plan>,
    pub(super) split: Split,
    /// Memory of lanes that have not started or have combined.
    accounts: Mutex<Vec<Account>>,
    stage: Mutex<Stage>,
    pub(super) build_rows: AtomicUsize,
    pub(super) has_null_key: AtomicBool,
    consumer: Arc<TableConsumer>,
    registration: Mutex<Option<Registration>>,
    /// What the probe reads, once the build has finished.
    table: Mutex<Option<Arc<Table>>>,
}

/// How far the build is.
enum Stage {
    /// Lanes hand over what they have.
    Combining(Gathered),
    /// Tasks spill the chunks there are.
    Spilling(Vec<Arc<SpillFile>>),
    /// Tasks read back the partitions that may stay.
    Loading(Spilled, Vec<(usize, Vec<Chunk>)>),
    /// Tasks place the rows of their chunks by value.
    Placing(Making, Arc<DirectDirectory>),
    /// Tasks count the rows of their chunks by partition; those that could not have no counts.
    Counting(Making, Vec<Option<BufMut<u32>>>),
    /// Tasks put the rows of their chunks into the directory's partitions.
    Scattering(Making, Arc<DirectoryBuilder>),
    /// Tasks order partitions, unless memory is refused to one.
    Ordering { making: Making, builder: Arc<DirectoryBuilder>, is_refused: bool },
    /// The probe may start.
    Finished,
}

/// What lanes have handed over.
struct Gathered {
    /// Rows to look up, and others.
    keyed: Vec<Chunk>,
    others: Vec<Chunk>,
    files: Vec<Arc<SpillFile>>,
    /// Of the keys, where they have an order.
    extent: Extent,
}

impl Gathered {
    const NOTHING: Self =
        Self { keyed: Vec::new(), others: Vec::new(), files: Vec::new(), extent: Extent::NONE };
}

/// A table in the making.
struct Making {
    chunks: Chunks,
    /// How a directory is to find the rows, unless it finds them by value each.
    spread: Spread,
    /// What is on disk, if not all is in the chunks.
    spilled: Option<Spilled>,
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

impl HashJoinShared {
    /// A join whose lanes have `accounts`.
    pub(super) fn new(
        plan: &Arc<Plan>,
        name: String,
        split: Split,
        accounts: Vec<Account>,
        pool: &Pool,
    ) -> Self {
        let consumer = Arc::new(TableConsumer { name, used_bytes: AtomicUsize::new(0) });
        let registration = pool.register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        Self {
            plan: Arc::clone(plan),
            split,
            accounts: Mutex::new(accounts),
            stage: Mutex::new(Stage::Combining(Gathered::NOTHING)),
            build_rows: AtomicUsize::new(0),
            has_null_key: AtomicBool::new(false),
            consumer,
            registration: Mutex::new(Some(registration)),
            table: Mutex::new(None),
        }
    }

    /// The account of a lane or task, until it is given back.
    pub(super) fn take_account(&self) -> Result<Account> {
        let account = self.accounts.lock().pop();
        account.ok_or_else(|| Error::internal("more lanes than the join was opened for"))
    }

    /// Whether more build rows change nothing: any row matches, or nothing can pass.
    pub(super) fn is_answer_known(&self) -> bool {
        let any_row_matches = !self.plan.roles.has_keys() && self.plan.roles.is_settled_by_first_match();
        any_row_matches && self.build_rows.load(Relaxed) > 0
            || self.plan.is_null_aware_anti() && self.has_null_key.load(Relaxed)
    }

    /// Takes over what a lane has.
    pub(super) fn gather(&self, mut collected: Collected, bytes: usize, account: Account) -> Result<()> {
        // Of a lane that has spilled there are no rows.
        let extent = self.plan.roles.keys.extent(&collected.keyed);
        let mut stage = self.stage.lock();
        let Stage::Combining(gathered) = &mut *stage else {
            return Err(Error::internal("a lane combines after the build has finished"));
        };
        gathered.keyed.append(&mut collected.keyed);
        gathered.others.append(&mut collected.others);
        gathered.files.extend(collected.file);
        gathered.extent = gathered.extent.and(extent);
        self.consumer.used_bytes.fetch_add(bytes, Relaxed);
        self.accounts.lock().push(account);
        Ok(())
    }

    /// The next step towards the table.
    pub(super) fn finish(self: &Arc<Self>, cx: &LaneCx<'_>) -> Result<Finish> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Finished) {
            Stage::Combining(Gathered { mut keyed, mut others, files, extent }) => {
                if !files.is_empty() {
                    keyed.append(&mut others);
                    return Ok(self.spill(&mut stage, keyed, files, cx));
                }
                self.make(&mut stage, (keyed, others), extent, None, cx)
            }
            Stage::Spilling(files) => {
                self.accounts.lock().iter().for_each(|account| {
                    account.trim();
                });
                let spilled = Spilled::new(self.split, files);
                let resident = self.choose_resident(&spilled, cx);
                let tasks = load_tasks(self, &spilled, resident);
                *stage = Stage::Loading(spilled, Vec::new());
                Ok(Finish::Tasks(tasks))
            }
            Stage::Loading(mut spilled, loaded) => {
                let mut chunks = Vec::new();
                for (partition, mut of_partition) in loaded {
                    spilled.waits[partition] = false;
                    chunks.append(&mut of_partition);
                }
                cx.metrics.counter("spilled_partitions").fetch_add(spilled.waiting() as u64, Relaxed);
                let extent = self.plan.roles.keys.extent(&chunks);
                self.make(&mut stage, (chunks, Vec::new()), extent, Some(spilled), cx)
            }
            Stage::Placing(making, direct) => {
                let direct = Arc::into_inner(direct).ok_or_else(unended)?;
                if direct.has_duplicates() {
                    drop(direct);
                    return Ok(self.count(&mut stage, making));
                }
                self.set_table(&mut stage, making, Some(Lookup::Direct(direct)), cx)
            }
            Stage::Counting(mut making, counts) => {
                let counted: Option<Vec<_>> = counts.into_iter().collect();
                let Some(mut counts) = counted else { return self.give_up(&mut stage, making, cx) };
                if making.spread.is_uneven(&counts) {
                    drop(counts);
                    making.spread = Spread::by_hash(&self.plan.roles.keys);
                    return Ok(self.count(&mut stage, making));
                }
                let account = self.take_account()?;
                let rows = making.chunks.lookup_rows;
                let builder = DirectoryBuilder::new(&mut counts, making.spread, rows, &account);
                self.accounts.lock().push(account);
                let Ok(builder) = builder else { return self.give_up(&mut stage, making, cx) };
                let builder = Arc::new(builder);
                let tasks = scatter_tasks(&making.chunks, counts, &builder);
                *stage = Stage::Scattering(making, builder);
                Ok(Finish::Tasks(tasks))
            }
            Stage::Scattering(making, builder) => {
                let tasks = order_tasks(self, &builder);
                *stage = Stage::Ordering { making, builder, is_refused: false };
                Ok(Finish::Tasks(tasks))
            }
            Stage::Ordering { making, is_refused: true, .. } => self.give_up(&mut stage, making, cx),
            Stage::Ordering { making, builder, is_refused: false } => {
                let builder = Arc::into_inner(builder).ok_or_else(unended)?;
                self.set_table(&mut stage, making, Some(Lookup::Hashed(builder.finish())), cx)
            }
            Stage::Finished => Ok(Finish::Ready),
        }
    }

    /// Starts the directory of chunks, whose keys have this extent, if there is one to make.
    fn make(
        self: &Arc<Self>,
        stage: &mut Stage,
        (mut keyed, mut others): (Vec<Chunk>, Vec<Chunk>),
        extent: Extent,
        spilled: Option<Spilled>,
        cx: &LaneCx<'_>,
    ) -> Result<Finish> {
        let lookup_rows = keyed.iter().map(|chunk| chunk.rows).sum();
        keyed.append(&mut others);
        Store::check_chunks(keyed.len())?;
        let chunks = Chunks { all: Arc::new(keyed), lookup_rows };
        let spread = Spread::of(&self.plan.roles.keys, extent, lookup_rows);
        let making = Making { chunks, spread, spilled };
        if !self.plan.roles.has_keys() || lookup_rows == 0 {
            return self.set_table(stage, making, None, cx);
        }
        let Some(direct) = self.direct(extent, lookup_rows)? else { return Ok(self.count(stage, making)) };
        let direct = Arc::new(direct);
        let tasks = place_tasks(&making.chunks, &direct);
        *stage = Stage::Placing(making, direct);
        Ok(Finish::Tasks(tasks))
    }

    /// A directory by value for `rows` rows of this extent, if that pays and there is memory for it.
    fn direct(&self, extent: Extent, rows: usize) -> Result<Option<DirectDirectory>> {
        let Some(order) = self.plan.roles.keys.order() else { return Ok(None) };
        let account = self.take_account()?;
        let direct = DirectDirectory::new(order, extent, rows, &account);
        self.accounts.lock().push(account);
        Ok(direct)
    }

    /// Starts a directory by hash, or by what comes close to the value.
    fn count(self: &Arc<Self>, stage: &mut Stage, making: Making) -> Finish {
        let ranges = making.chunks.ranges();
        let tasks = count_tasks(self, &making, ranges.clone());
        *stage = Stage::Counting(making, ranges.iter().map(|_| None).collect());
        Finish::Tasks(tasks)
    }

    /// The table does not fit: what is only in memory is spilled; else nothing stays in memory.
    fn give_up(self: &Arc<Self>, stage: &mut Stage, making: Making, cx: &LaneCx<'_>) -> Result<Finish> {
        let chunks = making.chunks.into_all()?;
        match making.spilled {
            None => Ok(self.spill(stage, chunks, Vec::new(), cx)),
            Some(spilled) => {
                drop(chunks);
                let spilled = Spilled::new(spilled.split, spilled.files);
                self.make(stage, (Vec::new(), Vec::new()), Extent::NONE, Some(spilled), cx)
            }
        }
    }

    /// Starts tasks that spill `chunks`.
    fn spill(
        self: &Arc<Self>,
        stage: &mut Stage,
        chunks: Vec<Chunk>,
        files: Vec<Arc<SpillFile>>,
        cx: &LaneCx<'_>,
    ) -> Finish {
        self.consumer.used_bytes.store(0, Relaxed);
        *stage = Stage::Spilling(files);
        let tasks = cx.query.knobs.lanes.min(chunks.len());
        let chunks = Arc::new(Mutex::new(chunks));
        let task = |_| {
            let (shared, chunks) = (Arc::clone(self), Arc::clone(&chunks));
            let task = move |cx: &LaneCx<'_>| {
                let plan = &*shared.plan;
                let mut scatter = Scatter::new(&plan.roles.stored_types, plan.roles.has_keys(), shared.split);
                loop {
                    let chunk = chunks.lock().pop();
                    let Some(chunk) = chunk else { break };
                    scatter.put(&chunk, &plan.roles.keys, cx)?;
                }
                let file = scatter.finish(cx)?;
                if let Stage::Spilling(files) = &mut *shared.stage.lock() {
                    files.extend(file);
                }
                Ok(())
            };
            Box::new(task) as OperatorTask
        };
        Finish::Tasks((0..tasks).map(task).collect())
    }

    /// The partitions to read back: the smallest, as long as they fit half of the memory that is free.
    fn choose_resident(&self, spilled: &Spilled, cx: &LaneCx<'_>) -> Vec<usize> {
        if !self.plan.roles.has_keys() || cx.must_refuse() {
            return Vec::new();
        }
        let pool = &cx.query.pool;
        let mut free_bytes = pool.limit_bytes().saturating_sub(pool.granted_bytes()) / 2;
        let mut sizes: Vec<(u64, usize)> =
            (0..spilled.waits.len()).filter(|&p| spilled.waits[p]).map(|p| (spilled.rows(p), p)).collect();
        sizes.sort_unstable();
        let fits = |&(rows, _): &(u64, usize)| {
            let bytes = usize::try_from(rows)
                .ok()
                .and_then(|rows| rows.checked_mul(self.plan.roles.table_row_bytes()));
            match bytes.and_then(|bytes| free_bytes.checked_sub(bytes)) {
                Some(rest) => {
                    free_bytes = rest;
                    true
                }
                None => false,
            }
        };
        sizes.into_iter().take_while(fits).map(|(_, partition)| partition).collect()
    }

    fn set_table(
        self: &Arc<Self>,
        stage: &mut Stage,
        making: Making,
        lookup: Option<Lookup>,
        cx: &LaneCx<'_>,
    ) -> Result<Finish> {
        let account = self.take_account()?;
        let flags = match self.plan.roles.kind.drains() {
            Some(_) => Flags::new(making.chunks.all.iter().map(|chunk| chunk.rows), &account).map(Some),
            None => Ok(None),
        };
        self.accounts.lock().push(account);
        let Ok(flags) = flags else {
            drop(lookup);
            return self.give_up(stage, making, cx);
        };
        let lookup_rows = making.chunks.lookup_rows;
        let store = Store::new(making.chunks.into_all()?, &self.plan.roles.stored_types)?;
        let lookup_bytes = lookup.as_ref().map_or(0, Lookup::allocated_bytes);
        self.consumer.used_bytes.fetch_add(lookup_bytes, Relaxed);
        *self.table.lock() = Some(Arc::new(Table {
            store,
            lookup,
            lookup_rows,
            build_rows: self.build_rows.load(Relaxed),
            has_null_key: self.has_null_key.load(Relaxed),
            flags,
            next_chunk: AtomicUsize::new(0),
            spilled: making.spilled.map(Arc::new),
            _registration: self.registration.lock().take(),
        }));
        self.accounts.lock().clear();
        Ok(Finish::Ready)
    }

    /// The table, for the probe to take.
    pub(super) fn take_table(&self) -> Result<Arc<Table>> {
        self.table.lock().take().ok_or_else(|| Error::internal("a join is probed before it was built"))
    }
}

impl Chunks {
    /// The chunks, of which no task knows any more.
    fn into_all(self) -> Result<Vec<Chunk>> {
        Arc::into_inner(self.all).ok_or_else(|| Error::internal("a task of a build still reads its chunks"))
    }

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

/// Reads `resident` partitions back, each as a whole or not at all.
fn load_tasks(shared: &Arc<HashJoinShared>, spilled: &Spilled, resident: Vec<usize>) -> Vec<OperatorTask> {
    let task = |partition: usize| {
        let shared = Arc::clone(shared);
        let mut rows = PartitionReader::new(spilled.part(partition));
        let task = move |cx: &LaneCx<'_>| {
            let account = shared.take_account()?;
            let loaded = load(&shared.plan.roles, &mut rows, Limit::Memory, &account, cx);
            shared.accounts.lock().push(account);
            let loaded = loaded?;
            if let (true, Stage::Loading(_, all)) = (rows.is_at_end(), &mut *shared.stage.lock()) {
                all.push((partition, loaded));
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    resident.into_iter().map(task).collect()
}

fn place_tasks(chunks: &Chunks, direct: &Arc<DirectDirectory>) -> Vec<OperatorTask> {
    let task = |range: Range<usize>| {
        let (chunks, direct) = (chunks.clone(), Arc::clone(direct));
        let task = move |cx: &LaneCx<'_>| direct.place(range.clone().zip(&chunks.all[range]), cx);
        Box::new(task) as OperatorTask
    };
    chunks.ranges().into_iter().map(task).collect()
}

fn count_tasks(
    shared: &Arc<HashJoinShared>,
    making: &Making,
    ranges: Vec<Range<usize>>,
) -> Vec<OperatorTask> {
    let spread = making.spread;
    let task = |(number, range): (usize, Range<usize>)| {
        let (shared, chunks) = (Arc::clone(shared), making.chunks.clone());
        let task = move |cx: &LaneCx<'_>| {
            let (_, bits) = split_bits(chunks.lookup_rows);
            let counts = count(chunks.all[range].iter(), spread, bits, cx.account, cx);
            // Before anybody may want the chunks for himself.
            drop(chunks);
            if let (Ok(counts), Stage::Counting(_, all)) = (refused(counts)?, &mut *shared.stage.lock()) {
                all[number] = Some(counts);
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    ranges.into_iter().enumerate().map(task).collect()
}

fn scatter_tasks(
    chunks: &Chunks,
    places: Vec<BufMut<u32>>,
    builder: &Arc<DirectoryBuilder>,
) -> Vec<OperatorTask> {
    let task = |(range, mut places): (Range<usize>, BufMut<u32>)| {
        let (chunks, builder) = (chunks.clone(), Arc::clone(builder));
        let task = move |cx: &LaneCx<'_>| {
            let numbered = range.clone().zip(&chunks.all[range]);
            builder.scatter(numbered, &mut places, cx)
        };
        Box::new(task) as OperatorTask
    };
    chunks.ranges().into_iter().zip(places).map(task).collect()
}

fn order_tasks(shared: &Arc<HashJoinShared>, builder: &Arc<DirectoryBuilder>) -> Vec<OperatorTask> {
    let task = |partitions: Range<usize>| {
        let (shared, builder) = (Arc::clone(shared), Arc::clone(builder));
        let task = move |cx: &LaneCx<'_>| {
            let mut partitions = partitions.into_iter();
            let ordered = partitions.try_for_each(|partition| builder.order(partition, cx.account, cx));
            drop(builder);
            if let (Err(_), Stage::Ordering { is_refused, .. }) =
                (refused(ordered)?, &mut *shared.stage.lock())
            {
                *is_refused = true;
            }
            Ok(())
        };
        Box::new(task) as OperatorTask
    };
    builder.tasks().into_iter().map(task).collect()
}

fn unended() -> Error {
    Error::internal("a task of a build has not ended")
}
