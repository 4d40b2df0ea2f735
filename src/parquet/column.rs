//! One flat column chunk, read front to back with skips.
//!
//! Owns: [`ColumnReader`], [`LaneState`] (what the readers of a lane share).
//!
//! Invariants:
//! 1. Rows are delivered once, in order; no body is read of a page of which no row is wanted, but for what a read of the
//!    page before takes along.
//! 2. At most one page and the dictionary are held, besides what emitted vectors keep alive.
//! 3. The pages of a chunk cover exactly its row group's rows, else the chunk is damaged.

use super::decode::{Kernels, Short};
use super::file::Chunk;
use super::footer::{Bound, Decode};
use super::output::{Failure, Output, dictionary_values};
use super::page::{LaneIo, PAD_BYTES, PageEncoding, PageHeader, PageKind, PageWalker, too_small};
use super::page_values::{Loaded, PageValues, failed};
use crate::data::{Bounds, BufMut, DataType, Dictionary, DictionaryIds, PhysicalType, Vector};
use crate::error::{Error, Result};
use crate::mem::Account;
use std::sync::Arc;

/// What the column readers of a lane work with.
pub(crate) struct LaneState<'a> {
    pub(crate) account: &'a Account,
    pub(crate) ids: &'a DictionaryIds,
    pub(crate) io: &'a mut LaneIo,
    pub(crate) kernels: Kernels,
}

enum Page {
    None,
    /// Its header has been read.
    Unread(PageHeader),
    Loaded(Loaded),
}

enum DictionaryState {
    None,
    Unread(PageHeader),
    Ready(Arc<Dictionary>),
}

/// A position in a column chunk.
pub(crate) struct ColumnReader {
    leaf: usize,
    decode: Decode,
    data_type: DataType,
    bounds: Option<Bounds>,
    walker: PageWalker,
    dictionary: DictionaryState,
    page: Page,
    /// First row of the current page, in the row group.
    page_start: u64,
    page_rows: u64,
    /// The next row to deliver.
    row: u64,
    /// The buffer of the page before, if nobody else holds it.
    recycled: Option<BufMut<u8>>,
}

impl ColumnReader {
    /// At the first row of `chunk`, which is column `leaf` of its file.
    pub(crate) fn new(leaf: usize, chunk: &Chunk<'_>, decode: Decode, data_type: &DataType) -> Self {
        let meta = chunk.meta();
        let bounds = match (decode.target, meta.min, meta.max) {
            (
                PhysicalType::I64
                | PhysicalType::I32
                | PhysicalType::I16
                | PhysicalType::I8
                | PhysicalType::U32
                | PhysicalType::U16
                | PhysicalType::U8,
                Bound::Int(min),
                Bound::Int(max),
            ) => Some(Bounds { min, max }),
            (_, _, _) => None,
        };
        Self {
            leaf,
            decode,
            data_type: data_type.clone(),
            bounds,
            walker: PageWalker::new(chunk),
            dictionary: DictionaryState::None,
            page: Page::None,
            page_start: 0,
            page_rows: 0,
            row: 0,
            recycled: None,
        }
    }

    /// Its column among the leaves of the file.
    pub(crate) fn leaf(&self) -> usize {
        self.leaf
    }

    /// Goes on at `row`, which must not lie before the next one.
    pub(crate) fn seek(&mut self, row: u64) {
        debug_assert!(row >= self.row, "readers go forward");
        self.row = row;
    }

    /// The next `rows` rows, or those of them at `positions`.
    pub(crate) fn read(
        &mut self,
        chunk: &Chunk<'_>,
        rows: usize,
        positions: Option<&[u32]>,
        lane: &mut LaneState<'_>,
    ) -> Result<Vector> {
        let account = lane.account;
        let mut output = Output::new(self.decode, rows, positions.map(<[u32]>::len));
        let mut shifted: Option<BufMut<u32>> = None;
        let (mut done, mut taken) = (0, 0);
        while done < rows {
            let wanted = match positions {
                None => self.row,
                Some(positions) => {
                    positions.get(taken).map_or(u64::MAX, |p| self.row + u64::from(*p) - done as u64)
                }
            };
            self.find_page(wanted, chunk, lane)?;
            let in_page = (self.page_start + self.page_rows - self.row).min((rows - done) as u64) as usize;
            let selected = positions.map(|positions| {
                let rest = &positions[taken..];
                let end = (done + in_page) as u32;
                match rest.last() {
                    Some(&last) if last >= end => &rest[..rest.partition_point(|&p| p < end)],
                    _ => rest,
                }
            });
            taken += selected.map_or(0, <[u32]>::len);
            if selected.is_none_or(|s| !s.is_empty()) {
                let selected = match selected {
                    Some(selected) if done > 0 => {
                        let shifted = match &mut shifted {
                            Some(shifted) => shifted,
                            none => none.insert(
                                BufMut::with_capacity(account, rows)
                                    .map_err(|d| too_small(d, account, chunk))?,
                            ),
                        };
                        shifted.set_len(selected.len());
                        for (to, from) in shifted.iter_mut().zip(selected) {
                            *to = from - done as u32;
                        }
                        Some(&**shifted)
                    }
                    other => other,
                };
                self.load(chunk, lane)?;
                self.decode_segment(in_page, selected, &mut output, lane)
                    .map_err(|failure| failed(failure, chunk, lane))?;
            }
            self.row += in_page as u64;
            done += in_page;
        }
        output.finish(&self.data_type, self.bounds, account).map_err(|d| too_small(d, account, chunk))
    }

