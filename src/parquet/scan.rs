//! The scan of a Parquet table: which row groups, in which pieces, with how much memory.
//!
//! Owns: [`ParquetScan`], morsels and their queue. What a lane does with a morsel is [`super::lane`]'s.
//!
//! Invariants:
//! 1. Every row of every row group that may pass the filters lies in exactly one morsel.
//! 2. Morsels are claimed in file order from one counter, so lanes never wait for each other; the last row groups are
//!    cut so that lanes end at about the same time, unless each would have to decode them from their first row.
//! 3. Where clusters are asked for, each morsel is one ([`super::clusters`]).

use super::bloom::{self, BloomFilter};
use super::clusters;
use super::decode::Kernels;
use super::fallback::CrateMetadata;
use super::file::ParquetFile;
use super::filter::{FilterPlan, LaneFilter, Test};
use super::footer::{ChunkMeta, Decode, Span};
use super::lane::LaneScan;
use super::page::PAD_BYTES;
use super::page_index::{Kept, kept_rows};
use super::page_sizes::{Expected, LARGEST_PAGE_BYTES, PageSizes};
use super::prune::{ColumnRange, Verdict, judge};
use super::table_file::{Place, TableFile};
use crate::data::{Cluster, DataType, Field, PhysicalType, Schema};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Source};
use crate::expr::{ColumnId, Evaluator, Expr};
use crate::mem::{Knobs, Pool, size_class_bytes};
use crate::scan::ScanRequest;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Rows of a morsel, at most; larger row groups are cut.
const MORSEL_ROWS: u64 = 256 << 10;
/// The smallest piece worth loading dictionaries for twice.
const SMALLEST_PIECE_ROWS: u64 = 16 << 10;
/// A column a scan reads.
#[derive(Clone, Debug)]
pub(crate) struct ScanColumn {
    pub(crate) id: ColumnId,
    /// Its place in the table.
    pub(crate) column: usize,
    pub(crate) field: Field,
}

impl ScanColumn {
    /// What turns the file's values into the table's, if that takes anything; the file's are called as the table's.
    pub(crate) fn widening(&self, file: &TableFile) -> Option<Expr> {
        let Place::Widened(at) = file.place(self.column) else { return None };
        if let DataType::Nested(_) = self.field.data_type
            && file.layout(self.column).is_none_or(|layout| layout.decode.is_none())
        {
            // Whoever reads them does.
            return None;
        }
        let from = file.file.footer.schema[at].data_type.clone();
        let column = Expr::Column { id: self.id, data_type: from, nullable: self.field.nullable };
        let data_type = self.field.data_type.clone();
        Some(Expr::Cast { operand: Box::new(column), data_type, is_try: false })
    }
}

/// Part of a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Morsel {
    pub(crate) file: usize,
    pub(crate) row_group: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Bit `g` is set if filter group `g` must be evaluated; groups from 64 on always are.
    needed: u64,
    /// What its rows are a cluster of, where the scan was asked for clusters.
    pub(crate) cluster: Option<Cluster>,
}

impl Morsel {
    /// Whether statistics leave filter group `group` open.
    pub(crate) fn needs(&self, group: usize) -> bool {
        group >= 64 || self.needed >> group & 1 == 1
    }
}

/// The scan operator.
pub(crate) struct ParquetScan {
    pub(crate) files: Arc<[TableFile]>,
    table: String,
    pub(crate) columns: Vec<ScanColumn>,
    /// Positions in `columns`, in the order of the output.
    pub(crate) outputs: Vec<usize>,
    pub(crate) filter: FilterPlan,
    kernels: Kernels,
    /// Bytes of pages, dictionaries and compressed input a lane holds, by the footers.
    page_bytes: usize,
    /// Whether statistics, page indexes and Bloom filters are asked what need not be read.
    prunes: bool,
    /// The position in `columns` of what morsels are clusters by.
    clustered_by: Option<usize>,
}

