//! Columns our decoders cannot read, nested ones and rare types, through the `parquet` crate's Arrow reader.
//!
//! Owns: [`FallbackColumn`].
//!
//! Invariants:
//! 1. The crate reads no file: it is served pages that were read, charged and decompressed here.
//! 2. The first error of a page is the error of the read, not the crate's rendering of it.
//! 3. What the crate decodes into lies on the heap; it is charged while its rows are being emitted.

use super::file::ParquetFile;
use super::footer::field_levels;
use super::page::{LaneIo, PageHeader, PageKind, PageWalker};
use crate::data::{Buf, DataType, DictionaryIds, FlatVector, Values, Vector, from_arrow_array};
use crate::error::{Error, Origin, Result};
use crate::mem::{Account, Pool, Reservation};
use arrow::array::{Array, ArrayRef};
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups};
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use std::sync::Arc;

/// A file's metadata as the crate has it, with the bytes it is charged with.
#[derive(Debug)]
pub(crate) struct CrateMetadata {
    metadata: ParquetMetaData,
    _charge: Reservation,
}

impl CrateMetadata {
    /// Decodes the footer of `file` once more.
    pub(crate) fn read(file: &ParquetFile, pool: &Pool) -> Result<Self> {
        let (metadata, _charge) = file.footer.decode_again(file.read.as_ref(), pool)?;
        Ok(Self { metadata, _charge })
    }
}

type ErrorSlot = Arc<Mutex<Option<Error>>>;

/// A column of one row group.
pub(crate) struct FallbackColumn {
    reader: ParquetRecordBatchReader,
    origin: Origin,
    data_type: DataType,
    error: ErrorSlot,
    /// Rows decoded but not delivered, from `at`.
    pending: Option<ArrayRef>,
    at: usize,
    /// The next row the reader gives, counting `pending` as not given.
    position: u64,
    row: u64,
    charge: Reservation,
}

impl FallbackColumn {
    /// Column `column` of the table, in `row_group`, read in steps of `batch_rows`.
    pub(crate) fn new(
        file: &Arc<ParquetFile>,
        metadata: &Arc<CrateMetadata>,
        row_group: usize,
        column: usize,
        batch_rows: usize,
        pool: &Pool,
    ) -> Result<Self> {
        let layout = &file.footer.columns[column];
        let field = &file.footer.schema[column];
        let origin = Origin {
            file: file.read.path().to_owned(),
            row_group: Some(row_group),
            column: Some(field.name.clone()),
        };
        let error = ErrorSlot::default();
        let groups = OneRowGroup {
            file: Arc::clone(file),
            metadata: Arc::clone(metadata),
            row_group,
            pool: pool.clone(),
            error: Arc::clone(&error),
        };
        let damaged = |e: ParquetError| Error::data(format!("it cannot be read: {e}"), origin.clone());
        let levels = field_levels(&metadata.metadata, layout.leaves.clone()).map_err(damaged)?;
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(&levels, &groups, batch_rows, None);
        let reader = reader.map_err(|e| error.lock().take().unwrap_or_else(|| damaged(e)))?;
        Ok(Self {
            reader,
            origin,
            data_type: field.data_type.clone(),
            error,
            pending: None,
            at: 0,
            position: 0,
            row: 0,
            charge: Reservation::empty(pool),
        })
    }

    /// Goes on at `row`.
    pub(crate) fn seek(&mut self, row: u64) {
        self.row = row;
    }

    /// Up to `rows` rows from the reader's position.
    fn next_part(&mut self, rows: usize) -> Result<ArrayRef> {
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => {
                self.at = 0;
                match self.reader.next() {
                    Some(Ok(batch)) if batch.num_columns() == 1 => Arc::clone(batch.column(0)),
                    Some(Err(e)) => {
                        let own = self.error.lock().take();
                        let other = || Error::data(format!("it cannot be read: {e}"), self.origin.clone());
                        return Err(own.unwrap_or_else(other));
                    }
                    Some(Ok(_)) | None => {
                        let own = self.error.lock().take();
                        let short = || Error::data("it ends before its last row", self.origin.clone());
                        return Err(own.unwrap_or_else(short));
                    }
                }
            }
        };
        let step = rows.min(pending.len() - self.at);
        let part = pending.slice(self.at, step);
        self.at += step;
        self.position += step as u64;
        if self.at < pending.len() {
            self.pending = Some(pending);
        }
        Ok(part)
    }

    /// The next `rows` rows, or those of them at `positions`.
    pub(crate) fn read(
        &mut self,
        rows: usize,
        positions: Option<&[u32]>,
        ids: &DictionaryIds,
        account: &Account,
    ) -> Result<Vector> {
        while self.position < self.row {
            let ahead = (self.row - self.position).min(u32::MAX.into()) as usize;
            self.next_part(ahead)?;
        }
        let held = self.charge.bytes();
        self.charge.shrink(held);
        let mut parts = Vec::new();
        let mut done = 0;
        while done < rows {
            let part = self.next_part(rows - done)?;
            done += part.len();
            self.charge.try_grow(part.get_buffer_memory_size() / 2)?;
            parts.push(part);
        }
        self.row += rows as u64;
        let array = match &parts[..] {
            [one] => Arc::clone(one),
            many => {
                let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
                arrow::compute::concat(&many).map_err(|e| Error::internal(format!("joining batches: {e}")))?
            }
        };
        let vector = match &self.data_type {
            DataType::Nested(_) => Vector::Flat(FlatVector::new(Values::Nested(array))),
            _ => from_arrow_array(&array, ids, account)?,
        };
        Ok(match positions {
            Some(positions) => vector.gather(positions, account)?,
            None => vector,
        })
    }
}

