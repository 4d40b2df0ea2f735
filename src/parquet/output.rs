//! Values of a column being decoded, page segment by page segment, into one vector.
//!
//! Owns: [`Output`], [`Segment`].
//!
//! Invariants:
//! 1. Codes that are kept are inside their dictionary, also at null positions.
//! 2. Views point into buffers the output holds, and are UTF-8 where the column is text.
//! 3. A column that is dictionary-encoded throughout yields codes; once a page is not, all rows become flat.

use super::decode::{self, Hybrid, Kernels, Short};
use super::footer::{Decode, Stored};
use crate::data::{
    Bitmap, BitmapMut, Bounds, Buf, BufMut, DataType, Dictionary, FlatVector, MAX_INLINE_BYTES, PhysicalType,
    Plain, Scalar, StringViews, Values, Vector, view_len, view_of,
};
use crate::mem::{Account, Denied};
use std::sync::Arc;

/// Some of the rows of one page.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    /// Rows passed over, selected or not.
    pub(crate) rows: usize,
    /// Those of them that are not null.
    pub(crate) dense: usize,
    /// The page's validity, and the bit of the segment's first row; `None` if nothing in the segment is null.
    pub(crate) validity: Option<(&'a [u64], usize)>,
    /// The rows wanted, from 0; `None` for all.
    pub(crate) positions: Option<&'a [u32]>,
}

impl Segment<'_> {
    fn out_rows(&self) -> usize {
        self.positions.map_or(self.rows, <[u32]>::len)
    }
}

/// Why a segment could not be decoded.
pub(crate) enum Failure {
    /// The page is damaged.
    Data(Short),
    /// The memory is not there.
    Memory(Denied),
}

impl From<Short> for Failure {
    fn from(short: Short) -> Self {
        Self::Data(short)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Memory(denied)
    }
}

#[inline]
pub(crate) fn bit(words: &[u64], index: usize) -> bool {
    words[index / 64] >> (index % 64) & 1 == 1
}