    /// Makes the current page the one that holds `self.row`. The first row to be decoded is `wanted`.
    fn find_page(&mut self, wanted: u64, chunk: &Chunk<'_>, lane: &mut LaneState<'_>) -> Result<()> {
        while self.row >= self.page_start + self.page_rows {
            // Pages of a chunk are about equally long.
            let is_wanted = wanted < self.page_start + self.page_rows + self.page_rows.max(1);
            let Some(header) = self.walker.next(chunk, lane.io, lane.account, is_wanted)? else {
                let rows = self.page_start + self.page_rows;
                return Err(chunk.damaged(format!(
                    "its pages end after {rows} of its row group's {} rows",
                    chunk.rows()
                )));
            };
            let rows = match header.kind {
                PageKind::Data { values, .. } => values,
                PageKind::DataV2 { values, rows, .. } => {
                    if rows != values {
                        return Err(
                            chunk.damaged("a page of a flat column has other numbers of rows and values")
                        );
                    }
                    rows
                }
                PageKind::Dictionary { .. } => {
                    if !matches!(self.dictionary, DictionaryState::None) {
                        return Err(chunk.damaged("it has a second dictionary page"));
                    }
                    self.dictionary = DictionaryState::Unread(header);
                    if is_wanted {
                        self.load_dictionary(chunk, lane)?;
                    }
                    continue;
                }
                PageKind::Other => continue,
            };
            self.page_start += self.page_rows;
            self.page_rows = rows.into();
            if self.page_start + self.page_rows > chunk.rows() {
                return Err(chunk.damaged("its pages hold more rows than its row group"));
            }
            if let Page::Loaded(before) = std::mem::replace(&mut self.page, Page::Unread(header))
                && let Some(bytes) = before.bytes.try_into_mut()
            {
                self.recycled = Some(bytes);
            }
        }
        Ok(())
    }

    fn load_dictionary(
        &mut self,
        chunk: &Chunk<'_>,
        lane: &mut LaneState<'_>,
    ) -> Result<Option<Arc<Dictionary>>> {
        let header = match &self.dictionary {
            DictionaryState::None => return Ok(None),
            DictionaryState::Ready(dictionary) => return Ok(Some(Arc::clone(dictionary))),
            DictionaryState::Unread(header) => *header,
        };
        let PageKind::Dictionary { values, encoding } = header.kind else { return Ok(None) };
        if encoding != PageEncoding::Plain {
            return Err(chunk.damaged("its dictionary is not stored plain"));
        }
        let mut page = lane.io.load(chunk, &header, None, lane.account)?;
        let len = page.len();
        page.set_len(len + PAD_BYTES);
        let page = page.freeze();
        let values = dictionary_values(&page, len, values as usize, self.decode, self.bounds, lane.account)
            .map_err(|failure| failed(failure, chunk, lane))?;
        let dictionary = Arc::new(Dictionary::new(lane.ids, values));
        self.dictionary = DictionaryState::Ready(Arc::clone(&dictionary));
        Ok(Some(dictionary))
    }

    /// Reads the body of the current page, unless that was done, and goes to `self.row` in it.
    fn load(&mut self, chunk: &Chunk<'_>, lane: &mut LaneState<'_>) -> Result<()> {
        if let Page::Unread(header) = self.page {
            let mut body = lane.io.load(chunk, &header, self.recycled.take(), lane.account)?;
            let len = body.len();
            body.set_len(len + PAD_BYTES);
            let rows = self.page_rows as usize;
            let loaded = Loaded::open(&header, body.freeze(), len, rows, self.decode, chunk, lane)?;
            self.page = Page::Loaded(loaded);
            if let Page::Loaded(Loaded { values: PageValues::Codes(_), .. }) = &self.page
                && self.load_dictionary(chunk, lane)?.is_none()
            {
                return Err(chunk.damaged("a page holds codes, but there is no dictionary page before it"));
            }
        }
        let target = (self.row - self.page_start) as usize;
        let Page::Loaded(page) = &mut self.page else {
            return Err(Error::internal("a page was read before it was found"));
        };
        let rows = target - page.at;
        page.skip(rows, self.decode, lane.kernels).map_err(|short| chunk.damaged(short.0))
    }

    /// Decodes the next `rows` rows of the loaded page, or those at `positions`.
    fn decode_segment(
        &mut self,
        rows: usize,
        positions: Option<&[u32]>,
        output: &mut Output,
        lane: &LaneState<'_>,
    ) -> Result<(), Failure> {
        let Page::Loaded(page) = &mut self.page else { return Err(Short("a page is missing").into()) };
        let len = page.len;
        let (segment, values, bytes) = page.segment(rows, positions);
        match (values, &self.dictionary) {
            (PageValues::Codes(stream), DictionaryState::Ready(dictionary)) => {
                output.append_codes(&segment, bytes, stream, dictionary, lane.kernels, lane.account)?;
            }
            (PageValues::Codes(_), DictionaryState::None | DictionaryState::Unread(_)) => {
                return Err(Short("its dictionary is missing").into());
            }
            (PageValues::Rle(stream), _) => {
                output.append_rle(&segment, bytes, stream, lane.kernels, lane.account)?;
            }
            (PageValues::Plain(at), _) => {
                *at = output.append_plain(&segment, bytes, len, *at, lane.account)?;
            }
            (PageValues::Differences(values), _) => {
                output.append_differences(&segment, bytes, values, lane.kernels, lane.account)?;
            }
        }
        page.at += rows;
        Ok(())
    }

    /// Gives back what can be had again at little cost.
    pub(crate) fn release(&mut self) {
        self.recycled = None;
    }
}
