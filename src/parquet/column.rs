//! One flat column chunk, read front to back with skips.
//!
//! Owns: [`ColumnReader`], [`LaneState`] (what the readers of a lane share).
//!
//! Invariants:
//! 1. Rows are delivered once, in order; passing over rows reads no body of a page that lies wholly inside them.
//! 2. At most one page and the dictionary are held, besides what emitted vectors keep alive.
//! 3. The pages of a chunk cover exactly its row group's rows, else the chunk is damaged.

use super::decode::{Hybrid, Kernels, Short};
use super::file::Chunk;
use super::footer::{Bound, Decode, Stored};
use super::output::{Failure, Output, Segment, bit, dictionary_values, read_validity};
use super::page::{LaneIo, PAD_BYTES, PageEncoding, PageHeader, PageKind, PageWalker, too_small};
use crate::data::{Bitmap, Bounds, Buf, BufMut, DataType, Dictionary, DictionaryIds, PhysicalType, Vector};
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

/// How the values of a loaded page are read on.
enum PageValues {
    Codes(Hybrid),
    Rle(Hybrid),
    /// Offset of the next value; for booleans, the index of the next bit.
    Plain(usize),
}

/// A page whose body is in memory.
struct Loaded {
    /// The body and its padding.
    bytes: Buf<u8>,
    /// Bytes of the body.
    len: usize,
    validity: Option<Bitmap>,
    values: PageValues,
    /// Rows read or skipped.
    at: usize,
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

#[allow(clippy::needless_pass_by_value, reason = "the shape `map_err` calls")]
fn failed(failure: Failure, chunk: &Chunk<'_>, account: &Account) -> Error {
    match failure {
        Failure::Data(Short(what)) => chunk.damaged(what),
        Failure::Memory(denied) => too_small(denied, account, chunk),
    }
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
            self.find_page(chunk, lane)?;
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
                    .map_err(|failure| failed(failure, chunk, account))?;
            }
            self.row += in_page as u64;
            done += in_page;
        }
        output.finish(&self.data_type, self.bounds, account).map_err(|d| too_small(d, account, chunk))
    }

    /// Makes the current page the one that holds `self.row`.
    fn find_page(&mut self, chunk: &Chunk<'_>, lane: &mut LaneState<'_>) -> Result<()> {
        while self.row >= self.page_start + self.page_rows {
            // Pages of a chunk are about equally long.
            let is_wanted = self.row < self.page_start + self.page_rows + self.page_rows.max(1);
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
            .map_err(|failure| failed(failure, chunk, lane.account))?;
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
            let loaded = self.open(&header, body.freeze(), len, chunk, lane)?;
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
        page.skip(rows, self.decode).map_err(|short| chunk.damaged(short.0))
    }

    /// Finds levels and values in a page body.
    fn open(
        &self,
        header: &PageHeader,
        bytes: Buf<u8>,
        len: usize,
        chunk: &Chunk<'_>,
        lane: &LaneState<'_>,
    ) -> Result<Loaded> {
        let rows = self.page_rows as usize;
        let damaged = |short: Short| chunk.damaged(short.0);
        let prefix = |at: usize| {
            bytes[..len].get(at..).and_then(|rest| rest.first_chunk::<4>()).map(|p| u32::from_le_bytes(*p))
        };
        let (levels, start, encoding) = match header.kind {
            PageKind::Data { encoding, .. } if !self.decode.is_nullable => (None, 0, encoding),
            PageKind::Data { encoding, level_encoding, .. } => {
                if level_encoding != PageEncoding::Rle {
                    return Err(
                        chunk.damaged("its definition levels are in the deprecated bit-packed encoding")
                    );
                }
                let level_bytes = prefix(0).ok_or_else(|| damaged(Short("a page has no levels")))? as usize;
                (Some(4..4 + level_bytes), 4 + level_bytes, encoding)
            }
            PageKind::DataV2 { encoding, definition_bytes, repetition_bytes, .. } => {
                let (first, end) =
                    (repetition_bytes as usize, (repetition_bytes + definition_bytes) as usize);
                (self.decode.is_nullable.then_some(first..end), end, encoding)
            }
            PageKind::Dictionary { .. } | PageKind::Other => {
                return Err(Error::internal("a page without rows was opened"));
            }
        };
        if start > len {
            return Err(chunk.damaged("the levels of a page are longer than the page"));
        }
        let validity = match levels {
            Some(range) => {
                let mut levels = Hybrid::new(1, range).map_err(damaged)?;
                read_validity(&mut levels, &bytes, rows, lane.kernels, lane.account)
                    .map_err(|failure| failed(failure, chunk, lane.account))?
            }
            None => None,
        };
        let values = match encoding {
            PageEncoding::Plain if self.decode.stored == Stored::Boolean => PageValues::Plain(start * 8),
            PageEncoding::Plain => PageValues::Plain(start),
            PageEncoding::Dictionary => {
                // A page of nulls may have no values, not even their width.
                let (width, first) = if start < len { (bytes[start].into(), start + 1) } else { (0, len) };
                PageValues::Codes(Hybrid::new(width, first..len).map_err(damaged)?)
            }
            PageEncoding::Rle if self.decode.stored == Stored::Boolean => {
                let stream = prefix(start).map_or(0, |p| p as usize);
                let first = (start + 4).min(len);
                let end = first.saturating_add(stream).min(len);
                PageValues::Rle(Hybrid::new(1, first..end).map_err(damaged)?)
            }
            PageEncoding::Rle | PageEncoding::Other(_) => {
                return Err(chunk.damaged(format!(
                    "a page is encoded as {encoding:?}, which its column's metadata does not mention"
                )));
            }
        };
        Ok(Loaded { bytes, len, validity, values, at: 0 })
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
        let dense = page.dense(page.at, rows);
        let validity = match &page.validity {
            Some(bits) if dense < rows => Some((bits.words(), page.at)),
            Some(_) | None => None,
        };
        let segment = Segment { rows, dense, validity, positions };
        match (&mut page.values, &self.dictionary) {
            (PageValues::Codes(stream), DictionaryState::Ready(dictionary)) => {
                output.append_codes(&segment, &page.bytes, stream, dictionary, lane.kernels, lane.account)?;
            }
            (PageValues::Codes(_), DictionaryState::None | DictionaryState::Unread(_)) => {
                return Err(Short("its dictionary is missing").into());
            }
            (PageValues::Rle(stream), _) => {
                output.append_rle(&segment, &page.bytes, stream, lane.kernels, lane.account)?;
            }
            (PageValues::Plain(at), _) => {
                *at = output.append_plain(&segment, &page.bytes, page.len, *at, lane.account)?;
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

impl Loaded {
    /// How many of `rows` rows from `first` are not null.
    fn dense(&self, first: usize, rows: usize) -> usize {
        let Some(bits) = &self.validity else { return rows };
        let words = bits.words();
        let (end, mut at, mut count) = (first + rows, first, 0);
        while at < end {
            if at % 64 == 0 && end - at >= 64 {
                count += words[at / 64].count_ones() as usize;
                at += 64;
            } else {
                count += usize::from(bit(words, at));
                at += 1;
            }
        }
        count
    }

    fn skip(&mut self, rows: usize, decode: Decode) -> Result<(), Short> {
        if rows == 0 {
            return Ok(());
        }
        let dense = self.dense(self.at, rows);
        match (&mut self.values, decode.stored) {
            (PageValues::Codes(stream) | PageValues::Rle(stream), _) => stream.skip(&self.bytes, dense)?,
            (PageValues::Plain(at), Stored::ByteArray) => {
                *at = super::decode::for_each_bytes(&self.bytes[..self.len], *at, dense, |_, _, _| Ok(()))?;
            }
            (PageValues::Plain(at), Stored::Boolean) => *at += dense,
            (PageValues::Plain(at), Stored::Int32 | Stored::Float) => *at += dense * 4,
            (PageValues::Plain(at), Stored::Int64 | Stored::Double) => *at += dense * 8,
            (PageValues::Plain(at), Stored::Fixed(width)) => *at += dense * width as usize,
        }
        self.at += rows;
        Ok(())
    }
}
