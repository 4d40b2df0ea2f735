//! Values as text: ISO dates, decimals at full scale, floats that round-trip.
//!
//! Owns: [`Cells`], the one rendering that the text formats and the answer check share; [`Formatter`] of one column.

use super::far_dates::write_far;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::{self, Write};

/// The columns of one batch, ready to print cell by cell.
pub struct Cells<'a> {
    columns: Vec<Formatter<'a>>,
}

impl<'a> Cells<'a> {
    /// Formatters for every column of `batch`.
    pub fn new(batch: &'a RecordBatch) -> anyhow::Result<Self> {
        Ok(Self { columns: batch.columns().iter().map(Formatter::new).collect::<anyhow::Result<_>>()? })
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Appends the value to `out`; false (and nothing appended) for NULL.
    pub fn append(&self, row: usize, column: usize, out: &mut String) -> Result<bool, fmt::Error> {
        let column = &self.columns[column];
        if column.array.is_null(row) || *column.array.data_type() == DataType::Null {
            return Ok(false);
        }
        column.append(row, out)?;
        Ok(true)
    }
}

/// Values of one column as text.
pub(super) struct Formatter<'a> {
    array: &'a ArrayRef,
    arrow: ArrayFormatter<'a>,
}

impl<'a> Formatter<'a> {
    /// Arrow's formatter with our options.
    pub(super) fn new(array: &'a ArrayRef) -> anyhow::Result<Self> {
        let options = FormatOptions::new().with_display_error(false);
        Ok(Self { array, arrow: ArrayFormatter::try_new(array.as_ref(), &options)? })
    }

    /// Appends the value, which is not null, to `out`; after an error nothing.
    pub(super) fn append(&self, row: usize, out: &mut String) -> fmt::Result {
        let len = out.len();
        write!(out, "{}", self.arrow.value(row)).or_else(|_| {
            // Arrow's formatter knows no dates beyond those of its calendar.
            out.truncate(len);
            write_far(self.array, row, out)
        })
    }
}