/// One row group of a file, as the crate's reader wants to see it.
struct OneRowGroup {
    file: Arc<ParquetFile>,
    metadata: Arc<CrateMetadata>,
    row_group: usize,
    pool: Pool,
    error: ErrorSlot,
}

impl RowGroups for OneRowGroup {
    fn num_rows(&self) -> usize {
        self.file.footer.row_group_rows[self.row_group] as usize
    }

    fn column_chunks(&self, leaf: usize) -> parquet::errors::Result<Box<dyn PageIterator>> {
        let account = Account::open(&self.pool, 0, 64 << 10, 2 << 20)
            .map_err(|denied| note(&self.error, denied.into()))?;
        let walker = PageWalker::new(&self.file.chunk(self.row_group, leaf));
        let pages = ChunkPages {
            file: Arc::clone(&self.file),
            row_group: self.row_group,
            leaf,
            walker,
            next: None,
            io: LaneIo::new(),
            account,
            error: Arc::clone(&self.error),
        };
        Ok(Box::new(OneChunk(Some(pages))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.metadata.row_group(self.row_group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata.metadata
    }
}

fn note(slot: &ErrorSlot, error: Error) -> ParquetError {
    let message = error.to_string();
    slot.lock().get_or_insert(error);
    ParquetError::General(message)
}

struct OneChunk(Option<ChunkPages>);

impl Iterator for OneChunk {
    type Item = parquet::errors::Result<Box<dyn PageReader>>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(Box::new(pages) as Box<dyn PageReader>))
    }
}

impl PageIterator for OneChunk {}

/// The pages of a chunk, in memory one at a time.
struct ChunkPages {
    file: Arc<ParquetFile>,
    row_group: usize,
    leaf: usize,
    walker: PageWalker,
    /// A header read ahead.
    next: Option<PageHeader>,
    io: LaneIo,
    account: Account,
    error: ErrorSlot,
}

/// A page body lent to the crate.
struct Body(Buf<u8>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ChunkPages {
    fn peek(&mut self) -> Result<Option<PageHeader>> {
        while self.next.is_none() {
            let chunk = self.file.chunk(self.row_group, self.leaf);
            match self.walker.next(&chunk, &mut self.io, &self.account, true)? {
                None => return Ok(None),
                Some(PageHeader { kind: PageKind::Other, .. }) => {}
                Some(header) => self.next = Some(header),
            }
        }
        Ok(self.next)
    }

    fn read(&mut self) -> Result<Option<Page>> {
        let Some(header) = self.peek()? else { return Ok(None) };
        self.next = None;
        let chunk = self.file.chunk(self.row_group, self.leaf);
        let body = self.io.load(&chunk, &header, None, &self.account)?;
        let buf = Bytes::from_owner(Body(body.freeze()));
        let encoding = |e| {
            crate_encoding(e)
                .ok_or_else(|| chunk.damaged(format!("a page is encoded as {e:?}, which is unknown")))
        };
        Ok(match header.kind {
            PageKind::Data { values, encoding: e, definition_encoding, repetition_encoding } => {
                Some(Page::DataPage {
                    buf,
                    num_values: values,
                    encoding: encoding(e)?,
                    def_level_encoding: encoding(definition_encoding)?,
                    rep_level_encoding: encoding(repetition_encoding)?,
                    statistics: None,
                })
            }
            PageKind::DataV2 {
                values, rows, nulls, encoding: e, definition_bytes, repetition_bytes, ..
            } => Some(Page::DataPageV2 {
                buf,
                num_values: values,
                encoding: encoding(e)?,
                num_nulls: nulls,
                num_rows: rows,
                def_levels_byte_len: definition_bytes,
                rep_levels_byte_len: repetition_bytes,
                is_compressed: false,
                statistics: None,
            }),
            PageKind::Dictionary { values, encoding: e } => Some(Page::DictionaryPage {
                buf,
                num_values: values,
                encoding: encoding(e)?,
                is_sorted: false,
            }),
            PageKind::Other => None,
        })
    }
}

fn crate_encoding(encoding: super::page::PageEncoding) -> Option<Encoding> {
    use super::page::PageEncoding as E;
    #[expect(deprecated, reason = "old files still use it for levels")]
    let bit_packed = Encoding::BIT_PACKED;
    Some(match encoding {
        E::Plain => Encoding::PLAIN,
        E::Dictionary => Encoding::RLE_DICTIONARY,
        E::Rle => Encoding::RLE,
        E::BitPacked => bit_packed,
        E::DeltaBinary => Encoding::DELTA_BINARY_PACKED,
        E::DeltaLength => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        E::DeltaBytes => Encoding::DELTA_BYTE_ARRAY,
        E::ByteStreamSplit => Encoding::BYTE_STREAM_SPLIT,
        E::Other(_) => return None,
    })
}

impl Iterator for ChunkPages {
    type Item = parquet::errors::Result<Page>;
    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for ChunkPages {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        self.read().map_err(|e| note(&self.error, e))
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        let header = self.peek().map_err(|e| note(&self.error, e))?;
        Ok(header.map(|header| match header.kind {
            PageKind::Data { values, .. } => {
                PageMetadata { num_rows: None, num_levels: Some(values as usize), is_dict: false }
            }
            PageKind::DataV2 { values, rows, .. } => PageMetadata {
                num_rows: Some(rows as usize),
                num_levels: Some(values as usize),
                is_dict: false,
            },
            PageKind::Dictionary { .. } | PageKind::Other => {
                PageMetadata { num_rows: None, num_levels: None, is_dict: true }
            }
        }))
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        self.peek().map_err(|e| note(&self.error, e))?;
        self.next = None;
        Ok(())
    }
}
