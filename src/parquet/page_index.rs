//! What page indexes prove about a filter: which rows of a row group need not be read (Parquet format, `PageIndex.md`).
//!
//! Owns: [`kept_rows`], [`Kept`], [`page_ints`].
//!
//! Invariants:
//! 1. Rows left out are proven not to pass; in doubt rows are kept.
//! 2. It is a hint: an index that is missing, damaged, too large or for which there is no memory proves nothing.
//! 3. What an index takes while it is looked at is reserved before; what is kept of it is a few ranges of rows.
//!
//! Must not know: plans, lanes.

use super::edge::Edge;
use super::filter::{FilterGroup, Test};
use super::footer::{ChunkMeta, Decode, FileFooter};
use super::prune::{ColumnRange, Verdict, judge};
use super::scan::{Morsel, ScanColumn};
use super::table_file::TableFile;
use super::thrift::{Kind, Reader, ThriftError};
use crate::data::DataType;
use crate::expr::ColumnId;
use crate::mem::{Pool, Reservation};
use std::ops::Range;

/// Larger indexes are left alone: their pages are too small for pruning to pay.
pub(super) const LARGEST_INDEX_BYTES: u32 = 1 << 20;

/// The rows of a row group that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    /// Ascending, not adjacent, none empty; perhaps none.
    Ranges(Box<[Range<u64>]>),
}

impl Kept {
    /// How many rows of `part` are kept.
    pub(super) fn rows_within(&self, part: Range<u64>) -> u64 {
        let within = |range: &Range<u64>| range.end.min(part.end).saturating_sub(range.start.max(part.start));
        match self {
            Self::All => part.end - part.start,
            Self::Ranges(ranges) => ranges.iter().map(within).sum(),
        }
    }
}

/// A page, by its chunk's indexes.
struct PageBounds {
    first_row: u64,
    /// Parts of the column index.
    min: Range<usize>,
    max: Range<usize>,
    null_count: Option<u64>,
    is_null: bool,
}

/// The pages of one column of a row group.
struct ColumnPages<'a> {
    id: ColumnId,
    decode: Decode,
    /// In the file and in the table.
    stored: &'a DataType,
    data_type: &'a DataType,
    bytes: Vec<u8>,
    pages: Vec<PageBounds>,
    rows: u64,
    _charge: Reservation,
}

/// The rows of the row group of `morsel` that may pass the filter `groups`.
pub(super) fn kept_rows(
    file: &TableFile,
    morsel: Morsel,
    columns: &[ScanColumn],
    groups: &[FilterGroup],
    pool: &Pool,
) -> Kept {
    let mut indexed: Vec<ColumnPages<'_>> = Vec::new();
    for column in columns_judged(file, morsel, columns, groups) {
        indexed.extend(ColumnPages::read(file, morsel.row_group, column, pool));
    }
    if indexed.is_empty() {
        return Kept::All;
    }
    let rows = file.file.footer.row_group_rows[morsel.row_group];
    let mut starts: Vec<u64> = indexed.iter().flat_map(|c| c.pages.iter().map(|p| p.first_row)).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut kept: Vec<Range<u64>> = Vec::new();
    for (at, &start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(rows);
        let range = |id: ColumnId| match indexed.iter().find(|c| c.id == id) {
            Some(pages) => Some(pages.range_at(start)),
            None => row_group_range(file, morsel.row_group, columns, id),
        };
        if !may_pass(morsel, groups, columns, &range) {
            continue;
        }
        match kept.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => kept.push(start..end),
        }
    }
    match &kept[..] {
        [all] if *all == (0..rows) => Kept::All,
        _ => Kept::Ranges(kept.into()),
    }
}

/// What a row group's page index says of a column of integers.
pub(super) struct PageInts {
    /// The page's first row, in the row group.
    pub(super) first_row: u64,
    /// The least and the greatest value; `None` if all are null.
    pub(super) bounds: Option<(i64, i64)>,
}

/// The pages of an integer column, if their bounds are known.
pub(super) fn page_ints(
    file: &TableFile,
    row_group: usize,
    column: &ScanColumn,
    pool: &Pool,
) -> Option<Vec<PageInts>> {
    let read = ColumnPages::read(file, row_group, column, pool)?;
    let page = |page: &PageBounds| {
        let bounds = if page.is_null { None } else { Some(read.range_at(page.first_row).ints()?) };
        Some(PageInts { first_row: page.first_row, bounds })
    };
    read.pages.iter().map(page).collect()
}

fn row_group_range<'a>(
    file: &'a TableFile,
    row_group: usize,
    columns: &'a [ScanColumn],
    id: ColumnId,
) -> Option<ColumnRange<'a>> {
    let column = columns.iter().find(|c| c.id == id)?;
    ColumnRange::of_row_group(file, row_group, column.column, &column.field.data_type)
}

