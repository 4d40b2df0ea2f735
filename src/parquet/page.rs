//! Page headers and page bodies: the walk along a column chunk.
//!
//! Owns: [`PageHeader`], [`PageWalker`] (position in a chunk), [`LaneIo`] (a lane's read window and codecs).
//!
//! Invariants:
//! 1. A header's sizes are checked against its chunk before a byte is allocated for its page.
//! 2. Bodies are allocated from the lane's account, and followed by [`PAD_BYTES`] readable bytes that belong to no
//!    value, so that decoders may load whole words.
//! 3. Skipping a page reads its header only.

use super::codec::{Codec, Decompressor};
use super::file::Chunk;
use super::thrift::{Kind, Reader, ThriftError};
use crate::data::BufMut;
use crate::error::{Error, MemoryError, Result};
use crate::mem::{Account, Denied};

/// Readable bytes behind every page body.
pub(crate) const PAD_BYTES: usize = 64;
/// First try for a header whose page is not expected to be read.
const HEADER_GUESS_BYTES: u64 = 256;
/// Headers carry statistics, but none is larger than this.
const LARGEST_HEADER_BYTES: u64 = 1 << 20;
/// First read of a chunk, when nothing is known of its pages.
const FIRST_READ_BYTES: u64 = 32 << 10;
/// What a page may hold beyond its chunk's declared size: writers differ in whether they count headers.
const SLACK_BYTES: u64 = 4096;

/// How values or levels are encoded, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageEncoding {
    Plain,
    Dictionary,
    Rle,
    /// Deprecated, of levels only.
    BitPacked,
    DeltaBinary,
    DeltaLength,
    DeltaBytes,
    ByteStreamSplit,
    /// By its number in the format.
    Other(i32),
}

impl PageEncoding {
    fn from_thrift(number: i32) -> Self {
        match number {
            0 => Self::Plain,
            2 | 8 => Self::Dictionary,
            3 => Self::Rle,
            4 => Self::BitPacked,
            5 => Self::DeltaBinary,
            6 => Self::DeltaLength,
            7 => Self::DeltaBytes,
            9 => Self::ByteStreamSplit,
            other => Self::Other(other),
        }
    }
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// Values with levels in front, all compressed together.
    Data {
        values: u32,
        encoding: PageEncoding,
        definition_encoding: PageEncoding,
        repetition_encoding: PageEncoding,
    },
    /// Values with uncompressed levels in front.
    DataV2 {
        values: u32,
        rows: u32,
        nulls: u32,
        encoding: PageEncoding,
        definition_bytes: u32,
        repetition_bytes: u32,
        is_compressed: bool,
    },
    /// The values codes point into.
    Dictionary { values: u32, encoding: PageEncoding },
    /// Something to pass over.
    Other,
}

/// What a page header says of its page's place.
pub(crate) struct PageSize {
    /// Entries, if it is a dictionary.
    pub(crate) dictionary_entries: Option<u32>,
    pub(crate) header_bytes: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
}

/// The sizes of the page whose header `bytes` begin with; `None` if it is no page header. Nothing is checked against
/// the chunk.
pub(crate) fn page_size(bytes: &[u8]) -> Option<PageSize> {
    let raw = parse_header(bytes).ok()?;
    Some(PageSize {
        dictionary_entries: match raw.kind {
            Some(PageKind::Dictionary { values, .. }) => Some(values),
            _ => None,
        },
        header_bytes: raw.header_bytes as u64,
        compressed_bytes: u64::try_from(raw.compressed_bytes).ok()?,
        uncompressed_bytes: u64::try_from(raw.uncompressed_bytes).ok()?,
    })
}

/// How many values the dictionary page has whose header `bytes` begin with, and its bytes; `None` if it is no such
/// header.
pub(crate) fn dictionary_size(bytes: &[u8]) -> Option<(u32, u32)> {
    match parse_header(bytes).ok()? {
        RawHeader {
            page_type: 2,
            kind: Some(PageKind::Dictionary { values, .. }),
            uncompressed_bytes,
            ..
        } => Some((values, u32::try_from(uncompressed_bytes).ok()?)),
        _ => None,
    }
}

/// A page header, its sizes checked against the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Where the body begins in the file.
    pub(crate) body_offset: u64,
    pub(crate) compressed_bytes: u32,
    pub(crate) uncompressed_bytes: u32,
}

/// The parsed fields of a header; sizes as the file has them.
struct RawHeader {
    kind: Option<PageKind>,
    page_type: i32,
    compressed_bytes: i32,
    uncompressed_bytes: i32,
    header_bytes: usize,
}

