//! A file's footer in the compact form scans keep.
//!
//! Owns: [`FileFooter`] and its parts; which columns and chunks our own decoders can read.
//!
//! Invariants:
//! 1. Every chunk's byte range lies inside the file, and a flat chunk has as many values as its row group has rows.
//! 2. The footer's bytes are known to be well-formed Thrift, with counts that fit them, before the `parquet` crate
//!    decodes them; what decoding takes is charged while it lasts, what is kept as long as it is kept.
//! 3. Statistics are bounds: no value is below `min` or above `max` in SQL order (NaN aside). Bounds that a writer
//!    computed in another order are dropped.

use super::codec::Codec;
use super::edge::Edge;
use super::thrift::{Kind, Reader};
use crate::data::{DataType, Field, PhysicalType, Schema};
use crate::error::{Error, Origin, Result};
use crate::io::ReadAt;
use crate::mem::{Account, Pool, Reservation};
use crate::scan::ColumnOrder;
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{CompressionCodec, ConvertedType, LogicalType, Type};
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData, SortingColumn,
};
use parquet::schema::types::ColumnDescriptor;
use std::ops::Range;
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";
/// Footer length and magic.
const TAIL_BYTES: u64 = 8;
/// What decoded metadata is charged with per footer byte. An estimate: its size is known only once decoded.
const DECODED_PER_BYTE: usize = 6;
/// Longer string bounds are cut (minimum) or dropped (maximum).
const BOUND_BYTES: usize = 32;

/// How values of a flat column lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Boolean,
    Int32,
    Int64,
    Float,
    Double,
    ByteArray,
    /// Fixed-length bytes.
    Fixed(u32),
}

/// How a flat column is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decode {
    pub(crate) stored: Stored,
    pub(crate) target: PhysicalType,
    /// Whether there are definition levels.
    pub(crate) is_nullable: bool,
    /// Whether bytes must be UTF-8.
    pub(crate) is_text: bool,
}

/// A column of the table.
#[derive(Clone, Debug)]
pub(crate) struct ColumnLayout {
    /// Its leaf columns in the file.
    pub(crate) leaves: Range<usize>,
    /// How our decoders read it; `None` for nested columns and rare types.
    pub(crate) decode: Option<Decode>,
}

/// A leaf column of the file.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Dotted path.
    pub(crate) path: Box<str>,
    /// Whether a row may have several values of it.
    pub(crate) is_repeated: bool,
}

/// A bound of a chunk's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    Unknown,
    /// Integers, unscaled decimals, dates, times; booleans as 0 and 1.
    Int(i64),
    Float(f64),
    /// A range of [`FileFooter::bytes`].
    Bytes {
        at: u32,
        len: u32,
    },
}

/// What the footer says of a column chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkMeta {
    /// Offset of its first page.
    pub(crate) start: u64,
    pub(crate) compressed_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    /// `u64::MAX` if unknown.
    null_count: u64,
    pub(crate) min: Bound,
    pub(crate) max: Bound,
    pub(crate) codec: Codec,
    pub(crate) has_dictionary: bool,
    /// Bounds of its pages; empty if there are none.
    pub(crate) column_index: Span,
    /// Places and first rows of its pages; empty if not told.
    pub(crate) offset_index: Span,
    /// Where its Bloom filter begins; 0 if it has none.
    pub(crate) bloom_filter_at: u64,
}

/// A range of a file that holds a structure beside the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) bytes: u32,
}

impl ChunkMeta {
    /// Number of nulls, if known.
    pub(crate) fn null_count(&self) -> Option<u64> {
        (self.null_count != u64::MAX).then_some(self.null_count)
    }
}

/// A file's footer.
#[derive(Debug)]
pub(crate) struct FileFooter {
    pub(crate) schema: Schema,
    pub(crate) columns: Box<[ColumnLayout]>,
    pub(crate) leaves: Box<[Leaf]>,
    pub(crate) row_group_rows: Box<[u64]>,
    chunks: Box<[ChunkMeta]>,
    bytes: Box<[u8]>,
    /// The order of rows that every row group declares, within itself.
    pub(crate) order: Box<[ColumnOrder]>,
    /// Where the encoded footer lies, to decode it anew for the fallback reader.
    encoded: Range<u64>,
    _charge: Reservation,
}