/// Whether all groups that the row group's statistics leave open may pass rows of which `range` is known.
fn may_pass<'a>(
    morsel: Morsel,
    groups: &[FilterGroup],
    columns: &[ScanColumn],
    range: &dyn Fn(ColumnId) -> Option<ColumnRange<'a>>,
) -> bool {
    groups.iter().enumerate().filter(|(at, _)| morsel.needs(*at)).all(|(_, group)| match &group.test {
        Test::Conjuncts(conjuncts) => conjuncts.iter().all(|e| judge(e, range) != Verdict::NoRow),
        Test::MayMatch(filter) => filter.may_have(range(columns[group.columns[0]].id).and_then(|r| r.ints())),
    })
}

/// The columns that verdicts on the open groups ask for.
fn columns_judged<'a>(
    file: &TableFile,
    morsel: Morsel,
    columns: &'a [ScanColumn],
    groups: &[FilterGroup],
) -> Vec<&'a ScanColumn> {
    let asked = std::cell::RefCell::new(Vec::new());
    let range = |id: ColumnId| {
        asked.borrow_mut().push(id);
        row_group_range(file, morsel.row_group, columns, id)
    };
    may_pass(morsel, groups, columns, &range);
    let asked = asked.into_inner();
    columns.iter().filter(|c| asked.contains(&c.id)).collect()
}

impl<'a> ColumnPages<'a> {
    fn read(file: &'a TableFile, row_group: usize, column: &'a ScanColumn, pool: &Pool) -> Option<Self> {
        let footer: &FileFooter = &file.file.footer;
        let in_file = file.place(column.column).in_file()?;
        let layout = &footer.columns[in_file];
        let decode = layout.decode?;
        let chunk: &ChunkMeta = footer.chunk(row_group, layout.leaves.start);
        let (offsets, bounds) = (chunk.offset_index, chunk.column_index);
        let is_usable = |bytes: u32| (1..=LARGEST_INDEX_BYTES).contains(&bytes);
        if !is_usable(offsets.bytes) || !is_usable(bounds.bytes) {
            return None;
        }
        let mut charge = Reservation::empty(pool);
        charge.try_grow(offsets.bytes.max(bounds.bytes) as usize * 2).ok()?;
        let load = |at: u64, bytes: u32| {
            let mut out = vec![0; bytes as usize];
            file.file.read.read_exact_at(at, &mut out).ok()?;
            Some(out)
        };
        let rows = footer.row_group_rows[row_group];
        let offset_bytes = load(offsets.start, offsets.bytes)?;
        let (_, count) = count_pages(&offset_bytes).ok()?;
        charge.try_grow(count * size_of::<PageBounds>()).ok()?;
        let mut pages = Vec::with_capacity(count);
        parse_offsets(&offset_bytes, &mut pages).ok()?;
        drop(offset_bytes);
        let bytes = load(bounds.start, bounds.bytes)?;
        parse_bounds(&bytes, &mut pages).ok()?;
        let is_ascending = pages.windows(2).all(|pair| pair[0].first_row < pair[1].first_row);
        let is_whole = pages.first().is_some_and(|p| p.first_row == 0)
            && pages.last().is_some_and(|p| p.first_row < rows);
        (is_ascending && is_whole).then_some(Self {
            id: column.id,
            decode,
            stored: &footer.schema[in_file].data_type,
            data_type: &column.field.data_type,
            bytes,
            pages,
            rows,
            _charge: charge,
        })
    }

    /// What is known of the page that holds `row`.
    fn range_at(&self, row: u64) -> ColumnRange<'_> {
        let at = self.pages.partition_point(|page| page.first_row <= row).saturating_sub(1);
        let page = &self.pages[at];
        let end = self.pages.get(at + 1).map_or(self.rows, |next| next.first_row);
        let rows = end - page.first_row;
        let edge = |part: &Range<usize>| {
            if page.is_null {
                Edge::Unknown
            } else {
                Edge::decode(&self.bytes[part.clone()], self.decode, self.stored)
            }
        };
        let (min, max) = (edge(&page.min), edge(&page.max));
        // Bounds that contradict each other are worth nothing.
        let (min, max) = if Edge::is_ordered(min, max) { (min, max) } else { (Edge::Unknown, Edge::Unknown) };
        ColumnRange {
            data_type: self.data_type,
            min: min.widened(self.stored, self.data_type),
            max: max.widened(self.stored, self.data_type),
            null_count: if page.is_null { Some(rows) } else { page.null_count },
            rows,
        }
    }
}

pub(super) type Parsed<T> = Result<T, ThriftError>;

/// Goes to field `wanted` of a structure, a list; its element kind and length.
fn find_list(reader: &mut Reader<'_>, last: &mut i16, wanted: i16) -> Parsed<Option<(Kind, usize)>> {
    while let Some((id, kind)) = reader.field(last)? {
        if id == wanted && kind == Kind::List {
            return Ok(Some(reader.list()?));
        }
        reader.skip(kind)?;
    }
    Ok(None)
}

