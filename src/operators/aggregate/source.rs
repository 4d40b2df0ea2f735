//! The end that emits: each lane takes a piece at a time, merges it in a table of its own, emits its groups.
//!
//! Invariants:
//! 1. Every piece is taken by one lane, once; what does not fit leaves as smaller pieces.
//! 2. A lane holds one piece at a time, and its memory returns before it takes the next.
//! 3. Where a group is refused memory, the lane waits with the groups of its piece from that one on.

use super::groups::{Groups, Kind};
use super::intake::Intake;
use super::sink::{Aggregation, table_accounts, take_account};
use super::spans::{Span, Spans};
use super::spec::{Plan, fan_out_bits};
use super::spill::{PartitionOrder, in_pieces, is_common};
use crate::data::{Batch, FlatVector, Values, Vector, view_len};
use crate::error::{Error, Result};
use crate::exec::{Handoff, LaneCx, Need, OpenCx, Pull, Retry, Source, Wait};
use crate::functions::Rows;
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied, Knobs, refused};
use crate::metrics::{MERGE_NANOS, OperatorMetrics};
use crate::spill::{ReadBehind, SpillFile, SpillReader};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// See the module.
pub(super) struct HashAggregateSource {
    plan: Arc<Plan>,
    handoff: Handoff<Aggregation>,
}

/// What the sink has left to the source.
pub(super) enum Ready {
    /// One table with all groups, each once; lanes take rows of it in turn.
    Whole { table: Box<Intake>, next: AtomicUsize },
    /// Spans to emit as they are, pieces to merge, and the tables they speak of. Spans go before the tables, in whose
    /// memory they are.
    Pieces {
        spans: Option<Spans>,
        tables: Vec<(Intake, Option<PartitionOrder>)>,
        items: Mutex<VecDeque<Item>>,
    },
}

/// A piece: groups that are in no other piece.
pub(super) enum Item {
    /// Of all tables.
    Tables(Part),
    /// Partitions of files, which share `used_bits` top bits of their hashes.
    Files { files: Vec<(Arc<SpillFile>, u32)>, used_bits: u32 },
}

/// What a piece has of each table.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// A hash range; of tables without order, everything.
    Range(usize),
    /// What spans leave over.
    Shared,
}

/// Counts partitions that were written to disk by so many rounds of partitioning.
fn note_spilled(partitions: usize, depth: u32, metrics: &OperatorMetrics) {
    metrics.counter("spilled_partitions").fetch_add(partitions as u64, Relaxed);
    metrics.counter("spill_depth").fetch_max(depth.into(), Relaxed);
}

impl Ready {
    /// Counts the pieces that are partitions on disk.
    pub(super) fn note_spilled(&self, depth: u32, metrics: &OperatorMetrics) {
        if let Self::Pieces { items, .. } = self {
            note_spilled(items.lock().len(), depth, metrics);
        }
    }

    /// Tables in memory, ordered by the same ranges or not at all.
    pub(super) fn merging(mut tables: Vec<(Intake, Option<PartitionOrder>)>) -> Self {
        if tables.len() == 1
            && let Some((table, None)) =
                tables.pop_if(|(table, order)| order.is_none() && !table.may_repeat())
        {
            return Self::Whole { table: Box::new(table), next: AtomicUsize::new(0) };
        }
        let ranges = match tables.first() {
            None => 0,
            Some((_, order)) => order.as_ref().map_or(1, PartitionOrder::partitions),
        };
        let items = (0..ranges).map(|range| Item::Tables(Part::Range(range))).collect();
        Self::Pieces { spans: None, tables, items: Mutex::new(items) }
    }

    /// Tables in memory with ascending keys.
    pub(super) fn spans(tables: Vec<Intake>, spans: Spans) -> Self {
        let is_shared = spans.shared().any(|groups| !groups.is_empty());
        let items = is_shared.then_some(Item::Tables(Part::Shared)).into_iter().collect();
        let tables = tables.into_iter().map(|table| (table, None)).collect();
        Self::Pieces { spans: Some(spans), tables, items: Mutex::new(items) }
    }

    /// The partitions of all files, as the first depth of spilling left them.
    pub(super) fn partitions(files: &[Arc<SpillFile>], bits: u32) -> Self {
        let item = |partition: u32| {
            let files = files.iter().filter(|file| file.rows(partition) > 0);
            let files: Vec<_> = files.map(|file| (Arc::clone(file), partition)).collect();
            (!files.is_empty()).then_some(Item::Files { files, used_bits: bits })
        };
        let items = (0..1 << bits).filter_map(item).collect();
        Self::Pieces { spans: None, tables: Vec::new(), items: Mutex::new(items) }
    }
}

