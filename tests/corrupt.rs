//! Damaged Parquet files: an error that names the file, never a panic, never memory beyond the budget.

mod support;

use arrow::array::RecordBatch;
use gristmill::{Engine, Error};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use std::fs;
use std::path::{Path, PathBuf};
use support::tables;
use tempfile::TempDir;

const BUDGET_BYTES: usize = 32 << 20;

/// Reads every column and evaluates something over them.
const QUERIES: &[&str] = &[
    "select * from t",
    "select count(*), sum(id), sum(amount), max(name), min(day), avg(ratio) from t where small < 9 and flag <> 'R'",
];

struct Bench {
    folder: TempDir,
    good: Vec<u8>,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("good.parquet");
        tables::write(&path, [tables::many().slice(0, 600)], 250);
        let good = fs::read(&path).expect("readable");
        let engine = Engine::builder().memory_limit(BUDGET_BYTES).threads(2).build().expect("starts");
        Self { folder, good, engine }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("damaged.parquet")
    }

    /// The outcome of every query over a file of these bytes, with what must hold for any bytes asserted.
    fn outcomes(&self, bytes: &[u8], damage: &str) -> Vec<Result<Vec<RecordBatch>, Error>> {
        let path = self.path();
        fs::write(&path, bytes).expect("writable");
        let outcomes: Vec<_> = QUERIES.iter().map(|sql| self.query(&path, sql)).collect();
        for outcome in &outcomes {
            match outcome {
                Ok(_) => {}
                // Values may be damaged in a way that only a computation notices; everything else names the file.
                Err(Error::Data(data)) if data.origin.is_none() => {}
                Err(error @ (Error::Data(_) | Error::Io { .. })) => {
                    assert!(error.to_string().contains("damaged.parquet"), "{damage}: {error}");
                }
                Err(Error::Memory(_) | Error::Unsupported(_) | Error::Plan(_)) => {}
                Err(error) => panic!("{damage}: {error}"),
            }
        }
        let peak = self.engine.memory_peak();
        assert!(peak <= BUDGET_BYTES, "{damage}: {peak} bytes were granted");
        outcomes
    }

    fn query(&self, path: &Path, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        let session = self.engine.session();
        session.register_parquet("t", path)?;
        session.query(sql)?.collect()
    }

    fn assert_fails(&self, bytes: &[u8], damage: &str) {
        for (sql, outcome) in QUERIES.iter().zip(self.outcomes(bytes, damage)) {
            let error = outcome.expect_err(&format!("{damage}: {sql}"));
            let named = matches!(error, Error::Data(_) | Error::Io { .. });
            assert!(named && error.to_string().contains("damaged.parquet"), "{damage}: {error}");
        }
    }

    fn metadata(&self) -> ParquetMetaData {
        ParquetMetaDataReader::new()
            .parse_and_finish(&bytes::Bytes::from(self.good.clone()))
            .expect("the undamaged file is good")
    }
}

#[test]
fn the_undamaged_file_is_read() {
    let bench = Bench::new();
    for outcome in bench.outcomes(&bench.good, "none") {
        assert!(outcome.expect("reads").iter().map(RecordBatch::num_rows).sum::<usize>() > 0);
    }
}

#[test]
fn truncated_files() {
    let bench = Bench::new();
    let len = bench.good.len();
    for keep in [0, 1, 4, 7, 8, 11, 12, len / 4, len / 2, len - 100, len - 9, len - 8, len - 4, len - 1] {
        bench.assert_fails(&bench.good[..keep], &format!("cut to {keep} of {len} bytes"));
    }
}

#[test]
fn wrong_magic() {
    let bench = Bench::new();
    let mut bytes = bench.good.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(b"PORK");
    bench.assert_fails(&bytes, "wrong magic at the end");
    bench.assert_fails(b"this is not a Parquet file at all, but text that is long enough\n", "text");
}

