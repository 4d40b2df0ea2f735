//! One lane of a scan: windows of rows, filters first, the other columns for the rows that are left.
//!
//! Owns: [`LaneScan`].
//!
//! Invariants:
//! 1. A window's rows are delivered, dropped by a filter, or skipped, in every column; columns lag behind and are moved
//!    on only when one of their rows is wanted, so what nobody wants is not even read.
//! 2. While a window is filtered, a decoded column knows which of the window's rows its vector stands for.
//! 3. A batch of rows wider than floors expect leaves memory for a few more, but for one of a single row.
//! 4. A lane that waits for memory holds no pages. It begins the window again that lacked memory, of which nothing has
//!    been emitted.

use super::column::{ColumnReader, LaneState};
use super::decode::Kernels;
use super::fallback::FallbackColumn;
use super::filter::{LaneFilter, Passed};
use super::page::LaneIo;
use super::page_index::Kept;
use super::scan::{Morsel, ParquetScan, ScanColumn, ScanRun};
use crate::data::{Batch, Buf, BufMut, DataType, FlatVector, Scalar, Selection, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Pull, Retry};
use crate::expr::{EvalCx, Evaluator};
use crate::mem::Account;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// From this share of rows left on, columns are decoded whole and emitted with a selection.
const DENSE_NUMERATOR: usize = 3;
const DENSE_DENOMINATOR: usize = 4;
/// Windows grow up to this many batches where few rows pass, if memory is ample.
const LARGEST_WINDOW_BATCHES: usize = 4;
/// Memory that counts as ample, in windows.
const AMPLE_WINDOWS: usize = 64;
/// The part of a lane's share of the memory that a window should take, and the limits of that. What is made of a batch
/// further on takes as much again, more than once.
const WINDOW_SHARE: usize = 16;
const LEAST_WINDOW_BYTES: usize = 64 << 10;
const MOST_WINDOW_BYTES: usize = 4 << 20;
/// Narrower rows are what floors expect.
const WIDE_ROW_BYTES: usize = 1 << 10;
/// Wide rows there must be memory for beside a batch.
const SPARE_ROWS: usize = 4;

/// A column of the current row group.
enum ColumnState {
    /// Not looked at yet.
    Closed,
    Open(Box<ColumnReader>),
    Fallback(Box<FallbackColumn>),
    /// The file has no such column.
    Missing,
    /// Of a narrower type than the table's.
    Widened(Box<ColumnState>, Box<Evaluator>),
}

/// What follows from how wide the rows of a row group are, by the sizes of its columns as written.
struct Width {
    /// The most rows of a window.
    most_rows: usize,
    /// Bytes that must be left beside a batch, where that is larger than floors expect: what a few rows take further on.
    spare_bytes: usize,
}

/// The morsel in work.
struct Current {
    morsel: Morsel,
    /// The next row, in the row group.
    row: u64,
    /// Where the window in work began.
    window_start: u64,
    /// Rows of the row group that are not pruned.
    kept: Kept,
    /// How wide its rows are.
    width: Width,
    columns: Vec<ColumnState>,
}

impl Current {
    /// Goes to the next row to read, at or after the current one; how many rows are passed over.
    fn skip_pruned(&mut self) -> u64 {
        let Kept::Ranges(ranges) = &self.kept else { return 0 };
        let before = self.row;
        let next = ranges.get(ranges.partition_point(|range| range.end <= before));
        let next = next.map_or(self.morsel.end, |range| range.start.max(before)).min(self.morsel.end);
        self.row = next.max(before);
        self.row - before
    }

    /// The end of the rows that can be read one after the other from the current one.
    fn end_of_run(&self) -> u64 {
        match &self.kept {
            Kept::All => self.morsel.end,
            Kept::Ranges(ranges) => {
                let range = ranges.get(ranges.partition_point(|range| range.end <= self.row));
                range.map_or(self.row, |range| range.end.min(self.morsel.end))
            }
        }
    }
}

