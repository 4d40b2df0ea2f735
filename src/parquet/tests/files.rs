//! Files to read: every type, any writer setting, any codec.

use crate::parquet::codec::{Codec, compress};
use crate::parquet::decode::{Hybrid, Kernels};
use crate::parquet::file::ParquetFile;
use crate::parquet::page::{LaneIo, PAD_BYTES, PageEncoding, PageHeader, PageKind, PageWalker};
pub(super) use crate::parquet::probe::Memory;
use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use std::sync::Arc;

/// Numbers without visible pattern.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ (self.0 >> 29);
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A batch with a column of every type; about one value in `null_every` is null, none if it is 0; `distinct` bounds the
/// number of different values.
pub(super) fn every_type(rows: usize, null_every: u64, distinct: u64) -> RecordBatch {
    let mut random = Random(rows as u64 + distinct);
    let raw: Vec<Option<i64>> = (0..rows)
        .map(|_| {
            let is_null = null_every > 0 && random.below(null_every) == 0;
            let value = random.below(distinct) as i64;
            (!is_null).then_some(value.wrapping_mul(value + 7) - 50)
        })
        .collect();
    let text = |v: i64| {
        if v % 3 == 0 { format!("s{v}") } else { format!("a longer string, number {v}, with ünïcode") }
    };
    macro_rules! column {
        ($array:ty, $convert:expr) => {
            Arc::new(raw.iter().map(|v| v.map($convert)).collect::<$array>()) as ArrayRef
        };
    }
    let decimal = |precision, scale, factor: i128| {
        let values: arrays::Decimal128Array = raw.iter().map(|v| v.map(|v| i128::from(v) * factor)).collect();
        Arc::new(values.with_precision_and_scale(precision, scale).expect("valid")) as ArrayRef
    };
    let fixed = |width: usize| {
        let values = raw.iter().map(|v| v.map(|v| vec![v as u8; width]));
        let array = arrays::FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, width as i32);
        Arc::new(array.expect("equally long")) as ArrayRef
    };
    let list = || {
        let mut list = arrays::ListBuilder::new(arrays::Int32Builder::new());
        for v in &raw {
            if let Some(v) = v {
                (0..v % 4).for_each(|i| list.values().append_value(i as i32 + *v as i32));
            }
            list.append(v.is_some());
        }
        Arc::new(list.finish()) as ArrayRef
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", column!(arrays::BooleanArray, |v| v % 3 == 0)),
        ("i8", column!(arrays::Int8Array, |v| v as i8)),
        ("i16", column!(arrays::Int16Array, |v| v as i16)),
        ("i32", column!(arrays::Int32Array, |v| v as i32)),
        ("i64", column!(arrays::Int64Array, |v| v * 1_000_003)),
        ("u8", column!(arrays::UInt8Array, |v| v as u8)),
        ("u16", column!(arrays::UInt16Array, |v| v as u16)),
        ("u32", column!(arrays::UInt32Array, |v| v as u32)),
        ("u64", column!(arrays::UInt64Array, |v| v as u64)),
        ("f32", column!(arrays::Float32Array, |v| v as f32 / 8.0)),
        ("f64", column!(arrays::Float64Array, |v| v as f64 / 7.0)),
        ("date", column!(arrays::Date32Array, |v| v as i32)),
        ("time32", column!(arrays::Time32MillisecondArray, |v| v.unsigned_abs() as i32 % 86_400_000)),
        ("time64", column!(arrays::Time64MicrosecondArray, i64::abs)),
        ("seconds", column!(arrays::TimestampSecondArray, |v| v)),
        ("micros", column!(arrays::TimestampMicrosecondArray, |v| v * 77)),
        ("narrow", decimal(9, 2, 1)),
        ("middle", decimal(18, 2, 1_001)),
        ("wide", decimal(30, 4, 1_000_000_000_007)),
        ("text", column!(arrays::StringArray, text)),
        ("large", column!(arrays::LargeStringArray, text)),
        ("blob", column!(arrays::BinaryArray, |v| v.to_le_bytes().to_vec())),
        ("fixed5", fixed(5)),
        ("fixed20", fixed(20)),
        ("list", list()),
    ];
    RecordBatch::try_from_iter(columns).expect("equally long")
}

