//! What comes after the probe side has ended: build rows that are owed, then the pairs of spilled partitions.
//!
//! Invariants:
//! 1. A lane lets go of the table of the main stage before it loads a partition, and of that before the next.
//! 2. A pair that does not fit is put back while others hold memory. Then it is joined part by part of its build rows, each with
//!    all of its probe rows, if these are few parts or splitting would not make it much smaller; else split by fresh bits.
//! 3. A lane to which not even one build row is granted holds none, and waits.
//! 4. Whichever side of a pair is much smaller is the build side, where roles can be reversed; below, that is meant by the
//!    words. A pair may be reversed each time it is taken on.
//! 5. A build row that is kept for having (no) match comes out when all probe rows have been seen; a probe row is
//!    answered when all build rows have.

use super::direct::DirectDirectory;
use super::directory::Directory;
use super::intake::{Intake, Taken, too_small};
use super::load::{Limit, Part, PartitionReader, load, split_word};
use super::plan::Plan;
use super::probe::{HashJoinLocal, ProbeShared};
use super::prober::{Matches, Prober, Share, nulls};
use super::queue::{Item, Next, Pair};
use super::roles::{JoinColumn, Origin, Roles};
use super::split::Split;
use super::store::{Chunk, Store, row_id};
use super::table::{Flags, Lookup, Table};
use crate::data::{Batch, BufMut};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Output, Pull, Retry, Wait};
use crate::mem::{Denied, refused};
use crate::spill::SpillFile;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A part of more than so many hundredths of the whole is not worth splitting again.
const SKEWED_PERCENT: u64 = 80;
/// Roles are reversed where it makes the table so many times smaller.
const REVERSED_RATIO: u64 = 2;
/// What is known of probe rows from part to part takes no more than one part in so many of the table's memory.
const KNOWN_PART: u64 = 8;
/// Of the rows that fit, one in so many is left out of a part.
const LEFT_PART: usize = 8;
/// Pairs deeper than this are not refused memory by injected faults, so that merging ends.
const MOST_FORCED_DEPTH: u32 = 2;

/// Where a lane is in the drain stage.
pub(super) struct Drain {
    stage: Stage,
    /// What is known of the whole build, as planned.
    build: BuildFacts,
    /// Whether the prober is for reversed roles.
    is_reversed: bool,
    /// Where the table's rows are to be drained from: chunk and place.
    cursor: Option<(usize, usize)>,
    rows: BufMut<u32>,
    /// Tries to get memory for a build row.
    waiting: Retry,
}

/// See the fields of [`Table`].
#[derive(Clone, Copy, Default)]
struct BuildFacts {
    rows: usize,
    has_null_key: bool,
}

enum Stage {
    /// Emits what the table of the main stage owes.
    Resident,
    /// Takes what comes next.
    Taking,
    /// Emits build rows as they are, of planned or reversed roles.
    Unmatched {
        rows: Box<PartitionReader>,
        is_reversed: bool,
    },
    /// Splits a pair by fresh bits.
    Splitting(Box<Splitting>),
    /// Loads as many build rows of a pair as fit, from one of them on.
    Loading(Box<Loading>),
    /// Joins a pair, or a part of one.
    Probing(Box<Pass>),
    /// Emits build rows of the part.
    Owing(Box<Pass>),
    Done,
}

/// A pair whose rows, first those of its build side, are going to smaller partitions.
struct Splitting {
    pair: Pair,
    split: Split,
    intake: Intake,
    /// Rows of the side in work that have not been read.
    rows: PartitionReader,
    /// What was read last, and how many of its rows have been taken.
    pending: Option<(Batch, usize)>,
    /// What has become of the build side, once the probe side is in work.
    build: Option<Option<Arc<SpillFile>>>,
}

/// A pair too large to be joined at once.
struct Loading {
    pair: Pair,
    /// The build rows that come next, of which at most so many are to be a part.
    from: PartitionReader,
    most_rows: usize,
    /// What is known of each probe row, if it is asked; nothing before the first build rows.
    found: Option<Matches>,
}

/// Probe rows of a pair on their way past build rows of it.
struct Pass {
    pair: Pair,
    table: Table,
    /// Build rows not seen yet.
    build: PartitionReader,
    share: Share,
    probe: PartitionReader,
    /// Probe rows given so far, and of these the rows in work.
    ordinal: usize,
    working: Option<usize>,
    /// What is known of each probe row, if there are several parts and it is asked.
    found: Matches,
}