/// State of a lane.
pub(crate) struct LaneScan {
    io: LaneIo,
    kernels: Kernels,
    filter: LaneFilter,
    current: Option<Current>,
    window_batches: usize,
    /// The most rows of a window, where memory for more was refused.
    most_rows: usize,
    /// Tries to get memory for the window at hand.
    refused: Retry,
}

/// A column decoded for the current window.
struct Decoded {
    vector: Vector,
    /// The window's rows the vector stands for; `None` for all.
    over: Option<Buf<u32>>,
}

impl LaneScan {
    /// A lane without a morsel.
    pub(crate) fn new(kernels: Kernels, filter: LaneFilter) -> Self {
        Self {
            io: LaneIo::new(),
            kernels,
            filter,
            current: None,
            window_batches: 1,
            most_rows: usize::MAX,
            refused: Retry::default(),
        }
    }

    /// The next batch with rows.
    pub(crate) fn pull(&mut self, scan: &ParquetScan, run: &ScanRun, cx: &LaneCx<'_>) -> Result<Pull> {
        loop {
            let has_rows = self.current.as_mut().is_some_and(|current| {
                cx.metrics.passed_rows.fetch_add(current.skip_pruned(), Relaxed);
                current.row < current.morsel.end
            });
            if !has_rows && !self.claim(scan, run, cx) {
                self.current = None;
                self.io.release();
                return Ok(Pull::Done);
            }
            cx.check()?;
            if !has_rows {
                continue;
            }
            match self.window(scan, run, cx) {
                Ok(batch) => {
                    self.refused.end();
                    self.most_rows = self.most_rows.saturating_add(1 + self.most_rows / 4);
                    if let Some(batch) = batch {
                        return Ok(Pull::Emit(batch));
                    }
                }
                // Others may be about to give back what a page larger than expected takes.
                Err(error @ Error::Memory(_)) => {
                    // First, for it would wake the lane that listens.
                    self.step_back();
                    let wait = self.refused.wait(error.refused_bytes(), cx).ok_or(error)?;
                    return Ok(Pull::Wait(wait));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back all pages and dictionaries, to read half of the window again that lacked memory.
    fn step_back(&mut self) {
        self.io.release();
        self.filter.release();
        self.window_batches = 1;
        if let Some(current) = &mut self.current {
            self.most_rows = ((current.row - current.window_start) as usize / 2).max(1);
            current.row = current.window_start;
            current.columns.fill_with(|| ColumnState::Closed);
        }
    }

    fn claim(&mut self, scan: &ParquetScan, run: &ScanRun, cx: &LaneCx<'_>) -> bool {
        run.counters.read_bytes.fetch_add(std::mem::take(&mut self.io.read_bytes), Relaxed);
        let dropped = std::mem::take(&mut self.filter.runtime_filtered_rows);
        run.counters.runtime_filtered_rows.fetch_add(dropped, Relaxed);
        let Some((morsel, ahead)) = run.claim() else { return false };
        if let Some(ahead) = ahead {
            scan.prefetch(ahead);
        }
        cx.account.relieve();
        let current = match &mut self.current {
            // The next piece of the same row group: readers and dictionaries go on.
            Some(current)
                if current.morsel.file == morsel.file
                    && current.morsel.row_group == morsel.row_group
                    && current.row <= morsel.start =>
            {
                (current.morsel, current.row) = (morsel, morsel.start);
                current
            }
            current => {
                let mut columns = current.take().map(|c| c.columns).unwrap_or_default();
                columns.clear();
                columns.resize_with(scan.columns.len(), || ColumnState::Closed);
                let (row, window_start) = (morsel.start, morsel.start);
                let width = Width::of(scan, morsel, cx);
                current.insert(Current { morsel, row, window_start, kept: Kept::All, width, columns })
            }
        };
        current.kept = scan.kept(morsel, run, cx);
        run.counters.scanned_rows.fetch_add(current.kept.rows_within(morsel.start..morsel.end), Relaxed);
        true
    }

    /// Filters and emits the next window; `None` if none of its rows is left.
    fn window(&mut self, scan: &ParquetScan, run: &ScanRun, cx: &LaneCx<'_>) -> Result<Option<Batch>> {
        let Some(current) = &mut self.current else { return Err(Error::internal("a lane lost its morsel")) };
        let batch_rows = cx.batch_rows();
        let left = current.end_of_run() - current.row;
        let most_rows = self.most_rows.min(current.width.most_rows).min(batch_rows * self.window_batches);
        let rows = left.min(most_rows as u64) as usize;
        let mut window = Window {
            scan,
            run,
            cx,
            start: current.row,
            rows,
            rows_ahead: left,
            alive: None,
            decoded: scan.columns.iter().map(|_| None).collect(),
        };
        current.window_start = current.row;
        current.row += rows as u64;
        let mut lane =
            LaneState { account: cx.account, ids: &cx.query.ids, io: &mut self.io, kernels: self.kernels };
        let groups = scan.filter.groups.len();
        if groups > 0 {
            self.filter.begin_window();
        }
        for place in 0..groups {
            if let Some(group) = self.filter.group_at(place)
                && current.morsel.needs(group)
            {
                window.apply(group, &mut self.filter, current, &mut lane)?;
                if window.alive_rows() == 0 {
                    break;
                }
            }
        }
        let alive = window.alive_rows();
        self.window_batches = next_window(self.window_batches, rows, alive, scan, cx);
        let batch = if alive == 0 {
            None
        } else {
            Some(window.emit(current, &mut lane)?.with_cluster(current.morsel.cluster))
        };
        // A single row goes on in any case: where others need all their memory, there is no more to be had.
        if current.width.spare_bytes > 0 && rows > 1 && batch.is_some() {
            drop(cx.account.hold(current.width.spare_bytes)?);
        }
        cx.metrics.passed_rows.fetch_add(rows as u64, Relaxed);
        Ok(batch)
    }

    /// Drops what can be had again: the read window, filter tables.
    pub(crate) fn release(&mut self) {
        self.io.release();
        self.filter.release();
        for column in self.current.iter_mut().flat_map(|c| &mut c.columns) {
            column.release();
        }
    }
}

impl ColumnState {
    /// Gives back what can be had again at little cost.
    fn release(&mut self) {
        match self {
            Self::Open(reader) => reader.release(),
            Self::Widened(inner, _) => inner.release(),
            Self::Closed | Self::Fallback(_) | Self::Missing => {}
        }
    }
}

/// `rows` nulls.
fn nulls(data_type: &DataType, rows: usize) -> Vector {
    match data_type {
        DataType::Nested(arrow) => {
            Vector::Flat(FlatVector::new(Values::Nested(arrow::array::new_null_array(arrow, rows))))
        }
        other => Vector::Constant { value: Scalar::null(other.clone()), len: rows },
    }
}

impl Width {
    fn of(scan: &ParquetScan, morsel: Morsel, cx: &LaneCx<'_>) -> Self {
        let knobs = &cx.query.knobs;
        let limit_bytes = cx.account.pool().limit_bytes() / (WINDOW_SHARE * knobs.lanes.max(1));
        let window_bytes = limit_bytes.clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
        let placed = &scan.files[morsel.file];
        let rows = placed.file.footer.row_group_rows[morsel.row_group].max(1);
        let leaves = scan.columns.iter().filter_map(|column| {
            let at = placed.place(column.column).in_file()?;
            Some(placed.file.footer.columns[at].leaves.clone())
        });
        let bytes =
            leaves.flatten().map(|leaf| placed.file.chunk(morsel.row_group, leaf).meta().uncompressed_bytes);
        let bytes = bytes.fold(0u64, u64::saturating_add);
        let row_bytes = usize::try_from(bytes / rows).unwrap_or(usize::MAX).max(1);
        let most_rows = (window_bytes / row_bytes).max(1);
        if row_bytes < WIDE_ROW_BYTES || most_rows >= cx.batch_rows() {
            return Self { most_rows: usize::MAX, spare_bytes: 0 };
        }
        Self { most_rows, spare_bytes: row_bytes.saturating_mul(SPARE_ROWS) }
    }
}

/// Batches per window: more where few rows pass, so that what is emitted is worth a batch.
fn next_window(now: usize, rows: usize, alive: usize, scan: &ParquetScan, cx: &LaneCx<'_>) -> usize {
    if alive > cx.batch_rows() / 2 {
        return (now / 2).max(1);
    }
    if alive * 8 >= rows || now >= LARGEST_WINDOW_BATCHES {
        return now;
    }
    let window_bytes = cx.batch_rows() * LARGEST_WINDOW_BATCHES * (8 * scan.columns.len() + 16);
    let is_ample = cx.account.pool().available_bytes() >= window_bytes * AMPLE_WINDOWS / 8;
    if is_ample { now * 2 } else { 1 }
}

struct Window<'a> {
    scan: &'a ParquetScan,
    run: &'a ScanRun,
    cx: &'a LaneCx<'a>,
    /// First row, in the row group.
    start: u64,
    rows: usize,
    /// Rows of the morsel from `start` on.
    rows_ahead: u64,
    /// The window's rows that have passed so far; `None` for all.
    alive: Option<Buf<u32>>,
    decoded: Vec<Option<Decoded>>,
}

impl Window<'_> {
    fn alive_rows(&self) -> usize {
        self.alive.as_ref().map_or(self.rows, |a| a.len())
    }

    /// Decodes `column` for the rows at `positions`.
    fn read(
        &self,
        column: usize,
        positions: Option<&[u32]>,
        current: &mut Current,
        lane: &mut LaneState<'_>,
    ) -> Result<Vector> {
        let file = &self.scan.files[current.morsel.file].file;
        let row_group = current.morsel.row_group;
        let state = &mut current.columns[column];
        if let ColumnState::Closed = state {
            *state = self.open(column, current.morsel)?;
        }
        let column = &self.scan.columns[column];
        let (inner, widen) = match state {
            ColumnState::Widened(inner, widen) => (&mut **inner, Some(widen)),
            plain => (plain, None),
        };
        let vector = match inner {
            ColumnState::Open(reader) => {
                reader.seek(self.start);
                let chunk = file.chunk(row_group, reader.leaf());
                reader.read(&chunk, self.rows, positions, lane)
            }
            ColumnState::Fallback(reader) => {
                reader.seek(self.start);
                reader.read(self.rows, positions, lane.ids, lane.account)
            }
            ColumnState::Missing => {
                Ok(nulls(&column.field.data_type, positions.map_or(self.rows, <[u32]>::len)))
            }
            ColumnState::Closed | ColumnState::Widened(..) => {
                Err(Error::internal("a column was read before it was opened"))
            }
        }?;
        let Some(widen) = widen else { return Ok(vector) };
        let rows = vector.len();
        let mut cx = EvalCx { account: lane.account, ids: lane.ids };
        let mut widened = widen.evaluate(&Batch::new(vec![vector], rows), &mut cx)?;
        widened.pop().ok_or_else(|| Error::internal("one expression has one value"))
    }

    /// A reader of `column` in the row group of `morsel`.
    fn open(&self, column: usize, morsel: Morsel) -> Result<ColumnState> {
        let column: &ScanColumn = &self.scan.columns[column];
        let placed = &self.scan.files[morsel.file];
        let file = &placed.file;
        let Some(at) = placed.place(column.column).in_file() else { return Ok(ColumnState::Missing) };
        let layout = &file.footer.columns[at];
        let leaf = layout.leaves.start;
        let chunk = file.chunk(morsel.row_group, leaf);
        let state = match layout.decode {
            Some(decode) => {
                let data_type = &file.footer.schema[at].data_type;
                ColumnState::Open(Box::new(ColumnReader::new(leaf, &chunk, decode, data_type)))
            }
            None => {
                let metadata = self.run.metadata(file, self.cx)?;
                let (rows, pool) = (self.cx.batch_rows(), &self.cx.query.pool);
                let reader = FallbackColumn::new(file, &metadata, morsel.row_group, at, rows, pool)?;
                let reader = reader.with_nested_type(&column.field.data_type);
                ColumnState::Fallback(Box::new(reader))
            }
        };
        Ok(match column.widening(placed) {
            Some(cast) => {
                ColumnState::Widened(Box::new(state), Box::new(Evaluator::new(&[cast], &[column.id])?))
            }
            None => state,
        })
    }

    /// Decodes `column` for the rows alive, if it is not decoded, and returns its vector over exactly those.
    fn aligned(&mut self, column: usize, current: &mut Current, lane: &mut LaneState<'_>) -> Result<Vector> {
        if self.decoded[column].is_none() {
            let vector = self.read(column, self.alive.as_deref(), current, lane)?;
            self.decoded[column] = Some(Decoded { vector, over: self.alive.clone() });
        }
        let Some(decoded) = &mut self.decoded[column] else {
            return Err(Error::internal("a column was not kept"));
        };
        decoded.align(self.alive.as_ref(), lane.account)?;
        Ok(decoded.vector.clone())
    }

    /// Drops the rows that do not pass a filter group.
    fn apply(
        &mut self,
        group: usize,
        filter: &mut LaneFilter,
        current: &mut Current,
        lane: &mut LaneState<'_>,
    ) -> Result<()> {
        let since = Instant::now();
        let rows = self.alive_rows();
        let scan = self.scan;
        let columns = scan.filter.groups[group].columns.iter().map(|&c| self.aligned(c, current, lane));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let rows_ahead = self.rows_ahead * rows as u64 / self.rows.max(1) as u64;
        let mut cx = EvalCx { account: lane.account, ids: lane.ids };
        let passed = filter.apply(group, columns, rows, rows_ahead, lane.kernels, &mut cx)?;
        if let Passed::Some(indices) = passed {
            self.alive = Some(match &self.alive {
                None => indices,
                Some(alive) => pick(alive, &indices, lane.account)?,
            });
        }
        filter.measure(group, since, rows, self.alive_rows());
        Ok(())
    }

    /// The output columns of the rows alive.
    fn emit(mut self, current: &mut Current, lane: &mut LaneState<'_>) -> Result<Batch> {
        let alive = self.alive_rows();
        let scan = self.scan;
        let is_dense = alive * DENSE_DENOMINATOR >= self.rows * DENSE_NUMERATOR
            && scan.outputs.iter().all(|&c| self.decoded[c].as_ref().is_none_or(|d| d.over.is_none()));
        let mut columns = Vec::with_capacity(scan.outputs.len());
        for &column in &scan.outputs {
            let vector = match (&self.decoded[column], is_dense) {
                (Some(decoded), true) => decoded.vector.clone(),
                (None, true) => {
                    let vector = self.read(column, None, current, lane)?;
                    // The same column may be asked for twice.
                    self.decoded[column] = Some(Decoded { vector: vector.clone(), over: None });
                    vector
                }
                (_, false) => self.aligned(column, current, lane)?,
            };
            columns.push(vector);
        }
        Ok(if is_dense {
            Batch::new(columns, self.rows).with_selection(self.alive.map(Selection::new))
        } else {
            Batch::new(columns, alive)
        })
    }
}

impl Decoded {
    /// Narrows the vector to the rows of `alive`, all of which it stands for.
    fn align(&mut self, alive: Option<&Buf<u32>>, account: &Account) -> Result<()> {
        let Some(alive) = alive else { return Ok(()) };
        match &self.over {
            Some(over) if over.as_ptr() == alive.as_ptr() && over.len() == alive.len() => return Ok(()),
            Some(over) => {
                let mut indices = BufMut::with_len(account, alive.len())?;
                let mut at = 0;
                for (to, &row) in indices.iter_mut().zip(alive.iter()) {
                    while over.get(at).is_some_and(|&o| o < row) {
                        at += 1;
                    }
                    *to = at as u32;
                }
                self.vector = self.vector.gather(&indices, account)?;
            }
            None => self.vector = self.vector.gather(alive, account)?,
        }
        self.over = Some(alive.clone());
        Ok(())
    }
}

fn pick(from: &[u32], indices: &[u32], account: &Account) -> Result<Buf<u32>> {
    let mut out = BufMut::with_len(account, indices.len())?;
    for (to, &index) in out.iter_mut().zip(indices) {
        *to = from[index as usize];
    }
    Ok(out.freeze())
}