fn list_of(found: Option<(Kind, usize)>, kinds: &[Kind]) -> Parsed<usize> {
    match found {
        Some((kind, len)) if len == 0 || kinds.contains(&kind) => Ok(len),
        _ => Err(ThriftError::Malformed("a list of a page index is missing")),
    }
}

/// A reader at the first page of an offset index, and how many there are.
pub(super) fn count_pages(bytes: &[u8]) -> Parsed<(Reader<'_>, usize)> {
    let mut reader = Reader::new(bytes);
    let found = find_list(&mut reader, &mut 0, 1)?;
    let count = list_of(found, &[Kind::Struct])?;
    Ok((reader, count))
}

/// The pages of an offset index, nothing known of their values.
fn parse_offsets(bytes: &[u8], pages: &mut Vec<PageBounds>) -> Parsed<()> {
    let (mut reader, count) = count_pages(bytes)?;
    for _ in 0..count {
        let (mut last, mut first_row) = (0, None);
        while let Some((id, kind)) = reader.field(&mut last)? {
            match (id, kind) {
                (3, Kind::I64) => first_row = u64::try_from(reader.i64()?).ok(),
                (_, _) => reader.skip(kind)?,
            }
        }
        let first_row = first_row.ok_or(ThriftError::Malformed("a page has no first row"))?;
        pages.push(PageBounds { first_row, min: 0..0, max: 0..0, null_count: None, is_null: false });
    }
    Ok(())
}

/// Adds what a column index says of each page.
fn parse_bounds(bytes: &[u8], pages: &mut [PageBounds]) -> Parsed<()> {
    let mut reader = Reader::new(bytes);
    let mut last = 0;
    let check = |len: usize| {
        if len == pages.len() { Ok(()) } else { Err(ThriftError::Malformed("indexes of different pages")) }
    };
    let nulls = find_list(&mut reader, &mut last, 1)?;
    check(list_of(nulls, &[Kind::True, Kind::False])?)?;
    for page in &mut *pages {
        page.is_null = reader.element_bool()?;
    }
    for field in [2, 3] {
        let bounds = find_list(&mut reader, &mut last, field)?;
        if list_of(bounds, &[Kind::Binary])? != pages.len() {
            return Err(ThriftError::Malformed("indexes of different pages"));
        }
        for page in &mut *pages {
            let len = reader.binary()?.len();
            let part = reader.position() - len..reader.position();
            *(if field == 2 { &mut page.min } else { &mut page.max }) = part;
        }
    }
    // Null counts are optional.
    if let Some((Kind::I64, len)) = find_list(&mut reader, &mut last, 5)?
        && len == pages.len()
    {
        for page in pages {
            page.null_count = u64::try_from(reader.i64()?).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// {1: [{1: 4, 2: 10, 3: 0}, {1: 14, 2: 10, 3: 100}]}
    const OFFSETS: &[u8] =
        &[0x19, 0x2c, 0x16, 8, 0x15, 20, 0x16, 0, 0, 0x16, 28, 0x15, 20, 0x16, 0xc8, 1, 0, 0];
    /// {1: [false, true], 2: ["a", ""], 3: ["c", ""], 4: 1, 5: [0, 50]}
    const BOUNDS: &[u8] =
        &[0x19, 0x22, 2, 1, 0x19, 0x28, 1, b'a', 0, 0x19, 0x28, 1, b'c', 0, 0x15, 2, 0x19, 0x26, 0, 100, 0];

    #[test]
    fn indexes_are_read_whole_or_refused() {
        let mut pages = Vec::new();
        parse_offsets(OFFSETS, &mut pages).expect("valid");
        assert_eq!(pages.iter().map(|p| p.first_row).collect::<Vec<_>>(), [0, 100]);
        parse_bounds(BOUNDS, &mut pages).expect("valid");
        assert_eq!((&BOUNDS[pages[0].min.clone()], &BOUNDS[pages[0].max.clone()]), (&b"a"[..], &b"c"[..]));
        assert_eq!((pages[0].is_null, pages[1].is_null), (false, true));
        assert_eq!((pages[0].null_count, pages[1].null_count), (Some(0), Some(50)));
        for len in 0..OFFSETS.len() - 1 {
            assert!(parse_offsets(&OFFSETS[..len], &mut Vec::new()).is_err(), "{len}");
        }
        for len in 0..BOUNDS.len() - 1 {
            assert!(parse_bounds(&BOUNDS[..len], &mut pages).is_err(), "{len}");
        }
        pages.pop();
        assert!(parse_bounds(BOUNDS, &mut pages).is_err(), "indexes of different pages");
    }

    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let mut pages = Vec::new();
            if parse_offsets(&bytes, &mut pages).is_ok() {
                let _ = parse_bounds(&bytes, &mut pages);
            }
        }
    }
}