fn damaged(read: &dyn ReadAt, what: impl Into<String>) -> Error {
    Error::data(what, Origin { file: read.path().to_owned(), ..Origin::default() })
}

impl FileFooter {
    /// Reads and checks the footer of a file; what is kept is charged to `pool`.
    ///
    /// # Errors
    /// [`Error::Data`] if the file is no Parquet file or damaged, [`Error::Unsupported`] if it is encrypted or
    /// compressed with LZO, memory and I/O errors.
    pub(crate) fn read(read: &dyn ReadAt, pool: &Pool) -> Result<Self> {
        let encoded = locate(read)?;
        let (metadata, _charge) = decode(read, &encoded, pool)?;
        Self::convert(read, encoded, &metadata, pool)
    }

    /// The whole metadata again, as the `parquet` crate has it, with the bytes it is charged with.
    pub(crate) fn decode_again(
        &self,
        read: &dyn ReadAt,
        pool: &Pool,
    ) -> Result<(ParquetMetaData, Reservation)> {
        decode(read, &self.encoded, pool)
    }

    /// The chunk of a leaf column in a row group.
    pub(crate) fn chunk(&self, row_group: usize, leaf: usize) -> &ChunkMeta {
        &self.chunks[row_group * self.leaves.len() + leaf]
    }

    /// Number of row groups.
    pub(crate) fn row_groups(&self) -> usize {
        self.row_group_rows.len()
    }

    /// Rows of the file.
    pub(crate) fn rows(&self) -> u64 {
        self.row_group_rows.iter().sum()
    }

