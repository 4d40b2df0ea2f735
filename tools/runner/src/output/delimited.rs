//! CSV and TSV (RFC 4180 quoting): NULL is an empty field, an empty string is `""`.

use super::{Cells, Encoder};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

/// Rows separated by newlines, fields by one character.
pub(super) struct DelimitedEncoder<'w> {
    writer: &'w mut (dyn Write + Send),
    separator: char,
    line: String,
    cell: String,
}

impl<'w> DelimitedEncoder<'w> {
    /// Writes the header.
    pub(super) fn new(
        writer: &'w mut (dyn Write + Send),
        schema: &SchemaRef,
        separator: char,
    ) -> anyhow::Result<Self> {
        let mut this = Self { writer, separator, line: String::new(), cell: String::new() };
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                this.line.push(separator);
            }
            push_field(&mut this.line, field.name(), separator);
        }
        this.end_line()?;
        Ok(this)
    }

    fn end_line(&mut self) -> anyhow::Result<()> {
        self.line.push('\n');
        self.writer.write_all(self.line.as_bytes())?;
        self.line.clear();
        Ok(())
    }
}

impl Encoder for DelimitedEncoder<'_> {
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let cells = Cells::new(batch)?;
        for row in 0..batch.num_rows() {
            for column in 0..cells.width() {
                if column > 0 {
                    self.line.push(self.separator);
                }
                self.cell.clear();
                if cells.append(row, column, &mut self.cell)? {
                    push_field(&mut self.line, &self.cell, self.separator);
                }
            }
            self.end_line()?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

fn push_field(line: &mut String, text: &str, separator: char) {
    let plain = !text.is_empty() && !text.contains(['"', '\n', '\r', separator]);
    if plain {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        if c == '"' {
            line.push('"');
        }
        line.push(c);
    }
    line.push('"');
}
