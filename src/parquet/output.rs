//! Values of a column being decoded, page segment by page segment, into one vector.
//!
//! Owns: [`Output`], [`Segment`].
//!
//! Invariants:
//! 1. Codes that are kept are inside their dictionary, also at null positions.
//! 2. A column that is dictionary-encoded throughout yields codes; once a page is not, all rows become flat.

use super::decode::{Hybrid, Kernels, Short};
use super::flat::{Flat, append};
use super::footer::{Decode, Stored};
use super::page_values::Differences;
use crate::data::{
    Bitmap, BitmapMut, Bounds, Buf, BufMut, DataType, Dictionary, FlatVector, PhysicalType, Scalar, Values,
    Vector,
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
    pub(super) fn out_rows(&self) -> usize {
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

    /// Appends rows stored as differences or as split bytes.
    pub(crate) fn append_differences(
        &mut self,
        segment: &Segment<'_>,
        page: &Buf<u8>,
        values: &mut Differences,
        kernels: Kernels,
        account: &Account,
    ) -> Result<(), Failure> {
        let decode = self.decode;
        self.flat(account)?.append_differences(segment, page, values, decode, kernels, account)?;
        Ok(self.append_validity(segment, account)?)
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

/// Definition levels of one bit, the first in a byte's highest, as validity; `None` if nothing is null. `levels` has a
/// bit for each row.
pub(crate) fn unpack_validity(
    levels: &[u8],
    rows: usize,
    account: &Account,
) -> Result<Option<Bitmap>, Failure> {
    let mut bits = BitmapMut::with_len(account, rows)?;
    let mut valid = 0;
    let words = bits.words_mut().iter_mut().zip(levels.chunks(8));
    for (at, (word, levels)) in words.enumerate() {
        *word = levels
            .iter()
            .enumerate()
            .fold(0, |word, (i, level)| word | u64::from(level.reverse_bits()) << (i * 8));
        let rows = (rows - at * 64).min(64);
        // What lies behind the last row is no row.
        *word &= u64::MAX >> (64 - rows);
        valid += word.count_ones() as usize;
    }
    Ok((valid < rows).then(|| bits.freeze()))
}
