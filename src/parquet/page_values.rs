//! A page in memory: where its levels and values begin, and how its values are read on.
//!
//! Owns: [`Loaded`], [`PageValues`], [`Differences`].
//!
//! Invariants:
//! 1. Levels and values lie inside the page's body, or the page is damaged.
//! 2. `at` rows have been read or skipped, and the values of as many of them as are not null.

use super::column::LaneState;
use super::decode::{Delta, DeltaBytes, DeltaLength, Hybrid, Kernels, Short, Split, for_each_bytes};
use super::file::Chunk;
use super::footer::{Decode, Stored};
use super::output::{Failure, Segment, bit, read_validity, unpack_validity};
use super::page::{PageEncoding, PageHeader, PageKind, too_small};
use crate::data::{Bitmap, Buf, BufMut};
use crate::error::{Error, Result};

/// How the values of a loaded page are read on.
pub(super) enum PageValues {
    Codes(Hybrid),
    Rle(Hybrid),
    /// Offset of the next value; for booleans, the index of the next bit.
    Plain(usize),
    Differences(Differences),
}

/// Values stored as differences to the ones before, or with their bytes apart.
pub(super) enum Differences {
    Ints(Delta),
    Lengths(DeltaLength),
    /// With room for the longest value, which holds the one before the next.
    Bytes(Box<DeltaBytes>, BufMut<u8>),
    Split(Split),
}

/// A page whose body is in memory.
pub(super) struct Loaded {
    /// The body and its padding.
    pub(super) bytes: Buf<u8>,
    /// Bytes of the body.
    pub(super) len: usize,
    validity: Option<Bitmap>,
    pub(super) values: PageValues,
    /// Rows read or skipped.
    pub(super) at: usize,
}

#[allow(clippy::needless_pass_by_value, reason = "the shape `map_err` calls")]
pub(super) fn failed(failure: Failure, chunk: &Chunk<'_>, lane: &LaneState<'_>) -> Error {
    match failure {
        Failure::Data(Short(what)) => chunk.damaged(what),
        Failure::Memory(denied) => too_small(denied, lane.account, chunk),
    }
}

/// The little-endian length at `at`.
fn prefix(body: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*body.get(at..)?.first_chunk::<4>()?) as usize)
}

impl Loaded {
    /// Finds levels and values of `rows` rows in a page's body, the first `len` of `bytes`.
    pub(super) fn open(
        header: &PageHeader,
        bytes: Buf<u8>,
        len: usize,
        rows: usize,
        decode: Decode,
        chunk: &Chunk<'_>,
        lane: &LaneState<'_>,
    ) -> Result<Self> {
        let (validity, start, encoding) = levels(header, &bytes, len, rows, decode, lane)
            .map_err(|failure| failed(failure, chunk, lane))?;
        let values = values(encoding, &bytes, start, len, decode, lane);
        let Some(values) = values.map_err(|failure| failed(failure, chunk, lane))? else {
            let what = format!("a page is encoded as {encoding:?}, which its column's type cannot be");
            return Err(chunk.damaged(what));
        };
        Ok(Self { bytes, len, validity, values, at: 0 })
    }

    /// How many of `rows` rows from the next one are not null.
    fn dense(&self, rows: usize) -> usize {
        let Some(bits) = &self.validity else { return rows };
        let words = bits.words();
        let (end, mut at, mut count) = (self.at + rows, self.at, 0);
        while at < end {
            if at.is_multiple_of(64) && end - at >= 64 {
                count += words[at / 64].count_ones() as usize;
                at += 64;
            } else {
                count += usize::from(bit(words, at));
                at += 1;
            }
        }
        count
    }

    /// The next `rows` rows, or those of them at `positions`; what their values are, and the page's bytes.
    pub(super) fn segment<'a>(
        &'a mut self,
        rows: usize,
        positions: Option<&'a [u32]>,
    ) -> (Segment<'a>, &'a mut PageValues, &'a Buf<u8>) {
        let dense = self.dense(rows);
        let validity = match &self.validity {
            Some(bits) if dense < rows => Some((bits.words(), self.at)),
            Some(_) | None => None,
        };
        (Segment { rows, dense, validity, positions }, &mut self.values, &self.bytes)
    }

    /// Passes over the next `rows` rows.
    pub(super) fn skip(&mut self, rows: usize, decode: Decode, kernels: Kernels) -> Result<(), Short> {
        if rows == 0 {
            return Ok(());
        }
        let dense = self.dense(rows);
        let bytes = &self.bytes;
        match (&mut self.values, decode.stored) {
            (PageValues::Codes(stream) | PageValues::Rle(stream), _) => stream.skip(bytes, dense)?,
            (PageValues::Plain(at), Stored::ByteArray) => {
                *at = for_each_bytes(&bytes[..self.len], *at, dense, |_, _, _| Ok(()))?;
            }
            (PageValues::Plain(at), Stored::Boolean) => *at += dense,
            (PageValues::Plain(at), Stored::Int32 | Stored::Float) => *at += dense * 4,
            (PageValues::Plain(at), Stored::Int64 | Stored::Double) => *at += dense * 8,
            (PageValues::Plain(at), Stored::Fixed(width)) => *at += dense * width as usize,
            (PageValues::Differences(values), _) => match values {
                Differences::Ints(delta) => delta.skip(bytes, kernels, dense)?,
                Differences::Lengths(stream) => stream.skip(bytes, kernels, dense)?,
                Differences::Bytes(stream, value) => stream.skip(bytes, kernels, value, dense)?,
                Differences::Split(split) => split.skip(dense)?,
            },
        }
        self.at += rows;
        Ok(())
    }
}

