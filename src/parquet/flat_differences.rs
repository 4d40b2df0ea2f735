//! Rows of pages stored as differences or as split bytes, as values.
//!
//! Invariants:
//! 1. What is made of such a page beside its vector, the bytes of values longer than a view, is allocated from the
//!    lane's account, exactly as many as the rows wanted take.

use super::decode::{self, Delta, DeltaBytes, DeltaLength, Kernels, Short, Split, decimal_from_be};
use super::flat::{Flat, append, is_utf8};
use super::footer::{Decode, Stored};
use super::output::{Failure, Segment};
use super::page_values::Differences;
use crate::data::{Buf, BufMut, MAX_INLINE_BYTES, Plain, view_of};
use crate::mem::{Account, Denied};

/// A page, and what its bytes are decoded with.
#[derive(Clone, Copy)]
struct Source<'a> {
    page: &'a Buf<u8>,
    kernels: Kernels,
    decode: Decode,
    account: &'a Account,
}

const MISFIT: Short = Short("its encoding does not fit the column's type");

impl Flat {
    /// Appends the rows of a segment of `page`, whose padding it includes; passes over them in `values`.
    pub(super) fn append_differences(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        values: &mut Differences,
        decode: Decode,
        kernels: Kernels,
        account: &Account,
    ) -> Result<(), Failure> {
        let from = Source { page, kernels, decode, account };
        match values {
            Differences::Ints(delta) => Ok(self.append_delta(segment, from, delta)?),
            Differences::Lengths(stream) => match self {
                Self::View(out, buffers) if decode.stored == Stored::ByteArray => {
                    Ok(append_lengths(out, buffers, segment, from, stream)?)
                }
                _ => Err(MISFIT.into()),
            },
            Differences::Bytes(stream, value) => self.append_bytes(segment, from, stream, value),
            Differences::Split(split) => self.append_split(segment, from, split),
        }
    }

    fn append_delta(
        &mut self,
        segment: &Segment<'_>,
        from: Source<'_>,
        delta: &mut Delta,
    ) -> decode::Result<()> {
        macro_rules! ints {
            ($out:expr, $to:ty) => {
                append($out, segment, |positions, to| match positions {
                    None => delta.read(from.page, from.kernels, to, |v| v as $to),
                    Some(positions) => {
                        let convert = |v| v as $to;
                        delta.read_selected(from.page, from.kernels, segment.rows, positions, to, convert)
                    }
                })
            };
        }
        match (self, from.decode.stored) {
            (Self::I8(out), Stored::Int32) => ints!(out, i8),
            (Self::I16(out), Stored::Int32) => ints!(out, i16),
            (Self::I32(out), Stored::Int32) => ints!(out, i32),
            (Self::U8(out), Stored::Int32) => ints!(out, u8),
            (Self::U16(out), Stored::Int32) => ints!(out, u16),
            (Self::U32(out), Stored::Int32) => ints!(out, u32),
            (Self::I64(out), Stored::Int64) => ints!(out, i64),
            (Self::U64(out), Stored::Int64) => ints!(out, u64),
            // Only the lower half of a sum of 32-bit differences counts.
            (Self::I64(out), Stored::Int32) => append(out, segment, |positions, to| match positions {
                None => delta.read(from.page, from.kernels, to, |v| i64::from(v as i32)),
                Some(positions) => {
                    let convert = |v| i64::from(v as i32);
                    delta.read_selected(from.page, from.kernels, segment.rows, positions, to, convert)
                }
            }),
            (_, _) => Err(MISFIT),
        }
    }

    fn append_bytes(
        &mut self,
        segment: &Segment<'_>,
        from: Source<'_>,
        stream: &mut DeltaBytes,
        value: &mut BufMut<u8>,
    ) -> Result<(), Failure> {
        let width = match from.decode.stored {
            Stored::ByteArray => None,
            Stored::Fixed(width) => Some(width as usize),
            _ => return Err(MISFIT.into()),
        };
        match (self, width) {
            (Self::I64(out), Some(width)) => {
                append_fixed_bytes(out, segment, from, stream, value, width, |raw| {
                    decimal_from_be(raw) as i64
                })?;
            }
            (Self::I128(out), Some(width)) => {
                append_fixed_bytes(out, segment, from, stream, value, width, decimal_from_be)?;
            }
            (Self::View(out, buffers), width) => {
                append_byte_views(out, buffers, segment, from, stream, value, width)?;
            }
            (_, _) => return Err(MISFIT.into()),
        }
        Ok(())
    }