fn count(value: Option<i32>, what: &'static str) -> Result<u32, ThriftError> {
    u32::try_from(value.ok_or(ThriftError::Malformed(what))?).map_err(|_| ThriftError::Malformed(what))
}

/// The numbers of a nested header structure by field id; `true` and `false` are 1 and 0.
fn numbers<const N: usize>(reader: &mut Reader<'_>) -> Result<[Option<i32>; N], ThriftError> {
    let mut fields = [None; N];
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        let slot = usize::try_from(id).ok().and_then(|id| fields.get_mut(id));
        match (kind, slot) {
            (Kind::I32, Some(slot)) => *slot = Some(reader.i32()?),
            (Kind::True, Some(slot)) => *slot = Some(1),
            (Kind::False, Some(slot)) => *slot = Some(0),
            (_, _) => reader.skip(kind)?,
        }
    }
    Ok(fields)
}

fn parse_header(bytes: &[u8]) -> Result<RawHeader, ThriftError> {
    let mut reader = Reader::new(bytes);
    let (mut page_type, mut uncompressed_bytes, mut compressed_bytes) = (None, None, None);
    let mut kind = None;
    let mut last = 0;
    let encoding = |e: Option<i32>| PageEncoding::from_thrift(e.unwrap_or(-1));
    while let Some((id, field_kind)) = reader.field(&mut last)? {
        match (id, field_kind) {
            (1, Kind::I32) => page_type = Some(reader.i32()?),
            (2, Kind::I32) => uncompressed_bytes = Some(reader.i32()?),
            (3, Kind::I32) => compressed_bytes = Some(reader.i32()?),
            (5, Kind::Struct) => {
                let fields = numbers::<5>(&mut reader)?;
                kind = Some(PageKind::Data {
                    values: count(fields[1], "number of values")?,
                    encoding: encoding(fields[2]),
                    definition_encoding: encoding(fields[3]),
                    repetition_encoding: encoding(fields[4]),
                });
            }
            (7, Kind::Struct) => {
                let fields = numbers::<4>(&mut reader)?;
                let values = count(fields[1], "number of dictionary values")?;
                // Old writers call the values of a dictionary dictionary-encoded; they are plain.
                let encoding = match encoding(fields[2]) {
                    PageEncoding::Dictionary => PageEncoding::Plain,
                    other => other,
                };
                kind = Some(PageKind::Dictionary { values, encoding });
            }
            (8, Kind::Struct) => {
                let fields = numbers::<8>(&mut reader)?;
                kind = Some(PageKind::DataV2 {
                    values: count(fields[1], "number of values")?,
                    nulls: count(fields[2], "number of nulls")?,
                    rows: count(fields[3], "number of rows")?,
                    encoding: encoding(fields[4]),
                    definition_bytes: count(fields[5], "length of definition levels")?,
                    repetition_bytes: count(fields[6], "length of repetition levels")?,
                    is_compressed: fields[7] != Some(0),
                });
            }
            (_, _) => reader.skip(field_kind)?,
        }
    }
    let missing = ThriftError::Malformed("a required field is missing");
    Ok(RawHeader {
        kind,
        page_type: page_type.ok_or(missing)?,
        compressed_bytes: compressed_bytes.ok_or(missing)?,
        uncompressed_bytes: uncompressed_bytes.ok_or(missing)?,
        header_bytes: reader.position(),
    })
}

/// Position in a column chunk, between pages.
#[derive(Debug)]
pub(crate) struct PageWalker {
    position: u64,
    end: u64,
    /// What the next page's body is likely to take, compressed.
    expected_bytes: u64,
}

impl PageWalker {
    /// At the first page of `chunk`.
    pub(crate) fn new(chunk: &Chunk<'_>) -> Self {
        let meta = chunk.meta();
        Self {
            position: meta.start,
            end: meta.start + meta.compressed_bytes,
            expected_bytes: FIRST_READ_BYTES,
        }
    }

