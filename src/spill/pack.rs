//! Messages with their columns packed: integers less their least value in as few bytes as hold them, strings without
//! what their lengths tell.
//!
//! A view takes 16 bytes and most integers 8, where the rows of a block need two or three of them. Leaving the rest out
//! makes of typical rows what LZ4 makes of them, at a tenth of its cost in either direction.
//!
//! A packed message begins with the message's metadata as it is. Then follow the buffers of each column in order, but
//! the bytes of long strings before the views into them:
//! - integers: the width of a code, the least value, and of each value how much it is above that;
//! - views: a mark, lengths as integers, the bytes of short strings one after the other. Where long strings lie is left
//!   out: they follow each other. Views of which that is not true are kept as they are;
//! - anything else: as it is.
//!
//! Invariants:
//! 1. What is unpacked is the message that was packed, but for padding, which is zero.
//! 2. Both directions take the places of buffers from the metadata, and check them: packed bytes that do not fit it are
//!    refused and not read.

use crate::data::{MAX_INLINE_BYTES, PhysicalType};
use std::ops::Range;

/// Before a message's metadata: a mark and the metadata's length.
pub(super) const PREFIX_BYTES: usize = 8;
/// The width of 128-bit integers that are kept as they are.
const WHOLE: u8 = 16;
/// Marks of views: kept as they are, or told by lengths.
const RAW_VIEWS: u8 = 0;
const LENGTHS: u8 = 1;

/// Where the metadata of a message ends and its body begins.
pub(super) fn body_at(message: &[u8]) -> Option<usize> {
    let length = message.get(4..PREFIX_BYTES)?.try_into().ok().map(u32::from_le_bytes)?;
    PREFIX_BYTES.checked_add(length as usize)
}

/// One or more buffers of a message, by their places in it.
enum Part {
    Bytes(Range<usize>),
    /// Integers of so many bytes.
    Integers(Range<usize>, usize),
    Views {
        views: Range<usize>,
        /// Bytes of long strings.
        data: Vec<Range<usize>>,
    },
}

/// The body's buffers in the order in which they are packed, and all of them in the order in which they lie; `None` if
/// there are columns that are not packed.
fn parts(message: &[u8], physical: &[PhysicalType]) -> Option<(Vec<Part>, Vec<Range<usize>>)> {
    let body_at = body_at(message)?;
    let metadata = arrow::ipc::root_as_message(message.get(PREFIX_BYTES..body_at)?).ok()?;
    let header = metadata.header_as_record_batch()?;
    let place = |buffer: &arrow::ipc::Buffer| {
        let start = body_at.checked_add(usize::try_from(buffer.offset()).ok()?)?;
        let end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
        (end <= message.len()).then_some(start..end)
    };
    let places = header.buffers()?.iter().map(place).collect::<Option<Vec<_>>>()?;
    let mut next = places.iter().cloned();
    let mut data_counts = header.variadicBufferCounts().into_iter().flatten();
    let mut parts = Vec::with_capacity(2 * physical.len());
    for physical in physical {
        parts.push(Part::Bytes(next.next()?));
        let values = next.next()?;
        let width = match physical {
            PhysicalType::Nested => return None,
            PhysicalType::View => {
                let count = usize::try_from(data_counts.next()?).ok()?;
                let data: Vec<Range<usize>> = next.by_ref().take(count).collect();
                if data.len() < count || !values.len().is_multiple_of(size_of::<u128>()) {
                    return None;
                }
                parts.extend(data.iter().cloned().map(Part::Bytes));
                parts.push(Part::Views { views: values, data });
                continue;
            }
            PhysicalType::Bool
            | PhysicalType::I8
            | PhysicalType::U8
            | PhysicalType::F32
            | PhysicalType::F64 => 1,
            PhysicalType::I16 | PhysicalType::U16 => 2,
            PhysicalType::I32 | PhysicalType::U32 => 4,
            PhysicalType::I64 | PhysicalType::U64 => 8,
            PhysicalType::I128 => 16,
        };
        let is_whole = values.len().is_multiple_of(width);
        parts.push(if width > 1 && is_whole { Part::Integers(values, width) } else { Part::Bytes(values) });
    }
    Some((parts, places))
}