    /// A bound's value.
    pub(crate) fn edge(&self, bound: Bound) -> Edge<'_> {
        match bound {
            Bound::Unknown => Edge::Unknown,
            Bound::Int(value) => Edge::Int(value.into()),
            Bound::Float(value) => Edge::Float(value),
            Bound::Bytes { at, len } => Edge::Bytes(&self.bytes[at as usize..][..len as usize]),
        }
    }

    /// The footer of a file that is nothing but one chunk.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of_one_chunk(
        decode: Decode,
        data_type: DataType,
        codec: Codec,
        rows: u64,
        len: u64,
        pool: &Pool,
    ) -> Self {
        let chunk = ChunkMeta {
            start: 0,
            compressed_bytes: len,
            uncompressed_bytes: len * 8,
            null_count: u64::MAX,
            min: Bound::Unknown,
            max: Bound::Unknown,
            codec,
            has_dictionary: true,
            column_index: Span::default(),
            offset_index: Span::default(),
            bloom_filter_at: 0,
        };
        Self {
            schema: [Field { name: "c".to_owned(), data_type, nullable: decode.is_nullable }].into(),
            columns: [ColumnLayout { leaves: 0..1, decode: Some(decode) }].into(),
            leaves: [Leaf { path: "c".into(), is_repeated: false }].into(),
            row_group_rows: [rows].into(),
            chunks: [chunk].into(),
            bytes: Box::default(),
            order: Box::default(),
            encoded: 0..0,
            _charge: Reservation::empty(pool),
        }
    }

    fn convert(
        read: &dyn ReadAt,
        encoded: Range<u64>,
        metadata: &ParquetMetaData,
        pool: &Pool,
    ) -> Result<Self> {
        let descriptor = metadata.file_metadata().schema_descr();
        let key_values = metadata.file_metadata().key_value_metadata();
        let arrow = parquet::arrow::parquet_to_arrow_schema(descriptor, key_values)
            .or_else(|_| parquet::arrow::parquet_to_arrow_schema(descriptor, None))
            .map_err(|e| damaged(read, format!("its schema cannot be read: {e}")))?;
        let leaf = |c: &Arc<ColumnDescriptor>| Leaf {
            path: c.path().string().into(),
            is_repeated: c.max_rep_level() > 0,
        };
        let leaves: Box<[Leaf]> = descriptor.columns().iter().map(leaf).collect();
        let mut columns = Vec::with_capacity(arrow.fields().len());
        let mut schema = Vec::with_capacity(arrow.fields().len());
        let mut next_leaf = 0;
        for (root, field) in arrow.fields().iter().enumerate() {
            let first = next_leaf;
            while next_leaf < leaves.len() && descriptor.get_column_root_idx(next_leaf) == root {
                next_leaf += 1;
            }
            // What the engine has no values for is carried as Arrow arrays.
            let data_type = DataType::from_arrow(field.data_type())
                .unwrap_or_else(|_| DataType::Nested(Arc::new(field.data_type().clone())));
            let decode = match &descriptor.columns()[first..next_leaf] {
                [leaf] => decode_of(leaf, &data_type),
                _ => None,
            };
            columns.push(ColumnLayout { leaves: first..next_leaf, decode });
            schema.push(Field { name: field.name().clone(), data_type, nullable: field.is_nullable() });
        }
        if next_leaf != leaves.len() {
            return Err(damaged(read, "its schema names columns that belong to no field"));
        }
        let mut footer = Self {
            schema: schema.into(),
            columns: columns.into(),
            leaves,
            row_group_rows: Box::default(),
            chunks: Box::default(),
            bytes: Box::default(),
            order: Box::default(),
            encoded,
            _charge: Reservation::empty(pool),
        };
        footer.convert_row_groups(read, metadata, pool)?;
        Ok(footer)
    }

    fn convert_row_groups(
        &mut self,
        read: &dyn ReadAt,
        metadata: &ParquetMetaData,
        pool: &Pool,
    ) -> Result<()> {
        let groups = metadata.row_groups();
        let names: usize = self.leaves.iter().map(|l| l.path.len() + size_of::<Leaf>()).sum();
        let columns = self.columns.len() * (size_of::<ColumnLayout>() + size_of::<Field>() + 32);
        let chunk_bytes = size_of::<ChunkMeta>() * self.leaves.len() + size_of::<u64>();
        let mut charge = Reservation::empty(pool);
        charge.try_grow(names + columns + chunk_bytes * groups.len())?;
        let mut rows = Vec::with_capacity(groups.len());
        let mut chunks = Vec::with_capacity(groups.len() * self.leaves.len());
        let mut bytes = Vec::new();
        let column_of_leaf: Vec<Option<(Decode, &DataType)>> = self
            .columns
            .iter()
            .zip(self.schema.iter())
            .flat_map(|(c, f)| c.leaves.clone().map(move |_| c.decode.map(|d| (d, &f.data_type))))
            .collect();
        for (index, group) in groups.iter().enumerate() {
            let group_rows =
                u64::try_from(group.num_rows()).ok().filter(|&rows| rows <= u64::from(u32::MAX)).ok_or_else(
                    || damaged(read, format!("row group {index} claims {} rows", group.num_rows())),
                )?;
            if group.num_columns() != self.leaves.len() {
                return Err(damaged(read, format!("row group {index} lacks columns")));
            }
            rows.push(group_rows);
            for (leaf, column) in column_of_leaf.iter().enumerate() {
                let context = ChunkContext { read, index, group, group_rows, data_end: self.encoded.start };
                chunks.push(context.convert(group.column(leaf), *column, &mut bytes)?);
            }
        }
        self.order = declared_order(groups, &self.columns);
        charge.try_grow(bytes.len() + size_of_val(&*self.order))?;
        (self.row_group_rows, self.chunks, self.bytes) = (rows.into(), chunks.into(), bytes.into());
        self._charge = charge;
        Ok(())
    }
}

/// The columns by which the rows of all `groups` are in order.
fn declared_order(groups: &[RowGroupMetaData], columns: &[ColumnLayout]) -> Box<[ColumnOrder]> {
    let of_group = |group: &RowGroupMetaData| -> Vec<ColumnOrder> {
        let declared = group.sorting_columns().map_or(&[][..], Vec::as_slice);
        let order = |sorting: &SortingColumn| {
            let leaf = usize::try_from(sorting.column_idx).ok()?;
            let column = columns.iter().position(|c| c.leaves == (leaf..leaf + 1) && c.decode.is_some())?;
            let (descending, nulls_first) = (sorting.descending, sorting.nulls_first);
            Some(ColumnOrder { column, descending, nulls_first })
        };
        declared.iter().map_while(order).collect()
    };
    let mut groups = groups.iter().filter(|group| group.num_rows() > 0);
    let mut common = groups.next().map(of_group).unwrap_or_default();
    for group in groups {
        let other = of_group(group);
        let agree = common.iter().zip(&other).take_while(|(a, b)| a == b).count();
        common.truncate(agree);
    }
    common.into()
}

