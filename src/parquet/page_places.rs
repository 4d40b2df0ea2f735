//! Where the pages of a chunk lie and which rows begin them, by its offset index (Parquet format, `PageIndex.md`).
//!
//! Owns: [`PagePlaces`].
//!
//! Invariants:
//! 1. Pages follow each other without gaps, begin with row 0 and end with the chunk; rows ascend. An index of which
//!    that is not true is none.
//! 2. What it takes is charged for as long as it is kept.
//!
//! Must not know: plans, lanes.

use super::file::ParquetFile;
use super::page_index::{LARGEST_INDEX_BYTES, Parsed, count_pages};
use super::thrift::{Kind, ThriftError};
use crate::mem::{Pool, Reservation};

/// A data page, by the offset index of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Of its header, in the file.
    offset: u64,
    bytes: u64,
    first_row: u64,
}

/// The data pages of a chunk.
#[derive(Debug)]
pub(super) struct PagePlaces {
    places: Vec<Place>,
    rows: u64,
    _charge: Reservation,
}

impl PagePlaces {
    /// Those of leaf `leaf` in `row_group`; `None` if the file does not tell, or the memory is not there.
    pub(super) fn read(file: &ParquetFile, row_group: usize, leaf: usize, pool: &Pool) -> Option<Self> {
        let chunk = file.footer.chunk(row_group, leaf);
        let span = chunk.offset_index;
        if !(1..=LARGEST_INDEX_BYTES).contains(&span.bytes) {
            return None;
        }
        let mut charge = Reservation::empty(pool);
        charge.try_grow(span.bytes as usize).ok()?;
        let mut bytes = vec![0; span.bytes as usize];
        file.read.read_exact_at(span.start, &mut bytes).ok()?;
        let (_, count) = count_pages(&bytes).ok()?;
        let kept = count * size_of::<Place>();
        charge.try_grow(kept).ok()?;
        let mut places = Vec::with_capacity(count);
        parse(&bytes, &mut places).ok()?;
        drop(bytes);
        charge.shrink(span.bytes as usize);
        let rows = file.footer.row_group_rows[row_group];
        let end = chunk.start + chunk.compressed_bytes;
        let follows = |pair: &[Place]| {
            pair[0].first_row < pair[1].first_row
                && pair[0].offset.checked_add(pair[0].bytes) == Some(pair[1].offset)
        };
        let (first, last) = (places.first()?, places.last()?);
        let is_whole = first.first_row == 0
            && first.offset >= chunk.start
            && last.first_row < rows
            && last.offset.checked_add(last.bytes) == Some(end)
            && places.windows(2).all(follows);
        is_whole.then_some(Self { places, rows, _charge: charge })
    }

    /// Where the header of page `page` lies; `None` behind the last.
    pub(super) fn offset(&self, page: usize) -> Option<u64> {
        self.places.get(page).map(|place| place.offset)
    }

    /// Where page `page` ends.
    pub(super) fn end(&self, page: usize) -> Option<u64> {
        self.places.get(page).map(|place| place.offset + place.bytes)
    }

    /// The rows of page `page`.
    pub(super) fn page_rows(&self, page: usize) -> Option<u64> {
        let end = self.places.get(page + 1).map_or(self.rows, |next| next.first_row);
        Some(end - self.places.get(page)?.first_row)
    }

    /// Whether a page begins after `row` and not after `until`.
    pub(super) fn has_start_within(&self, row: u64, until: u64) -> bool {
        let next = self.places.partition_point(|place| place.first_row <= row);
        self.places.get(next).is_some_and(|place| place.first_row <= until)
    }
}

fn parse(bytes: &[u8], places: &mut Vec<Place>) -> Parsed<()> {
    let (mut reader, count) = count_pages(bytes)?;
    for _ in 0..count {
        let (mut last, mut offset, mut length, mut first_row) = (0, None, None, None);
        while let Some((id, kind)) = reader.field(&mut last)? {
            match (id, kind) {
                (1, Kind::I64) => offset = u64::try_from(reader.i64()?).ok(),
                (2, Kind::I32) => length = u64::try_from(reader.i32()?).ok(),
                (3, Kind::I64) => first_row = u64::try_from(reader.i64()?).ok(),
                (_, _) => reader.skip(kind)?,
            }
        }
        match (offset, length, first_row) {
            (Some(offset), Some(bytes), Some(first_row)) => places.push(Place { offset, bytes, first_row }),
            _ => return Err(ThriftError::Malformed("a page has no place")),
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

    #[test]
    fn places_are_read_whole_or_refused() {
        let mut places = Vec::new();
        parse(OFFSETS, &mut places).expect("valid");
        let expected =
            [Place { offset: 4, bytes: 10, first_row: 0 }, Place { offset: 14, bytes: 10, first_row: 100 }];
        assert_eq!(places, expected);
        for len in 0..OFFSETS.len() - 1 {
            assert!(parse(&OFFSETS[..len], &mut Vec::new()).is_err(), "{len}");
        }
        let charge = Reservation::empty(&Pool::new("p", 1));
        let pages = PagePlaces { places, rows: 130, _charge: charge };
        assert_eq!([0, 1, 2].map(|page| pages.page_rows(page)), [Some(100), Some(30), None]);
        assert_eq!([0, 1, 2].map(|page| pages.offset(page)), [Some(4), Some(14), None]);
        assert_eq!([0, 1, 2].map(|page| pages.end(page)), [Some(14), Some(24), None]);
        let starts = [(0, 99), (0, 100), (99, 100), (100, 130)];
        assert_eq!(starts.map(|(a, b)| pages.has_start_within(a, b)), [false, true, true, false]);
    }
}