/// Packs a message of such columns into `to`. The bytes it takes; `None` if they do not fit, or if there are columns
/// that are not packed.
pub(super) fn pack(message: &[u8], physical: &[PhysicalType], to: &mut [u8]) -> Option<usize> {
    let (parts, _) = parts(message, physical)?;
    let mut packer = Packer { to, at: 0 };
    packer.put(&message[..body_at(message)?])?;
    for part in &parts {
        match part {
            Part::Bytes(range) => packer.put(&message[range.clone()])?,
            Part::Integers(range, width) => packer.integers(&message[range.clone()], *width)?,
            Part::Views { views, data } => packer.views(&message[views.clone()], data)?,
        }
    }
    Some(packer.at)
}

/// Fills `message` with what was packed; `None` if that is no packed message of such columns and this length.
pub(super) fn unpack(packed: &[u8], physical: &[PhysicalType], message: &mut [u8]) -> Option<()> {
    let mut unpacker = Unpacker { rest: packed };
    let body_at = body_at(packed)?;
    message.get_mut(..body_at)?.copy_from_slice(unpacker.take(body_at)?);
    let (parts, places) = parts(message, physical)?;
    let mut end = body_at;
    for place in places {
        message.get_mut(end..place.start)?.fill(0);
        end = place.end;
    }
    message.get_mut(end..)?.fill(0);
    for part in parts {
        match part {
            Part::Bytes(range) => {
                let bytes = unpacker.take(range.len())?;
                message[range].copy_from_slice(bytes);
            }
            Part::Integers(range, width) => unpacker.integers(&mut message[range], width)?,
            Part::Views { views, data } => unpacker.views(message, views, &data)?,
        }
    }
    unpacker.rest.is_empty().then_some(())
}

/// Where long strings lie that follow each other: each behind the one before, or at the beginning of the next buffer
/// that has room for it.
struct Places<'a> {
    data: &'a [Range<usize>],
    buffer: usize,
    offset: usize,
}

impl<'a> Places<'a> {
    fn new(data: &'a [Range<usize>]) -> Self {
        Self { data, buffer: 0, offset: 0 }
    }

    /// Buffer and offset of the next string, of `len` bytes.
    fn next(&mut self, len: usize) -> Option<(usize, usize)> {
        while self.offset + len > self.data.get(self.buffer)?.len() {
            self.buffer += 1;
            self.offset = 0;
        }
        let place = (self.buffer, self.offset);
        self.offset += len;
        Some(place)
    }
}

/// A view's length.
fn len_of(view: &[u8; 16]) -> u32 {
    u32::from_le_bytes([view[0], view[1], view[2], view[3]])
}

struct Packer<'a> {
    to: &'a mut [u8],
    at: usize,
}

impl Packer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let room = self.to.get_mut(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(room)
    }

    fn integers(&mut self, bytes: &[u8], width: usize) -> Option<()> {
        match width {
            2 => self.frame(bytes.as_chunks().0.iter().map(|v| i16::from_le_bytes(*v).into())),
            4 => self.frame(bytes.as_chunks().0.iter().map(|v| i32::from_le_bytes(*v).into())),
            8 => self.frame(bytes.as_chunks().0.iter().map(|v| i64::from_le_bytes(*v))),
            _ => {
                let values = bytes.as_chunks().0.iter().map(|v| i128::from_le_bytes(*v));
                if values.clone().all(|value| i64::try_from(value).is_ok()) {
                    return self.frame(values.map(|value| value as i64));
                }
                self.put(&[WHOLE])?;
                self.put(bytes)
            }
        }
    }

    /// The values less the least of them.
    fn frame(&mut self, values: impl ExactSizeIterator<Item = i64> + Clone) -> Option<()> {
        let extremes = |(least, greatest): (i64, i64), value: i64| (least.min(value), greatest.max(value));
        let first = values.clone().next().unwrap_or_default();
        let (least, greatest) = values.clone().fold((first, first), extremes);
        let codes = values.map(|value| value.wrapping_sub(least) as u64);
        let count = codes.len();
        let width = match greatest.wrapping_sub(least) as u64 {
            0 => 0,
            1..=0xFF => 1,
            0x100..=0xFFFF => 2,
            0x1_0000..=0xFFFF_FFFF => 4,
            0x1_0000_0000.. => 8,
        };
        self.put(&[width])?;
        self.put(&least.to_le_bytes())?;
        let room = self.room(count * usize::from(width))?;
        match width {
            0 => {}
            1 => room.iter_mut().zip(codes).for_each(|(to, code)| *to = code as u8),
            2 => put_codes(room, codes, |code| (code as u16).to_le_bytes()),
            4 => put_codes(room, codes, |code| (code as u32).to_le_bytes()),
            _ => put_codes(room, codes, u64::to_le_bytes),
        }
        Some(())
    }

    fn views(&mut self, bytes: &[u8], data: &[Range<usize>]) -> Option<()> {
        let (views, _) = bytes.as_chunks::<16>();
        let mut places = Places::new(data);
        let follow = views.iter().filter(|view| len_of(view) as usize > MAX_INLINE_BYTES).all(|view| {
            let place = u64::from_le_bytes([
                view[8], view[9], view[10], view[11], view[12], view[13], view[14], view[15],
            ]);
            places.next(len_of(view) as usize) == Some((place as u32 as usize, (place >> 32) as usize))
        });
        if !follow {
            self.put(&[RAW_VIEWS])?;
            return self.put(bytes);
        }
        self.put(&[LENGTHS])?;
        self.frame(views.iter().map(|view| len_of(view).into()))?;
        // Copied whole, whatever their lengths: what is too much is overwritten by the next one.
        for view in views {
            let len = len_of(view) as usize;
            if len <= MAX_INLINE_BYTES {
                let short: &mut [u8; MAX_INLINE_BYTES] = self.to.get_mut(self.at..)?.first_chunk_mut()?;
                short.copy_from_slice(&view[4..]);
                self.at += len;
            }
        }
        self.put(&[0; MAX_INLINE_BYTES])
    }
}

