//! Damaged files: errors that name the place, never a panic, never memory beyond the pool.

use super::files::{Memory, Random, encode_header, every_type, footer_range, with_codec, write};
use crate::data::DictionaryIds;
use crate::error::{Error, Result};
use crate::mem::{Account, Pool};
use crate::parquet::codec::Codec;
use crate::parquet::column::{ColumnReader, LaneState};
use crate::parquet::decode::Kernels;
use crate::parquet::file::ParquetFile;
use crate::parquet::page::{LaneIo, PageEncoding, PageHeader, PageKind};
use parquet::file::properties::WriterProperties;

const LIMIT_BYTES: usize = 8 << 20;

/// Reads every column our decoders read, half of them with a selection.
fn read_all(bytes: Vec<u8>) -> Result<()> {
    let pool = Pool::new("test", LIMIT_BYTES);
    let result = (|| {
        let account = Account::open(&pool, 0, 64 << 10, 1 << 20)?;
        let ids = DictionaryIds::default();
        let file = ParquetFile::new(0, Box::new(Memory(bytes)), &pool)?;
        let mut io = LaneIo::new();
        for row_group in 0..file.footer.row_groups() {
            for (at, layout) in file.footer.columns.iter().enumerate() {
                let leaf = layout.leaves.start;
                let chunk = file.chunk(row_group, leaf);
                let Some(decode) = layout.decode.filter(|_| chunk.meta().is_decodable) else { continue };
                let mut reader = ColumnReader::new(leaf, &chunk, decode, &file.footer.schema[at].data_type);
                let mut row = 0;
                while row < chunk.rows() {
                    let step = (chunk.rows() - row).min(300) as usize;
                    let positions: Vec<u32> = (0..step as u32).step_by(3).collect();
                    let positions = (at % 2 == 1).then_some(&positions[..]);
                    let mut lane =
                        LaneState { account: &account, ids: &ids, io: &mut io, kernels: Kernels::detect() };
                    let vector = reader.read(&chunk, step, positions, &mut lane)?;
                    // Every value must be readable, whatever it is.
                    (0..vector.len()).for_each(|i| drop(vector.scalar(i, &file.footer.schema[at].data_type)));
                    row += step as u64;
                }
            }
        }
        Ok(())
    })();
    assert!(pool.peak_bytes() <= LIMIT_BYTES);
    assert_eq!(pool.granted_bytes(), 0, "everything is given back");
    result
}

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
    expect_data(read_all(Vec::new()), "memory.parquet");
    expect_data(read_all(b"PAR1".to_vec()), "too few");
    expect_data(read_all(vec![b'x'; 100]), "does not end as a Parquet file");
    let mut lying = b"PAR1".to_vec();
    lying.extend(u32::MAX.to_le_bytes());
    lying.extend(b"PAR1");
    expect_data(read_all(lying), "claims a footer of 4294967295 bytes");
    let mut encrypted = vec![0; 40];
    encrypted.extend(b"PARE");
    assert!(matches!(read_all(encrypted), Err(Error::Unsupported(_))));
}

#[test]
fn truncated_files_are_errors() {
    let bytes = sample();
    read_all(bytes.clone()).expect("valid");
    for len in (0..bytes.len()).step_by(131) {
        assert!(read_all(bytes[..len].to_vec()).is_err(), "{len}");
        // The tail intact, the middle missing.
        let mut cut = bytes[..len].to_vec();
        cut.extend(&bytes[bytes.len() - 200..]);
        let _ = read_all(cut);
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
        let _ = read_all(damaged);
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
        let _ = read_all(damaged);
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
            level_encoding: PageEncoding::Rle,
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
    expect_data(read_all(with_first_header(|h| h.uncompressed_bytes = huge)), "uncompressed bytes, at most");
    expect_data(read_all(with_first_header(|h| h.compressed_bytes = huge)), "compressed bytes, at most");
    // Zigzag turns the top bit into a negative number.
    expect_data(read_all(with_first_header(|h| h.compressed_bytes = u32::MAX)), "column 'i64'");
    let values = |values| {
        move |h: &mut PageHeader| {
            let (encoding, level_encoding) = (PageEncoding::Plain, PageEncoding::Rle);
            h.kind = PageKind::Data { values, encoding, level_encoding };
        }
    };
    expect_data(read_all(with_first_header(values(huge))), "more rows than its row group");
    expect_data(read_all(with_first_header(values(400))), "row group 0");
}