/// Which rows are not null, where the values begin, and how they are encoded.
fn levels(
    header: &PageHeader,
    bytes: &Buf<u8>,
    len: usize,
    rows: usize,
    decode: Decode,
    lane: &LaneState<'_>,
) -> Result<(Option<Bitmap>, usize, PageEncoding), Failure> {
    const LONGER: Short = Short("the levels of a page are longer than the page");
    let (levels, start, encoding) = match header.kind {
        PageKind::Data { encoding, .. } if !decode.is_nullable => (None, 0, encoding),
        PageKind::Data { encoding, definition_encoding: PageEncoding::BitPacked, .. } => {
            let level_bytes = rows.div_ceil(8);
            let levels = bytes[..len].get(..level_bytes).ok_or(LONGER)?;
            return Ok((unpack_validity(levels, rows, lane.account)?, level_bytes, encoding));
        }
        PageKind::Data { encoding, definition_encoding: PageEncoding::Rle, .. } => {
            let level_bytes = prefix(&bytes[..len], 0).ok_or(Short("a page has no levels"))?;
            (Some(4..4 + level_bytes), 4 + level_bytes, encoding)
        }
        PageKind::Data { .. } => {
            return Err(Short("the levels of a page are encoded in a way there is not").into());
        }
        PageKind::DataV2 { encoding, definition_bytes, repetition_bytes, .. } => {
            let first = repetition_bytes as usize;
            let end = first + definition_bytes as usize;
            (decode.is_nullable.then_some(first..end), end, encoding)
        }
        PageKind::Dictionary { .. } | PageKind::Other => {
            return Err(Short("a page without rows was opened").into());
        }
    };
    if start > len {
        return Err(LONGER.into());
    }
    let validity = match levels {
        Some(range) => read_validity(&mut Hybrid::new(1, range)?, bytes, rows, lane.kernels, lane.account)?,
        None => None,
    };
    Ok((validity, start, encoding))
}

/// The values from `start` on; `None` if there are none of that encoding and type.
fn values(
    encoding: PageEncoding,
    bytes: &Buf<u8>,
    start: usize,
    len: usize,
    decode: Decode,
    lane: &LaneState<'_>,
) -> Result<Option<PageValues>, Failure> {
    let body = start..len;
    let differences = match (encoding, decode.stored) {
        (PageEncoding::Plain, Stored::Boolean) => return Ok(Some(PageValues::Plain(start * 8))),
        (PageEncoding::Plain, _) => return Ok(Some(PageValues::Plain(start))),
        (PageEncoding::Dictionary, _) => {
            // A page of nulls may have no values, not even their width.
            let (width, first) = if start < len { (bytes[start].into(), start + 1) } else { (0, len) };
            return Ok(Some(PageValues::Codes(Hybrid::new(width, first..len)?)));
        }
        (PageEncoding::Rle, Stored::Boolean) => {
            let stream = prefix(&bytes[..len], start).unwrap_or(0);
            let first = (start + 4).min(len);
            let end = first.saturating_add(stream).min(len);
            return Ok(Some(PageValues::Rle(Hybrid::new(1, first..end)?)));
        }
        (PageEncoding::DeltaBinary, Stored::Int32 | Stored::Int64) => {
            Differences::Ints(Delta::new(bytes, body)?)
        }
        (PageEncoding::DeltaLength, Stored::ByteArray) => {
            Differences::Lengths(DeltaLength::new(bytes, body)?)
        }
        (PageEncoding::DeltaBytes, Stored::ByteArray | Stored::Fixed(_)) => {
            let stream = DeltaBytes::new(bytes, body)?;
            let longest = stream.longest(bytes, lane.kernels)?;
            Differences::Bytes(Box::new(stream), BufMut::with_len(lane.account, longest)?)
        }
        (PageEncoding::ByteStreamSplit, Stored::Int32 | Stored::Float) => {
            Differences::Split(Split::new(4, body)?)
        }
        (PageEncoding::ByteStreamSplit, Stored::Int64 | Stored::Double) => {
            Differences::Split(Split::new(8, body)?)
        }
        (PageEncoding::ByteStreamSplit, Stored::Fixed(width)) => {
            Differences::Split(Split::new(width as usize, body)?)
        }
        (_, _) => return Ok(None),
    };
    Ok(Some(PageValues::Differences(differences)))
}
