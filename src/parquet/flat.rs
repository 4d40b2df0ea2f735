//! One value per row: the vector a column becomes where its pages are not dictionary codes.
//!
//! Owns: [`Flat`], and how the dense values of a segment are spread over its rows ([`append`]).
//!
//! Invariants:
//! 1. Views point into buffers the output holds, and are UTF-8 where the column is text.
//!
//! Must not know: files, chunks, dictionaries beyond their values.

use super::decode;
use super::decode::Short;
use super::footer::{Decode, Stored};
use super::output::{Segment, bit};
use crate::data::{
    BitmapMut, Buf, BufMut, FlatVector, MAX_INLINE_BYTES, PhysicalType, Plain, StringViews, Values, view_len,
    view_of,
};
use crate::mem::{Account, Denied};

/// Appends the rows of `segment`. `decode` fills a slice with the segment's dense values, or with those at positions.
pub(super) fn append<T: Plain>(
    out: &mut BufMut<T>,
    segment: &Segment<'_>,
    decode: impl FnOnce(Option<&[u32]>, &mut [T]) -> decode::Result<()>,
) -> decode::Result<()> {
    let base = out.len();
    let Some((words, first)) = segment.validity else {
        out.set_len(base + segment.out_rows());
        return decode(segment.positions, &mut out[base..]);
    };
    // Dense values are decoded to the front, spread out from the back, and then picked from.
    out.set_len(base + segment.rows);
    let rows = &mut out[base..];
    decode(None, &mut rows[..segment.dense])?;
    let mut next = segment.dense;
    for row in (0..rows.len()).rev() {
        rows[row] = if bit(words, first + row) {
            next -= 1;
            rows[next]
        } else {
            T::default()
        };
    }
    if let Some(positions) = segment.positions {
        for (to, &from) in positions.iter().enumerate() {
            rows[to] = rows[from as usize];
        }
        out.set_len(base + positions.len());
    }
    Ok(())
}

fn append_fixed<T: Plain, const W: usize>(
    out: &mut BufMut<T>,
    segment: &Segment<'_>,
    bytes: &[u8],
    at: usize,
    convert: impl Fn([u8; W]) -> T,
) -> decode::Result<usize> {
    append(out, segment, |positions, to| match positions {
        None => decode::fixed(bytes, at, to, convert),
        Some(positions) => decode::fixed_at(bytes, at, segment.rows, positions, to, convert),
    })?;
    Ok(at + segment.dense * W)
}

/// As [`append_fixed`] for widths only known at run time.
fn append_slices<T: Plain>(
    out: &mut BufMut<T>,
    segment: &Segment<'_>,
    bytes: &[u8],
    at: usize,
    width: usize,
    convert: impl Fn(&[u8], usize) -> T,
) -> decode::Result<usize> {
    let len = segment.dense * width;
    let from = at.checked_add(len).and_then(|end| bytes.get(at..end));
    let from = from.ok_or(Short("a page ends before its last value"))?;
    let value = |i: usize| convert(&from[i * width..][..width], at + i * width);
    append(out, segment, |positions, to| {
        match positions {
            None => to.iter_mut().enumerate().for_each(|(i, to)| *to = value(i)),
            Some(positions) => {
                to.iter_mut().zip(positions).for_each(|(to, &p)| *to = value(p as usize));
            }
        }
        Ok(())
    })?;
    Ok(at + len)
}

/// One value per row.
pub(super) enum Flat {
    /// Zeros and ones, packed at the end.
    Bool(BufMut<u8>),
    I8(BufMut<i8>),
    I16(BufMut<i16>),
    I32(BufMut<i32>),
    I64(BufMut<i64>),
    I128(BufMut<i128>),
    U8(BufMut<u8>),
    U16(BufMut<u16>),
    U32(BufMut<u32>),
    U64(BufMut<u64>),
    F32(BufMut<f32>),
    F64(BufMut<f64>),
    View(BufMut<u128>, Vec<Buf<u8>>),
}

