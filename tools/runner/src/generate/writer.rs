//! One Parquet file whose row groups are generated and encoded side by side and written in order.
//!
//! Owns: [`FilePlan`]. Memory: a window of two row groups a thread.

use super::tables::Table;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY, add_encoded_arrow_schema_to_metadata};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file to write and the chunks of its table it holds.
#[derive(Debug)]
pub(super) struct FilePlan {
    pub(super) table: Table,
    /// Relative to the output folder.
    pub(super) path: PathBuf,
    /// Chunk (from 1) that becomes its first row group.
    pub(super) first_group: usize,
    /// Row groups in this file.
    pub(super) groups: usize,
    /// Chunks of the whole table.
    pub(super) groups_of_table: usize,
}

impl FilePlan {
    /// Writes the file at `path`. Calls `step` after each row group and stops at its error.
    pub(super) fn write(
        &self,
        path: &Path,
        scale: f64,
        compression: Compression,
        pool: &rayon::ThreadPool,
        step: &(dyn Fn() -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let schema = with_field_ids(&self.table.schema());
        let mut properties = WriterProperties::builder().set_compression(compression).build();
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let parquet_schema = ArrowSchemaConverter::new().convert(&schema)?;
        let file = BufWriter::new(File::create(path)?);
        let mut writer =
            SerializedFileWriter::new(file, parquet_schema.root_schema_ptr(), Arc::new(properties))?;
        let factory = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(&schema));

        let chunks = i32::try_from(self.groups_of_table)?;
        let ordinals: Vec<usize> = (0..self.groups).collect();
        for window in ordinals.chunks(2 * pool.current_num_threads()) {
            let encoded: Vec<Vec<ArrowColumnChunk>> = pool.install(|| {
                window
                    .par_iter()
                    .map(|&ordinal| {
                        let chunk = i32::try_from(self.first_group + ordinal)?;
                        let batches = self.table.generate(scale, chunk, chunks);
                        let columns = encode_row_group(&factory, ordinal, &schema, batches)?;
                        step()?;
                        Ok(columns)
                    })
                    .collect::<anyhow::Result<_>>()
            })?;
            for columns in encoded {
                let mut row_group = writer.next_row_group()?;
                for column in columns {
                    column.append_to_row_group(&mut row_group)?;
                }
                row_group.close()?;
            }
        }
        writer.close()?;
        Ok(())
    }
}

fn encode_row_group<E>(
    factory: &ArrowRowGroupWriterFactory,
    ordinal: usize,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, E>>,
) -> anyhow::Result<Vec<ArrowColumnChunk>>
where
    anyhow::Error: From<E>,
{
    let mut writers = factory.create_column_writers(ordinal)?;
    for batch in batches {
        let batch = batch?;
        // TPC-H tables are flat: a column is a leaf.
        for ((writer, field), array) in writers.iter_mut().zip(schema.fields()).zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                writer.write(&leaf)?;
            }
        }
    }
    Ok(writers
        .into_iter()
        .map(parquet::arrow::arrow_writer::ArrowColumnWriter::close)
        .collect::<Result<_, _>>()?)
}

/// The schema with field ids 1, 2, …, as tpchgen-cli writes them.
fn with_field_ids(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(i, field)| {
        let mut metadata = field.metadata().clone();
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), (i + 1).to_string());
        Field::clone(field).with_metadata(metadata)
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
