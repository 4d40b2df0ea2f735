//! Pages of differences and of split bytes, levels in the deprecated encoding, against the arrays that were written; and
//! the codec there is no decoder for.

use super::columns::check;
use super::files::{Memory, Random, every_type, with_bit_packed_levels, with_codec, write};
use crate::error::Error;
use crate::mem::Pool;
use crate::parquet::codec::Codec;
use crate::parquet::file::ParquetFile;
use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use std::sync::Arc;

/// The columns of [`every_type`] that may be encoded so.
fn columns_of(encoding: Encoding) -> &'static [&'static str] {
    match encoding {
        Encoding::DELTA_BINARY_PACKED => &[
            "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "date", "time32", "time64", "seconds",
            "micros", "narrow", "middle",
        ],
        Encoding::DELTA_LENGTH_BYTE_ARRAY => &["text", "large", "blob"],
        Encoding::DELTA_BYTE_ARRAY => &["text", "large", "blob", "wide", "fixed5", "fixed20"],
        _ => &["i8", "i32", "i64", "u32", "u64", "f32", "f64", "date", "middle", "wide", "fixed5", "fixed20"],
    }
}

const ENCODINGS: [Encoding; 4] = [
    Encoding::DELTA_BINARY_PACKED,
    Encoding::DELTA_LENGTH_BYTE_ARRAY,
    Encoding::DELTA_BYTE_ARRAY,
    Encoding::BYTE_STREAM_SPLIT,
];

fn settings(encoding: Encoding) -> Vec<(&'static str, WriterPropertiesBuilder)> {
    let base = || WriterProperties::builder().set_encoding(encoding);
    let plain = || base().set_dictionary_enabled(false);
    let small = |builder: WriterPropertiesBuilder| {
        builder.set_data_page_row_count_limit(173).set_write_batch_size(64)
    };
    vec![
        ("one page", plain()),
        ("small pages", small(plain())),
        ("version 2", small(plain()).set_writer_version(WriterVersion::PARQUET_2_0)),
        ("row groups", small(plain()).set_max_row_group_row_count(Some(500))),
        ("a dictionary in front", small(base()).set_dictionary_page_size_limit(200)),
        ("a large dictionary in front", base().set_dictionary_page_size_limit(900).set_write_batch_size(100)),
    ]
}

fn check_encoded(batch: &RecordBatch, encoding: Encoding, codec: Codec, what: &str) {
    for (name, properties) in settings(encoding) {
        let bytes = write(batch, properties.build());
        let end = bytes.len() - 8;
        let len = u32::from_le_bytes([bytes[end], bytes[end + 1], bytes[end + 2], bytes[end + 3]]) as usize;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[end - len..end]).expect("valid");
        for column in metadata.row_group(0).columns() {
            let has = column.encodings().any(|e| e == encoding);
            // Columns of few values stay in their dictionary.
            assert!(has || column.dictionary_page_offset().is_some(), "{name}: {}", column.column_path());
        }
        check(with_codec(bytes, codec), batch, &format!("{encoding:?}, {codec:?}, {name}, {what}"));
    }
}

#[test]
fn every_type_survives_every_encoding_with_and_without_nulls() {
    for encoding in ENCODINGS {
        for (null_every, distinct) in [(0, 5000), (5, 700), (2, 5000), (1, 9)] {
            let batch = every_type(1300, null_every, distinct);
            let indices: Vec<usize> =
                columns_of(encoding).iter().map(|c| batch.schema().index_of(c).expect("exists")).collect();
            let part = batch.project(&indices).expect("in bounds");
            let codec = if null_every == 5 { Codec::Zstd } else { Codec::None };
            check_encoded(&part, encoding, codec, &format!("nulls 1/{null_every}, {distinct} values"));
        }
    }
}

