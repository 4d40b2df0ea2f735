//! JSON: an array of objects, or one object a line.
//!
//! Numbers keep their digits: integers and decimals are written as they are (a decimal at full scale), floats so that
//! they round-trip. JSON has no NaN and no infinities; they become null.

use super::Encoder;
use super::cells::formatter;
use anyhow::bail;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type};
use arrow::util::display::ArrayFormatter;
use std::fmt::Write as _;
use std::io::Write;

/// Writes rows as objects whose members are the columns, in order.
pub(super) struct JsonEncoder<'w> {
    writer: &'w mut (dyn Write + Send),
    array: bool,
    rows: u64,
    text: String,
}

impl<'w> JsonEncoder<'w> {
    /// `[{…},\n{…}]`
    pub(super) fn array(writer: &'w mut (dyn Write + Send)) -> Self {
        Self { writer, array: true, rows: 0, text: String::from("[") }
    }

    /// `{…}\n{…}\n`
    pub(super) fn lines(writer: &'w mut (dyn Write + Send)) -> Self {
        Self { writer, array: false, rows: 0, text: String::new() }
    }
}

impl Encoder for JsonEncoder<'_> {
    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let schema = batch.schema_ref();
        let columns = columns(schema.fields().iter().map(AsRef::as_ref), batch.columns())?;
        for row in 0..batch.num_rows() {
            if self.array && self.rows > 0 {
                self.text.push_str(",\n");
            }
            push_object(&columns, row, &mut self.text);
            if !self.array {
                self.text.push('\n');
            }
            self.rows += 1;
            self.writer.write_all(self.text.as_bytes())?;
            self.text.clear();
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        if self.array {
            self.text.push_str("]\n");
        }
        self.writer.write_all(self.text.as_bytes())?;
        Ok(())
    }
}

/// How a column's values look in JSON, decided once per batch.
enum Values<'a> {
    Null,
    /// Digits as Arrow prints them: integers, decimals, booleans.
    Bare(ArrayFormatter<'a>),
    Float(Vec<f64>, ArrayFormatter<'a>),
    Quoted(ArrayFormatter<'a>),
    List(Vec<Option<std::ops::Range<usize>>>, Box<Column<'a>>),
    Struct(Vec<Column<'a>>),
}

struct Column<'a> {
    /// The name as a JSON string.
    key: String,
    array: &'a ArrayRef,
    values: Values<'a>,
}

fn columns<'a>(
    fields: impl Iterator<Item = &'a Field>,
    arrays: &'a [ArrayRef],
) -> anyhow::Result<Vec<Column<'a>>> {
    fields.zip(arrays).map(|(field, array)| column(field.name(), array)).collect()
}

fn column<'a>(name: &str, array: &'a ArrayRef) -> anyhow::Result<Column<'a>> {
    let mut key = String::new();
    push_string(name, &mut key);
    let values = match array.data_type() {
        DataType::Null => Values::Null,
        DataType::Float16 => {
            floats(array, array.as_primitive::<Float16Type>().values().iter().map(|v| v.to_f64()))?
        }
        DataType::Float32 => {
            floats(array, array.as_primitive::<Float32Type>().values().iter().map(|v| f64::from(*v)))?
        }
        DataType::Float64 => floats(array, array.as_primitive::<Float64Type>().values().iter().copied())?,
        DataType::Boolean => Values::Bare(formatter(array)?),
        t if t.is_numeric() => Values::Bare(formatter(array)?),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let ranges = (0..list.len()).map(|i| {
                list.is_valid(i)
                    .then(|| list.value_offsets()[i] as usize..list.value_offsets()[i + 1] as usize)
            });
            Values::List(ranges.collect(), Box::new(column("", list.values())?))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let ranges = (0..list.len()).map(|i| {
                list.is_valid(i)
                    .then(|| list.value_offsets()[i] as usize..list.value_offsets()[i + 1] as usize)
            });
            Values::List(ranges.collect(), Box::new(column("", list.values())?))
        }
        DataType::Struct(fields) => {
            Values::Struct(columns(fields.iter().map(AsRef::as_ref), array.as_struct().columns())?)
        }
        DataType::Map(..) | DataType::Union(..) => {
            bail!("column '{name}' is of type {}, which --format json cannot write yet", array.data_type())
        }
        _ => Values::Quoted(formatter(array)?),
    };
    Ok(Column { key, array, values })
}

fn floats<'a>(array: &'a ArrayRef, values: impl Iterator<Item = f64>) -> anyhow::Result<Values<'a>> {
    Ok(Values::Float(values.collect(), formatter(array)?))
}

fn push_object(columns: &[Column<'_>], row: usize, text: &mut String) {
    text.push('{');
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&column.key);
        text.push(':');
        push_value(column, row, text);
    }
    text.push('}');
}

fn push_value(column: &Column<'_>, row: usize, text: &mut String) {
    if column.array.is_null(row) {
        text.push_str("null");
        return;
    }
    match &column.values {
        Values::Null => text.push_str("null"),
        Values::Bare(formatter) => append(text, formatter, row),
        Values::Float(values, formatter) if values[row].is_finite() => append(text, formatter, row),
        Values::Float(..) => text.push_str("null"),
        Values::Quoted(formatter) => push_string(&formatter.value(row).to_string(), text),
        Values::List(ranges, items) => {
            text.push('[');
            for (i, item) in ranges[row].clone().unwrap_or(0..0).enumerate() {
                if i > 0 {
                    text.push(',');
                }
                push_value(items, item, text);
            }
            text.push(']');
        }
        Values::Struct(fields) => push_object(fields, row, text),
    }
}

fn append(text: &mut String, formatter: &ArrayFormatter<'_>, row: usize) {
    write!(text, "{}", formatter.value(row)).expect("invariant: writing to a String cannot fail");
}

fn push_string(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c < ' ' => {
                write!(text, "\\u{:04x}", u32::from(c)).expect("invariant: writing to a String cannot fail");
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    #[test]
    fn nested_values_and_odd_floats() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let inner: ArrayRef = Arc::new(StringArray::from(vec!["tab\t", "bell\u{7}"]));
        let structs = StructArray::from(vec![(Arc::new(Field::new("s", DataType::Utf8, true)), inner)]);
        let batch = RecordBatch::try_from_iter([
            ("l", Arc::new(list) as ArrayRef),
            ("o", Arc::new(structs)),
            ("f", Arc::new(Float64Array::from(vec![f64::NAN, 2.0]))),
        ])
        .expect("columns of one length");
        let mut out = Vec::new();
        let mut encoder = Box::new(JsonEncoder::lines(&mut out));
        encoder.write(&batch).expect("encodes");
        encoder.finish().expect("ends");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{\"l\":[1,null],\"o\":{\"s\":\"tab\\t\"},\"f\":null}\n\
             {\"l\":null,\"o\":{\"s\":\"bell\\u0007\"},\"f\":2.0}\n"
        );
    }
}