fn put_codes<const N: usize>(
    room: &mut [u8],
    codes: impl Iterator<Item = u64>,
    bytes_of: impl Fn(u64) -> [u8; N],
) {
    for (to, code) in room.as_chunks_mut().0.iter_mut().zip(codes) {
        *to = bytes_of(code);
    }
}

struct Unpacker<'a> {
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn integers(&mut self, to: &mut [u8], width: usize) -> Option<()> {
        match width {
            2 => self.frame(to.as_chunks_mut().0, |value| (value as i16).to_le_bytes()),
            4 => self.frame(to.as_chunks_mut().0, |value| (value as i32).to_le_bytes()),
            8 => self.frame(to.as_chunks_mut().0, i64::to_le_bytes),
            _ if self.rest.first() == Some(&WHOLE) => {
                self.take(1)?;
                to.copy_from_slice(self.take(to.len())?);
                Some(())
            }
            _ => self.frame(to.as_chunks_mut().0, |value| i128::from(value).to_le_bytes()),
        }
    }

    fn frame<const N: usize>(&mut self, to: &mut [[u8; N]], bytes_of: impl Fn(i64) -> [u8; N]) -> Option<()> {
        let width = *self.take(1)?.first()?;
        let least = i64::from_le_bytes(*self.take(8)?.first_chunk()?);
        let codes = self.take(to.len() * usize::from(width))?;
        let value = |code: u64| bytes_of(least.wrapping_add(code as i64));
        match width {
            0 => to.fill(value(0)),
            1 => to.iter_mut().zip(codes).for_each(|(to, code)| *to = value((*code).into())),
            2 => take_codes(to, codes, |code| value(u16::from_le_bytes(code).into())),
            4 => take_codes(to, codes, |code| value(u32::from_le_bytes(code).into())),
            8 => take_codes(to, codes, |code| value(u64::from_le_bytes(code))),
            _ => return None,
        }
        Some(())
    }

    fn views(&mut self, message: &mut [u8], range: Range<usize>, data: &[Range<usize>]) -> Option<()> {
        let data_at = range.end;
        let (before, behind) = message.split_at_mut(data_at);
        let bytes = &mut before[range];
        match *self.take(1)?.first()? {
            RAW_VIEWS => {
                bytes.copy_from_slice(self.take(bytes.len())?);
                return Some(());
            }
            LENGTHS => {}
            _ => return None,
        }
        let (views, _) = bytes.as_chunks_mut::<16>();
        self.frame(views, |len| u128::from(len as u32).to_le_bytes())?;
        let mut places = Places::new(data);
        for view in views {
            let len = len_of(view) as usize;
            if len <= MAX_INLINE_BYTES {
                let short: &[u8; MAX_INLINE_BYTES] = self.rest.first_chunk()?;
                let mut bytes = [0; 16];
                bytes[4..].copy_from_slice(short);
                let kept = u128::from_le_bytes(bytes) & (u128::MAX >> (8 * (MAX_INLINE_BYTES - len)));
                *view = (kept | len as u128).to_le_bytes();
                self.rest = &self.rest[len..];
            } else {
                let (buffer, offset) = places.next(len)?;
                let start = (data[buffer].start + offset).checked_sub(data_at)?;
                view[4..8].copy_from_slice(behind.get(start..start + 4)?);
                view[8..12].copy_from_slice(&(buffer as u32).to_le_bytes());
                view[12..].copy_from_slice(&(offset as u32).to_le_bytes());
            }
        }
        self.take(MAX_INLINE_BYTES).map(|_| ())
    }
}

