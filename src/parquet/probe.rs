//! Reading everything of a file that may be damaged: what tests and fuzzers call.
//!
//! Owns: [`Memory`], [`read_file`], [`read_chunk`].

use super::codec::Codec;
use super::column::{ColumnReader, LaneState};
use super::decode::Kernels;
use super::file::ParquetFile;
use super::footer::{Decode, FileFooter, Stored};
use super::page::LaneIo;
use crate::data::{DataType, DictionaryIds, PhysicalType};
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::mem::{Account, Pool};
use std::ops::Range;
use std::path::Path;

/// The pool a probe reads with.
pub(super) const LIMIT_BYTES: usize = 8 << 20;
/// Rows a probe reads at a time.
const STEP_ROWS: u64 = 300;
/// Rows after which a probe has seen enough: run-length encoded nulls are cheap to claim.
const MOST_ROWS: u64 = 100_000;

/// A file in memory.
pub(super) struct Memory(pub(super) Vec<u8>);

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn path(&self) -> &Path {
        Path::new("memory.parquet")
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = start.checked_add(out.len()).and_then(|end| self.0.get(start..end));
        let eof = || Error::io("cannot read", self.path(), std::io::ErrorKind::UnexpectedEof.into());
        out.copy_from_slice(part.ok_or_else(eof)?);
        Ok(())
    }

    fn prefetch(&self, _range: Range<u64>) {}
}

/// Reads every column of a file that our decoders read, half of them with a selection, and looks at every value.
///
/// # Panics
/// If memory was taken beyond the pool, or not given back.
pub(super) fn read_file(bytes: Vec<u8>) -> Result<()> {
    within_pool(|pool| read_columns(&ParquetFile::new(0, Box::new(Memory(bytes)), pool)?, pool))
}

/// Reads `bytes` as the pages of one column chunk; the first four choose type, codec and number of rows.
///
/// # Panics
/// As [`read_file`].
pub(super) fn read_chunk(bytes: &[u8]) -> Result<()> {
    use PhysicalType as P;
    let Some((&[kind, codec, low, high], pages)) = bytes.split_first_chunk::<4>() else { return Ok(()) };
    let (stored, target, data_type) = match kind >> 1 & 7 {
        0 => (Stored::Boolean, P::Bool, DataType::Boolean),
        1 => (Stored::Int32, P::I32, DataType::Int32),
        2 => (Stored::Int64, P::I64, DataType::Int64),
        3 => (Stored::Double, P::F64, DataType::Float64),
        4 => (Stored::Fixed(7), P::I64, DataType::Decimal { precision: 16, scale: 2 }),
        5 => (Stored::Fixed(16), P::I128, DataType::Decimal { precision: 38, scale: 2 }),
        6 => (Stored::Fixed(20), P::View, DataType::Binary),
        _ => (Stored::ByteArray, P::View, DataType::Utf8),
    };
    let decode = Decode { stored, target, is_nullable: kind & 1 == 1, is_text: data_type == DataType::Utf8 };
    let codec = match codec % 4 {
        0 => Codec::None,
        1 => Codec::Snappy,
        2 => Codec::Lz4Raw,
        _ => Codec::Lz4,
    };
    let rows = u16::from_le_bytes([low, high]).into();
    within_pool(|pool| {
        let footer = FileFooter::of_one_chunk(decode, data_type, codec, rows, pages.len() as u64, pool);
        let read = Box::new(Memory(pages.to_vec()));
        read_columns(&ParquetFile::with_footer(0, read, footer), pool)
    })
}

fn within_pool(run: impl FnOnce(&Pool) -> Result<()>) -> Result<()> {
    let pool = Pool::new("probe", LIMIT_BYTES);
    let result = run(&pool);
    assert!(pool.peak_bytes() <= LIMIT_BYTES, "memory beyond the pool");
    assert_eq!(pool.granted_bytes(), 0, "everything is given back");
    result
}

fn read_columns(file: &ParquetFile, pool: &Pool) -> Result<()> {
    let account = Account::open(pool, 0, 64 << 10, 1 << 20)?;
    let ids = DictionaryIds::default();
    let mut io = LaneIo::new();
    for row_group in 0..file.footer.row_groups() {
        for (at, layout) in file.footer.columns.iter().enumerate() {
            let leaf = layout.leaves.start;
            let chunk = file.chunk(row_group, leaf);
            let Some(decode) = layout.decode else { continue };
            let data_type = &file.footer.schema[at].data_type;
            let mut reader = ColumnReader::new(leaf, &chunk, decode, data_type);
            let mut row = 0;
            while row < chunk.rows().min(MOST_ROWS) {
                let step = (chunk.rows() - row).min(STEP_ROWS);
                let positions: Vec<u32> = (0..step as u32).step_by(3).collect();
                let positions = (at % 2 == 1).then_some(&positions[..]);
                let mut lane =
                    LaneState { account: &account, ids: &ids, io: &mut io, kernels: Kernels::detect() };
                let vector = reader.read(&chunk, step as usize, positions, &mut lane)?;
                (0..vector.len()).for_each(|i| drop(vector.scalar(i, data_type)));
                row += step;
            }
        }
    }
    Ok(())
}

/// Entry points of the fuzz targets.
#[cfg(fuzzing)]
pub(crate) mod entry {
    /// Any bytes as a file; errors are fine.
    pub(crate) fn file(bytes: &[u8]) {
        let _ = super::read_file(bytes.to_vec());
    }

    /// Any bytes as the pages of a column chunk; errors are fine.
    pub(crate) fn pages(bytes: &[u8]) {
        let _ = super::read_chunk(bytes);
    }
}