    fn append_split(
        &mut self,
        segment: &Segment<'_>,
        from: Source<'_>,
        split: &mut Split,
    ) -> Result<(), Failure> {
        let bytes = from.page;
        macro_rules! numbers {
            ($out:expr, $from:ty) => {
                append($out, segment, |positions, to| {
                    let convert = |raw| <$from>::from_le_bytes(raw) as _;
                    match positions {
                        None => split.read(bytes, to, convert),
                        Some(positions) => split.read_at(bytes, segment.rows, positions, to, convert),
                    }
                })?
            };
        }
        match (self, from.decode.stored) {
            (Self::I8(out), Stored::Int32) => numbers!(out, i32),
            (Self::I16(out), Stored::Int32) => numbers!(out, i32),
            (Self::I32(out), Stored::Int32) => numbers!(out, i32),
            (Self::I64(out), Stored::Int32) => numbers!(out, i32),
            (Self::U8(out), Stored::Int32) => numbers!(out, u32),
            (Self::U16(out), Stored::Int32) => numbers!(out, u32),
            (Self::U32(out), Stored::Int32) => numbers!(out, u32),
            (Self::I64(out), Stored::Int64) => numbers!(out, i64),
            (Self::U64(out), Stored::Int64) => numbers!(out, u64),
            (Self::F32(out), Stored::Float) => numbers!(out, f32),
            (Self::F64(out), Stored::Double) => numbers!(out, f64),
            (Self::I64(out), Stored::Fixed(_)) => {
                let (raw, width) = gathered(segment, from, split)?;
                append_gathered(out, segment, &raw, width, |raw, _| decimal_from_be(raw) as i64)?;
            }
            (Self::I128(out), Stored::Fixed(_)) => {
                let (raw, width) = gathered(segment, from, split)?;
                append_gathered(out, segment, &raw, width, |raw, _| decimal_from_be(raw))?;
            }
            (Self::View(out, buffers), Stored::Fixed(_)) => {
                let (raw, width) = gathered(segment, from, split)?;
                let buffer = buffers.len() as u32;
                append_gathered(out, segment, &raw, width, |raw, offset| {
                    view_of(raw, buffer, offset as u32)
                })?;
                if width > MAX_INLINE_BYTES {
                    buffers.push(raw.freeze());
                }
            }
            (_, _) => return Err(MISFIT.into()),
        }
        Ok(())
    }
}

/// The positions [`append`] asks for, and how many values that are.
fn wanted<'a>(segment: &Segment<'a>) -> (Option<&'a [u32]>, usize) {
    match (segment.validity, segment.positions) {
        (None, Some(positions)) => (Some(positions), positions.len()),
        (_, _) => (None, segment.dense),
    }
}

/// Offsets in buffers of long values are 32-bit numbers.
fn long_buffer(account: &Account, bytes: usize) -> Result<BufMut<u8>, Denied> {
    if bytes > u32::MAX as usize { Err(Denied { bytes }) } else { BufMut::with_len(account, bytes) }
}

fn check_text(value: &[u8], decode: Decode) -> decode::Result<()> {
    if decode.is_text && !is_utf8(value) {
        return Err(Short("a string is not valid UTF-8"));
    }
    Ok(())
}

/// The wanted values of a segment that are split, put together, and their width.
fn gathered(
    segment: &Segment<'_>,
    from: Source<'_>,
    split: &mut Split,
) -> Result<(BufMut<u8>, usize), Failure> {
    let (positions, values) = wanted(segment);
    let width = split.width();
    let mut raw = long_buffer(from.account, values.saturating_mul(width))?;
    split.gather(from.page, segment.dense, positions, &mut raw)?;
    Ok((raw, width))
}

fn append_gathered<T: Plain>(
    out: &mut BufMut<T>,
    segment: &Segment<'_>,
    raw: &[u8],
    width: usize,
    convert: impl Fn(&[u8], usize) -> T,
) -> decode::Result<()> {
    append(out, segment, |_, to| {
        for (i, (to, raw)) in to.iter_mut().zip(raw.chunks_exact(width)).enumerate() {
            *to = convert(raw, i * width);
        }
        Ok(())
    })
}