/// `batch` as a file.
pub(super) fn write(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).expect("writable");
    writer.write(batch).expect("writable");
    writer.close().expect("writable");
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of type `i32`, `delta` after the one before.
fn number(delta: u8, value: u32, out: &mut Vec<u8>) {
    out.push(delta << 4 | 5);
    varint(u64::from(value) << 1, out);
}

fn encoding_number(encoding: PageEncoding) -> u32 {
    match encoding {
        PageEncoding::Plain => 0,
        PageEncoding::Dictionary => 8,
        PageEncoding::Rle => 3,
        PageEncoding::BitPacked => 4,
        PageEncoding::DeltaBinary => 5,
        PageEncoding::DeltaLength => 6,
        PageEncoding::DeltaBytes => 7,
        PageEncoding::ByteStreamSplit => 9,
        PageEncoding::Other(number) => number as u32,
    }
}

/// A page header in the compact protocol.
pub(super) fn encode_header(header: &PageHeader) -> Vec<u8> {
    let mut out = Vec::new();
    let page_type = match header.kind {
        PageKind::Data { .. } => 0,
        PageKind::Other => 1,
        PageKind::Dictionary { .. } => 2,
        PageKind::DataV2 { .. } => 3,
    };
    number(1, page_type, &mut out);
    number(1, header.uncompressed_bytes, &mut out);
    number(1, header.compressed_bytes, &mut out);
    match header.kind {
        PageKind::Data { values, encoding, definition_encoding, repetition_encoding } => {
            out.push(0x2c);
            let levels = [encoding_number(definition_encoding), encoding_number(repetition_encoding)];
            let fields = [values, encoding_number(encoding), levels[0], levels[1]];
            fields.into_iter().for_each(|f| number(1, f, &mut out));
            out.push(0);
        }
        PageKind::Dictionary { values, encoding } => {
            out.push(0x4c);
            number(1, values, &mut out);
            number(1, encoding_number(encoding), &mut out);
            out.push(0);
        }
        PageKind::DataV2 {
            values,
            rows,
            nulls,
            encoding,
            definition_bytes,
            repetition_bytes,
            is_compressed,
        } => {
            out.push(0x5c);
            let fields = [values, nulls, rows, encoding_number(encoding), definition_bytes, repetition_bytes];
            fields.into_iter().for_each(|f| number(1, f, &mut out));
            out.push(if is_compressed { 0x11 } else { 0x12 });
            out.push(0);
        }
        PageKind::Other => {}
    }
    out.push(0);
    out
}

fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::UNCOMPRESSED,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Gzip => Compression::GZIP(parquet::basic::GzipLevel::default()),
        Codec::Brotli => Compression::BROTLI(parquet::basic::BrotliLevel::default()),
        Codec::Zstd => Compression::ZSTD(parquet::basic::ZstdLevel::default()),
        Codec::Lz4Raw => Compression::LZ4_RAW,
        Codec::Lz4 => Compression::LZ4,
    }
}

/// The same file with its pages compressed, which the `parquet` crate is built without.
pub(super) fn with_codec(bytes: Vec<u8>, codec: Codec) -> Vec<u8> {
    rewrite(bytes, codec, &mut |_, _, body| body)
}

/// The same file with the definition levels of its flat nullable columns in the deprecated bit-packed encoding.
pub(super) fn with_bit_packed_levels(bytes: Vec<u8>) -> Vec<u8> {
    rewrite(bytes, Codec::None, &mut |max_level, header, body| {
        let PageKind::Data { values, definition_encoding, .. } = &mut header.kind else { return body };
        if max_level == 0 {
            return body;
        }
        let level_bytes = u32::from_le_bytes([body[0], body[1], body[2], body[3]]) as usize;
        let mut levels = vec![0; *values as usize];
        let mut padded = body.clone();
        padded.resize(body.len() + PAD_BYTES, 0);
        let mut stream = Hybrid::new(1, 4..4 + level_bytes).expect("narrow");
        stream.read(&padded, Kernels::Portable, &mut levels).expect("valid");
        let pack = |levels: &[u32]| levels.iter().enumerate().fold(0, |b, (i, l)| b | (*l as u8) << (7 - i));
        let mut out: Vec<u8> = levels.chunks(8).map(pack).collect();
        out.extend(&body[4 + level_bytes..]);
        *definition_encoding = PageEncoding::BitPacked;
        header.uncompressed_bytes = out.len() as u32;
        out
    })
}