/// What taking a pair on comes to.
enum Begun {
    Stage(Stage),
    Wait(Wait),
}

impl Drain {
    /// At the beginning.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Resident,
            build: BuildFacts::default(),
            is_reversed: false,
            cursor: None,
            rows: BufMut::empty(),
            waiting: Retry::default(),
        }
    }

    /// The next rows that `table` owes.
    fn owed(&mut self, roles: &Roles, table: &Table, cx: &LaneCx<'_>) -> Result<Option<Batch>> {
        let (Some(has_match), Some(flags)) = (roles.kind.drains(), &table.flags) else { return Ok(None) };
        let chunks = &table.store.chunk_rows;
        let Self { cursor, rows: drained, .. } = self;
        drained.set_len(0);
        drained.reserve(cx.account, cx.batch_rows())?;
        while drained.len() < cx.batch_rows() {
            cx.check()?;
            let (chunk, mut place) = match cursor.take() {
                Some(cursor) => cursor,
                None => (table.next_chunk.fetch_add(1, Relaxed), 0),
            };
            let Some(&rows) = chunks.get(chunk) else { break };
            while place < rows && drained.len() < cx.batch_rows() {
                match flags.word(chunk, place, has_match) {
                    0 => place = (place / 64 + 1) * 64,
                    word => {
                        place += word.trailing_zeros() as usize;
                        if place < rows {
                            drained.push(row_id(chunk, place));
                        }
                        place += 1;
                    }
                }
            }
            if place < rows {
                *cursor = Some((chunk, place));
            }
        }
        let rows: &[u32] = drained;
        if rows.is_empty() {
            return Ok(None);
        }
        let column = |column: &JoinColumn| match column.origin {
            Origin::Build(at) => table.store.gather(at, rows, false, cx.account),
            Origin::Probe(_) | Origin::Mark => Ok(nulls(&column.data_type, rows.len())),
        };
        let columns = roles.output.iter().map(column).collect::<Result<_>>()?;
        Ok(Some(Batch::new(columns, rows.len())))
    }
}

