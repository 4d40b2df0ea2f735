//! Column readers against the arrays that were written.

use super::files::{Memory, Random, every_type, with_codec, write};
use crate::data::{BufMut, DataType, DictionaryIds, Vector, from_arrow_array};
use crate::mem::{Account, Pool};
use crate::parquet::codec::Codec;
use crate::parquet::column::{ColumnReader, LaneState};
use crate::parquet::decode::Kernels;
use crate::parquet::fallback::{CrateMetadata, FallbackColumn};
use crate::parquet::file::ParquetFile;
use crate::parquet::page::LaneIo;
use arrow::array::{Array, ArrayRef, RecordBatch};
use parquet::basic::Encoding;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use std::sync::Arc;

fn settings() -> Vec<(&'static str, WriterPropertiesBuilder)> {
    let base = WriterProperties::builder;
    let small = || base().set_data_page_row_count_limit(173).set_write_batch_size(64);
    let v2 = || small().set_writer_version(WriterVersion::PARQUET_2_0);
    vec![
        ("one page", base()),
        ("small pages", small()),
        ("plain", small().set_dictionary_enabled(false)),
        ("overflowing dictionary", small().set_dictionary_page_size_limit(600)),
        ("version 2", v2().set_encoding(Encoding::PLAIN)),
        ("version 2, no dictionary", v2().set_dictionary_enabled(false).set_encoding(Encoding::PLAIN)),
        ("row groups", small().set_max_row_group_row_count(Some(500))),
    ]
}

/// Either kind of reader, as a lane chooses it.
enum Either {
    Own(Box<ColumnReader>),
    Crate(Box<FallbackColumn>),
}

struct Check<'a> {
    file: Arc<ParquetFile>,
    batch: &'a RecordBatch,
    account: &'a Account,
    ids: &'a DictionaryIds,
    kernels: Kernels,
    what: String,
}

impl Check<'_> {
    fn open(&self, row_group: usize, column: usize) -> Either {
        let layout = &self.file.footer.columns[column];
        let leaf = layout.leaves.start;
        let chunk = self.file.chunk(row_group, leaf);
        match layout.decode {
            Some(decode) => {
                let data_type = &self.file.footer.schema[column].data_type;
                Either::Own(Box::new(ColumnReader::new(leaf, &chunk, decode, data_type)))
            }
            None => {
                let pool = self.account.pool();
                let metadata = Arc::new(CrateMetadata::read(&self.file, pool).expect("valid"));
                let reader = FallbackColumn::new(&self.file, &metadata, row_group, column, 100, pool);
                Either::Crate(Box::new(reader.expect("valid")))
            }
        }
    }

    fn column(&self, column: usize, seed: u64) {
        let mut random = Random(seed);
        let mut io = LaneIo::new();
        let mut first = 0;
        for (row_group, &rows) in self.file.footer.row_group_rows.iter().enumerate() {
            let mut reader = self.open(row_group, column);
            let mut row = 0;
            while row < rows {
                let most = [5, 100, 700][random.below(3) as usize];
                let step = 1 + random.below(most);
                let step = step.min(rows - row) as usize;
                let selected = match random.below(4) {
                    0 => {
                        row += step as u64;
                        continue;
                    }
                    1 => None,
                    _ => {
                        let every = 1 + random.below(9);
                        let mut out = BufMut::with_capacity(self.account, step).expect("fits");
                        (0..step as u32).filter(|_| random.below(every) == 0).for_each(|p| out.push(p));
                        Some(out.freeze())
                    }
                };
                let mut lane =
                    LaneState { account: self.account, ids: self.ids, io: &mut io, kernels: self.kernels };
                let positions = selected.as_deref();
                let vector = match &mut reader {
                    Either::Own(reader) => {
                        reader.seek(row);
                        let chunk = self.file.chunk(row_group, reader.leaf());
                        reader.read(&chunk, step, positions, &mut lane)
                    }
                    Either::Crate(reader) => {
                        reader.seek(row);
                        reader.read(step, positions, self.ids, self.account)
                    }
                };
                let vector = vector.unwrap_or_else(|e| panic!("{}: {e}", self.what));
                let expected = self.batch.column(column).slice(first + row as usize, step);
                self.compare(column, &vector, &expected, positions);
                row += step as u64;
            }
            first += rows as usize;
        }
    }

    fn compare(&self, column: usize, vector: &Vector, expected: &ArrayRef, positions: Option<&[u32]>) {
        let field = &self.file.footer.schema[column];
        let all: Vec<u32> = (0..expected.len() as u32).collect();
        let positions = positions.unwrap_or(&all);
        assert_eq!(vector.len(), positions.len(), "{}: {}", self.what, field.name);
        if let (DataType::Nested(_), Vector::Flat(flat)) = (&field.data_type, vector) {
            let picked =
                arrow::compute::take(expected, &arrow::array::UInt32Array::from(positions.to_vec()), None);
            let crate::data::Values::Nested(array) = &flat.values else { panic!("nested stays nested") };
            assert_eq!(array, &picked.expect("in bounds"), "{}: {}", self.what, field.name);
            return;
        }
        let expected = from_arrow_array(expected, self.ids, self.account).expect("supported");
        for (at, &position) in positions.iter().enumerate() {
            let (is, should) =
                (vector.scalar(at, &field.data_type), expected.scalar(position as usize, &field.data_type));
            assert_eq!(is, should, "{}: {} row {at}", self.what, field.name);
        }
        if let Vector::Dict { codes, dictionary, .. } = vector {
            assert!(
                codes.iter().all(|&c| (c as usize) < dictionary.len()),
                "codes are inside, even of nulls"
            );
        }
    }
}

