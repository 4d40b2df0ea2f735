//! Batches as Arrow record batches of their physical types, and back without copying.
//!
//! Invariants:
//! 1. A block holds rows in the representation they had when written: 64-bit decimals come back 64 bits wide.
//!    Dictionaries and constants are written out, and strings bring only the bytes their rows need (up to an eighth
//!    more, where that saves a copy).
//! 2. A decoded batch points into the message; its slab stays charged while a part of it lives.

use super::checksum::{Checksum, STRIPE_BYTES};
use super::index::{BlockEntry, Encoding};
use super::pack;
use crate::data::{
    Batch, Bitmap, Buf, BufMut, DataType, FlatVector, MAX_INLINE_BYTES, PhysicalType, Plain, SHARED_BYTES,
    StringViews, Values, Vector, view_inline, view_len, view_of,
};
use crate::error::{Error, Origin, Result};
use crate::mem::{Account, Denied};
use arrow::array::{self as arrays, Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{self as arrow_types, ArrowNativeType, SchemaRef};
use arrow::ipc::reader::RecordBatchDecoder;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a block's trailer.
pub(super) const TRAILER_BYTES: usize = STRIPE_BYTES;

const MAGIC: u64 = u64::from_le_bytes(*b"GRSTSPL2");

/// How the columns of a block lie in it.
#[derive(Debug)]
pub(super) struct BlockSchema {
    pub(super) physical: Box<[PhysicalType]>,
    pub(super) arrow: SchemaRef,
}

/// What a block says about itself, behind its message; `checksum` covers the message as stored. The trailer's own last word is
/// the checksum of message and trailer.
pub(super) fn trailer(entry: &BlockEntry, mut checksum: Checksum) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    let words = [
        MAGIC ^ entry.encoding as u64,
        u64::from(entry.partition) | u64::from(entry.rows) << 32,
        u64::from(entry.schema) | u64::from(entry.segment) << 32,
        entry.message_bytes,
        entry.stored_bytes,
        entry.offset,
    ];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    checksum.update(&bytes);
    bytes[TRAILER_BYTES - 8..].copy_from_slice(&checksum.finish().to_le_bytes());
    bytes
}

/// The error for a block, or what is known of it, at `offset`.
pub(super) fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    let message = format!(
        "damaged spill block at offset {offset}: {what}; the disk returned other bytes than were written"
    );
    Error::data(message, Origin { file: path.to_owned(), row_group: None, column: None })
}

/// About how many bytes the rows alive take as a block, metadata aside; never much less than they do.
pub(super) fn estimated_bytes(batch: &Batch) -> usize {
    let rows = batch.rows();
    let alive = batch.selection().map(crate::data::Selection::indices);
    let of_values = |values: &Values, codes: Option<&[u32]>| match values {
        Values::View(strings) => rows * 16 + long_bytes(&strings.views, codes, alive),
        Values::Nested(array) => {
            (array.get_array_memory_size() as u128 * rows as u128 / array.len().max(1) as u128) as usize
        }
        Values::Bool(_) => rows / 8,
        Values::I8(_) | Values::U8(_) => rows,
        Values::I16(_) | Values::U16(_) => rows * 2,
        Values::I32(_) | Values::U32(_) | Values::F32(_) => rows * 4,
        Values::I64(_) | Values::U64(_) | Values::F64(_) => rows * 8,
        Values::I128(_) => rows * 16,
    };
    let of_column = |column: &Vector| match column {
        Vector::Flat(flat) => of_values(&flat.values, None) + rows / 8,
        // All rows share the bytes of a constant string.
        Vector::Constant { value, .. } => {
            rows * value.data_type.value_bytes() + value.as_bytes().map_or(0, <[u8]>::len)
        }
        Vector::Dict { codes, dictionary, .. } => {
            of_values(&dictionary.values().values, Some(codes)) + rows / 8
        }
    };
    batch.columns().iter().map(of_column).sum()
}