/// What becomes of a page's header and body, in a column with that many definition levels.
type Edit<'a> = &'a mut dyn FnMut(i16, &mut PageHeader, Vec<u8>) -> Vec<u8>;

fn rewrite(bytes: Vec<u8>, codec: Codec, edit: Edit<'_>) -> Vec<u8> {
    let pool = crate::mem::Pool::new("rewrite", 1 << 30);
    let account = crate::mem::Account::open(&pool, 0, 64 << 10, 0).expect("fits");
    let file = ParquetFile::new(0, Box::new(Memory(bytes)), &pool).expect("valid");
    let (metadata, _charge) = file.footer.decode_again(file.read.as_ref(), &pool).expect("valid");
    let mut io = LaneIo::new();
    let mut out = b"PAR1".to_vec();
    let mut groups = Vec::new();
    for (row_group, group) in metadata.row_groups().iter().enumerate() {
        let mut columns = Vec::new();
        for (leaf, column) in group.columns().iter().enumerate() {
            let chunk = file.chunk(row_group, leaf);
            let mut walker = PageWalker::new(&chunk);
            let (start, mut data, mut dictionary) = (out.len(), None, None);
            let mut uncompressed = 0;
            while let Some(mut header) = walker.next(&chunk, &mut io, &account, true).expect("valid") {
                let body = io.load(&chunk, &header, None, &account).expect("valid");
                let body = edit(column.column_descr().max_def_level(), &mut header, body.to_vec());
                let plain = match &mut header.kind {
                    PageKind::DataV2 { definition_bytes, repetition_bytes, is_compressed, .. } => {
                        *is_compressed = true;
                        (*definition_bytes + *repetition_bytes) as usize
                    }
                    PageKind::Data { .. } | PageKind::Dictionary { .. } | PageKind::Other => 0,
                };
                let mut compressed = body[..plain].to_vec();
                compressed.extend(compress(codec, &body[plain..]));
                header.compressed_bytes = compressed.len() as u32;
                match header.kind {
                    PageKind::Dictionary { .. } => dictionary = Some(out.len() as i64),
                    _ => data = data.or(Some(out.len() as i64)),
                }
                let encoded = encode_header(&header);
                uncompressed += encoded.len() + body.len();
                out.extend(encoded);
                out.extend(compressed);
            }
            let column = column
                .clone()
                .into_builder()
                .set_compression(compression(codec))
                .set_total_compressed_size((out.len() - start) as i64)
                .set_total_uncompressed_size(uncompressed as i64)
                .set_data_page_offset(data.unwrap_or(start as i64))
                .set_dictionary_page_offset(dictionary)
                .set_column_index_offset(None)
                .set_offset_index_offset(None);
            columns.push(column.build().expect("valid"));
        }
        groups.push(group.clone().into_builder().set_column_metadata(columns).build().expect("valid"));
    }
    let metadata = ParquetMetaData::new(metadata.file_metadata().clone(), groups);
    ParquetMetaDataWriter::new(&mut out, &metadata).finish().expect("a Vec takes all");
    out
}

/// The footer's range in a file.
pub(super) fn footer_range(bytes: &[u8]) -> std::ops::Range<usize> {
    let end = bytes.len() - 8;
    let len = u32::from_le_bytes([bytes[end], bytes[end + 1], bytes[end + 2], bytes[end + 3]]);
    assert!(ParquetMetaDataReader::decode_metadata(&bytes[end - len as usize..end]).is_ok());
    end - len as usize..end
}