fn take_codes<const N: usize, const M: usize>(
    to: &mut [[u8; N]],
    codes: &[u8],
    bytes_of: impl Fn([u8; M]) -> [u8; N],
) {
    for (to, code) in to.iter_mut().zip(codes.as_chunks().0) {
        *to = bytes_of(*code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, BinaryViewBuilder, Decimal128Array, Int32Array, Int64Array, RecordBatch};
    use arrow::ipc::writer::StreamEncoder;
    use std::sync::Arc;

    const PHYSICAL: [PhysicalType; 5] =
        [PhysicalType::I64, PhysicalType::I32, PhysicalType::I128, PhysicalType::I128, PhysicalType::View];

    fn message(integers: &[i64], strings: &[&[u8]]) -> Vec<u8> {
        let mut views = BinaryViewBuilder::new().with_fixed_block_size(128);
        strings.iter().for_each(|string| views.append_value(string));
        let wide = |value: i64| i128::from(value) << (value & 64);
        let arrays: [ArrayRef; 5] = [
            Arc::new(Int64Array::from(integers.to_vec())),
            Arc::new(integers.iter().map(|v| (v % 3 != 0).then_some(*v as i32)).collect::<Int32Array>()),
            Arc::new(integers.iter().map(|v| Some((*v).into())).collect::<Decimal128Array>()),
            Arc::new(integers.iter().map(|v| Some(wide(*v))).collect::<Decimal128Array>()),
            Arc::new(views.finish()),
        ];
        let names = ["a", "b", "c", "d", "e"];
        let batch = RecordBatch::try_from_iter(names.into_iter().zip(arrays)).expect("five columns");
        let mut encoder = StreamEncoder::try_new(&batch.schema()).expect("plain types");
        encoder.encode(&RecordBatch::new_empty(batch.schema())).expect("a schema");
        encoder.encode(&batch).expect("a batch").iter().flat_map(|buffer| buffer.to_vec()).collect()
    }

    #[test]
    fn messages_come_back_and_what_is_cut_off_does_not() {
        let texts: Vec<String> = (0..97).map(|i| "text".repeat(i % 9) + &i.to_string()).collect();
        let strings: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        for scale in [0, 1, 300, 70_000, 5_000_000_000, i64::MAX / 48] {
            let integers: Vec<i64> = (0..97).map(|i| (i - 48) * scale).collect();
            let message = message(&integers, &strings);
            let mut packed = vec![0xAA; 2 * message.len()];
            let len = pack(&message, &PHYSICAL, &mut packed).expect("room");
            assert!(len < message.len(), "{len} of {} bytes", message.len());
            let mut again = vec![0xAA; message.len()];
            unpack(&packed[..len], &PHYSICAL, &mut again).expect("packed so");
            assert_eq!(again, message);
            assert_eq!(pack(&message, &PHYSICAL, &mut packed[..len - 1]), None, "no room");
            for cut in 0..len {
                assert_eq!(unpack(&packed[..cut], &PHYSICAL, &mut again), None, "cut off at {cut}");
            }
        }
    }

    #[test]
    fn views_that_do_not_follow_each_other_come_back() {
        let long: Vec<Vec<u8>> = (0..20u8).map(|i| vec![b'a' + i; 10 + usize::from(i)]).collect();
        let strings: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
        let mut message = message(&[7; 20], &strings);
        let (parts, _) = parts(&message, &PHYSICAL).expect("a message");
        let Some(Part::Views { views, .. }) = parts.into_iter().last() else {
            panic!("the strings come last")
        };
        // Two that lie in the same buffer change places.
        message[views].as_chunks_mut::<16>().0.swap(5, 6);
        let mut packed = vec![0; 2 * message.len()];
        let len = pack(&message, &PHYSICAL, &mut packed).expect("room");
        let mut again = vec![0xAA; message.len()];
        unpack(&packed[..len], &PHYSICAL, &mut again).expect("packed so");
        assert_eq!(again, message);
    }
}