impl HashJoinLocal {
    /// The next rows of the drain stage.
    pub(super) fn drain(&mut self, plan: &Plan, shared: &ProbeShared, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            cx.check()?;
            // An error leaves nothing to go on with.
            match std::mem::replace(&mut self.drain.stage, Stage::Done) {
                Stage::Resident => {
                    if let Some(table) = &self.table
                        && let Some(rows) = self.drain.owed(&plan.roles, table, cx)?
                    {
                        self.drain.stage = Stage::Resident;
                        return Ok(Pull::Emit(rows));
                    }
                    self.leave_table(plan, shared);
                }
                Stage::Taking => match shared.queue.take(cx.waker) {
                    Next::Item(Item::Unkeyed(part)) => {
                        self.drain.stage = Stage::unmatched(part, false);
                    }
                    Next::Item(Item::Pair(pair)) => match self.begin(plan, shared, pair, cx)? {
                        Begun::Stage(stage) => self.drain.stage = stage,
                        Begun::Wait(wait) => {
                            self.drain.stage = Stage::Taking;
                            return Ok(Pull::Wait(wait));
                        }
                    },
                    Next::Wait(wait) => {
                        self.drain.stage = Stage::Taking;
                        return Ok(Pull::Wait(wait));
                    }
                    Next::Over => {}
                },
                Stage::Unmatched { mut rows, is_reversed } => match rows.next(cx.batch_rows(), cx)? {
                    Some(batch) => {
                        self.drain.stage = Stage::Unmatched { rows, is_reversed };
                        return Ok(Pull::Emit(plan.roles(is_reversed).unmatched(&batch)));
                    }
                    None => self.drain.stage = self.leave(shared),
                },
                Stage::Splitting(splitting) => {
                    if let Some(wait) = self.split(plan, shared, splitting, cx)? {
                        return Ok(Pull::Wait(wait));
                    }
                }
                Stage::Loading(loading) => {
                    if let Some(wait) = self.load_part(plan, loading, cx)? {
                        return Ok(Pull::Wait(wait));
                    }
                }
                Stage::Probing(mut pass) => match self.probe(plan, &mut pass, cx)? {
                    Some(pull) => {
                        self.drain.stage = Stage::Probing(pass);
                        return Ok(pull);
                    }
                    None => self.drain.stage = Stage::Owing(pass),
                },
                Stage::Owing(pass) => {
                    let roles = plan.roles(pass.pair.is_reversed);
                    if let Some(rows) = self.drain.owed(roles, &pass.table, cx)? {
                        self.drain.stage = Stage::Owing(pass);
                        return Ok(Pull::Emit(rows));
                    }
                    let Pass { pair, build, found, table, .. } = *pass;
                    // Others may have held much when it was found out how many rows fit.
                    let has_room = self.account.pool().growable_bytes() > self.account.used_bytes() / 4;
                    let most_rows = if has_room { 2 * table.store.rows } else { table.store.rows };
                    drop(table);
                    self.drain.stage = if build.is_at_end() {
                        drop((pair, found));
                        self.leave(shared)
                    } else {
                        Stage::Loading(Box::new(Loading { pair, from: build, most_rows, found: Some(found) }))
                    };
                }
                Stage::Done => return Ok(Pull::Done),
            }
        }
    }

    /// The main stage's table has nothing more to give. The first lane makes the list of pairs.
    fn leave_table(&mut self, plan: &Plan, shared: &ProbeShared) {
        let list = shared.table.lock().take();
        if let Some(spilled) = list.and_then(|table| table.spilled.clone()) {
            let files = std::mem::take(&mut *shared.files.lock());
            let pair = |partition: usize| {
                Item::Pair(Pair {
                    build: spilled.part(partition),
                    probe: Part::new(&files, partition as u32),
                    split: spilled.split,
                    is_skewed: false,
                    is_reversed: false,
                })
            };
            let waiting = (0..spilled.waits.len()).filter(|&partition| spilled.waits[partition]);
            let unkeyed = Part::new(&spilled.files, spilled.split.unkeyed());
            let unkeyed =
                (unkeyed.rows() > 0 && plan.roles.kind.keeps_null_keys()).then_some(Item::Unkeyed(unkeyed));
            shared.queue.extend(waiting.map(pair).chain(unkeyed));
        }
        let Some(table) = self.table.take() else { return };
        self.drain.build = BuildFacts { rows: table.build_rows, has_null_key: table.has_null_key };
        let has_spilled = table.spilled.is_some();
        drop(table);
        if has_spilled {
            self.drain.stage = self.leave(shared);
        }
    }

    /// Lets go of everything.
    fn leave(&mut self, shared: &ProbeShared) -> Stage {
        self.drain.cursor = None;
        self.account.trim();
        shared.queue.leave();
        Stage::Taking
    }

    /// Takes a pair on.
    fn begin(&mut self, plan: &Plan, shared: &ProbeShared, mut pair: Pair, cx: &LaneCx<'_>) -> Result<Begun> {
        if plan.should_reverse(&pair) {
            pair = pair.reversed();
            cx.metrics.counter("reversed_pairs").fetch_add(1, Relaxed);
        }
        let roles = plan.roles(pair.is_reversed);
        let (build_rows, probe_rows) = (pair.build.rows(), pair.probe.rows());
        if probe_rows == 0 && roles.kind.drains() == Some(false) {
            return Ok(Begun::Stage(Stage::unmatched(pair.build, pair.is_reversed)));
        }
        if probe_rows == 0 || build_rows == 0 && !roles.asks_matches() {
            return Ok(Begun::Stage(self.leave(shared)));
        }
        let is_forced = build_rows > 0 && pair.split.depth() <= MOST_FORCED_DEPTH && cx.must_refuse();
        let next_split = pair.split.next().filter(|_| !pair.is_skewed);
        let mut is_sole = false;
        loop {
            let alone = shared.queue.alone();
            let mut build = PartitionReader::new(pair.build.clone());
            let mut chunks = load(roles, &mut build, Limit::Memory, &self.account, cx)?;
            let mut loaded_rows: usize = chunks.iter().map(|chunk| chunk.rows).sum();
            if build.is_at_end() && !is_forced {
                match self.table(roles, chunks, cx)? {
                    Ok(table) => {
                        let probe = PartitionReader::new(pair.probe.clone());
                        self.take_roles(plan, pair.is_reversed)?;
                        shared.queue.share();
                        return Ok(Begun::Stage(Stage::Probing(Box::new(Pass {
                            pair,
                            table,
                            build,
                            share: Share::Whole,
                            probe,
                            ordinal: 0,
                            working: None,
                            found: Matches::default(),
                        }))));
                    }
                    Err(_) => {
                        loaded_rows /= 2;
                        chunks = Vec::new();
                        build = PartitionReader::new(pair.build.clone());
                    }
                }
            }
            is_sole = is_sole || alone.is_some_and(|alone| shared.queue.stay_alone(alone));
            if !is_sole && !is_forced {
                drop((chunks, build));
                self.account.trim();
                match shared.queue.requeue(pair, cx.waker) {
                    Ok(wait) => return Ok(Begun::Wait(wait)),
                    Err(alone) => {
                        // The others have left meanwhile: there is more memory than there was.
                        (pair, is_sole) = (*alone, true);
                        continue;
                    }
                }
            }
            let next_split =
                next_split.filter(|_| is_forced || !pair.is_cheaper_in_parts(roles, loaded_rows));
            if let Some(split) = next_split {
                let mut intake = Intake::new(&roles.stored_types, roles.has_keys(), split);
                intake.pass_on(chunks, &roles.keys, cx)?;
                shared.queue.share();
                let splitting = Splitting { pair, split, intake, rows: build, pending: None, build: None };
                return Ok(Begun::Stage(Stage::Splitting(Box::new(splitting))));
            }
            drop(chunks);
            let from = PartitionReader::new(pair.build.clone());
            let most_rows = part_of(loaded_rows);
            let loading = Loading { pair, from, most_rows, found: None };
            return Ok(Begun::Stage(Stage::Loading(Box::new(loading))));
        }
    }

    /// Makes the prober one for planned or reversed roles.
    fn take_roles(&mut self, plan: &Plan, is_reversed: bool) -> Result<()> {
        if self.drain.is_reversed != is_reversed {
            // Spilled rows bring the words of their keys; only as planned some are still computed.
            let evaluator = if is_reversed { None } else { plan.probe_evaluator()? };
            self.prober = Prober::new(plan.roles(is_reversed), evaluator)?;
            self.drain.is_reversed = is_reversed;
        }
        Ok(())
    }

    /// A table of build rows; or the refusal.
    fn table(
        &self,
        roles: &Roles,
        chunks: Vec<Chunk>,
        cx: &LaneCx<'_>,
    ) -> Result<std::result::Result<Table, Denied>> {
        let lookup_rows = chunks.iter().map(|chunk| chunk.rows).sum();
        Store::check_chunks(chunks.len())?;
        // Before the directory, of which there is a smaller one for the last of the memory.
        let flags = match roles.kind.drains() {
            Some(_) => match Flags::new(chunks.iter().map(|chunk| chunk.rows), &self.account) {
                Ok(flags) => Some(flags),
                Err(denied) => return Ok(Err(denied)),
            },
            None => None,
        };
        let lookup = match roles.has_keys() && lookup_rows > 0 {
            true => {
                let (keys, extent) = (&roles.keys, roles.keys.extent(&chunks));
                match DirectDirectory::build(&chunks, keys, extent, &self.account, cx)? {
                    Some(directory) => Some(Lookup::Direct(directory)),
                    None => match refused(Directory::build(&chunks, keys, extent, &self.account, cx))? {
                        Ok(directory) => Some(Lookup::Hashed(directory)),
                        Err(denied) => return Ok(Err(denied)),
                    },
                }
            }
            false => None,
        };
        Ok(Ok(Table {
            store: Store::new(chunks, &roles.stored_types)?,
            lookup,
            lookup_rows,
            build_rows: self.drain.build.rows,
            has_null_key: self.drain.build.has_null_key,
            flags,
            next_chunk: AtomicUsize::new(0),
            spilled: None,
            _registration: None,
        }))
    }

    /// Sends the rows that are left of a pair to its parts, and lists these; or waits for the memory of a single row.
    fn split(
        &mut self,
        plan: &Plan,
        shared: &ProbeShared,
        mut splitting: Box<Splitting>,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Wait>> {
        let mut positions = BufMut::<u32>::with_len(cx.account, cx.batch_rows())?;
        positions.iter_mut().zip(0..).for_each(|(to, row)| *to = row);
        let roles = plan.roles(splitting.pair.is_reversed);
        loop {
            cx.check()?;
            let Splitting { pair, split, intake, rows, pending, build } = &mut *splitting;
            let read = match pending.take() {
                None => rows.next(cx.batch_rows(), cx)?.map(|batch| (batch, 0)),
                pending => pending,
            };
            let Some((batch, at)) = read else {
                let file = intake.take_file(&roles.keys, &self.account, cx)?;
                if let Some(build) = build {
                    list_parts(shared, pair, *split, [build, &file], cx);
                    self.drain.stage = self.leave(shared);
                    return Ok(None);
                }
                *build = Some(file);
                *intake = Intake::new(&roles.probe_types, roles.has_keys(), *split);
                *rows = PartitionReader::new(pair.probe.clone());
                continue;
            };
            let (columns, words) = split_word(&batch, roles.has_keys())?;
            let mut taken = Taken { words, keyed: &positions[at..batch.rows()], others: &[] };
            let columns = Batch::new(columns, batch.rows());
            match intake.add(&columns, &mut taken, &roles.keys, &self.account, cx)? {
                Ok(()) => self.drain.waiting.end(),
                Err(denied) => {
                    let wait = self.drain.waiting.wait(denied.bytes, cx);
                    let wait = wait.ok_or_else(|| too_small(denied, &self.account, cx))?;
                    let at = batch.rows() - taken.keyed.len();
                    *pending = Some((batch, at));
                    self.drain.stage = Stage::Splitting(splitting);
                    return Ok(Some(wait));
                }
            }
        }
    }

    /// Goes on to probe the build rows that come next, as many as fit; or waits for the memory of a single one.
    fn load_part(&mut self, plan: &Plan, mut loading: Box<Loading>, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        let roles = plan.roles(loading.pair.is_reversed);
        self.drain.cursor = None;
        self.account.trim();
        let found = match loading.found.take() {
            Some(found) => found,
            None => match Matches::none_of(roles, loading.pair.probe.rows(), &self.account) {
                Ok(found) => found,
                Err(denied) => return self.wait_to_load(loading, denied, cx).map(Some),
            },
        };
        let mut most_rows = match cx.must_refuse() {
            true => loading.pair.build.rows() as usize / 3 + 1,
            false => loading.most_rows,
        };
        loop {
            cx.check()?;
            let mut build = loading.from.clone();
            let chunks = load(roles, &mut build, Limit::Rows(most_rows), &self.account, cx)?;
            let rows: usize = chunks.iter().map(|chunk| chunk.rows).sum();
            if (2..most_rows).contains(&rows) && !build.is_at_end() {
                most_rows = part_of(rows);
                continue;
            }
            let denied = match rows {
                0 => Denied { bytes: roles.drain_floor_bytes() },
                _ => match self.table(roles, chunks, cx)? {
                    Ok(table) => {
                        self.drain.waiting.end();
                        let Loading { pair, .. } = *loading;
                        let is_last = build.is_at_end();
                        let probe = PartitionReader::new(pair.probe.clone());
                        self.take_roles(plan, pair.is_reversed)?;
                        let share = Share::OneOf { is_last };
                        cx.metrics.counter("replays").fetch_add(1, Relaxed);
                        self.drain.stage = Stage::Probing(Box::new(Pass {
                            pair,
                            table,
                            build,
                            share,
                            probe,
                            ordinal: 0,
                            working: None,
                            found,
                        }));
                        return Ok(None);
                    }
                    Err(denied) => denied,
                },
            };
            if rows <= 1 {
                loading.found = Some(found);
                return self.wait_to_load(loading, denied, cx).map(Some);
            }
            most_rows = rows / 2;
        }
    }

    /// Waits for the memory of the least that can be loaded.
    fn wait_to_load(&mut self, loading: Box<Loading>, denied: Denied, cx: &LaneCx<'_>) -> Result<Wait> {
        let wait = self.drain.waiting.wait(denied.bytes, cx);
        let wait = wait.ok_or_else(|| too_small(denied, &self.account, cx))?;
        self.drain.stage = Stage::Loading(loading);
        Ok(wait)
    }

    /// The next rows of a pass; `None` once all probe rows have been seen.
    fn probe(&mut self, plan: &Plan, pass: &mut Pass, cx: &LaneCx<'_>) -> Result<Option<Pull>> {
        let roles = plan.roles(pass.pair.is_reversed);
        loop {
            let rows = match pass.working {
                Some(rows) => rows,
                None => {
                    let Some(batch) = pass.probe.next(cx.batch_rows(), cx)? else { return Ok(None) };
                    let rows = batch.rows();
                    let (columns, words) = split_word(&batch, roles.has_keys())?;
                    let columns = Batch::new(columns, rows);
                    let keys = self.prober.encode_spilled(roles, &columns, words, cx)?;
                    let matches = pass.found.of_rows(pass.ordinal, rows, cx.account)?;
                    let known = (pass.share, matches);
                    self.prober.start(roles, &pass.table, (columns, keys), known, cx.account)?;
                    pass.working = Some(rows);
                    rows
                }
            };
            let pull = match self.prober.advance(roles, &pass.table, cx)? {
                Output::EmitMore(batch) => return Ok(Some(Pull::Emit(batch))),
                Output::Wait(wait) => return Ok(Some(Pull::Wait(wait))),
                Output::Emit(batch) => Some(Pull::Emit(batch)),
                Output::NeedInput => None,
                Output::Done(_) => return Err(Error::internal("a pair of partitions ends early")),
            };
            pass.found.note(pass.ordinal, rows, &self.prober.take_carried());
            pass.ordinal += rows;
            pass.working = None;
            if pull.is_some() {
                return Ok(pull);
            }
        }
    }
}