    /// The header of the next page; `None` at the end of the chunk. `is_wanted` says the body will be read, so that
    /// header and body are fetched together.
    pub(crate) fn next(
        &mut self,
        chunk: &Chunk<'_>,
        io: &mut LaneIo,
        account: &Account,
        is_wanted: bool,
    ) -> Result<Option<PageHeader>> {
        let left = self.end - self.position;
        if left == 0 {
            return Ok(None);
        }
        let mut need = HEADER_GUESS_BYTES.min(left);
        let raw = loop {
            let want = if is_wanted { (need + self.expected_bytes).min(left) } else { need };
            let bytes = io.view(chunk, self.position, need as usize, want as usize, account)?;
            match parse_header(&bytes[..bytes.len().min(left as usize)]) {
                Ok(raw) => break raw,
                Err(ThriftError::Truncated) if need < left && need < LARGEST_HEADER_BYTES => {
                    need = (need * 8).max(bytes.len() as u64 + 1).min(left);
                }
                Err(ThriftError::Truncated) => {
                    return Err(chunk.damaged("a page header does not end inside the column chunk"));
                }
                Err(ThriftError::Malformed(what)) => {
                    return Err(chunk
                        .damaged(format!("the page header at byte {} is not valid: {what}", self.position)));
                }
            }
        };
        let header = self.check(&raw, chunk)?;
        self.position = header.body_offset + u64::from(header.compressed_bytes);
        self.expected_bytes = match header.kind {
            // Says nothing of the data pages behind it.
            PageKind::Dictionary { .. } => FIRST_READ_BYTES,
            // A little more, so that growing pages are still fetched in one read.
            PageKind::Data { .. } | PageKind::DataV2 { .. } | PageKind::Other => {
                u64::from(header.compressed_bytes) * 9 / 8
            }
        };
        Ok(Some(header))
    }

    /// Goes on with the page whose header lies at `position`, which is inside the chunk.
    pub(crate) fn seek(&mut self, position: u64) {
        debug_assert!(
            (self.position..=self.end).contains(&position),
            "walkers go forward, inside their chunk"
        );
        self.position = position;
    }

    /// Where the next page's header lies.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Invariant 1.
    fn check(&self, raw: &RawHeader, chunk: &Chunk<'_>) -> Result<PageHeader> {
        let body_offset = self.position + raw.header_bytes as u64;
        let left = self.end.saturating_sub(body_offset);
        let refuse = |what: &str, is: i32, most: u64| {
            let at = self.position;
            Err(chunk.damaged(format!("the page at byte {at} claims {is} {what} bytes, at most {most} fit")))
        };
        let compressed_bytes = match u32::try_from(raw.compressed_bytes) {
            Ok(bytes) if u64::from(bytes) <= left => bytes,
            _ => return refuse("compressed", raw.compressed_bytes, left),
        };
        let most = chunk.meta().uncompressed_bytes.saturating_add(SLACK_BYTES);
        let uncompressed_bytes = match u32::try_from(raw.uncompressed_bytes) {
            Ok(bytes) if u64::from(bytes) <= most => bytes,
            _ => return refuse("uncompressed", raw.uncompressed_bytes, most),
        };
        let kind = match (raw.page_type, raw.kind) {
            (0, Some(kind @ PageKind::Data { .. })) | (2, Some(kind @ PageKind::Dictionary { .. })) => kind,
            (3, Some(kind @ PageKind::DataV2 { definition_bytes, repetition_bytes, .. })) => {
                let levels = u64::from(definition_bytes) + u64::from(repetition_bytes);
                if levels > u64::from(compressed_bytes) || levels > u64::from(uncompressed_bytes) {
                    return Err(chunk.damaged("the levels of a page are longer than the page"));
                }
                kind
            }
            (0 | 2 | 3, _) => return Err(chunk.damaged("a page header lacks the part its type calls for")),
            (_, _) => PageKind::Other,
        };
        Ok(PageHeader { kind, body_offset, compressed_bytes, uncompressed_bytes })
    }
}

/// What a lane reads and decompresses with, shared by all its columns.
pub(crate) struct LaneIo {
    /// Bytes of a file from `window_start`; one window, because columns take their pages one after the other.
    window: Option<BufMut<u8>>,
    window_file: usize,
    window_start: u64,
    decompressor: Decompressor,
    /// Bytes read from files, for metrics.
    pub(crate) read_bytes: u64,
}

impl LaneIo {
    /// Nothing read yet.
    pub(crate) fn new() -> Self {
        Self {
            window: None,
            window_file: 0,
            window_start: 0,
            decompressor: Decompressor::new(),
            read_bytes: 0,
        }
    }

    /// Drops the read window.
    pub(crate) fn release(&mut self) -> usize {
        self.window.take().map_or(0, |w| w.allocated_bytes())
    }

    /// At least `need` bytes from `offset`, reading up to `want` if they are not at hand.
    fn view(
        &mut self,
        chunk: &Chunk<'_>,
        offset: u64,
        need: usize,
        want: usize,
        account: &Account,
    ) -> Result<&[u8]> {
        let file = chunk.file();
        let held = self.window.as_ref().map_or(0, |w| w.len()) as u64;
        let is_held = self.window_file == file.index
            && offset >= self.window_start
            && offset + need as u64 <= self.window_start + held;
        if !is_held {
            let want = want.max(need);
            let mut window = match self.window.take() {
                Some(window) if window.capacity() >= want => window,
                other => {
                    // The old one goes first, so that its bytes can serve the new one.
                    drop(other);
                    BufMut::with_capacity(account, want)
                        .or_else(|_| BufMut::with_capacity(account, need))
                        .map_err(|denied| too_small(denied, account, chunk))?
                }
            };
            window.set_len(want.min(window.capacity()));
            file.read.read_exact_at(offset, &mut window)?;
            self.read_bytes += window.len() as u64;
            (self.window_file, self.window_start) = (file.index, offset);
            self.window = Some(window);
        }
        let window = self.window.as_ref().expect("invariant: the window was just filled");
        Ok(&window[(offset - self.window_start) as usize..])
    }