/// Bytes of the strings that do not fit their views.
fn long_bytes(views: &[u128], codes: Option<&[u32]>, alive: Option<&[u32]>) -> usize {
    let long = |view: u128| if view_len(view) > MAX_INLINE_BYTES { view_len(view) } else { 0 };
    match (codes, alive) {
        (None, None) => views.iter().map(|v| long(*v)).sum(),
        (None, Some(alive)) => alive.iter().map(|&i| long(views[i as usize])).sum(),
        (Some(codes), None) => codes.iter().map(|&c| long(views[c as usize])).sum(),
        (Some(codes), Some(alive)) => alive.iter().map(|&i| long(views[codes[i as usize] as usize])).sum(),
    }
}

/// The rows alive as a record batch of physical types. What has to be copied (selected rows, codes, scattered strings)
/// is copied into slabs of `account`.
pub(super) fn to_physical(batch: &Batch, account: &Account) -> Result<(Box<[PhysicalType]>, RecordBatch)> {
    let mut physical = Vec::with_capacity(batch.columns().len());
    let mut arrays = Vec::with_capacity(batch.columns().len());
    for column in batch.columns() {
        let flat = match batch.selection() {
            Some(selection) => column.gather(selection.indices(), account)?.flatten(account)?,
            None => column.flatten(account)?,
        };
        physical.push(flat.values.physical());
        arrays.push(to_array(&flat, account)?);
    }
    let field = |a: &ArrayRef| arrow_types::Field::new("", a.data_type().clone(), true);
    let schema = Arc::new(arrow_types::Schema::new(arrays.iter().map(field).collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.rows()));
    let rows = RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal(format!("a spilled batch does not fit its own schema: {e}")))?;
    Ok((physical.into(), rows))
}

fn to_array(flat: &FlatVector, account: &Account) -> Result<ArrayRef> {
    fn values<T: Plain + ArrowNativeType>(values: &Buf<T>) -> ScalarBuffer<T> {
        ScalarBuffer::new(values.to_arrow(), 0, values.len())
    }
    fn bits(bitmap: &Bitmap) -> BooleanBuffer {
        BooleanBuffer::new(bitmap.words_buf().to_arrow(), 0, bitmap.len())
    }
    let nulls = flat.validity.as_ref().map(|v| NullBuffer::new(bits(v)));
    Ok(match &flat.values {
        Values::Bool(b) => Arc::new(arrays::BooleanArray::new(bits(b), nulls)),
        Values::I8(v) => Arc::new(arrays::Int8Array::new(values(v), nulls)),
        Values::I16(v) => Arc::new(arrays::Int16Array::new(values(v), nulls)),
        Values::I32(v) => Arc::new(arrays::Int32Array::new(values(v), nulls)),
        Values::I64(v) => Arc::new(arrays::Int64Array::new(values(v), nulls)),
        Values::I128(v) => Arc::new(arrays::Decimal128Array::new(values(v), nulls)),
        Values::U8(v) => Arc::new(arrays::UInt8Array::new(values(v), nulls)),
        Values::U16(v) => Arc::new(arrays::UInt16Array::new(values(v), nulls)),
        Values::U32(v) => Arc::new(arrays::UInt32Array::new(values(v), nulls)),
        Values::U64(v) => Arc::new(arrays::UInt64Array::new(values(v), nulls)),
        Values::F32(v) => Arc::new(arrays::Float32Array::new(values(v), nulls)),
        Values::F64(v) => Arc::new(arrays::Float64Array::new(values(v), nulls)),
        Values::View(strings) => {
            let strings = compact_strings(strings, flat.validity.as_ref(), account)?;
            let buffers: Arc<[Buffer]> = strings.buffers.iter().map(Buf::to_arrow).collect();
            // SAFETY: views invariants 1 and 2: views are in Arrow's layout and point into their buffers; nulls, which
            // might not, have been emptied.
            Arc::new(unsafe {
                arrays::BinaryViewArray::new_unchecked(values(&strings.views), buffers, nulls)
            })
        }
        Values::Nested(array) => Arc::clone(array),
    })
}

