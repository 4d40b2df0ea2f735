//! Results on their way out: formats, and files that appear whole or not at all.
//!
//! Owns: [`Format`], [`Output`]; one module per family of formats.
//!
//! Invariants:
//! 1. A file named by `--output` is replaced only after everything was written; on any error it is untouched.
//!    (What is no regular file is written to as rows come: see `target`.)
//! 2. Every format but `table` streams: memory does not grow with the rows.
//!
//! Must not know: where batches come from.

mod cells;
mod columnar;
mod delimited;
mod far_dates;
mod json;
mod table;
mod target;

pub use cells::Cells;
pub use target::Target;

use crate::interrupt::Interrupt;
use crate::usage::UsageError;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use std::io::{self, IsTerminal};
use std::path::Path;

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people
    Table,
    /// Comma-separated with a header; NULL is empty
    Csv,
    /// Tab-separated with a header; NULL is empty
    Tsv,
    /// One JSON array of objects; lists are arrays, maps and structs objects
    Json,
    /// One JSON object a line
    Ndjson,
    /// Arrow IPC file
    Arrow,
    /// Parquet file, zstd; INTERVAL is written as text, HUGEINT as DECIMAL(38,0)
    Parquet,
}

impl Format {
    /// Whether it is bytes rather than text.
    fn is_binary(self) -> bool {
        match self {
            Self::Arrow | Self::Parquet => true,
            Self::Table | Self::Csv | Self::Tsv | Self::Json | Self::Ndjson => false,
        }
    }

    /// Whether what is written is one document, so that it holds one result and no more.
    fn is_document(self) -> bool {
        self.is_binary() || self == Self::Json
    }

    /// Refuses so many results if this format cannot hold them.
    pub fn check_results(self, results: usize) -> anyhow::Result<()> {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        match results {
            1 => Ok(()),
            _ if !self.is_document() => Ok(()),
            0 => Err(UsageError::new(format!(
                "--format {name} writes one result, but no statement returns rows; add one that does, or choose csv"
            ))
            .into()),
            _ => Err(UsageError::new(format!(
                "--format {name} writes one document with one result, but {results} statements return rows; run them \
                 one by one, or choose ndjson or csv"
            ))
            .into()),
        }
    }
}

/// Encodes one result into bytes.
pub(crate) trait Encoder {
    /// Adds the rows of `batch`.
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()>;
    /// Ends the result.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// Where results go.
pub struct Output {
    format: Format,
    target: Target,
    results: usize,
}

impl Output {
    /// Results of `format` into `path`, or standard output. A file appears at [`Output::commit`].
    pub fn open(path: Option<&Path>, format: Format, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let target = match path {
            Some(path) => Target::of(path, interrupt)?,
            None if format.is_binary() && io::stdout().is_terminal() => {
                let message = "this format is not for a terminal; pass --output FILE or redirect stdout";
                return Err(UsageError::new(message).into());
            }
            None => Target::stdout(),
        };
        Ok(Self { format, target, results: 0 })
    }

    /// Writes one result.
    pub fn write_result<E>(
        &mut self,
        schema: &SchemaRef,
        batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
    ) -> anyhow::Result<()>
    where
        anyhow::Error: From<E>,
    {
        self.format.check_results(self.results + 1)?;
        let writer = self.target.writer();
        if self.results > 0 && matches!(self.format, Format::Table | Format::Csv | Format::Tsv) {
            writeln!(writer)?;
        }
        self.results += 1;
        let mut encoder: Box<dyn Encoder + '_> = match self.format {
            Format::Table => Box::new(table::TableEncoder::new(writer, schema)),
            Format::Csv => Box::new(delimited::DelimitedEncoder::new(writer, schema, ',')?),
            Format::Tsv => Box::new(delimited::DelimitedEncoder::new(writer, schema, '\t')?),
            Format::Json => Box::new(json::JsonEncoder::array(writer)),
            Format::Ndjson => Box::new(json::JsonEncoder::lines(writer)),
            Format::Arrow => Box::new(columnar::ipc(writer, schema)?),
            Format::Parquet => Box::new(columnar::parquet(writer, schema)?),
        };
        for batch in batches {
            encoder.write(&batch?)?;
        }
        encoder.finish()
    }