/// What is needed to convert and check one chunk.
struct ChunkContext<'a> {
    read: &'a dyn ReadAt,
    index: usize,
    group: &'a RowGroupMetaData,
    group_rows: u64,
    data_end: u64,
}

impl ChunkContext<'_> {
    fn damaged(&self, chunk: &ColumnChunkMetaData, what: impl Into<String>) -> Error {
        let origin = Origin {
            file: self.read.path().to_owned(),
            row_group: Some(self.index),
            column: Some(chunk.column_path().string()),
        };
        Error::data(what, origin)
    }

    fn convert(
        &self,
        chunk: &ColumnChunkMetaData,
        column: Option<(Decode, &DataType)>,
        bytes: &mut Vec<u8>,
    ) -> Result<ChunkMeta> {
        let positive = |value: i64, what: &str| {
            u64::try_from(value).map_err(|_| self.damaged(chunk, format!("its {what} is {value}")))
        };
        let values = positive(chunk.num_values(), "number of values")?;
        if column.is_some() && values != self.group_rows {
            let rows = self.group.num_rows();
            return Err(self.damaged(chunk, format!("it has {values} values, but {rows} rows")));
        }
        // Where there are no values nothing is read, and writers say what they like.
        if self.group_rows == 0 {
            return self.empty(chunk);
        }
        let data = positive(chunk.data_page_offset(), "data page offset")?;
        let dictionary =
            chunk.dictionary_page_offset().map(|o| positive(o, "dictionary page offset")).transpose()?;
        // Some writers store 0 for "no dictionary page".
        let dictionary = dictionary.filter(|&o| o >= MAGIC.len() as u64);
        let start = dictionary.map_or(data, |d| d.min(data));
        let compressed_bytes = positive(chunk.compressed_size(), "compressed size")?;
        let uncompressed_bytes = positive(chunk.uncompressed_size(), "uncompressed size")?;
        let end = start.checked_add(compressed_bytes).filter(|&end| end <= self.data_end);
        if end.is_none() || (start < MAGIC.len() as u64 && compressed_bytes > 0) {
            return Err(self.damaged(
                chunk,
                format!("its {compressed_bytes} bytes at offset {start} do not lie inside the file"),
            ));
        }
        let statistics = chunk.statistics();
        let null_count =
            statistics.and_then(parquet::file::statistics::Statistics::null_count_opt).unwrap_or(u64::MAX);
        let (mut min, mut max) = (Bound::Unknown, Bound::Unknown);
        if let (Some(statistics), Some((decode, data_type))) = (statistics, column)
            && (!statistics.is_min_max_deprecated() || orders_as_signed(decode, data_type))
        {
            let edge = |raw| Edge::decode_opt(raw, decode, data_type);
            let edges = (edge(statistics.min_bytes_opt()), edge(statistics.max_bytes_opt()));
            // Bounds that contradict each other are worth nothing.
            if Edge::is_ordered(edges.0, edges.1) {
                min = bound(edges.0, decode.is_text, bytes, true);
                max = bound(edges.1, decode.is_text, bytes, false);
            }
        }
        let span = |start: Option<i64>, bytes: Option<i32>| {
            let span = Span { start: u64::try_from(start?).ok()?, bytes: u32::try_from(bytes?).ok()? };
            let end = span.start.checked_add(span.bytes.into())?;
            (span.start >= MAGIC.len() as u64 && end <= self.data_end).then_some(span)
        };
        let bloom_filter_at = chunk.bloom_filter_offset().and_then(|at| u64::try_from(at).ok());
        Ok(ChunkMeta {
            start,
            compressed_bytes,
            uncompressed_bytes,
            null_count,
            min,
            max,
            codec: self.codec(chunk)?,
            has_dictionary: dictionary.is_some(),
            // They lie between the data and the footer; what does not is no help.
            column_index: span(chunk.column_index_offset(), chunk.column_index_length()).unwrap_or_default(),
            offset_index: span(chunk.offset_index_offset(), chunk.offset_index_length()).unwrap_or_default(),
            bloom_filter_at: bloom_filter_at.filter(|&at| at < self.data_end).unwrap_or(0),
        })
    }

    /// A chunk without pages.
    fn empty(&self, chunk: &ColumnChunkMetaData) -> Result<ChunkMeta> {
        Ok(ChunkMeta {
            start: MAGIC.len() as u64,
            compressed_bytes: 0,
            uncompressed_bytes: 0,
            null_count: 0,
            min: Bound::Unknown,
            max: Bound::Unknown,
            codec: self.codec(chunk)?,
            has_dictionary: false,
            column_index: Span::default(),
            offset_index: Span::default(),
            bloom_filter_at: 0,
        })
    }

    fn codec(&self, chunk: &ColumnChunkMetaData) -> Result<Codec> {
        Ok(match chunk.compression_codec() {
            CompressionCodec::UNCOMPRESSED => Codec::None,
            CompressionCodec::SNAPPY => Codec::Snappy,
            CompressionCodec::GZIP => Codec::Gzip,
            CompressionCodec::BROTLI => Codec::Brotli,
            CompressionCodec::ZSTD => Codec::Zstd,
            CompressionCodec::LZ4_RAW => Codec::Lz4Raw,
            CompressionCodec::LZ4 => Codec::Lz4,
            CompressionCodec::LZO => {
                let (column, file) = (chunk.column_path().string(), self.read.path().display());
                let what = format!("the LZO compression of column '{column}' in the Parquet file '{file}'");
                return Err(Error::unsupported(what, None));
            }
        })
    }
}