/// The run.
pub(super) struct SourceShared {
    aggregation: Arc<Aggregation>,
    accounts: Mutex<Vec<Account>>,
    floor_bytes: usize,
}

/// A lane that emits.
pub(super) struct SourceLane {
    plan: Arc<Plan>,
    intake: Intake,
    /// What there is to emit, from the first pull to the end.
    ready: Option<Arc<Ready>>,
    stage: Stage,
    /// The most groups emitted at a time: fewer than a batch where they are wide.
    most_rows: usize,
    /// Tries to get memory for a group that is merged or emitted.
    waiting: Retry,
}

/// What a lane is at.
enum Stage {
    /// Takes what comes next.
    Taking,
    /// Merges groups of tables.
    Merging(Tables),
    /// Merges partitions.
    Loading(Box<Partitions>),
    /// Emits the groups of its table from `next` on.
    Emitting { next: usize },
    /// Emits what is left of a span.
    Reading(Span),
    /// Has nothing more to emit.
    Done,
}

/// Tables that are being merged, as far as they are of a piece.
#[derive(Clone, Copy)]
struct Tables {
    part: Part,
    /// The table in work, and how many groups of it have been merged.
    table: usize,
    merged: usize,
}

/// Partitions that are being merged.
struct Partitions {
    /// Those not begun.
    files: std::vec::IntoIter<(Arc<SpillFile>, u32)>,
    /// The one in work, and what frees it behind.
    open: Option<(SpillReader, ReadBehind)>,
    /// What was read last, and how many of its groups have been merged.
    pending: Option<(Batch, usize)>,
}

impl HashAggregateSource {
    /// The source of `plan`, of the groups the sink puts into `handoff`.
    pub(super) fn new(plan: Arc<Plan>, handoff: Handoff<Aggregation>) -> Self {
        Self { plan, handoff }
    }
}

impl Source for HashAggregateSource {
    type Shared = SourceShared;
    type Local = SourceLane;

    fn name(&self) -> String {
        self.plan.name()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        self.plan.source_need(knobs)
    }

    fn max_lanes(&self) -> usize {
        if self.plan.has_groups() { usize::MAX } else { 1 }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<SourceShared> {
        let floor_bytes = self.plan.table_floor_bytes(&cx.query.knobs);
        let accounts = Mutex::new(table_accounts(floor_bytes, cx.lanes, cx));
        Ok(SourceShared { aggregation: self.handoff.get()?, accounts, floor_bytes })
    }

    fn local(&self, shared: &SourceShared, cx: &LaneCx<'_>) -> Result<SourceLane> {
        let account = take_account(&shared.accounts)?;
        let intake = Intake::new(&self.plan, account, shared.floor_bytes, cx.query.knobs.fan_out)?;
        let ready = shared.aggregation.ready.lock().clone();
        Ok(SourceLane::new(&self.plan, intake, ready, cx))
    }

    fn pull(&self, shared: &SourceShared, local: &mut SourceLane, cx: &LaneCx<'_>) -> Result<Pull> {
        local.pull(&shared.aggregation.ready, cx)
    }
}

impl SourceLane {
    /// A lane that emits what is `ready`, and merges in `intake` what has to be merged.
    pub(super) fn new(plan: &Arc<Plan>, intake: Intake, ready: Option<Arc<Ready>>, cx: &LaneCx<'_>) -> Self {
        Self {
            plan: Arc::clone(plan),
            intake,
            ready,
            stage: Stage::Taking,
            most_rows: cx.batch_rows(),
            waiting: Retry::default(),
        }
    }

