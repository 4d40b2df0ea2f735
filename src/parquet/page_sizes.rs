//! How large the pages of a column are, learned from the first headers of one chunk. Footers do not tell, and writers
//! differ: some cut pages at 20,000 rows, some at 1 MiB, some not at all.
//!
//! Owns: [`PageSizes`].
//!
//! Invariants:
//! 1. At most two small reads a column, and nothing is allocated.
//! 2. It is a hint: whatever cannot be read or parsed here means "unknown", and shows when the column is read.
//!
//! Must not know: plans, lanes.

use super::footer::ChunkMeta;
use super::page::page_size;
use crate::io::ReadAt;

/// Enough for most page headers, their statistics included.
const HEADER_BYTES: usize = 1024;
/// Dictionary pages end at about this size; writers fall back to plain values beyond it.
const LARGEST_DICTIONARY_BYTES: u64 = 1 << 20;
/// They go beyond it by as much as is written between two looks.
const OVERSHOT_DICTIONARY_BYTES: u64 = LARGEST_DICTIONARY_BYTES + LARGEST_DICTIONARY_BYTES / 4;
/// Rows of a data page, where its writer counts rows.
const PAGE_ROWS: u64 = 20 << 10;
/// Data pages end at about this size, where their writer counts bytes.
pub(super) const LARGEST_PAGE_BYTES: u64 = 1 << 20;
/// Small pages may hardly shrink, whatever others of their chunk do.
const LEAST_READ_BYTES: u64 = 64 << 10;
/// A page with at least this part of its chunk's bytes is taken to be the only one.
const ONLY_NUMERATOR: u64 = 3;
const ONLY_DENOMINATOR: u64 = 4;

/// The pages of one chunk, as far as looked at. Bytes are those of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSizes {
    dictionary_bytes: u64,
    dictionary_entries: u64,
    dictionary_compressed_bytes: u64,
    /// Of the first data page.
    data_bytes: u64,
    data_compressed_bytes: u64,
    /// Whether the chunk has but one data page.
    is_only: bool,
}

/// The most that a chunk's pages are expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) dictionary_bytes: u64,
    pub(super) dictionary_entries: u64,
    pub(super) page_bytes: u64,
    /// Compressed, of a page or a dictionary.
    pub(super) read_bytes: u64,
}

impl PageSizes {
    /// Looks at the first pages of `chunk`.
    pub(super) fn read(read: &dyn ReadAt, chunk: &ChunkMeta) -> Option<Self> {
        let mut header = [0; HEADER_BYTES];
        let mut at = chunk.start;
        let end = chunk.start.checked_add(chunk.compressed_bytes)?;
        let (mut dictionary_bytes, mut dictionary_entries, mut dictionary_compressed_bytes) = (0, 0, 0);
        // A dictionary, if there is one, comes first.
        for _ in 0..2 {
            let bytes = &mut header[..HEADER_BYTES.min(usize::try_from(end.checked_sub(at)?).ok()?)];
            read.read_exact_at(at, bytes).ok()?;
            let page = page_size(bytes)?;
            if let Some(entries) = page.dictionary_entries {
                (dictionary_bytes, dictionary_entries) = (page.uncompressed_bytes, entries.into());
                dictionary_compressed_bytes = page.compressed_bytes;
                at = at.checked_add(page.header_bytes)?.checked_add(page.compressed_bytes)?;
                continue;
            }
            let values_bytes = chunk.uncompressed_bytes.saturating_sub(dictionary_bytes);
            return Some(Self {
                dictionary_bytes,
                dictionary_entries,
                dictionary_compressed_bytes,
                data_bytes: page.uncompressed_bytes,
                data_compressed_bytes: page.compressed_bytes,
                is_only: page.uncompressed_bytes * ONLY_DENOMINATOR >= values_bytes * ONLY_NUMERATOR,
            });
        }
        None
    }