    /// Writes one result as bare lines of text, whatever the format: a plan.
    pub fn write_lines<E>(
        &mut self,
        batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
    ) -> anyhow::Result<()>
    where
        anyhow::Error: From<E>,
    {
        let writer = self.target.writer();
        let mut line = String::new();
        for batch in batches {
            let batch = batch?;
            let cells = Cells::new(&batch)?;
            for row in 0..batch.num_rows() {
                for column in 0..cells.width() {
                    cells.append(row, column, &mut line)?;
                }
                writeln!(writer, "{line}")?;
                line.clear();
            }
        }
        Ok(())
    }

    /// Makes everything written visible.
    pub fn commit(self) -> anyhow::Result<()> {
        self.target.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray};
    use std::fs;
    use std::sync::Arc;

    fn sample() -> RecordBatch {
        let price = Decimal128Array::from(vec![Some(150), None, Some(-5)])
            .with_precision_and_scale(10, 2)
            .expect("fits");
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef, true),
            ("name", Arc::new(StringArray::from(vec![Some("a,\"b\""), None, Some("")])), true),
            ("price", Arc::new(price), true),
            ("day", Arc::new(Date32Array::from(vec![Some(0), None, Some(-1)])), true),
            ("ratio", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(1e300)])), true),
        ])
        .expect("columns of one length")
    }

    fn written(format: Format) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("out");
        let mut output = Output::open(Some(&path), format, &Interrupt::default()).expect("writable");
        let batch = sample();
        output.write_result(&batch.schema(), [anyhow::Ok(batch.clone())]).expect("encodes");
        assert!(!path.exists(), "nothing appears before commit");
        output.commit().expect("renames");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file stays");
        fs::read(path).expect("readable")
    }

    fn text(format: Format) -> String {
        String::from_utf8(written(format)).expect("UTF-8")
    }

    #[test]
    fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
        let expected = "id,name,price,day,ratio\n1,\"a,\"\"b\"\"\",1.50,1970-01-01,0.1\n2,,,,\n\
                        3,\"\",-0.05,1969-12-31,1e300\n";
        assert_eq!(text(Format::Csv), expected);
    }

    #[test]
    fn ndjson_has_decimals_as_numbers_at_full_scale() {
        let expected = "{\"id\":1,\"name\":\"a,\\\"b\\\"\",\"price\":1.50,\"day\":\"1970-01-01\",\"ratio\":0.1}\n\
                        {\"id\":2,\"name\":null,\"price\":null,\"day\":null,\"ratio\":null}\n\
                        {\"id\":3,\"name\":\"\",\"price\":-0.05,\"day\":\"1969-12-31\",\"ratio\":1e300}\n";
        assert_eq!(text(Format::Ndjson), expected);
    }

    #[test]
    fn json_parses() {
        let value: serde_json::Value = serde_json::from_str(&text(Format::Json)).expect("valid JSON");
        assert_eq!(value.as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn table_aligns_numbers_right() {
        let text = text(Format::Table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], " id | name  | price | day        | ratio");
        assert_eq!(lines[2], "  1 | a,\"b\" |  1.50 | 1970-01-01 |   0.1");
        assert_eq!(lines[3], "  2 | NULL  |  NULL | NULL       |  NULL");
        assert_eq!(lines[5], "(3 rows)");
    }

    #[test]
    fn binary_formats_read_back() {
        let ipc = written(Format::Arrow);
        let reader =
            arrow::ipc::reader::FileReader::try_new(io::Cursor::new(ipc), None).expect("an IPC file");
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().expect("reads"), [sample()]);
        assert_eq!(&written(Format::Parquet)[..4], b"PAR1");
    }

    #[test]
    fn a_failed_result_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("out.csv");
        fs::write(&path, "old").expect("writable");
        let mut output = Output::open(Some(&path), Format::Csv, &Interrupt::default()).expect("writable");
        let batch = sample();
        let batches = [Ok(batch.clone()), Err(anyhow::anyhow!("disk on fire"))];
        output.write_result(&batch.schema(), batches).expect_err("the error passes");
        drop(output);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file stays");
    }
}