/// A run of a scan.
pub(crate) struct ScanRun {
    lanes: usize,
    morsels: Vec<Morsel>,
    next: AtomicUsize,
    metadata: Mutex<Vec<Option<Arc<CrateMetadata>>>>,
    pub(crate) counters: Counters,
}

/// What a scan counts.
pub(crate) struct Counters {
    /// Rows of claimed morsels, without those pruned.
    pub(crate) scanned_rows: Arc<AtomicU64>,
    /// Rows page indexes prove not to pass.
    pub(crate) page_pruned_rows: Arc<AtomicU64>,
    /// Rows of row groups that Bloom filters prove not to pass.
    pub(crate) bloom_pruned_rows: Arc<AtomicU64>,
    /// Bytes read from files.
    pub(crate) read_bytes: Arc<AtomicU64>,
    /// Rows dropped because no build row of a join could match them.
    pub(crate) runtime_filtered_rows: Arc<AtomicU64>,
}

impl ScanRun {
    /// The next morsel nobody has claimed, and the one that is likely to be claimed when it is done, if that begins a
    /// row group.
    pub(crate) fn claim(&self) -> Option<(Morsel, Option<Morsel>)> {
        let at = self.next.fetch_add(1, Relaxed);
        let ahead = self.morsels.get(at + self.lanes).filter(|ahead| ahead.start == 0).copied();
        Some((*self.morsels.get(at)?, ahead))
    }

    /// The crate's metadata of a file, decoded on first use.
    pub(crate) fn metadata(&self, file: &ParquetFile, cx: &LaneCx<'_>) -> Result<Arc<CrateMetadata>> {
        let mut all = self.metadata.lock();
        let slot = &mut all[file.index];
        if let Some(metadata) = slot {
            return Ok(Arc::clone(metadata));
        }
        let metadata = Arc::new(CrateMetadata::read(file, &cx.query.pool)?);
        *slot = Some(Arc::clone(&metadata));
        Ok(metadata)
    }
}

impl ParquetScan {
    /// A scan of `files`, placed in a table with the columns of `schema`.
    ///
    /// # Errors
    /// [`Error::Internal`] if the request names columns there are not.
    pub(crate) fn new(files: Arc<[TableFile]>, schema: &Schema, request: ScanRequest) -> Result<Self> {
        let ScanRequest { table, columns, outputs, filters, runtime_filters, prunes, clustered_by } = request;
        let unknown = || Error::internal(format!("a scan of '{table}' asks for an unknown column"));
        let column = |(id, column): (ColumnId, usize)| {
            let field = schema.get(column).cloned().ok_or_else(unknown)?;
            Ok(ScanColumn { id, column, field })
        };
        let columns = columns.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let position = |id: ColumnId| columns.iter().position(|c| c.id == id);
        let outputs = outputs.into_iter().map(|id| position(id).ok_or_else(unknown));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        for filter in &filters {
            let mut is_known = true;
            filter.for_each_column(&mut |id| is_known &= position(id).is_some());
            if !is_known {
                return Err(unknown());
            }
        }
        let filter = FilterPlan::new(filters, runtime_filters, position);
        let clustered_by = clustered_by.map(|id| position(id).ok_or_else(unknown)).transpose()?;
        let page_bytes = page_bytes(&files, &columns);
        let kernels = Kernels::detect();
        Ok(Self { files, table, columns, outputs, filter, kernels, page_bytes, prunes, clustered_by })
    }