fn append_lengths(
    out: &mut BufMut<u128>,
    buffers: &mut Vec<Buf<u8>>,
    segment: &Segment<'_>,
    from: Source<'_>,
    stream: &mut DeltaLength,
) -> decode::Result<()> {
    let buffer = buffers.len() as u32;
    let mut has_long = false;
    append(out, segment, |positions, to| {
        let mut wanted = positions.into_iter().flatten();
        let mut next = wanted.next();
        let mut to = to.iter_mut();
        stream.for_each(from.page, from.kernels, segment.dense, |i, offset, value| {
            if positions.is_some() {
                if next.is_none_or(|&p| p as usize != i) {
                    return Ok(());
                }
                next = wanted.next();
            }
            check_text(value, from.decode)?;
            has_long |= value.len() > MAX_INLINE_BYTES;
            if let Some(to) = to.next() {
                *to = view_of(value, buffer, offset as u32);
            }
            Ok(())
        })
    })?;
    if has_long {
        buffers.push(from.page.clone());
    }
    Ok(())
}

/// Gives the wanted ones of the segment's values, in order.
fn for_each_wanted(
    segment: &Segment<'_>,
    from: Source<'_>,
    stream: &mut DeltaBytes,
    value: &mut BufMut<u8>,
    mut f: impl FnMut(&[u8]) -> decode::Result<()>,
) -> decode::Result<()> {
    let (positions, _) = wanted(segment);
    let mut positions = positions.map(|p| p.iter().peekable());
    stream.for_each(from.page, from.kernels, value, segment.dense, |i, value| {
        let is_wanted = positions.as_mut().is_none_or(|p| p.next_if(|p| **p as usize == i).is_some());
        if is_wanted { f(value) } else { Ok(()) }
    })
}

fn append_fixed_bytes<T: Plain>(
    out: &mut BufMut<T>,
    segment: &Segment<'_>,
    from: Source<'_>,
    stream: &mut DeltaBytes,
    value: &mut BufMut<u8>,
    width: usize,
    convert: impl Fn(&[u8]) -> T,
) -> decode::Result<()> {
    append(out, segment, |_, to| {
        let mut to = to.iter_mut();
        for_each_wanted(segment, from, stream, value, |raw| {
            if raw.len() != width {
                return Err(Short("a value is not as long as its type says"));
            }
            if let Some(to) = to.next() {
                *to = convert(raw);
            }
            Ok(())
        })
    })
}

fn append_byte_views(
    out: &mut BufMut<u128>,
    buffers: &mut Vec<Buf<u8>>,
    segment: &Segment<'_>,
    from: Source<'_>,
    stream: &mut DeltaBytes,
    value: &mut BufMut<u8>,
    width: Option<usize>,
) -> Result<(), Failure> {
    let mut long_bytes = 0usize;
    let mut positions = wanted(segment).0.map(|p| p.iter().peekable());
    stream.for_each_len(from.page, from.kernels, segment.dense, |i, len| {
        let is_wanted = positions.as_mut().is_none_or(|p| p.next_if(|p| **p as usize == i).is_some());
        if is_wanted && len > MAX_INLINE_BYTES {
            long_bytes = long_bytes.saturating_add(len);
        }
    })?;
    let mut long = long_buffer(from.account, long_bytes)?;
    let buffer = buffers.len() as u32;
    let mut at = 0;
    append(out, segment, |_, to| {
        let mut to = to.iter_mut();
        for_each_wanted(segment, from, stream, value, |raw| {
            if width.is_some_and(|width| width != raw.len()) {
                return Err(Short("a value is not as long as its type says"));
            }
            check_text(raw, from.decode)?;
            if let Some(to) = to.next() {
                *to = view_of(raw, buffer, at as u32);
            }
            if raw.len() > MAX_INLINE_BYTES {
                let place = long.get_mut(at..at + raw.len());
                place.ok_or(Short("a page's lengths do not agree"))?.copy_from_slice(raw);
                at += raw.len();
            }
            Ok(())
        })
    })?;
    if long_bytes > 0 {
        buffers.push(long.freeze());
    }
    Ok(())
}
