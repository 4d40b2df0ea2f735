//! Arrow IPC and Parquet files.

use super::Encoder;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::Write;

/// An Arrow IPC file.
pub(super) struct IpcEncoder<'w>(FileWriter<&'w mut (dyn Write + Send)>);

/// A Parquet file.
pub(super) struct ParquetEncoder<'w>(ArrowWriter<&'w mut (dyn Write + Send)>);

/// Starts an Arrow IPC file.
pub(super) fn ipc<'w>(
    writer: &'w mut (dyn Write + Send),
    schema: &SchemaRef,
) -> anyhow::Result<IpcEncoder<'w>> {
    Ok(IpcEncoder(FileWriter::try_new(writer, schema)?))
}

/// Starts a Parquet file.
pub(super) fn parquet<'w>(
    writer: &'w mut (dyn Write + Send),
    schema: &SchemaRef,
) -> anyhow::Result<ParquetEncoder<'w>> {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    Ok(ParquetEncoder(ArrowWriter::try_new(writer, schema.clone(), Some(properties))?))
}

impl Encoder for IpcEncoder<'_> {
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        Ok(self.0.write(batch)?)
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.0.finish()?)
    }
}

impl Encoder for ParquetEncoder<'_> {
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        Ok(self.0.write(batch)?)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        self.0.close()?;
        Ok(())
    }
}
