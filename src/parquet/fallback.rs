//! Columns our decoders cannot read, nested ones and rare types, through the `parquet` crate's Arrow reader.
//!
//! Owns: [`FallbackColumn`].
//!
//! Invariants:
//! 1. The crate reads no file: it is served pages that were read, charged and decompressed here.
//! 2. The first error of a page is the error of the read, not the crate's rendering of it.
//! 3. What the crate decodes into lies on the heap; it is charged while its rows are being emitted.
//! 4. Pages whose rows are known, by an offset index, their header or because no row has several values, are not
//!    decompressed if none of their rows is wanted.

use super::file::ParquetFile;
use super::footer::field_levels;
use super::nested_types;
use super::page::{LaneIo, PageHeader, PageKind, PageWalker};
use super::page_places::PagePlaces;
use crate::data::{Buf, DataType, DictionaryIds, FlatVector, Values, Vector, from_arrow_array};
use crate::error::{Error, Origin, Result};
use crate::mem::{Account, Pool, Reservation};
use arrow::array::{Array, ArrayRef};
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::FieldLevels;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector};
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
    pages: OneRowGroup,
    levels: FieldLevels,
    batch_rows: usize,
    /// None until a row is wanted.
    reader: Option<ParquetRecordBatchReader>,
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
        let places = layout.leaves.clone().map(|leaf| PagePlaces::read(file, row_group, leaf, pool));
        let pages = OneRowGroup {
            file: Arc::clone(file),
            metadata: Arc::clone(metadata),
            row_group,
            places: layout.leaves.clone().zip(places.map(|places| places.map(Arc::new))).collect(),
            pool: pool.clone(),
            error: Arc::clone(&error),
        };
        let levels = field_levels(&metadata.metadata, layout.leaves.clone());
        let levels = levels.map_err(|e| Error::data(format!("it cannot be read: {e}"), origin.clone()))?;
        Ok(Self {
            pages,
            levels,
            batch_rows,
            reader: None,
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

    /// The same column with nested values as they are in `table`, the type of the table's column; of others, as it is.
    pub(crate) fn with_nested_type(mut self, table: &DataType) -> Self {
        if let DataType::Nested(_) = table {
            self.data_type = table.clone();
        }
        self
    }

    /// Goes on at `row`.
    pub(crate) fn seek(&mut self, row: u64) {
        self.row = row;
    }

    /// Whether a new reader would pass over whole pages of each leaf that the present one would decode.
    fn is_worth_a_new_reader(&self) -> bool {
        // What is decoded already costs nothing.
        let decoded = self.pending.as_ref().map_or(0, |pending| pending.len() - self.at) as u64;
        let next = self.position + decoded;
        let passes = |places: &Option<Arc<PagePlaces>>| {
            places.as_ref().is_some_and(|places| places.has_start_within(next, self.row))
        };
        self.row >= next + self.batch_rows as u64
            && self.pages.places.iter().all(|(_, places)| passes(places))
    }

    /// A reader at `row`, which is not the row group's end.
    fn open(&self, row: u64) -> Result<ParquetRecordBatchReader> {
        let ahead = row as usize;
        let left = self.pages.num_rows() - ahead;
        let selection = (ahead > 0)
            .then(|| RowSelection::from(vec![RowSelector::skip(ahead), RowSelector::select(left)]));
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(
            &self.levels,
            &self.pages,
            self.batch_rows,
            selection,
        );
        reader.map_err(|e| self.failed(&e))
    }

    /// The error behind what the crate makes of it.
    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        let own = self.error.lock().take();
        own.unwrap_or_else(|| Error::data(format!("it cannot be read: {error}"), self.origin.clone()))
    }

    /// Up to `rows` rows from the reader's position.
    fn next_part(&mut self, rows: usize) -> Result<ArrayRef> {
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => {
                self.at = 0;
                match self.reader.as_mut().and_then(Iterator::next) {
                    Some(Ok(batch)) if batch.num_columns() == 1 => match &self.data_type {
                        DataType::Nested(to) => nested_types::widen(batch.column(0), to)?,
                        _ => Arc::clone(batch.column(0)),
                    },
                    Some(Err(e)) => return Err(self.failed(&e)),
                    Some(Ok(_)) | None => return Err(self.failed(&"it ends before its last row")),
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
        if rows > 0 && (self.reader.is_none() || self.is_worth_a_new_reader()) {
            // The old one's pages go first.
            (self.reader, self.pending) = (None, None);
            self.reader = Some(self.open(self.row)?);
            self.position = self.row;
        }
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
    /// Of its leaves, where told.
    places: Vec<(usize, Option<Arc<PagePlaces>>)>,
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
            is_repeated: self.file.footer.leaves[leaf].is_repeated,
            places: self.places.iter().find(|(l, _)| *l == leaf).and_then(|(_, places)| places.clone()),
            page: 0,
            walker,
            next: None,
            is_passing: false,
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
    is_repeated: bool,
    places: Option<Arc<PagePlaces>>,
    /// The next data page, where their places are known.
    page: usize,
    walker: PageWalker,
    /// A header read ahead.
    next: Option<PageHeader>,
    /// Whether the page before was passed over, and the next is likely to be.
    is_passing: bool,
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
            match self.walker.next(&chunk, &mut self.io, &self.account, !self.is_passing)? {
                None => return Ok(None),
                Some(PageHeader { kind: PageKind::Other, .. }) => {}
                Some(header) => self.next = Some(header),
            }
        }
        Ok(self.next)
    }

    /// The rows of the next page, if it is a data page whose place is known; goes there, reading nothing.
    fn placed_rows(&mut self) -> Option<usize> {
        let places = self.places.as_ref()?;
        let offset = places.offset(self.page)?;
        if self.page == 0 && self.walker.position() < offset {
            // A dictionary comes first.
            return None;
        }
        self.walker.seek(offset);
        places.page_rows(self.page).map(|rows| rows as usize)
    }

    fn look_ahead(&mut self) -> Result<Option<PageMetadata>> {
        if self.next.is_none()
            && let Some(rows) = self.placed_rows()
        {
            return Ok(Some(PageMetadata { num_rows: Some(rows), num_levels: None, is_dict: false }));
        }
        let Some(header) = self.peek()? else { return Ok(None) };
        Ok(Some(match header.kind {
            PageKind::Data { values, .. } => PageMetadata {
                num_rows: (!self.is_repeated).then_some(values as usize),
                num_levels: Some(values as usize),
                is_dict: false,
            },
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

    fn pass_over(&mut self) -> Result<()> {
        self.is_passing = true;
        if self.next.is_none()
            && self.placed_rows().is_some()
            && let Some(end) = self.places.as_ref().and_then(|places| places.end(self.page))
        {
            self.walker.seek(end);
            self.page += 1;
            return Ok(());
        }
        let header = self.peek()?;
        self.next = None;
        let is_data =
            header.is_some_and(|h| matches!(h.kind, PageKind::Data { .. } | PageKind::DataV2 { .. }));
        self.page += usize::from(is_data);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Page>> {
        if self.next.is_none() {
            self.placed_rows();
        }
        self.is_passing = false;
        let Some(header) = self.peek()? else { return Ok(None) };
        self.next = None;
        if !matches!(header.kind, PageKind::Dictionary { .. }) {
            self.page += 1;
        }
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
        self.look_ahead().map_err(|e| note(&self.error, e))
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        self.pass_over().map_err(|e| note(&self.error, e))
    }
}
