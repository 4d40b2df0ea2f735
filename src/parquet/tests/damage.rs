//! Damaged files: errors that name the place, never a panic, never memory beyond the pool.

use super::files::{Random, encode_header, every_type, footer_range, with_codec, write};
use crate::error::{Error, Result};
use crate::parquet::codec::Codec;
use crate::parquet::page::{PageEncoding, PageHeader, PageKind};
use crate::parquet::probe::{read_chunk, read_file};
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;

fn sample() -> Vec<u8> {
    let batch = every_type(400, 7, 40);
    let flat: Vec<usize> = (0..batch.num_columns() - 1).collect();
    let batch = batch.project(&flat).expect("in bounds");
    let properties =
        WriterProperties::builder().set_data_page_row_count_limit(150).set_write_batch_size(50).build();
    with_codec(write(&batch, properties), Codec::Snappy)
}

fn expect_data(result: Result<()>, part: &str) {
    match result {
        Err(e @ Error::Data(_)) => assert!(e.to_string().contains(part), "{e}"),
        other => panic!("expected a data error with '{part}', got {other:?}"),
    }
}

#[test]
fn what_is_no_parquet_file_is_named() {
    expect_data(read_file(Vec::new()), "memory.parquet");
    expect_data(read_file(b"PAR1".to_vec()), "too few");
    expect_data(read_file(vec![b'x'; 100]), "does not end as a Parquet file");
    let mut lying = b"PAR1".to_vec();
    lying.extend(u32::MAX.to_le_bytes());
    lying.extend(b"PAR1");
    expect_data(read_file(lying), "claims a footer of 4294967295 bytes");
    let mut encrypted = vec![0; 40];
    encrypted.extend(b"PARE");
    assert!(matches!(read_file(encrypted), Err(Error::Unsupported(_))));
}

#[test]
fn truncated_files_are_errors() {
    let bytes = sample();
    read_file(bytes.clone()).expect("valid");
    for len in (0..bytes.len()).step_by(131) {
        assert!(read_file(bytes[..len].to_vec()).is_err(), "{len}");
        // The tail intact, the middle missing.
        let mut cut = bytes[..len].to_vec();
        cut.extend(&bytes[bytes.len() - 200..]);
        let _ = read_file(cut);
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let bytes = sample();
    let footer = footer_range(&bytes);
    let mut random = Random(3);
    for round in 0..2500 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + round % 3 {
            let at = random.below(footer.start as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
        }
        let _ = read_file(damaged);
    }
}

#[test]
fn flipped_bits_of_differences_do_no_harm() {
    let mut random = Random(8);
    for encoding in [
        Encoding::DELTA_BINARY_PACKED,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
        Encoding::BYTE_STREAM_SPLIT,
    ] {
        let columns: &[&str] = match encoding {
            Encoding::DELTA_BINARY_PACKED => &["i16", "i32", "i64"],
            Encoding::BYTE_STREAM_SPLIT => &["f64", "fixed20"],
            _ => &["text", "blob"],
        };
        let batch = every_type(300, 7, 4000);
        let indices: Vec<usize> =
            columns.iter().map(|c| batch.schema().index_of(c).expect("exists")).collect();
        let batch = batch.project(&indices).expect("in bounds");
        let properties = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(encoding);
        let bytes = write(&batch, properties.build());
        read_file(bytes.clone()).expect("valid");
        let footer = footer_range(&bytes);
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(footer.start as u64) as usize;
                damaged[at] = random.next() as u8;
            }
            let _ = read_file(damaged);
        }
    }
}

#[test]
fn flipped_bits_in_the_footer_do_no_harm() {
    let bytes = sample();
    let footer = footer_range(&bytes);
    let mut random = Random(4);
    for _ in 0..1500 {
        let mut damaged = bytes.clone();
        let at = footer.start + random.below(footer.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
        let _ = read_file(damaged);
    }
}

/// The sample with the header of its first page replaced, in place.
fn with_first_header(change: impl FnOnce(&mut PageHeader)) -> Vec<u8> {
    let batch = every_type(400, 0, 40).project(&[4]).expect("in bounds");
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut bytes = with_codec(write(&batch, properties), Codec::Snappy);
    let mut header = PageHeader {
        kind: PageKind::Data {
            values: 400,
            encoding: PageEncoding::Plain,
            definition_encoding: PageEncoding::Rle,
            repetition_encoding: PageEncoding::Rle,
        },
        body_offset: 0,
        compressed_bytes: 0,
        uncompressed_bytes: 0,
    };
    change(&mut header);
    let encoded = encode_header(&header);
    bytes[4..4 + encoded.len()].copy_from_slice(&encoded);
    bytes
}

#[test]
fn absurd_page_sizes_are_refused_before_anything_is_allocated() {
    let huge = i32::MAX as u32;
    expect_data(read_file(with_first_header(|h| h.uncompressed_bytes = huge)), "uncompressed bytes, at most");
    expect_data(read_file(with_first_header(|h| h.compressed_bytes = huge)), "compressed bytes, at most");
    // Zigzag turns the top bit into a negative number.
    expect_data(read_file(with_first_header(|h| h.compressed_bytes = u32::MAX)), "column 'i64'");
    let values = |values| {
        move |h: &mut PageHeader| {
            h.kind = PageKind::Data {
                values,
                encoding: PageEncoding::Plain,
                definition_encoding: PageEncoding::Rle,
                repetition_encoding: PageEncoding::Rle,
            };
        }
    };
    expect_data(read_file(with_first_header(values(huge))), "more rows than its row group");
    expect_data(read_file(with_first_header(values(400))), "row group 0");
}

#[test]
fn arbitrary_pages_do_no_harm() {
    let mut random = Random(9);
    for round in 0..4000u64 {
        let values = random.below(600) as u32;
        let (dictionary_values, width) = (random.below(20) as u32, random.below(34) as u8);
        let mut bytes = vec![round as u8, 0, values as u8, (values >> 8) as u8];
        let mut page = |kind, body: Vec<u8>, lie: u32| {
            let compressed_bytes = body.len() as u32;
            let uncompressed_bytes = compressed_bytes + lie;
            let header = PageHeader { kind, body_offset: 0, compressed_bytes, uncompressed_bytes };
            bytes.extend(encode_header(&header));
            bytes.extend(body);
        };
        let mut noise = |len: u64| (0..random.below(len)).map(|_| random.next() as u8).collect::<Vec<u8>>();
        let plain = PageEncoding::Plain;
        page(PageKind::Dictionary { values: dictionary_values, encoding: plain }, noise(200), 0);
        let encoding = [
            plain,
            PageEncoding::Dictionary,
            PageEncoding::Rle,
            PageEncoding::DeltaBinary,
            PageEncoding::DeltaLength,
            PageEncoding::DeltaBytes,
            PageEncoding::ByteStreamSplit,
        ][round as usize % 7];
        let mut body = vec![2, 0, 0, 0, 0xff, 0x01, width];
        // Differences begin with sizes that are seldom possible by chance.
        if round % 2 == 0 {
            body.truncate(if round % 4 == 0 { 6 } else { 0 });
            body.extend([128, 1, 4, (values % 128) as u8, 2]);
        }
        body.extend(noise(300));
        let definition_encoding = [PageEncoding::Rle, PageEncoding::BitPacked][usize::from(round % 11 == 0)];
        let repetition_encoding = PageEncoding::Rle;
        let kind = PageKind::Data { values, encoding, definition_encoding, repetition_encoding };
        page(kind, body, u32::from(round % 7 == 0));
        let _ = read_chunk(&bytes);
    }
}