impl Flat {
    pub(super) fn new(target: PhysicalType, capacity: usize, account: &Account) -> Result<Self, Denied> {
        Ok(match target {
            PhysicalType::Bool => Self::Bool(BufMut::with_capacity(account, capacity)?),
            PhysicalType::I8 => Self::I8(BufMut::with_capacity(account, capacity)?),
            PhysicalType::I16 => Self::I16(BufMut::with_capacity(account, capacity)?),
            PhysicalType::I32 => Self::I32(BufMut::with_capacity(account, capacity)?),
            PhysicalType::I64 => Self::I64(BufMut::with_capacity(account, capacity)?),
            PhysicalType::I128 => Self::I128(BufMut::with_capacity(account, capacity)?),
            PhysicalType::U8 => Self::U8(BufMut::with_capacity(account, capacity)?),
            PhysicalType::U16 => Self::U16(BufMut::with_capacity(account, capacity)?),
            PhysicalType::U32 => Self::U32(BufMut::with_capacity(account, capacity)?),
            PhysicalType::U64 => Self::U64(BufMut::with_capacity(account, capacity)?),
            PhysicalType::F32 => Self::F32(BufMut::with_capacity(account, capacity)?),
            PhysicalType::F64 => Self::F64(BufMut::with_capacity(account, capacity)?),
            PhysicalType::View | PhysicalType::Nested => {
                Self::View(BufMut::with_capacity(account, capacity)?, Vec::new())
            }
        })
    }

    /// Appends PLAIN values of a segment from offset `at` of `page`, whose body is `len` bytes long; returns where the
    /// next value begins.
    pub(super) fn append_plain(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        len: usize,
        at: usize,
        decode: Decode,
    ) -> decode::Result<usize> {
        let bytes = &page[..len];
        macro_rules! ints {
            ($out:expr, $from:ty) => {
                append_fixed($out, segment, bytes, at, |b| <$from>::from_le_bytes(b) as _)
            };
        }
        match (self, decode.stored) {
            (Self::Bool(out), Stored::Boolean) => {
                append(out, segment, |positions, to| match positions {
                    None => decode::bits(bytes, at, to),
                    Some(positions) => decode::bits_at(bytes, at, segment.rows, positions, to),
                })?;
                Ok(at + segment.dense)
            }
            (Self::I8(out), Stored::Int32) => ints!(out, i32),
            (Self::I16(out), Stored::Int32) => ints!(out, i32),
            (Self::I32(out), Stored::Int32) => ints!(out, i32),
            (Self::I64(out), Stored::Int32) => ints!(out, i32),
            (Self::U8(out), Stored::Int32) => ints!(out, u32),
            (Self::U16(out), Stored::Int32) => ints!(out, u32),
            (Self::U32(out), Stored::Int32) => ints!(out, u32),
            (Self::I64(out), Stored::Int64) => ints!(out, i64),
            (Self::U64(out), Stored::Int64) => ints!(out, u64),
            (Self::F32(out), Stored::Float) => append_fixed(out, segment, bytes, at, f32::from_le_bytes),
            (Self::F64(out), Stored::Double) => append_fixed(out, segment, bytes, at, f64::from_le_bytes),
            (Self::I64(out), Stored::Fixed(width)) => {
                append_slices(out, segment, bytes, at, width as usize, |raw, _| {
                    decode::decimal_from_be(raw) as i64
                })
            }
            (Self::I128(out), Stored::Fixed(width)) => {
                append_slices(out, segment, bytes, at, width as usize, |raw, _| decode::decimal_from_be(raw))
            }
            (Self::View(out, buffers), Stored::Fixed(width)) => {
                let buffer = buffers.len() as u32;
                let next = append_slices(out, segment, bytes, at, width as usize, |raw, offset| {
                    view_of(raw, buffer, offset as u32)
                })?;
                if width as usize > MAX_INLINE_BYTES {
                    buffers.push(page.clone());
                }
                Ok(next)
            }
            (Self::View(out, buffers), Stored::ByteArray) => {
                append_views(out, buffers, segment, page, len, at, decode.is_text)
            }
            (_, _) => Err(Short("its stored type does not fit the column's")),
        }
    }

