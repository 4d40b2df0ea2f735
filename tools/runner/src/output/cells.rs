//! Values as text: ISO dates, decimals at full scale, floats that round-trip.
//!
//! Owns: [`Cells`], the one rendering that the text formats and the answer check share.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::{self, Write};

/// The columns of one batch, ready to print cell by cell.
pub struct Cells<'a> {
    columns: Vec<(&'a ArrayRef, ArrayFormatter<'a>)>,
}

impl<'a> Cells<'a> {
    /// Formatters for every column of `batch`.
    pub fn new(batch: &'a RecordBatch) -> anyhow::Result<Self> {
        let columns = batch
            .columns()
            .iter()
            .map(|column| Ok((column, formatter(column)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { columns })
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Appends the value to `out`; false (and nothing appended) for NULL.
    pub fn append(&self, row: usize, column: usize, out: &mut String) -> Result<bool, fmt::Error> {
        let (array, formatter) = &self.columns[column];
        if array.is_null(row) || *array.data_type() == DataType::Null {
            return Ok(false);
        }
        write!(out, "{}", formatter.value(row))?;
        Ok(true)
    }
}

/// Arrow's formatter with our options.
pub(super) fn formatter(array: &ArrayRef) -> anyhow::Result<ArrayFormatter<'_>> {
    Ok(ArrayFormatter::try_new(array.as_ref(), &FormatOptions::new().with_display_error(false))?)
}