/// The same strings with few bytes besides their own; those of null rows become empty. Where they are so long on average that
/// a piece of the message for each costs nothing, they are shared with where they lie: a single row may be as large as the
/// memory there is.
fn compact_strings(
    strings: &StringViews,
    validity: Option<&Bitmap>,
    account: &Account,
) -> Result<StringViews, Denied> {
    let is_valid = |row: usize| validity.is_none_or(|v| v.get(row));
    let lens = strings.views.iter().map(|view| view_len(*view)).enumerate();
    let (longs, long) = lens
        .filter(|&(row, len)| len > MAX_INLINE_BYTES && is_valid(row))
        .fold((0, 0), |(count, bytes), (_, len)| (count + 1, bytes + len));
    let held: usize = strings.buffers.iter().map(|b| b.len()).sum();
    if held <= long + long / 8 {
        let Some(validity) = validity else { return Ok(strings.clone()) };
        let mut views = BufMut::copy_of(account, &strings.views)?;
        for (row, view) in views.iter_mut().enumerate() {
            if !validity.get(row) {
                *view = view_inline(&[]);
            }
        }
        return Ok(StringViews { views: views.freeze(), buffers: Arc::clone(&strings.buffers) });
    }
    let mut views = BufMut::with_len(account, strings.len())?;
    if long >= SHARED_BYTES * longs.max(1) {
        let mut buffers = Vec::with_capacity(longs);
        for (row, to) in views.iter_mut().enumerate() {
            let value: &[u8] = if is_valid(row) { strings.get(row) } else { &[] };
            *to = view_of(value, buffers.len() as u32, 0);
            if value.len() > MAX_INLINE_BYTES {
                buffers.push(strings.shared_bytes(row));
            }
        }
        return Ok(StringViews { views: views.freeze(), buffers: buffers.into() });
    }
    let mut bytes = BufMut::with_capacity(account, long)?;
    for (row, to) in views.iter_mut().enumerate() {
        let value: &[u8] = if is_valid(row) { strings.get(row) } else { &[] };
        *to = view_of(value, 0, bytes.len() as u32);
        if value.len() > MAX_INLINE_BYTES {
            bytes.extend_from_slice(value);
        }
    }
    let buffers = if long == 0 { Arc::default() } else { Arc::from([bytes.freeze()]) };
    Ok(StringViews { views: views.freeze(), buffers })
}

/// The batch of a block read back: message and trailer, as the index describes it. A compressed message is put into a
/// slab of `account`. `path` is for errors.
pub(super) fn decode(
    block: BufMut<u8>,
    entry: &BlockEntry,
    schema: &BlockSchema,
    path: &Path,
    account: &Account,
) -> Result<Batch> {
    let damaged = |what: &str| damaged(path, entry.offset, what);
    let stored_len = block.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("it is too short"))?;
    let mut checksum = Checksum::new();
    checksum.update(&block[..stored_len]);
    if block[stored_len..] != trailer(entry, checksum) {
        return Err(damaged("its checksum or its description does not match"));
    }
    let message_len = entry.message_bytes as usize;
    let stored = block.get(..entry.stored_bytes as usize).ok_or_else(|| damaged("it is cut off"))?;
    let message = match entry.encoding {
        Encoding::Plain => block.freeze(),
        Encoding::Packed => {
            let mut message = BufMut::<u8>::with_len(account, message_len)?;
            pack::unpack(stored, &schema.physical, &mut message)
                .ok_or_else(|| damaged("its columns cannot be unpacked"))?;
            message.freeze()
        }
        Encoding::Lz4 => {
            let mut message = BufMut::<u8>::with_len(account, message_len)?;
            match lz4_flex::block::decompress_into(stored, &mut message) {
                Ok(len) if len == message_len => message.freeze(),
                Ok(_) => return Err(damaged("its message is cut off")),
                Err(error) => return Err(damaged(&error.to_string())),
            }
        }
    };
    let rows = read_message(&message.to_arrow().slice_with_length(0, message_len), &schema.arrow)
        .map_err(|what| damaged(&what))?;
    if rows.num_rows() != entry.rows as usize {
        return Err(damaged("its number of rows does not match"));
    }
    let columns = rows.columns().iter().zip(&schema.physical);
    let columns = columns.map(|(array, physical)| from_array(array, *physical, &message).map(Vector::Flat));
    let columns: Option<Vec<Vector>> = columns.collect();
    Ok(Batch::new(columns.ok_or_else(|| damaged("a column is not aligned"))?, rows.num_rows()))
}