/// How many rows are to be a part where memory was refused after `rows` rows: fewer, for else there is none left for those
/// who take the joined rows.
fn part_of(rows: usize) -> usize {
    (rows - rows.div_ceil(LEFT_PART)).max(1)
}

/// Lists the parts of a pair whose `[build, probe]` rows have been split.
fn list_parts(
    shared: &ProbeShared,
    pair: &Pair,
    split: Split,
    files: [&Option<Arc<SpillFile>>; 2],
    cx: &LaneCx<'_>,
) {
    let items = (0..split.partitions()).map(|partition| {
        let part = |file: &Option<Arc<SpillFile>>| {
            Part::new(file.as_ref().map_or(&[][..], std::slice::from_ref), partition as u32)
        };
        let [build, probe] = files.map(part);
        let is_skewed = build.rows() * 100 > pair.build.rows() * SKEWED_PERCENT;
        Item::Pair(Pair { build, probe, split, is_skewed, is_reversed: pair.is_reversed })
    });
    cx.metrics.counter("spilled_partitions").fetch_add(split.partitions() as u64, Relaxed);
    shared.queue.extend(items);
}

impl Stage {
    /// Build rows of `part` that have no match.
    fn unmatched(part: Part, is_reversed: bool) -> Self {
        Self::Unmatched { rows: Box::new(PartitionReader::new(part)), is_reversed }
    }
}

