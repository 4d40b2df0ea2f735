//! Aligned columns for people. Needs all rows before the first is printed, since a column is as wide as its widest
//! value.

use super::{Cells, Encoder};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

/// Rows are kept as text until the end.
pub(super) struct TableEncoder<'w> {
    writer: &'w mut (dyn Write + Send),
    header: Vec<String>,
    numeric: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl<'w> TableEncoder<'w> {
    /// A table with the columns of `schema`.
    pub(super) fn new(writer: &'w mut (dyn Write + Send), schema: &SchemaRef) -> Self {
        Self {
            writer,
            header: schema.fields().iter().map(|f| f.name().clone()).collect(),
            numeric: schema.fields().iter().map(|f| f.data_type().is_numeric()).collect(),
            rows: Vec::new(),
        }
    }

    fn line(&mut self, cells: &[String], widths: &[usize]) -> anyhow::Result<()> {
        let mut line = String::new();
        for (i, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            line.push_str(if i > 0 { " | " } else { " " });
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if self.numeric[i] { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
        }
        writeln!(self.writer, "{}", line.trim_end())?;
        Ok(())
    }
}

impl Encoder for TableEncoder<'_> {
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let cells = Cells::new(batch)?;
        for row in 0..batch.num_rows() {
            let mut texts = Vec::with_capacity(cells.width());
            for column in 0..cells.width() {
                let mut text = String::new();
                if !cells.append(row, column, &mut text)? {
                    text.push_str("NULL");
                }
                texts.push(text);
            }
            self.rows.push(texts);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let header = std::mem::take(&mut self.header);
        let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.line(&header, &widths)?;
        let rules: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
        writeln!(self.writer, "{}", rules.join("+"))?;
        for row in &rows {
            self.line(row, &widths)?;
        }
        writeln!(self.writer, "({} {})", rows.len(), if rows.len() == 1 { "row" } else { "rows" })?;
        Ok(())
    }
}
