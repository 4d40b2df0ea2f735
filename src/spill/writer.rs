//! Writing partitions of rows.

use super::block::{self, BlockSchema, TRAILER_BYTES};
use super::checksum::{Checksum, STRIPE_BYTES};
use super::directory::SpillDirectory;
use super::file::SpillFile;
use super::index::{BlockEntry, BlockIndex, Encoding};
use super::pack;
use super::segment::{Segment, Segments};
use crate::data::{Batch, BufMut, DataType, PhysicalType};
use crate::error::{Error, Result};
use crate::mem::{Account, size_class_bytes};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamEncoder;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::sync::Arc;
use std::time::Instant;

/// Larger messages are stored as they are: they come from rows that do not fit a block, or from very large blocks.
const LARGEST_COMPRESSED_BYTES: usize = 512 << 10;
/// Below this the compressor does with a table of 16-bit entries.
const SMALL_TABLE_MESSAGE_BYTES: usize = 64 << 10;
const SMALL_TABLE_BYTES: usize = 8 << 10;
const LARGE_TABLE_BYTES: usize = 16 << 10;

/// Appends batches to partitions; all partitions share one segment at a time. For one lane or task.
pub(crate) struct SpillWriter {
    column_count: usize,
    block_bytes: usize,
    /// A message, then its compressed form.
    staging: BufMut<u8>,
    compressor: CompressTable,
    schemas: Vec<WriteSchema>,
    segments: Segments,
    index: BlockIndex,
    written_bytes: u64,
}

/// A physical schema with the encoder of its messages, which keeps its small scratch.
struct WriteSchema {
    schema: BlockSchema,
    encoder: StreamEncoder,
}

impl SpillWriter {
    pub(super) fn new(
        directory: SpillDirectory,
        schema: &[DataType],
        account: &Account,
        block_bytes: usize,
    ) -> Result<Self> {
        if let Some(nested) = schema.iter().find(|t| block::has_dictionary(t)) {
            return Err(Error::unsupported(format!("spilling columns of type {nested}"), None));
        }
        // Stands also for the compressor's table, which is on the heap: those pages are never touched.
        let staging = BufMut::with_capacity(account, buffer_bytes(block_bytes))?;
        let compressor = match message_room(block_bytes) {
            ..SMALL_TABLE_MESSAGE_BYTES => CompressTable::small(),
            _ => CompressTable::large(),
        };
        Ok(Self {
            column_count: schema.len(),
            block_bytes,
            staging,
            compressor,
            schemas: Vec::new(),
            segments: Segments::new(directory),
            index: BlockIndex::new(block_bytes, account)?,
            written_bytes: 0,
        })
    }

    /// Bytes a writer takes for a message, its compressed form, the compressor's table, and entries of its index.
    pub(crate) fn staging_bytes(block_bytes: usize) -> usize {
        size_class_bytes(buffer_bytes(block_bytes)) + size_class_bytes(BlockIndex::buffer_bytes(block_bytes))
    }

    /// Appends the rows alive of `batch` to `partition`, as one block, or as several if one would be larger than
    /// the writer's blocks should be. Without rows nothing is written.
    ///
    /// Flat columns without a selection are written from where they lie; whatever else they are is first copied into
    /// slabs of `account`, one block's worth at a time, or as much as there is memory for. After an error the
    /// partition holds what it held before, or some whole blocks of the batch more; the query is expected to end.
    ///
    /// # Errors
    /// [`Error::SpillQuota`], [`Error::Io`], memory errors.
    pub(crate) fn write(&mut self, partition: u32, batch: &Batch, account: &Account) -> Result<()> {
        debug_assert_eq!(batch.columns().len(), self.column_count, "a batch of the writer's schema");
        let rows = batch.rows();
        if rows == 0 {
            return Ok(());
        }
        let bytes = block::estimated_bytes(batch);
        if rows > 1 && (bytes > self.block_bytes || u32::try_from(rows).is_err()) {
            // In proportion, so that blocks are as full as they may be.
            let blocks = bytes.div_ceil(self.block_bytes).clamp(2, rows);
            let first = rows / blocks * (blocks / 2) + rows % blocks * (blocks / 2) / blocks;
            return self.write_halves(partition, batch, first, account);
        }
        match self.write_block(partition, batch, account) {
            // What had to be copied, such as scattered strings, was larger than there is memory for.
            Err(error) if error.is_refusal() && rows > 1 => {
                self.write_halves(partition, batch, rows / 2, account)
            }
            answer => answer,
        }
    }