#[test]
fn numbers_from_end_to_end_of_their_types() {
    let mut random = Random(11);
    let raw: Vec<i64> = (0..2000)
        .map(|i| match i % 5 {
            0 => i64::MIN,
            1 => i64::MAX,
            _ => (random.next() << 16 ^ random.next()).cast_signed() >> random.below(64),
        })
        .collect();
    let batch = RecordBatch::try_from_iter([
        ("i64", Arc::new(arrays::Int64Array::from(raw.clone())) as ArrayRef),
        ("u64", Arc::new(raw.iter().map(|v| v.cast_unsigned()).collect::<arrays::UInt64Array>())),
        ("i32", Arc::new(raw.iter().map(|v| (v >> 32) as i32).collect::<arrays::Int32Array>())),
        ("u32", Arc::new(raw.iter().map(|v| *v as u32).collect::<arrays::UInt32Array>())),
    ])
    .expect("equally long");
    for encoding in [Encoding::DELTA_BINARY_PACKED, Encoding::BYTE_STREAM_SPLIT] {
        check_encoded(&batch, encoding, Codec::None, "extremes");
    }
}

#[test]
fn strings_of_any_length_and_likeness() {
    let mut random = Random(5);
    let mut before = String::new();
    let values: Vec<Option<String>> = (0..1500)
        .map(|i| {
            let keep = random.below(before.len() as u64 + 1) as usize;
            before.truncate(keep.min(3000));
            let letter = (b'a' + (i % 26) as u8) as char;
            before.extend(std::iter::repeat_n(
                letter,
                random.below(if i % 50 == 0 { 2000 } else { 20 }) as usize,
            ));
            (i % 9 != 4).then(|| before.clone())
        })
        .collect();
    let some: Vec<String> = values.iter().map(|v| v.clone().unwrap_or_default()).collect();
    let batch = RecordBatch::try_from_iter([
        ("nullable", Arc::new(arrays::StringArray::from(values)) as ArrayRef),
        ("text", Arc::new(arrays::StringArray::from(some))),
    ])
    .expect("equally long");
    for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
        check_encoded(&batch, encoding, Codec::Snappy, "strings");
    }
}

#[test]
fn bit_packed_levels_are_read() {
    for (null_every, distinct) in [(5, 60), (2, 5000), (1, 9)] {
        let batch = every_type(1300, null_every, distinct);
        let flat: Vec<usize> = (0..batch.num_columns() - 1).collect();
        let batch = batch.project(&flat).expect("in bounds");
        for rows in [173, 64, 20_000] {
            let properties =
                WriterProperties::builder().set_data_page_row_count_limit(rows).set_write_batch_size(32);
            let bytes = with_bit_packed_levels(write(&batch, properties.build()));
            check(bytes, &batch, &format!("bit-packed levels, {rows} rows a page, nulls 1/{null_every}"));
        }
    }
}

#[test]
fn lzo_is_named_when_a_file_is_opened() {
    let batch = every_type(10, 0, 5).project(&[3, 4]).expect("in bounds");
    let mut bytes = write(&batch, WriterProperties::builder().set_offset_index_disabled(true).build());
    let end = bytes.len() - 8;
    let len = u32::from_le_bytes([bytes[end], bytes[end + 1], bytes[end + 2], bytes[end + 3]]) as usize;
    let metadata = ParquetMetaDataReader::decode_metadata(&bytes[end - len..end]).expect("valid");
    let mut group = metadata.row_group(0).clone();
    let mut columns = group.columns().to_vec();
    columns[1] = columns[1].clone().into_builder().set_compression(Compression::LZO).build().expect("valid");
    group = group.into_builder().set_column_metadata(columns).build().expect("valid");
    let metadata = metadata.into_builder().set_row_groups(vec![group]).build();
    bytes.truncate(end - len);
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().expect("a Vec takes all");
    let opened = ParquetFile::new(0, Box::new(Memory(bytes)), &Pool::new("test", 1 << 20));
    let Err(error @ Error::Unsupported(_)) = opened else { panic!("{opened:?}") };
    let text = error.to_string();
    assert!(text.contains("LZO") && text.contains("'i64'") && text.contains("memory.parquet"), "{text}");
}