/// Appends the rows of `segment`. `decode` fills a slice with the segment's dense values, or with those at positions.
fn append<T: Plain>(
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
enum Flat {
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
    fn new(target: PhysicalType, capacity: usize, account: &Account) -> Result<Self, Denied> {
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
    fn append_plain(
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
    fn append_dictionary(&mut self, codes: &[u32], dictionary: &FlatVector) -> decode::Result<()> {
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

    fn freeze(self, account: &Account) -> Result<Values, Denied> {
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
        if is_text && std::str::from_utf8(value).is_err() {
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

enum State {
    Empty,
    Codes(BufMut<u32>, Arc<Dictionary>),
    Flat(Flat),
}

/// A vector in the making.
pub(crate) struct Output {
    decode: Decode,
    capacity: usize,
    state: State,
    rows: usize,
    validity: Option<BitmapMut>,
}

impl Output {
    /// Room for what is decoded from `rows` rows, of which `selected` are wanted.
    pub(crate) fn new(decode: Decode, rows: usize, selected: Option<usize>) -> Self {
        // Nullable segments are spread out before they are picked from.
        let capacity = match selected {
            Some(selected) if !decode.is_nullable => selected,
            _ => rows,
        };
        Self { decode, capacity, state: State::Empty, rows: 0, validity: None }
    }

    fn append_validity(&mut self, segment: &Segment<'_>, account: &Account) -> Result<(), Denied> {
        let out_rows = segment.out_rows();
        if let Some((words, first)) = segment.validity {
            let bits = match &mut self.validity {
                Some(bits) => bits,
                none => none.insert(BitmapMut::ones(account, self.capacity)?),
            };
            for i in 0..out_rows {
                let row = segment.positions.map_or(i, |p| p[i] as usize);
                bits.set(self.rows + i, bit(words, first + row));
            }
        }
        self.rows += out_rows;
        Ok(())
    }

    /// Appends dictionary-encoded rows.
    pub(crate) fn append_codes(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        stream: &mut Hybrid,
        dictionary: &Arc<Dictionary>,
        kernels: Kernels,
        account: &Account,
    ) -> Result<(), Failure> {
        if let State::Empty = self.state {
            let codes = BufMut::with_capacity(account, self.capacity)?;
            self.state = State::Codes(codes, Arc::clone(dictionary));
        }
        let mut decode_into = |codes: &mut BufMut<u32>| {
            append(codes, segment, |positions, to| {
                let most = match positions {
                    None => stream.read(page, kernels, to)?,
                    Some(positions) => stream.read_selected(page, segment.rows, positions, to)?,
                };
                // Nothing decoded has no largest code.
                if to.is_empty() || (most as usize) < dictionary.len() {
                    Ok(())
                } else {
                    Err(Short("a code lies past the end of its dictionary"))
                }
            })
        };
        match &mut self.state {
            State::Codes(codes, _) => decode_into(codes)?,
            State::Flat(flat) => {
                let mut codes = BufMut::with_capacity(account, segment.rows)?;
                decode_into(&mut codes)?;
                flat.append_dictionary(&codes, dictionary.values())?;
            }
            State::Empty => {}
        }
        Ok(self.append_validity(segment, account)?)
    }

    /// The flat output, after turning codes there may be into values.
    fn flat(&mut self, account: &Account) -> Result<&mut Flat, Failure> {
        if !matches!(self.state, State::Flat(_)) {
            let mut flat = Flat::new(self.decode.target, self.capacity, account)?;
            if let State::Codes(codes, dictionary) = &self.state {
                flat.append_dictionary(codes, dictionary.values())?;
            }
            self.state = State::Flat(flat);
        }
        match &mut self.state {
            State::Flat(flat) => Ok(flat),
            State::Empty | State::Codes(..) => Err(Failure::Data(Short("its pages are mixed up"))),
        }
    }

    /// Appends PLAIN rows from offset `at`; returns where the next value begins.
    pub(crate) fn append_plain(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        len: usize,
        at: usize,
        account: &Account,
    ) -> Result<usize, Failure> {
        let decode = self.decode;
        let next = self.flat(account)?.append_plain(segment, page, len, at, decode)?;
        self.append_validity(segment, account)?;
        Ok(next)
    }

    /// Appends RLE-encoded booleans.
    pub(crate) fn append_rle(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        stream: &mut Hybrid,
        kernels: Kernels,
        account: &Account,
    ) -> Result<(), Failure> {
        let mut levels = BufMut::with_capacity(account, segment.rows)?;
        append(&mut levels, segment, |positions, to| {
            match positions {
                None => stream.read(page, kernels, to)?,
                Some(positions) => stream.read_selected(page, segment.rows, positions, to)?,
            };
            Ok(())
        })?;
        let Flat::Bool(out) = self.flat(account)? else {
            return Err(Short("RLE values are booleans, but the column is not").into());
        };
        levels.iter().for_each(|&level| out.push(u8::from(level != 0)));
        Ok(self.append_validity(segment, account)?)
    }

    /// The vector of everything appended.
    pub(crate) fn finish(
        self,
        data_type: &DataType,
        bounds: Option<Bounds>,
        account: &Account,
    ) -> Result<Vector, Denied> {
        let rows = self.rows;
        let validity = match self.validity {
            Some(bits) if bits.len() != rows => Some(bits.freeze().slice(0, rows, account)?),
            Some(bits) => Some(bits.freeze()),
            None => None,
        };
        Ok(match self.state {
            State::Codes(_, dictionary) if dictionary.len() == 0 => {
                Vector::Constant { value: Scalar::null(data_type.clone()), len: rows }
            }
            State::Codes(codes, dictionary) => Vector::Dict { codes: codes.freeze(), validity, dictionary },
            State::Flat(flat) => Vector::Flat(FlatVector { values: flat.freeze(account)?, validity, bounds }),
            State::Empty => Vector::Constant { value: Scalar::null(data_type.clone()), len: rows },
        })
    }
}

/// The values of a dictionary page.
pub(crate) fn dictionary_values(
    page: &Buf<u8>,
    len: usize,
    count: usize,
    decode: Decode,
    bounds: Option<Bounds>,
    account: &Account,
) -> Result<FlatVector, Failure> {
    let width = match decode.stored {
        Stored::Int32 | Stored::Float => 4,
        Stored::Int64 | Stored::Double => 8,
        // Every value takes at least its length prefix, so a lying count allocates no more than the page.
        Stored::ByteArray => 4,
        Stored::Fixed(width) => width as usize,
        Stored::Boolean => return Err(Short("booleans have no dictionary").into()),
    };
    if count.checked_mul(width).is_none_or(|bytes| bytes > len) {
        return Err(Short("a dictionary page is too short for its values").into());
    }
    const { assert!(cfg!(target_endian = "little"), "plain values are little-endian in memory") };
    // The page itself is the vector where the layouts agree.
    let shared = match (decode.stored, decode.target) {
        (Stored::Int32, PhysicalType::I32) => page.cast(count).map(Values::I32),
        (Stored::Int32, PhysicalType::U32) => page.cast(count).map(Values::U32),
        (Stored::Int64, PhysicalType::I64) => page.cast(count).map(Values::I64),
        (Stored::Int64, PhysicalType::U64) => page.cast(count).map(Values::U64),
        (Stored::Float, PhysicalType::F32) => page.cast(count).map(Values::F32),
        (Stored::Double, PhysicalType::F64) => page.cast(count).map(Values::F64),
        (_, _) => None,
    };
    let values = match shared {
        Some(values) => values,
        None => {
            let mut flat = Flat::new(decode.target, count, account)?;
            let segment = Segment { rows: count, dense: count, validity: None, positions: None };
            flat.append_plain(&segment, page, len, 0, decode)?;
            flat.freeze(account)?
        }
    };
    Ok(FlatVector { values, validity: None, bounds })
}

/// Definition levels of a page as validity; `None` if nothing is null.
pub(crate) fn read_validity(
    levels: &mut Hybrid,
    page: &[u8],
    rows: usize,
    kernels: Kernels,
    account: &Account,
) -> Result<Option<Bitmap>, Failure> {
    if levels.repeats(page, rows)? == Some(1) {
        return Ok(None);
    }
    let mut bits = BitmapMut::with_len(account, rows)?;
    let mut chunk = [0; 512];
    let mut valid = 0;
    for (at, words) in bits.words_mut().chunks_mut(8).enumerate() {
        let levels_here = &mut chunk[..(rows - at * 512).min(512)];
        if levels.read(page, kernels, levels_here)? > 1 {
            return Err(Short("a definition level lies above the column's maximum").into());
        }
        for (word, levels) in words.iter_mut().zip(levels_here.chunks(64)) {
            *word = levels.iter().enumerate().fold(0, |word, (i, &level)| word | u64::from(level) << i);
            valid += word.count_ones() as usize;
        }
    }
    Ok((valid < rows).then(|| bits.freeze()))
}