    /// The first `first` rows, then the others.
    fn write_halves(&mut self, partition: u32, batch: &Batch, first: usize, account: &Account) -> Result<()> {
        self.write(partition, &batch.slice(0, first, account)?, account)?;
        self.write(partition, &batch.slice(first, batch.rows() - first, account)?, account)
    }

    /// Bytes of the blocks written so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Ends writing; what was written can be read. Without blocks there is no file behind it.
    ///
    /// # Errors
    /// As of [`write`](Self::write), but for memory errors.
    pub(crate) fn finish(mut self) -> Result<SpillFile> {
        self.settle()?;
        let schemas = self.schemas.into_iter().map(|s| s.schema).collect();
        Ok(SpillFile::new(self.segments.into_all(), schemas, self.index.into_chains()))
    }

    /// Writes what the index has collected.
    fn settle(&mut self) -> Result<()> {
        self.staging.set_len(self.staging.capacity() / STRIPE_BYTES * STRIPE_BYTES);
        self.index.settle(&mut self.segments, &mut self.staging)
    }

    fn write_block(&mut self, partition: u32, batch: &Batch, account: &Account) -> Result<()> {
        let started = Instant::now();
        let (physical, record_batch) = block::to_physical(batch, account)?;
        let schema = self.schema(physical, &record_batch)?;
        let encoded = self.schemas[schema].encoder.encode(&record_batch).map_err(encoding_failed)?;
        let message_len = encoded.iter().map(Buffer::len).sum::<usize>().next_multiple_of(STRIPE_BYTES);
        if self.index.is_full() {
            self.settle()?;
        }
        let mut entry = BlockEntry {
            partition,
            segment: 0,
            offset: 0,
            message_bytes: message_len as u64,
            stored_bytes: message_len as u64,
            rows: batch.rows() as u32,
            schema: schema as u32,
            encoding: Encoding::Plain,
        };
        let room = message_room(self.block_bytes);
        let Self { segments, staging, compressor, .. } = self;
        let appended = segments.append(|number, segment| {
            entry = BlockEntry {
                segment: number,
                offset: segment.len(),
                stored_bytes: message_len as u64,
                encoding: Encoding::Plain,
                ..entry
            };
            if message_len > room {
                return append(segment, staging, stored_room(room), &encoded, &entry);
            }
            staging.set_len(stored_room(room) + compressed_room(room));
            let (message, compressed) = staging.split_at_mut(stored_room(room));
            let physical = &self.schemas[schema].schema.physical;
            append_smaller(segment, &encoded, physical, (message, compressed), compressor, &mut entry)
        })?;
        self.segments.of(appended.segment).note_block(started, true);
        self.index.push(entry);
        self.written_bytes += entry.len();
        Ok(())
    }

    /// The number of the physical schema, which is new where a decimal column changes its width.
    fn schema(&mut self, physical: Box<[PhysicalType]>, batch: &RecordBatch) -> Result<usize> {
        if let Some(known) = self.schemas.iter().position(|s| s.schema.physical == physical) {
            return Ok(known);
        }
        let arrow: SchemaRef = batch.schema();
        let mut encoder = StreamEncoder::try_new(&arrow).map_err(encoding_failed)?;
        // The first message of a stream brings the schema along, which the writer keeps in memory instead.
        encoder.encode(&RecordBatch::new_empty(Arc::clone(&arrow))).map_err(encoding_failed)?;
        self.schemas.push(WriteSchema { schema: BlockSchema { physical, arrow }, encoder });
        Ok(self.schemas.len() - 1)
    }
}