/// The record batch of an IPC message; its arrays point into the message.
fn read_message(message: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let body_at = pack::body_at(message).ok_or("it has no length")?;
    let metadata = message.get(pack::PREFIX_BYTES..body_at).ok_or("its metadata is cut off")?;
    let metadata = arrow::ipc::root_as_message(metadata).map_err(|e| e.to_string())?;
    let header = metadata.header_as_record_batch().ok_or("it is no record batch")?;
    let (body, dictionaries, version) = (message.slice(body_at), HashMap::new(), metadata.version());
    RecordBatchDecoder::try_new(&body, header, Arc::clone(schema), &dictionaries, &version)
        .and_then(|decoder| decoder.with_require_alignment(true).read_record_batch())
        .map_err(|e| e.to_string())
}

/// The values of an array that lies in `block`; `None` if they are not aligned.
fn from_array(array: &ArrayRef, physical: PhysicalType, block: &Buf<u8>) -> Option<FlatVector> {
    macro_rules! shared {
        ($variant:ident, $arrow:ident) => {
            Values::$variant(Buf::from_arrow(
                array.as_primitive::<arrow_types::$arrow>().values().inner().clone(),
            )?)
        };
    }
    let values = match physical {
        PhysicalType::Bool => Values::Bool(bits_in(array.as_boolean().values(), block)?),
        PhysicalType::I8 => shared!(I8, Int8Type),
        PhysicalType::I16 => shared!(I16, Int16Type),
        PhysicalType::I32 => shared!(I32, Int32Type),
        PhysicalType::I64 => shared!(I64, Int64Type),
        PhysicalType::I128 => shared!(I128, Decimal128Type),
        PhysicalType::U8 => shared!(U8, UInt8Type),
        PhysicalType::U16 => shared!(U16, UInt16Type),
        PhysicalType::U32 => shared!(U32, UInt32Type),
        PhysicalType::U64 => shared!(U64, UInt64Type),
        PhysicalType::F32 => shared!(F32, Float32Type),
        PhysicalType::F64 => shared!(F64, Float64Type),
        PhysicalType::View => {
            let strings = array.as_binary_view();
            Values::View(StringViews {
                views: Buf::from_arrow(strings.views().inner().clone())?,
                buffers: strings
                    .data_buffers()
                    .iter()
                    .map(|b| Buf::from_arrow(b.clone()))
                    .collect::<Option<_>>()?,
            })
        }
        // Carries its own nulls.
        PhysicalType::Nested => return Some(FlatVector::new(Values::Nested(Arc::clone(array)))),
    };
    let validity = match array.nulls() {
        Some(nulls) => Some(bits_in(nulls.inner(), block)?),
        None => None,
    };
    Some(FlatVector { values, validity, bounds: None })
}

/// Bits in whole words, which a bit buffer of `block` does not promise but its padding to 64 bytes provides.
fn bits_in(bits: &BooleanBuffer, block: &Buf<u8>) -> Option<Bitmap> {
    let words = bits.len().div_ceil(64);
    let at = (bits.inner().as_ptr() as usize).checked_sub(block.as_ptr() as usize)?;
    let fits = bits.offset() == 0 && at + words * 8 <= block.len();
    let words = fits.then(|| block.slice(at, words * 8).to_arrow()).and_then(Buf::from_arrow)?;
    Some(Bitmap::from_words(&words, bits.len()))
}

/// Whether values of the type could carry dictionaries that a block cannot.
pub(super) fn has_dictionary(data_type: &DataType) -> bool {
    let DataType::Nested(inner) = data_type else { return false };
    let field = arrow_types::Field::new("", inner.as_ref().clone(), true);
    let schema = arrow_types::Schema::new(vec![field]);
    schema.flattened_fields().iter().any(|f| matches!(f.data_type(), arrow_types::DataType::Dictionary(..)))
}