impl Pair {
    /// Whether joining the build rows in parts, of `loaded_rows` each, costs less than splitting the pair: the probe rows are
    /// read again for each further part; what is split is written, and read again, as a whole, which costs more than to
    /// read as many bytes. What is known of each probe
    /// row meanwhile must be little beside a part.
    fn is_cheaper_in_parts(&self, roles: &Roles, loaded_rows: usize) -> bool {
        let further_parts = self.build.rows().saturating_sub(1) / loaded_rows.max(1) as u64;
        let [build, probe] = [&self.build, &self.probe].map(Part::stored_bytes);
        let known_bits = [roles.asks_matches(), roles.asks_unknown()].map(u64::from).iter().sum::<u64>();
        let known_bytes = self.probe.rows() / 8 * known_bits;
        let part_bytes = (loaded_rows * roles.table_row_bytes()) as u64;
        loaded_rows > 0
            && known_bytes <= part_bytes / KNOWN_PART
            && further_parts.saturating_mul(probe) <= build + probe
    }
}

impl Plan {
    /// Whether the table of a pair's probe rows would be much smaller than that of its build rows.
    fn should_reverse(&self, pair: &Pair) -> bool {
        let bytes = |part: &Part, roles: &Roles| {
            // Of what strings take there is only a guess, but what they took on disk is known.
            (part.rows() * roles.table_row_bytes() as u64).max(part.stored_bytes())
        };
        let [now, then] = [pair.is_reversed, !pair.is_reversed].map(|is_reversed| self.roles(is_reversed));
        // With no rows to probe with there is nothing to store.
        self.is_reversible()
            && pair.probe.rows() > 0
            && bytes(&pair.probe, then) * REVERSED_RATIO <= bytes(&pair.build, now)
    }
}

impl Roles {
    /// Spilled build `rows` without a match.
    fn unmatched(&self, rows: &Batch) -> Batch {
        let column = |column: &JoinColumn| match column.origin {
            Origin::Build(at) => rows.column(at).clone(),
            Origin::Probe(_) | Origin::Mark => nulls(&column.data_type, rows.rows()),
        };
        Batch::new(self.output.iter().map(column).collect(), rows.rows())
    }
}