impl std::fmt::Debug for SpillWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpillWriter({} bytes in {} segments)", self.written_bytes, self.segments.len())
    }
}

/// Bytes for a message, its compressed form, and the compressor's table.
fn buffer_bytes(block_bytes: usize) -> usize {
    let room = message_room(block_bytes);
    let table_bytes = if room < SMALL_TABLE_MESSAGE_BYTES { SMALL_TABLE_BYTES } else { LARGE_TABLE_BYTES };
    stored_room(room) + compressed_room(room) + table_bytes
}

/// Bytes of the largest message that a writer of such blocks compresses: a block with its description.
fn message_room(block_bytes: usize) -> usize {
    (block_bytes + block_bytes / 16 + 2048).min(LARGEST_COMPRESSED_BYTES).next_multiple_of(STRIPE_BYTES)
}

/// Room for a message of `room` bytes as a block.
fn stored_room(room: usize) -> usize {
    room + TRAILER_BYTES
}

/// Room for whatever a message of `room` bytes is compressed to, as a block.
fn compressed_room(room: usize) -> usize {
    get_maximum_output_size(room).next_multiple_of(STRIPE_BYTES) + TRAILER_BYTES
}

/// Appends message and trailer to the segment in one write: packed if that saves a quarter, else compressed if that saves
/// a tenth.
fn append_smaller(
    segment: &mut Segment,
    encoded: &[Buffer],
    physical: &[PhysicalType],
    (message, compressed): (&mut [u8], &mut [u8]),
    compressor: &mut CompressTable,
    entry: &mut BlockEntry,
) -> Result<()> {
    let message_len = entry.message_bytes as usize;
    let mut at = 0;
    for buffer in encoded {
        message[at..at + buffer.len()].copy_from_slice(buffer);
        at += buffer.len();
    }
    message[at..message_len].fill(0);
    let room = compressed.len() - TRAILER_BYTES;
    let packed_len = pack::pack(&message[..message_len], physical, &mut compressed[..message_len * 3 / 4]);
    let block = if let Some(packed_len) = packed_len {
        entry.stored_bytes = packed_len as u64;
        entry.encoding = Encoding::Packed;
        compressed
    } else {
        let compressed_len =
            compress_into_with_table(&message[..message_len], &mut compressed[..room], compressor)
                .map_err(|e| Error::internal(format!("a spill block cannot be compressed: {e}")))?;
        if compressed_len <= message_len / 10 * 9 {
            entry.stored_bytes = compressed_len as u64;
            entry.encoding = Encoding::Lz4;
            compressed
        } else {
            message
        }
    };
    let stored_len = (entry.stored_bytes as usize).next_multiple_of(STRIPE_BYTES);
    block[entry.stored_bytes as usize..stored_len].fill(0);
    let mut checksum = Checksum::new();
    checksum.update(&block[..stored_len]);
    block[stored_len..stored_len + TRAILER_BYTES].copy_from_slice(&block::trailer(entry, checksum));
    segment.append(&block[..stored_len + TRAILER_BYTES])
}

/// Appends message and trailer to the segment as they are, by way of `room` bytes of the staging buffer.
fn append(
    segment: &mut Segment,
    staging: &mut BufMut<u8>,
    room: usize,
    message: &[Buffer],
    entry: &BlockEntry,
) -> Result<()> {
    // Whole stripes, so that a trailer fits whatever is not full.
    let capacity = room / STRIPE_BYTES * STRIPE_BYTES;
    let mut checksum = Checksum::new();
    staging.set_len(0);
    for buffer in message {
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(capacity - staging.len()));
            staging.extend_from_slice(now);
            rest = later;
            if staging.len() == capacity {
                checksum.update(staging);
                segment.append(staging)?;
                staging.set_len(0);
            }
        }
    }
    while !staging.len().is_multiple_of(STRIPE_BYTES) {
        staging.push(0);
    }
    checksum.update(staging);
    staging.extend_from_slice(&block::trailer(entry, checksum));
    segment.append(staging)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape `map_err` calls")]
fn encoding_failed(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("a batch cannot be encoded for spilling: {error}"))
}