pub(super) fn check(bytes: Vec<u8>, batch: &RecordBatch, what: &str) {
    let pool = Pool::new("test", 64 << 20);
    {
        let account = Account::open(&pool, 0, 64 << 10, 4 << 20).expect("fits");
        let ids = DictionaryIds::default();
        let file = Arc::new(ParquetFile::new(0, Box::new(Memory(bytes)), &pool).expect("valid"));
        for (layout, field) in file.footer.columns.iter().zip(file.footer.schema.iter()) {
            let is_nested = matches!(field.data_type, DataType::Nested(_));
            assert_eq!(layout.decode.is_none(), is_nested, "{} has a decoder of ours", field.name);
        }
        for kernels in [Kernels::detect(), Kernels::Portable] {
            let check = Check {
                file: Arc::clone(&file),
                batch,
                account: &account,
                ids: &ids,
                kernels,
                what: what.to_owned(),
            };
            for column in 0..batch.num_columns() {
                check.column(column, column as u64 * 7 + 1);
            }
        }
    }
    assert_eq!(pool.granted_bytes(), 0, "{what}: everything is given back");
}

#[test]
fn all_types_survive_all_writer_settings_with_and_without_nulls() {
    for (null_every, distinct) in [(0, 60), (5, 60), (2, 5000), (0, 5000), (1, 9)] {
        let batch = every_type(1300, null_every, distinct);
        for (name, properties) in settings() {
            let what = format!("{name}, nulls 1/{null_every}, {distinct} values");
            check(write(&batch, properties.build()), &batch, &what);
        }
    }
}

#[test]
fn all_codecs_are_undone() {
    let batch = every_type(700, 6, 80);
    for codec in [Codec::Snappy, Codec::Gzip, Codec::Brotli, Codec::Zstd, Codec::Lz4Raw, Codec::Lz4] {
        for (name, properties) in settings() {
            let bytes = with_codec(write(&batch, properties.build()), codec);
            check(bytes, &batch, &format!("{codec:?}, {name}"));
        }
    }
}

#[test]
fn a_steady_state_maps_no_memory() {
    let batch = every_type(20_000, 0, 500);
    let batch = batch.project(&[4]).expect("in bounds");
    let properties =
        WriterProperties::builder().set_data_page_row_count_limit(1000).set_write_batch_size(500).build();
    let bytes = with_codec(write(&batch, properties), Codec::Snappy);
    let pool = Pool::new("test", 64 << 20);
    let account = Account::open(&pool, 0, 64 << 10, 4 << 20).expect("fits");
    let ids = DictionaryIds::default();
    let file = ParquetFile::new(0, Box::new(Memory(bytes)), &pool).expect("valid");
    let chunk = file.chunk(0, 0);
    let decode = file.footer.columns[0].decode.expect("flat");
    let mut reader = ColumnReader::new(0, &chunk, decode, &DataType::Int64);
    let mut io = LaneIo::new();
    let mut peaks = Vec::new();
    for _ in 0..40 {
        let mut lane = LaneState { account: &account, ids: &ids, io: &mut io, kernels: Kernels::detect() };
        let vector = reader.read(&chunk, 500, None, &mut lane).expect("valid");
        assert!(matches!(vector, Vector::Dict { .. }));
        drop(vector);
        peaks.push(account.used_bytes() + account.spare_bytes());
    }
    assert_eq!(peaks[3], peaks[39], "{peaks:?}");
}