    /// Appends the dictionary's values at `codes`, which are inside it.
    pub(super) fn append_dictionary(&mut self, codes: &[u32], dictionary: &FlatVector) -> decode::Result<()> {
        macro_rules! gather {
            ($out:expr, $values:expr) => {{
                let (base, values) = ($out.len(), $values);
                $out.set_len(base + codes.len());
                for (to, &code) in $out[base..].iter_mut().zip(codes) {
                    // Only the codes of nulls can be missing: from an empty dictionary.
                    *to = values.get(code as usize).copied().unwrap_or_default();
                }
            }};
        }
        match (self, &dictionary.values) {
            (Self::Bool(out), Values::Bool(bits)) => {
                codes.iter().for_each(|&c| out.push(u8::from(bits.get(c as usize))));
            }
            (Self::I8(out), Values::I8(values)) => gather!(out, values),
            (Self::I16(out), Values::I16(values)) => gather!(out, values),
            (Self::I32(out), Values::I32(values)) => gather!(out, values),
            (Self::I64(out), Values::I64(values)) => gather!(out, values),
            (Self::I128(out), Values::I128(values)) => gather!(out, values),
            (Self::U8(out), Values::U8(values)) => gather!(out, values),
            (Self::U16(out), Values::U16(values)) => gather!(out, values),
            (Self::U32(out), Values::U32(values)) => gather!(out, values),
            (Self::U64(out), Values::U64(values)) => gather!(out, values),
            (Self::F32(out), Values::F32(values)) => gather!(out, values),
            (Self::F64(out), Values::F64(values)) => gather!(out, values),
            (Self::View(out, buffers), Values::View(strings)) => {
                let (base, first_buffer) = (out.len(), buffers.len());
                gather!(out, &strings.views);
                if first_buffer > 0 {
                    for view in out[base..].iter_mut().filter(|v| view_len(**v) > MAX_INLINE_BYTES) {
                        *view += (first_buffer as u128) << 64;
                    }
                }
                buffers.extend(strings.buffers.iter().cloned());
            }
            (_, _) => return Err(Short("its dictionary is of another type")),
        }
        Ok(())
    }

    pub(super) fn freeze(self, account: &Account) -> Result<Values, Denied> {
        Ok(match self {
            Self::Bool(bytes) => {
                let mut bits = BitmapMut::with_len(account, bytes.len())?;
                bits.fill_from(|i| bytes[i] & 1 == 1);
                Values::Bool(bits.freeze())
            }
            Self::I8(v) => Values::I8(v.freeze()),
            Self::I16(v) => Values::I16(v.freeze()),
            Self::I32(v) => Values::I32(v.freeze()),
            Self::I64(v) => Values::I64(v.freeze()),
            Self::I128(v) => Values::I128(v.freeze()),
            Self::U8(v) => Values::U8(v.freeze()),
            Self::U16(v) => Values::U16(v.freeze()),
            Self::U32(v) => Values::U32(v.freeze()),
            Self::U64(v) => Values::U64(v.freeze()),
            Self::F32(v) => Values::F32(v.freeze()),
            Self::F64(v) => Values::F64(v.freeze()),
            Self::View(views, buffers) => {
                Values::View(StringViews { views: views.freeze(), buffers: buffers.into() })
            }
        })
    }
}

/// Whether a value is text. Most is ASCII, which is told sooner.
#[inline]
pub(super) fn is_utf8(value: &[u8]) -> bool {
    value.is_ascii() || std::str::from_utf8(value).is_ok()
}

fn append_views(
    out: &mut BufMut<u128>,
    buffers: &mut Vec<Buf<u8>>,
    segment: &Segment<'_>,
    page: &Buf<u8>,
    len: usize,
    at: usize,
    is_text: bool,
) -> decode::Result<usize> {
    let bytes = &page[..len];
    let buffer = buffers.len() as u32;
    let (mut has_long, mut next) = (false, at);
    let mut view = |offset: usize, value: &[u8]| {
        if is_text && !is_utf8(value) {
            return Err(Short("a string is not valid UTF-8"));
        }
        has_long |= value.len() > MAX_INLINE_BYTES;
        Ok(view_of(value, buffer, offset as u32))
    };
    append(out, segment, |positions, to| {
        next = match positions {
            None => decode::for_each_bytes(bytes, at, segment.dense, |i, offset, value| {
                to[i] = view(offset, value)?;
                Ok(())
            })?,
            Some(positions) => {
                let mut wanted = positions.iter().zip(to.iter_mut()).peekable();
                decode::for_each_bytes(bytes, at, segment.rows, |i, offset, value| {
                    if let Some((_, to)) = wanted.next_if(|(p, _)| **p as usize == i) {
                        *to = view(offset, value)?;
                    }
                    Ok(())
                })?
            }
        };
        Ok(())
    })?;
    if has_long {
        buffers.push(page.clone());
    }
    Ok(next)
}