    /// The morsels of a run with `lanes` lanes.
    fn plan_morsels(&self, lanes: usize, pool: &Pool) -> Vec<Morsel> {
        let mut groups = Vec::new();
        for (at, file) in self.files.iter().enumerate() {
            let footer = &file.file.footer;
            for row_group in 0..footer.row_groups() {
                let rows = footer.row_group_rows[row_group];
                if rows > 0
                    && let Some(needed) = self.judge_row_group(file, row_group)
                {
                    groups.push(Morsel { file: at, row_group, start: 0, end: rows, needed, cluster: None });
                }
            }
        }
        let whole = groups.len().saturating_sub(lanes);
        let mut morsels = Vec::with_capacity(groups.len() + lanes * lanes);
        for (at, group) in groups.into_iter().enumerate() {
            // The last row groups, one per lane, are cut so that all lanes share them.
            let pieces = if at >= whole && lanes > 1 { lanes as u64 } else { 1 };
            let most = if self.is_read_from_its_start(group) {
                group.end
            } else {
                group.end.div_ceil(pieces).clamp(SMALLEST_PIECE_ROWS.min(group.end), MORSEL_ROWS)
            };
            if let Some(column) = self.clustered_by {
                let (file, column) = (&self.files[group.file], &self.columns[column]);
                let cut = clusters::cut(file, group.row_group, column, most, pool);
                let piece = |(rows, cluster): (Range<u64>, Cluster)| Morsel {
                    start: rows.start,
                    end: rows.end,
                    cluster: Some(cluster),
                    ..group
                };
                morsels.extend(cut.into_iter().map(piece));
                continue;
            }
            let mut start = 0;
            while start < group.end {
                // A rest too small to be worth a piece goes with the one before.
                let left = group.end - start;
                let rows = if left < most + SMALLEST_PIECE_ROWS / 2 { left } else { most };
                morsels.push(Morsel { start, end: start + rows, ..group });
                start += rows;
            }
        }
        morsels
    }

    /// Whether some column of a row group is read from its first row on, whatever row is wanted: one that the crate's
    /// reader decodes, of several values a row, and without an index of its pages' rows.
    fn is_read_from_its_start(&self, group: Morsel) -> bool {
        let file = &self.files[group.file];
        let footer = &file.file.footer;
        self.columns.iter().flat_map(|column| leaves_of(file, column)).any(|(leaf, decode)| {
            decode.is_none()
                && footer.leaves[leaf].is_repeated
                && footer.chunk(group.row_group, leaf).offset_index == Span::default()
        })
    }

    /// Says that the columns of a row group will be read soon.
    pub(crate) fn prefetch(&self, morsel: Morsel) {
        let file = &self.files[morsel.file];
        for (leaf, _) in self.columns.iter().flat_map(|c| leaves_of(file, c)) {
            let chunk = file.file.footer.chunk(morsel.row_group, leaf);
            file.file.read.prefetch(chunk.start..chunk.start.saturating_add(chunk.compressed_bytes));
        }
    }

    /// What of a morsel's row group must be read, by its Bloom filters and page indexes.
    pub(crate) fn kept(&self, morsel: Morsel, run: &ScanRun, cx: &LaneCx<'_>) -> Kept {
        if !self.prunes || self.filter.groups.is_empty() {
            return Kept::All;
        }
        let file = &self.files[morsel.file];
        if !self.bloom_filters_pass(file, morsel) {
            run.counters.bloom_pruned_rows.fetch_add(morsel.end - morsel.start, Relaxed);
            return Kept::Ranges(Box::default());
        }
        let kept = kept_rows(file, morsel, &self.columns, &self.filter.groups, &cx.query.pool);
        let rows = morsel.end - morsel.start - kept.rows_within(morsel.start..morsel.end);
        run.counters.page_pruned_rows.fetch_add(rows, Relaxed);
        kept
    }

    fn bloom_filters_pass(&self, file: &TableFile, morsel: Morsel) -> bool {
        let footer = &file.file.footer;
        let mut may_have = |id: ColumnId, value: &crate::data::Scalar| {
            let Some(column) = self.columns.iter().find(|c| c.id == id) else { return true };
            let Place::Same(at) = file.place(column.column) else { return true };
            let layout = &footer.columns[at];
            let Some(decode) = layout.decode else { return true };
            let chunk = footer.chunk(morsel.row_group, layout.leaves.start);
            let filter = BloomFilter::open(&*file.file.read, chunk, decode, &column.field.data_type);
            filter.is_none_or(|filter| filter.may_have(value))
        };
        let open = self.filter.groups.iter().enumerate().filter(|(at, _)| morsel.needs(*at));
        open.filter_map(|(_, group)| match &group.test {
            Test::Conjuncts(conjuncts) => Some(conjuncts),
            Test::MayMatch(_) => None,
        })
        .flatten()
        .all(|conjunct| bloom::may_pass(conjunct, &mut may_have))
    }