#[test]
fn a_footer_longer_than_the_file() {
    let bench = Bench::new();
    for length in [0, 1, bench.good.len() as u32, u32::MAX / 2, u32::MAX] {
        let mut bytes = bench.good.clone();
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        bench.assert_fails(&bytes, &format!("footer length {length}"));
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let bench = Bench::new();
    // A stride that is no multiple of any structure's size; all of the footer is denser.
    let footer = bench.good.len().saturating_sub(4_000);
    let places = (0..footer).step_by(97).chain((footer..bench.good.len()).step_by(7));
    for (i, place) in places.enumerate() {
        let mut bytes = bench.good.clone();
        bytes[place] ^= [0xff, 0x01, 0x80][i % 3];
        bench.outcomes(&bytes, &format!("byte {place} flipped"));
    }
}

#[test]
fn zeroed_pages_never_panic() {
    let bench = Bench::new();
    for start in (4..bench.good.len() - 400).step_by(331) {
        let mut bytes = bench.good.clone();
        bytes[start..start + 300].fill(0);
        bench.outcomes(&bytes, &format!("300 bytes zeroed at {start}"));
    }
}

#[test]
fn absurd_page_headers() {
    let bench = Bench::new();
    let huge = i32::MAX;
    let headers = [
        ("uncompressed size", page_header(huge, 40, 250)),
        ("compressed size", page_header(40, huge, 250)),
        ("both sizes", page_header(huge, huge, 250)),
        ("number of values", page_header(40, 40, huge)),
        ("negative uncompressed size", page_header(-1, 40, 250)),
        ("negative compressed size", page_header(40, -40, 250)),
        ("negative number of values", page_header(40, 40, -1)),
        ("empty page", page_header(0, 0, 250)),
    ];
    for (what, header) in headers {
        bench.assert_fails(&with_page(&bench, &header), &format!("absurd {what}"));
    }
}

/// A data page's header in Thrift's compact protocol.
fn page_header(uncompressed_bytes: i32, compressed_bytes: i32, values: i32) -> Vec<u8> {
    const NEXT_FIELD: u8 = 1 << 4;
    const I32: u8 = 5;
    const STRUCT: u8 = 12;
    const DATA_PAGE: i32 = 0;
    const PLAIN: i32 = 0;
    const RLE: i32 = 3;
    let mut bytes = Vec::new();
    for size in [DATA_PAGE, uncompressed_bytes, compressed_bytes] {
        bytes.push(NEXT_FIELD | I32);
        push_zigzag(&mut bytes, size);
    }
    // Field 5: DataPageHeader { num_values, encoding, definition levels, repetition levels }.
    bytes.push((2 * NEXT_FIELD) | STRUCT);
    for value in [values, PLAIN, RLE, RLE] {
        bytes.push(NEXT_FIELD | I32);
        push_zigzag(&mut bytes, value);
    }
    bytes.extend([0, 0]);
    bytes
}

fn push_zigzag(bytes: &mut Vec<u8>, value: i32) {
    let mut zigzag = (value.cast_unsigned() << 1) ^ (value >> 31).cast_unsigned();
    while zigzag >= 0x80 {
        bytes.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
}

/// The good file with the first column chunk of its first row group replaced by a page of `header` and 40 zero bytes.
fn with_page(bench: &Bench, header: &[u8]) -> Vec<u8> {
    let metadata = bench.metadata();
    let len = bench.good.len();
    let footer_bytes =
        u32::from_le_bytes(bench.good[len - 8..len - 4].try_into().expect("invariant: four bytes")) as usize;
    let mut bytes = bench.good[..len - 8 - footer_bytes].to_vec();
    let offset = bytes.len() as i64;
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0; 40]);
    let chunk_bytes = header.len() as i64 + 40;

    let mut groups = metadata.row_groups().to_vec();
    let first = groups.remove(0);
    let mut columns = first.columns().to_vec();
    columns[0] = columns[0]
        .clone()
        .into_builder()
        .set_dictionary_page_offset(None)
        .set_data_page_offset(offset)
        .set_total_compressed_size(chunk_bytes)
        .set_column_index_offset(None)
        .set_column_index_length(None)
        .set_offset_index_offset(None)
        .set_offset_index_length(None)
        .build()
        .expect("consistent");
    groups.insert(0, first.into_builder().set_column_metadata(columns).build().expect("consistent"));
    let metadata = metadata.into_builder().set_row_groups(groups).build();
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().expect("written");
    bytes
}