    /// What to expect of `chunk` with `rows` rows, in a file whose pages are like `sizes`.
    pub(super) fn expect(sizes: Option<Self>, chunk: &ChunkMeta, rows: u64) -> Expected {
        // Headers have 32 bits for a page's sizes.
        let at_most = |bytes: u64| bytes.min(i32::MAX as u64);
        let (total, compressed) = (at_most(chunk.uncompressed_bytes), at_most(chunk.compressed_bytes));
        let by_rows = total.saturating_mul(PAGE_ROWS) / rows.max(1);
        let by_rows = by_rows.clamp(total.min(8 << 10), total).min(LARGEST_PAGE_BYTES);
        let dictionary_bytes = match sizes {
            _ if !chunk.has_dictionary => 0,
            Some(Self { dictionary_bytes: known, .. }) if known <= OVERSHOT_DICTIONARY_BYTES => {
                total.min(LARGEST_DICTIONARY_BYTES.max(known + known / 8))
            }
            // There is another limit, or none.
            Some(_) => total,
            None => total.min(LARGEST_DICTIONARY_BYTES),
        };
        // Entries take at least their length. Those of the chunks that follow may be shorter than those looked at.
        let most_entries = rows.min(dictionary_bytes / size_of::<u32>() as u64);
        let dictionary_entries = match sizes {
            Some(sizes) if sizes.dictionary_bytes > 0 => {
                let like = dictionary_bytes.saturating_mul(sizes.dictionary_entries) / sizes.dictionary_bytes;
                most_entries.min(like + like / 2)
            }
            Some(_) | None => most_entries,
        };
        let (page_bytes, read_bytes) = match sizes {
            None => (by_rows, LARGEST_PAGE_BYTES),
            Some(sizes) if sizes.is_only => (total, compressed),
            // Pages of one column differ a little, in how far they shrink a little more.
            Some(sizes) => {
                let page_bytes = by_rows.max(sizes.data_bytes + sizes.data_bytes / 4);
                let largest = page_bytes.max(dictionary_bytes).saturating_mul(compressed) / total.max(1);
                let seen = sizes.data_compressed_bytes.max(sizes.dictionary_compressed_bytes);
                (page_bytes, (seen + seen / 4).max(largest + largest / 2).max(LEAST_READ_BYTES))
            }
        };
        Expected {
            dictionary_bytes,
            dictionary_entries,
            page_bytes: page_bytes.min(total),
            read_bytes: read_bytes.min(compressed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::OpenFiles;
    use crate::mem::Pool;
    use crate::parquet::file::ParquetFile;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
    use std::sync::Arc;

    const ROWS: u64 = 100_000;

    /// What to expect of a column of 100,000 eight-byte numbers.
    fn expected(properties: WriterPropertiesBuilder, distinct: i64) -> Expected {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|i| i % distinct)));
        let batch = RecordBatch::try_from_iter([("v", column)]).expect("a batch");
        let properties = properties.set_statistics_enabled(EnabledStatistics::Chunk).build();
        let file = std::fs::File::create(&path).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let file = ParquetFile::open(0, &path, &OpenFiles::new(1), &Pool::new("p", 1 << 20)).expect("opens");
        let sizes = file.page_sizes(0);
        assert!(sizes.is_some());
        PageSizes::expect(sizes, file.footer.chunk(0, 0), ROWS)
    }

    #[test]
    fn pages_cut_by_rows_by_bytes_and_not_at_all_are_told_apart() {
        let plain = || WriterProperties::builder().set_dictionary_enabled(false);
        let by_rows = expected(plain().set_data_page_row_count_limit(10_000), i64::MAX);
        assert!((80_000..300_000).contains(&by_rows.page_bytes), "{by_rows:?}");
        let by_bytes = expected(
            plain().set_data_page_row_count_limit(1 << 30).set_data_page_size_limit(400_000),
            i64::MAX,
        );
        assert!((400_000..700_000).contains(&by_bytes.page_bytes), "{by_bytes:?}");
        let uncut = expected(
            plain().set_data_page_row_count_limit(1 << 30).set_data_page_size_limit(1 << 30),
            i64::MAX,
        );
        assert!(uncut.page_bytes >= 800_000 && uncut.read_bytes >= 800_000, "{uncut:?}");
    }

    #[test]
    fn a_dictionary_in_front_is_passed_over() {
        let few = expected(WriterProperties::builder().set_data_page_row_count_limit(1 << 30), 3);
        assert!(few.dictionary_bytes > 0 && few.page_bytes >= 12_500, "{few:?}");
    }

    #[test]
    fn a_dictionary_a_little_beyond_the_limit_is_not_all_of_its_chunk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let batch = RecordBatch::try_from_iter([("v", column)]).expect("a batch");
        let file = std::fs::File::create(&path).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let file = ParquetFile::open(0, &path, &OpenFiles::new(1), &Pool::new("p", 1 << 20)).expect("opens");
        let (uncompressed_bytes, compressed_bytes) = (4 << 20, 1 << 20);
        let mut chunk = *file.footer.chunk(0, 0);
        (chunk.uncompressed_bytes, chunk.compressed_bytes) = (uncompressed_bytes, compressed_bytes);
        let expect = |dictionary_bytes| {
            let sizes = PageSizes {
                dictionary_bytes,
                dictionary_entries: 20_000,
                dictionary_compressed_bytes: 800_000,
                data_bytes: 40_000,
                data_compressed_bytes: 30_000,
                is_only: false,
            };
            PageSizes::expect(Some(sizes), &chunk, 75_000)
        };
        let overshot = expect((1 << 20) + 40_000);
        assert!((1_100_000..1_300_000).contains(&overshot.dictionary_bytes), "{overshot:?}");
        assert!((20_000..40_000).contains(&overshot.dictionary_entries), "{overshot:?}");
        assert_eq!(overshot.read_bytes, 1_000_000, "that of the dictionary, and a quarter");
        assert_eq!(expect(3 << 20).dictionary_bytes, uncompressed_bytes);
        assert_eq!(PageSizes::expect(None, &chunk, 75_000).dictionary_entries, 75_000);
    }
}
