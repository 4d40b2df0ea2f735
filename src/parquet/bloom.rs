//! Split-block Bloom filters of column chunks (Parquet format, `BloomFilter.md`).
//!
//! Owns: [`BloomFilter`], [`may_pass`].
//!
//! Invariants:
//! 1. A filter is never loaded: asking for a value reads its header and one block of 32 bytes.
//! 2. It is a hint: what cannot be read or is of another kind may have any value.
//!
//! Must not know: plans, lanes.

use super::footer::{ChunkMeta, Decode, Stored};
use super::thrift::{Kind, Reader, ThriftError};
use crate::data::{DataType, PhysicalType, Scalar, Value};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::io::ReadAt;
use twox_hash::XxHash64;

/// Enough for any filter's header.
const HEADER_BYTES: u64 = 64;
const BLOCK_BYTES: u64 = 32;
/// One odd number for each word of a block (`BloomFilter.md`, "Technical Approach").
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A chunk's filter, its header read.
pub(super) struct BloomFilter<'a> {
    read: &'a dyn ReadAt,
    decode: Decode,
    data_type: &'a DataType,
    /// Offset of its first block.
    start: u64,
    blocks: u64,
}

impl<'a> BloomFilter<'a> {
    /// That of `chunk`, whose values are of `data_type`.
    pub(super) fn open(
        read: &'a dyn ReadAt,
        chunk: &ChunkMeta,
        decode: Decode,
        data_type: &'a DataType,
    ) -> Option<Self> {
        if chunk.bloom_filter_at == 0 {
            return None;
        }
        let mut header = [0; HEADER_BYTES as usize];
        let left = read.len().checked_sub(chunk.bloom_filter_at)?;
        let header = &mut header[..HEADER_BYTES.min(left) as usize];
        read.read_exact_at(chunk.bloom_filter_at, header).ok()?;
        let (filter_bytes, header_bytes) = parse_header(header).ok()?;
        let start = chunk.bloom_filter_at + header_bytes as u64;
        let is_whole = filter_bytes > 0 && filter_bytes % BLOCK_BYTES == 0;
        let is_inside = start.checked_add(filter_bytes)? <= read.len();
        (is_whole && is_inside).then_some(Self {
            read,
            decode,
            data_type,
            start,
            blocks: filter_bytes / BLOCK_BYTES,
        })
    }

    /// Whether the chunk may have `value`.
    pub(super) fn may_have(&self, value: &Scalar) -> bool {
        let Some(hash) = hash_of(value, self.decode, self.data_type) else { return true };
        // The upper half picks the block, the lower one a bit of each of its words.
        let block = (hash >> 32).wrapping_mul(self.blocks) >> 32;
        let mut bytes = [0; BLOCK_BYTES as usize];
        if self.read.read_exact_at(self.start + block * BLOCK_BYTES, &mut bytes).is_err() {
            return true;
        }
        bytes.as_chunks::<4>().0.iter().zip(SALT).all(|(word, salt)| {
            let bit = (hash as u32).wrapping_mul(salt) >> 27;
            u32::from_le_bytes(*word) >> bit & 1 == 1
        })
    }
}

/// Bytes of the filter and of the header before it.
fn parse_header(bytes: &[u8]) -> Result<(u64, usize), ThriftError> {
    let mut reader = Reader::new(bytes);
    let mut last = 0;
    let mut filter_bytes = None;
    // Algorithm, hash and compression are unions, of which the first member is the one that is defined.
    let mut is_known = [false; 3];
    while let Some((id, kind)) = reader.field(&mut last)? {
        match (id, kind) {
            (1, Kind::I32) => filter_bytes = u64::try_from(reader.i32()?).ok(),
            (2..=4, Kind::Struct) => {
                let mut member = 0;
                while let Some((which, kind)) = reader.field(&mut member)? {
                    is_known[id as usize - 2] = which == 1;
                    reader.skip(kind)?;
                }
            }
            (_, _) => reader.skip(kind)?,
        }
    }
    match filter_bytes {
        Some(bytes) if is_known == [true; 3] => Ok((bytes, reader.position())),
        _ => Err(ThriftError::Malformed("a Bloom filter of an unknown kind")),
    }
}

/// The hash of a value as the file stores it; `None` if values that are equal may be stored differently.
fn hash_of(value: &Scalar, decode: Decode, data_type: &DataType) -> Option<u64> {
    let is_same_type = match (data_type, &value.data_type) {
        (DataType::Decimal { scale, .. }, DataType::Decimal { scale: other, .. }) => scale == other,
        (a, b) => a == b,
    };
    if !is_same_type {
        return None;
    }
    let hash = |bytes: &[u8]| Some(XxHash64::oneshot(0, bytes));
    match (decode.stored, &value.value) {
        // Unsigned values are stored as the bits they have.
        (Stored::Int32, Value::Int(value)) => hash(&(*value as i32).to_le_bytes()),
        (Stored::Int64, Value::Int(value)) => hash(&(*value as i64).to_le_bytes()),
        (Stored::Fixed(len), Value::Int(value)) if decode.target != PhysicalType::View => {
            hash(value.to_be_bytes().get(size_of::<i128>().checked_sub(len as usize)?..)?)
        }
        (Stored::ByteArray | Stored::Fixed(_), Value::Utf8(_) | Value::Binary(_)) => hash(value.as_bytes()?),
        // Zeros have two signs; a boolean's filter tells less than its statistics.
        (_, _) => None,
    }
}

/// Whether `filter` may be true of a row, where `may_have` tells whether a column may have a value.
pub(super) fn may_pass(filter: &Expr, may_have: &mut dyn FnMut(ColumnId, &Scalar) -> bool) -> bool {
    match filter {
        Expr::And(list) => list.iter().all(|e| may_pass(e, may_have)),
        Expr::Or(list) => list.iter().any(|e| may_pass(e, may_have)),
        Expr::Compare { op: CompareOp::Eq | CompareOp::IsNotDistinct, left, right } => {
            match (&**left, &**right) {
                (Expr::Column { id, .. }, Expr::Literal(value))
                | (Expr::Literal(value), Expr::Column { id, .. }) => value.is_null() || may_have(*id, value),
                (_, _) => true,
            }
        }
        Expr::InList { operand, list } => match &**operand {
            Expr::Column { id, .. } => list.iter().any(|value| !value.is_null() && may_have(*id, value)),
            _ => true,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_other_kinds_and_damaged_ones_are_refused() {
        // {1: 64 bytes, 2: {1: {}}, 3: {1: {}}, 4: {1: {}}}
        let header = [0x15, 0x80, 0x01, 0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0];
        assert_eq!(parse_header(&header), Ok((64, header.len())));
        for len in 0..header.len() {
            assert!(parse_header(&header[..len]).is_err(), "{len}");
        }
        let mut other = header;
        other[8] = 0x2c;
        assert!(parse_header(&other).is_err(), "another hash");
    }
}