    /// The next results. What was ready is let go of, in `owner` too, when there is nothing more to take.
    pub(super) fn pull(&mut self, owner: &Mutex<Option<Arc<Ready>>>, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            match self.stage {
                Stage::Taking => {
                    match self.ready.clone().as_deref() {
                        Some(Ready::Whole { table, next }) => {
                            let start = next.fetch_add(cx.batch_rows(), Relaxed);
                            let len = cx.batch_rows().min(table.groups().len().saturating_sub(start));
                            if len > 0 {
                                self.stage = Stage::Reading(Span { table: 0, start, len });
                                continue;
                            }
                        }
                        Some(Ready::Pieces { spans, tables, items }) => {
                            if let Some(span) = spans.as_ref().and_then(Spans::take) {
                                self.stage = Stage::Reading(span);
                                continue;
                            }
                            let item = items.lock().pop_front();
                            if let Some(item) = item {
                                self.begin(item, tables, cx)?;
                                continue;
                            }
                        }
                        None => {}
                    }
                    // Lanes still at a piece keep what they need; smaller pieces they leave are theirs.
                    self.ready = None;
                    *owner.lock() = None;
                    self.stage = Stage::Done;
                }
                Stage::Merging(_) | Stage::Loading(_) => {
                    let ready = self.ready.clone();
                    let Some(Ready::Pieces { spans, tables, items }) = ready.as_deref() else {
                        return Err(Error::internal("a piece of nothing"));
                    };
                    let wait = match self.stage {
                        Stage::Merging(at) => self.merge_tables(at, (tables, spans.as_ref()), items, cx)?,
                        _ => self.merge_files(items, cx)?,
                    };
                    if let Some(wait) = wait {
                        return Ok(Pull::Wait(wait));
                    }
                }
                Stage::Emitting { next } => {
                    let len = cx.batch_rows().min(self.intake.groups().len().saturating_sub(next));
                    if len > 0 {
                        let groups = (self.intake.groups(), next, len);
                        return match refused(results(&self.plan, groups, &mut self.most_rows, cx))? {
                            Ok((batch, len)) => {
                                self.waiting.end();
                                self.stage = Stage::Emitting { next: next + len };
                                Ok(Pull::Emit(batch))
                            }
                            Err(denied) => self.wait(denied, cx).map(Pull::Wait),
                        };
                    }
                    self.intake.release();
                    self.stage = Stage::Taking;
                }
                Stage::Reading(Span { len: 0, .. }) => self.stage = Stage::Taking,
                Stage::Reading(Span { table, start, len }) => {
                    let groups = match self.ready.as_deref() {
                        Some(Ready::Whole { table, .. }) => table.groups(),
                        Some(Ready::Pieces { tables, .. }) => tables[table].0.groups(),
                        None => return Err(Error::internal("a span without its tables")),
                    };
                    let now = cx.batch_rows().min(len);
                    let groups = (groups, start, now);
                    return match refused(results(&self.plan, groups, &mut self.most_rows, cx))? {
                        Ok((batch, now)) => {
                            self.waiting.end();
                            self.stage = Stage::Reading(Span { table, start: start + now, len: len - now });
                            Ok(Pull::Emit(batch))
                        }
                        Err(denied) => self.wait(denied, cx).map(Pull::Wait),
                    };
                }
                Stage::Done => return Ok(Pull::Done),
            }
        }
    }
}

/// Results of the groups from `start` on, of which there is at least one: of `len`, or of as many as there is memory
/// for. Wide groups come in batches of about the bytes that floors expect of a batch, so that whatever takes them has its
/// own memory left; `most_rows` is how many came last.
pub(super) fn results(
    plan: &Plan,
    (groups, start, len): (&Groups, usize, usize),
    most_rows: &mut usize,
    cx: &LaneCx<'_>,
) -> Result<(Batch, usize)> {
    let finish = |len| groups.finish(GroupSet::Range { start, len }, cx.account, &cx.query.ids);
    if is_common(groups.widest_bytes()) {
        return in_pieces(len, finish);
    }
    let batch_bytes = plan.state_row_bytes() * cx.batch_rows();
    let mut len = len.min(*most_rows);
    loop {
        let (batch, emitted) = in_pieces(len, finish)?;
        let bytes = batch.columns().iter().map(string_bytes).sum::<usize>();
        if bytes > batch_bytes && emitted > 1 {
            len = emitted / 2;
            continue;
        }
        *most_rows = if bytes < batch_bytes / 4 { 2 * emitted } else { emitted };
        return Ok((batch, emitted));
    }
}

/// Bytes of the strings of a column, as far as they are the column's own.
fn string_bytes(column: &Vector) -> usize {
    match column {
        Vector::Flat(FlatVector { values: Values::View(strings), .. }) => {
            strings.views.iter().map(|view| view_len(*view)).sum()
        }
        Vector::Flat(_) | Vector::Constant { .. } | Vector::Dict { .. } => 0,
    }
}

impl SourceLane {
    /// Begins to merge a piece into the lane's table, to be emitted; or, if it does not fit, into further pieces.
    fn begin(
        &mut self,
        item: Item,
        tables: &[(Intake, Option<PartitionOrder>)],
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let (used_bits, stage) = match item {
            Item::Tables(part) => {
                // Without order there are no ranges.
                let ranges = tables.first().and_then(|(_, order)| order.as_ref());
                let used_bits = ranges.map_or(0, |order| order.partitions().ilog2());
                (used_bits, Stage::Merging(Tables { part, table: 0, merged: 0 }))
            }
            Item::Files { files, used_bits } => {
                let files = files.into_iter();
                (used_bits, Stage::Loading(Box::new(Partitions { files, open: None, pending: None })))
            }
        };
        self.intake.restart(used_bits, cx.query.knobs.fan_out)?;
        self.stage = stage;
        Ok(())
    }