    /// The filter groups statistics leave open, as bits; `None` if no row can pass.
    fn judge_row_group(&self, file: &TableFile, row_group: usize) -> Option<u64> {
        if !self.prunes {
            return Some(u64::MAX);
        }
        let range = |id: ColumnId| {
            let column = self.columns.iter().find(|c| c.id == id)?;
            ColumnRange::of_row_group(file, row_group, column.column, &column.field.data_type)
        };
        let mut needed = 0;
        for (at, group) in self.filter.groups.iter().enumerate() {
            let mut is_open = false;
            match &group.test {
                Test::Conjuncts(conjuncts) => {
                    for conjunct in conjuncts {
                        match judge(conjunct, &range) {
                            Verdict::NoRow => return None,
                            Verdict::SomeRows => is_open = true,
                            Verdict::EveryRow => {}
                        }
                    }
                }
                Test::MayMatch(filter) => {
                    let ints = range(self.columns[group.columns[0]].id).and_then(|range| range.ints());
                    if !filter.may_have(ints) {
                        return None;
                    }
                    is_open = true;
                }
            }
            if is_open && at < 64 {
                needed |= 1 << at;
            }
        }
        Some(needed)
    }
}

/// Bytes of pages a lane holds while it reads `columns`, in the most demanding row group.
fn page_bytes(files: &[TableFile], columns: &[ScanColumn]) -> usize {
    let mut most = 0;
    for placed in files {
        let leaves = || columns.iter().flat_map(|c| leaves_of(placed, c));
        let file = &placed.file;
        let sizes: Vec<_> = leaves().map(|(leaf, _)| file.page_sizes(leaf)).collect();
        for row_group in 0..file.footer.row_groups() {
            let rows = file.footer.row_group_rows[row_group].max(1);
            let (mut held, mut window) = (0, 0);
            for ((leaf, decode), sizes) in leaves().zip(&sizes) {
                let expected = PageSizes::expect(*sizes, file.footer.chunk(row_group, leaf), rows);
                held += held_bytes(file.footer.chunk(row_group, leaf), decode, expected);
                window = window.max(expected.read_bytes);
            }
            most = most.max(held + size_class_bytes(window as usize) as u64);
        }
    }
    most as usize
}

/// The leaves of a scanned column, and how they are decoded; `None` by the crate's reader.
fn leaves_of(file: &TableFile, column: &ScanColumn) -> impl Iterator<Item = (usize, Option<Decode>)> {
    let layout = file.layout(column.column);
    layout.into_iter().flat_map(|layout| layout.leaves.clone().map(move |leaf| (leaf, layout.decode)))
}

/// Bytes held of a chunk: its dictionary and one page, and what is made of them.
fn held_bytes(chunk: &ChunkMeta, decode: Option<Decode>, expected: Expected) -> u64 {
    let class = |bytes: u64| size_class_bytes(bytes as usize + PAD_BYTES) as u64;
    let total = chunk.uncompressed_bytes;
    let Expected { dictionary_bytes, dictionary_entries, page_bytes, .. } = expected;
    let own = match dictionary_bytes {
        0 => class(page_bytes),
        // Together they are no more than the chunk, and rounding up adds half at the most.
        _ => {
            (class(page_bytes) + class(dictionary_bytes)).min(total.saturating_add(total / 2 + 2 * class(1)))
        }
    };
    let copies = match decode {
        // Views beside the bytes they point into.
        Some(decode) if decode.target == PhysicalType::View && dictionary_bytes > 0 => {
            class(size_of::<u128>() as u64 * dictionary_entries)
        }
        Some(_) => 0,
        // The crate's reader holds decoded values beside the page.
        None => page_bytes + dictionary_bytes + page_bytes.max(LARGEST_PAGE_BYTES.min(total)),
    };
    own + copies
}