    /// Reads and decompresses the body of a page into `recycled` or a new buffer.
    ///
    /// The buffer's length is the body's; [`PAD_BYTES`] more lie behind it.
    pub(crate) fn load(
        &mut self,
        chunk: &Chunk<'_>,
        header: &PageHeader,
        recycled: Option<BufMut<u8>>,
        account: &Account,
    ) -> Result<BufMut<u8>> {
        let body_bytes = header.uncompressed_bytes as usize;
        let mut page = match recycled {
            Some(page) if page.capacity() >= body_bytes + PAD_BYTES => page,
            other => {
                drop(other);
                BufMut::with_capacity(account, body_bytes + PAD_BYTES).or_else(|_| {
                    self.release();
                    BufMut::with_capacity(account, body_bytes + PAD_BYTES)
                        .map_err(|denied| too_small(denied, account, chunk))
                })?
            }
        };
        page.set_len(body_bytes);
        let compressed_bytes = header.compressed_bytes as usize;
        let codec = chunk.meta().codec;
        let (plain_bytes, codec) = match header.kind {
            PageKind::DataV2 { definition_bytes, repetition_bytes, is_compressed, .. } => {
                let codec = if is_compressed { codec } else { Codec::None };
                ((definition_bytes + repetition_bytes) as usize, codec)
            }
            PageKind::Data { .. } | PageKind::Dictionary { .. } | PageKind::Other => (0, codec),
        };
        let body = self.fetch(chunk, header.body_offset, compressed_bytes, account)?;
        let at = header.body_offset;
        let done = {
            page[..plain_bytes].copy_from_slice(&body.bytes[..plain_bytes]);
            let (from, to) = (&body.bytes[plain_bytes..compressed_bytes], &mut page[plain_bytes..]);
            if to.is_empty() { Ok(()) } else { body.decompressor.decompress(codec, from, to) }
        };
        done.map_err(|what: String| chunk.damaged(format!("the page at byte {at} cannot be read: {what}")))?;
        Ok(page)
    }

    fn fetch(
        &mut self,
        chunk: &Chunk<'_>,
        offset: u64,
        len: usize,
        account: &Account,
    ) -> Result<Fetched<'_>> {
        self.view(chunk, offset, len, len, account)?;
        let window: &[u8] = self.window.as_deref().unwrap_or_default();
        let start = (offset - self.window_start) as usize;
        Ok(Fetched { bytes: &window[start..start + len], decompressor: &mut self.decompressor })
    }
}

struct Fetched<'a> {
    bytes: &'a [u8],
    decompressor: &'a mut Decompressor,
}

/// The error of a page or dictionary that does not fit the memory there is.
pub(crate) fn too_small(denied: Denied, account: &Account, chunk: &Chunk<'_>) -> Error {
    let pool = account.pool();
    Error::memory(MemoryError::BudgetTooSmall {
        required_bytes: pool.granted_bytes().saturating_add(denied.bytes),
        limit_bytes: pool.limit_bytes(),
        operator: format!("a page of {}", chunk.origin()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 type, 2 uncompressed, 3 compressed, 5 data page header {1: values, 2: encoding, 3: levels}.
    const DATA: &[u8] = &[0x15, 0, 0x15, 40, 0x15, 20, 0x2c, 0x15, 10, 0x15, 16, 0x15, 6, 0x15, 6, 0, 0];

    #[test]
    fn a_data_page_header_is_read_whole_or_reported_truncated() {
        let raw = parse_header(DATA).expect("valid");
        assert_eq!((raw.uncompressed_bytes, raw.compressed_bytes, raw.header_bytes), (20, 10, DATA.len()));
        let expected = PageKind::Data {
            values: 5,
            encoding: PageEncoding::Dictionary,
            definition_encoding: PageEncoding::Rle,
            repetition_encoding: PageEncoding::Rle,
        };
        assert_eq!(raw.kind, Some(expected));
        for len in 0..DATA.len() {
            assert!(matches!(parse_header(&DATA[..len]), Err(ThriftError::Truncated)), "{len}");
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let _ = parse_header(&bytes);
        }
    }
}
