//! Arrow IPC and Parquet files.
//!
//! Parquet has no type for what INTERVAL is (months, days and nanoseconds), so intervals are written as the text the other
//! formats print. A HUGEINT is a decimal of 38 digits there; one of 39 is refused.

use super::Encoder;
use super::cells::Formatter;
use anyhow::bail;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, Schema, SchemaRef,
};
use arrow::ipc::writer::FileWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::Write;
use std::sync::Arc;

/// An Arrow IPC file.
pub(super) struct IpcEncoder<'w>(FileWriter<&'w mut (dyn Write + Send)>);

/// A Parquet file.
pub(super) struct ParquetEncoder<'w> {
    schema: SchemaRef,
    writer: ArrowWriter<&'w mut (dyn Write + Send)>,
}

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
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Interval(_) => Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())),
        _ => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
    let writer = ArrowWriter::try_new(writer, Arc::clone(&schema), Some(properties))?;
    Ok(ParquetEncoder { schema, writer })
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
        let columns = self.schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| storable(field.name(), column));
        let columns = columns.collect::<anyhow::Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(self.writer.write(&batch)?)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        self.writer.close()?;
        Ok(())
    }
}

/// The column as Parquet can hold it.
fn storable(name: &str, column: &ArrayRef) -> anyhow::Result<ArrayRef> {
    match column.data_type() {
        DataType::Interval(_) => text(column),
        &DataType::Decimal128(precision @ DECIMAL128_MAX_PRECISION, scale) => {
            let decimals = column.as_primitive::<Decimal128Type>();
            let is_long = |value: &i128| !Decimal128Type::is_valid_decimal_precision(*value, precision);
            if let Some(value) = decimals.iter().flatten().find(is_long) {
                bail!(
                    "column '{name}' holds {value}, but a DECIMAL({precision}, {scale}), which HUGEINT is in Parquet, has \
                     at most {precision} digits; cast the column to VARCHAR or DOUBLE, or choose another format"
                );
            }
            Ok(Arc::clone(column))
        }
        _ => Ok(Arc::clone(column)),
    }
}

fn text(column: &ArrayRef) -> anyhow::Result<ArrayRef> {
    let formatter = Formatter::new(column)?;
    let mut texts = StringBuilder::new();
    let mut value = String::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
        } else {
            value.clear();
            formatter.append(row, &mut value)?;
            texts.append_value(&value);
        }
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, IntervalMonthDayNanoArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn written(column: ArrayRef) -> anyhow::Result<ArrayRef> {
        let batch = RecordBatch::try_from_iter([("c", column)])?;
        let mut file = tempfile::tempfile()?;
        let mut encoder = Box::new(parquet(&mut file, &batch.schema())?);
        encoder.write(&batch)?;
        encoder.finish()?;
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        Ok(Arc::clone(reader.next().expect("a batch")?.column(0)))
    }

    #[test]
    fn intervals_are_text_and_long_integers_are_refused() {
        let intervals =
            IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::new(14, 3, 0)), None]);
        let read = written(Arc::new(intervals)).expect("writes");
        assert_eq!((read.as_string::<i32>().value(0), read.is_null(1)), ("14 mons 3 days", true));

        let most = 10_i128.pow(38) - 1;
        let decimals = |value: i128| {
            let array = Decimal128Array::from(vec![Some(value), None]).with_precision_and_scale(38, 0);
            Arc::new(array.expect("legal")) as ArrayRef
        };
        for value in [most, -most] {
            let read = written(decimals(value)).expect("writes");
            assert_eq!(read.as_primitive::<Decimal128Type>().value(0), value);
        }
        for value in [most + 1, -most - 1, i128::MAX, i128::MIN] {
            let error = written(decimals(value)).expect_err("too long").to_string();
            assert!(error.contains("'c'") && error.contains(&value.to_string()), "{error}");
        }
    }
}