impl Source for ParquetScan {
    type Shared = ScanRun;
    type Local = LaneScan;

    fn name(&self) -> String {
        format!("Scan {}", self.table)
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let vectors = self.columns.iter().map(|c| {
            // Codes of a window, or its values where a page is plain.
            let vector = size_class_bytes(knobs.batch_rows * c.field.data_type.value_bytes().max(4));
            let widened = self.files.iter().filter_map(|file| c.widening(file));
            vector + widened.map(|e| Evaluator::scratch_bytes(&[e], knobs.batch_rows)).max().unwrap_or(0)
        });
        let positions = if self.filter.groups.is_empty() { 0 } else { 3 };
        let positions = positions * size_class_bytes(knobs.batch_rows * size_of::<u32>() + 32);
        Need { lane_bytes: self.page_bytes + vectors.sum::<usize>() + positions, shared_bytes: 0 }
    }

    fn max_lanes(&self) -> usize {
        usize::try_from(self.table_rows().div_ceil(SMALLEST_PIECE_ROWS)).unwrap_or(usize::MAX).max(1)
    }

    fn table_rows(&self) -> u64 {
        self.files.iter().map(|f| f.file.footer.rows()).sum()
    }

    /// As they are encoded: values of a dictionary count once.
    fn mean_row_bytes(&self) -> usize {
        let bytes_of = |file: &TableFile| -> u64 {
            let leaves = || self.columns.iter().flat_map(|column| leaves_of(file, column));
            let footer = &file.file.footer;
            let chunks =
                (0..footer.row_groups()).flat_map(|at| leaves().map(move |(leaf, _)| footer.chunk(at, leaf)));
            chunks.map(|chunk| chunk.uncompressed_bytes).fold(0, u64::saturating_add)
        };
        let bytes = self.files.iter().map(bytes_of).fold(0, u64::saturating_add);
        usize::try_from(bytes / self.table_rows().max(1)).unwrap_or(usize::MAX)
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<ScanRun> {
        let all: usize = self.files.iter().map(|f| f.file.footer.row_groups()).sum();
        let morsels = self.plan_morsels(cx.lanes.max(1), &cx.query.pool);
        let kept = morsels.iter().filter(|m| m.start == 0).count();
        let kept_rows: u64 = morsels.iter().map(|m| m.end - m.start).sum();
        cx.metrics.passed_rows.fetch_add(self.table_rows() - kept_rows, Relaxed);
        cx.metrics.counter("row_groups_pruned").fetch_add((all - kept) as u64, Relaxed);
        Ok(ScanRun {
            lanes: cx.lanes.max(1),
            morsels,
            next: AtomicUsize::new(0),
            metadata: Mutex::new(vec![None; self.files.len()]),
            counters: Counters {
                scanned_rows: cx.metrics.counter("scanned_rows"),
                page_pruned_rows: cx.metrics.counter("page_pruned_rows"),
                bloom_pruned_rows: cx.metrics.counter("bloom_pruned_rows"),
                read_bytes: cx.metrics.counter("read_bytes"),
                runtime_filtered_rows: cx.metrics.counter("runtime_filtered_rows"),
            },
        })
    }

    fn local(&self, _shared: &ScanRun, _cx: &LaneCx<'_>) -> Result<LaneScan> {
        let ids: Vec<ColumnId> = self.columns.iter().map(|c| c.id).collect();
        Ok(LaneScan::new(self.kernels, LaneFilter::new(&self.filter, &ids)?))
    }

    fn pull(&self, shared: &ScanRun, local: &mut LaneScan, cx: &LaneCx<'_>) -> Result<Pull> {
        local.pull(self, shared, cx)
    }

    fn reclaim(
        &self,
        _shared: &ScanRun,
        local: &mut LaneScan,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        let before = cx.account.used_bytes();
        local.release();
        Ok(before.saturating_sub(cx.account.used_bytes()))
    }
}