/// The byte range of the encoded footer.
fn locate(read: &dyn ReadAt) -> Result<Range<u64>> {
    let len = read.len();
    if len < MAGIC.len() as u64 + TAIL_BYTES {
        return Err(damaged(read, format!("{len} bytes are too few for a Parquet file")));
    }
    let mut tail = [0; TAIL_BYTES as usize];
    read.read_exact_at(len - TAIL_BYTES, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic == *ENCRYPTED_MAGIC {
        let path = read.path().display();
        return Err(Error::unsupported(format!("the encrypted Parquet file '{path}'"), None));
    }
    if magic != *MAGIC {
        return Err(damaged(
            read,
            "it does not end as a Parquet file does; it may be cut off or of another format",
        ));
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    let end = len - TAIL_BYTES;
    match end.checked_sub(footer) {
        Some(start) if start >= MAGIC.len() as u64 && footer > 0 => Ok(start..end),
        _ => Err(damaged(read, format!("it claims a footer of {footer} bytes in a file of {len}"))),
    }
}

/// Reads and decodes the footer; the reservation stands for the decoded metadata.
fn decode(read: &dyn ReadAt, encoded: &Range<u64>, pool: &Pool) -> Result<(ParquetMetaData, Reservation)> {
    let len = (encoded.end - encoded.start) as usize;
    let mut charge = Reservation::empty(pool);
    charge.try_grow(len.saturating_mul(DECODED_PER_BYTE))?;
    let account = Account::open(pool, 0, 64 << 10, 0)?;
    let mut slab = account.alloc(len)?;
    let bytes = &mut slab.bytes_mut()[..len];
    read.read_exact_at(encoded.start, bytes)?;
    Reader::new(bytes).skip(Kind::Struct).map_err(|_| damaged(read, "its footer is damaged"))?;
    let metadata = ParquetMetaDataReader::decode_metadata(bytes)
        .map_err(|e| damaged(read, format!("its footer is damaged: {e}")))?;
    Ok((metadata, charge))
}

/// How a flat leaf of a type is decoded; `None` if our decoders cannot.
fn decode_of(leaf: &ColumnDescriptor, data_type: &DataType) -> Option<Decode> {
    if leaf.max_rep_level() != 0 || leaf.max_def_level() > 1 {
        return None;
    }
    use PhysicalType as P;
    let target = data_type.physical();
    let stored = match leaf.physical_type() {
        Type::BOOLEAN => Stored::Boolean,
        Type::INT32 => Stored::Int32,
        Type::INT64 => Stored::Int64,
        Type::FLOAT => Stored::Float,
        Type::DOUBLE => Stored::Double,
        Type::BYTE_ARRAY => Stored::ByteArray,
        Type::FIXED_LEN_BYTE_ARRAY => Stored::Fixed(u32::try_from(leaf.type_length()).ok()?),
        Type::INT96 => return None,
    };
    let fits = match (stored, target) {
        (Stored::Boolean, P::Bool) | (Stored::Float, P::F32) | (Stored::Double, P::F64) => true,
        (Stored::Int32, P::I8 | P::I16 | P::I32 | P::U8 | P::U16 | P::U32) => true,
        // Decimals and times widen; any other pairing means a conversion only the Arrow reader knows.
        (Stored::Int32, P::I64) => matches!(data_type, DataType::Decimal { .. } | DataType::Time(_)),
        (Stored::Int64, P::I64) => !is_converted_time(leaf, data_type),
        (Stored::Int64, P::U64) | (Stored::ByteArray, P::View) => true,
        (Stored::Fixed(len), P::I64 | P::I128) => {
            matches!(data_type, DataType::Decimal { .. }) && (1..=16).contains(&len)
        }
        (Stored::Fixed(len), P::View) => *data_type == DataType::Binary && len > 0,
        (_, _) => false,
    };
    let is_nullable = leaf.max_def_level() == 1;
    fits.then_some(Decode { stored, target, is_nullable, is_text: *data_type == DataType::Utf8 })
}

/// Whether the file's unit of time differs from the table's, which an embedded Arrow schema may ask for.
fn is_converted_time(leaf: &ColumnDescriptor, data_type: &DataType) -> bool {
    use crate::data::TimeUnit as U;
    use parquet::basic::TimeUnit as F;
    let file = match leaf.logical_type_ref() {
        Some(LogicalType::Timestamp(t)) => Some(t.unit),
        Some(LogicalType::Time(t)) => Some(t.unit),
        _ => match leaf.converted_type() {
            ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIME_MILLIS => Some(F::MILLIS),
            ConvertedType::TIMESTAMP_MICROS | ConvertedType::TIME_MICROS => Some(F::MICROS),
            _ => None,
        },
    };
    let ours = match data_type {
        DataType::Timestamp(unit, _) | DataType::Time(unit) => *unit,
        _ => return false,
    };
    match (file, ours) {
        (Some(F::MILLIS), U::Millisecond)
        | (Some(F::MICROS), U::Microsecond)
        | (Some(F::NANOS), U::Nanosecond)
        | (None, _) => false,
        (Some(_), _) => true,
    }
}

/// Whether bounds computed by signed comparison of the stored value, as old writers did, are right.
fn orders_as_signed(decode: Decode, data_type: &DataType) -> bool {
    let is_unsigned =
        matches!(data_type, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64);
    match decode.stored {
        Stored::Boolean | Stored::Int32 | Stored::Int64 => !is_unsigned,
        Stored::Float | Stored::Double => true,
        Stored::ByteArray | Stored::Fixed(_) => false,
    }
}

/// A bound as it is kept; string bounds go into `bytes`.
fn bound(edge: Edge<'_>, is_text: bool, bytes: &mut Vec<u8>, is_min: bool) -> Bound {
    match edge {
        Edge::Unknown => Bound::Unknown,
        Edge::Int(value) => i64::try_from(value).map_or(Bound::Unknown, Bound::Int),
        Edge::Float(value) => Bound::Float(value),
        Edge::Bytes(raw) => {
            // A prefix is a lower bound, but not an upper one.
            let kept = if is_min { &raw[..raw.len().min(BOUND_BYTES)] } else { raw };
            let is_text_cut = is_text && std::str::from_utf8(kept).is_err();
            let kept = if is_text_cut && is_min { utf8_prefix(kept) } else { kept };
            if kept.len() > BOUND_BYTES || bytes.len() + kept.len() > u32::MAX as usize {
                return Bound::Unknown;
            }
            let at = bytes.len() as u32;
            bytes.extend_from_slice(kept);
            Bound::Bytes { at, len: kept.len() as u32 }
        }
    }
}

fn utf8_prefix(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(e) => &bytes[..e.valid_up_to()],
    }
}

/// The Arrow field and reader levels of one column, for the fallback reader.
pub(crate) fn field_levels(
    metadata: &ParquetMetaData,
    leaves: Range<usize>,
) -> parquet::errors::Result<parquet::arrow::FieldLevels> {
    let descriptor = metadata.file_metadata().schema_descr();
    let key_values = metadata.file_metadata().key_value_metadata();
    let hint = parquet::arrow::parquet_to_arrow_schema(descriptor, key_values).ok();
    let mask = ProjectionMask::leaves(descriptor, leaves);
    parquet_to_arrow_field_levels(descriptor, mask, hint.as_ref().map(arrow::datatypes::Schema::fields))
}