    /// Merges what is left of tables; or waits for the memory of a single group.
    fn merge_tables(
        &mut self,
        mut at: Tables,
        (tables, spans): (&[(Intake, Option<PartitionOrder>)], Option<&Spans>),
        items: &Mutex<VecDeque<Item>>,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Wait>> {
        while let Some((table, order)) = tables.get(at.table) {
            cx.check()?;
            let groups = table.groups();
            let all = match (at.part, order) {
                (Part::Range(range), Some(order)) => GroupSet::At(order.partition(range)),
                (Part::Range(_), None) => GroupSet::Range { start: 0, len: groups.len() },
                (Part::Shared, _) => {
                    let shared = spans.into_iter().flat_map(Spans::shared).nth(at.table);
                    GroupSet::At(shared.unwrap_or_default())
                }
            };
            let len = cx.batch_rows().min(all.len() - at.merged);
            if len == 0 {
                (at.table, at.merged) = (at.table + 1, 0);
                continue;
            }
            let (merged, added) = self.intake.merge(groups, all.slice(at.merged, len), cx)?;
            at.merged += merged;
            if let Err(denied) = added {
                self.stage = Stage::Merging(at);
                return self.wait(denied, cx).map(Some);
            }
            self.waiting.end();
        }
        self.merged(items, cx)?;
        Ok(None)
    }

    /// Merges what is left of partitions; or waits for the memory of a single group.
    fn merge_files(&mut self, items: &Mutex<VecDeque<Item>>, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        let Stage::Loading(mut merging) = std::mem::replace(&mut self.stage, Stage::Done) else {
            return Err(Error::internal("nothing is being merged"));
        };
        let started = Instant::now();
        loop {
            cx.check()?;
            if let Some((batch, counted)) = &mut merging.pending {
                let rows = Rows::All(batch.physical_rows());
                if let Err(denied) = self.intake.add(Kind::States, batch.columns(), rows, counted, cx)? {
                    self.stage = Stage::Loading(merging);
                    return self.wait(denied, cx).map(Some);
                }
                self.waiting.end();
                merging.pending = None;
                if let Some((reader, behind)) = &mut merging.open {
                    behind.advance(reader);
                }
            }
            let (reader, _) = match &mut merging.open {
                Some(open) => open,
                none => {
                    let Some((file, partition)) = merging.files.next() else { break };
                    let reader = file.reader(partition);
                    let behind = reader.behind();
                    none.insert((reader, behind))
                }
            };
            match self.next_block(reader, cx)? {
                Ok(Some(batch)) => merging.pending = Some((batch, 0)),
                Ok(None) => merging.open = None,
                Err(denied) => {
                    self.stage = Stage::Loading(merging);
                    return self.wait(denied, cx).map(Some);
                }
            }
        }
        cx.metrics.add_time(MERGE_NANOS, started);
        self.merged(items, cx)?;
        Ok(None)
    }

    /// A piece is merged: its groups are emitted next, or have become further pieces.
    fn merged(&mut self, items: &Mutex<VecDeque<Item>>, cx: &LaneCx<'_>) -> Result<()> {
        let fan_out = cx.query.knobs.fan_out;
        if !self.intake.has_spilled() {
            self.intake.open_headroom();
            self.stage = Stage::Emitting { next: 0 };
            return Ok(());
        }
        self.stage = Stage::Taking;
        let (used_bits, partitions) = self.intake.spilled_shape();
        if let Some(file) = self.intake.finish_spill(cx)? {
            let written = (0..partitions).filter(|&partition| file.rows(partition) > 0);
            let parts = written.map(|p| Item::Files { files: vec![(Arc::clone(&file), p)], used_bits });
            let parts: Vec<Item> = parts.collect();
            note_spilled(parts.len(), used_bits.div_ceil(fan_out_bits(fan_out)), cx.metrics);
            items.lock().extend(parts);
        }
        Ok(())
    }

    /// The reader's next block; the table makes room for one that is larger than blocks are.
    fn next_block(
        &mut self,
        reader: &mut SpillReader,
        cx: &LaneCx<'_>,
    ) -> Result<Result<Option<Batch>, Denied>> {
        loop {
            match refused(reader.next(cx.account, &cx.query.ids))? {
                Err(_) if self.intake.make_room(cx)? => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Waits for what a single group was refused.
    fn wait(&mut self, denied: Denied, cx: &LaneCx<'_>) -> Result<Wait> {
        self.waiting.wait(denied.bytes, cx).ok_or_else(|| self.intake.too_small(denied))
    }
}
