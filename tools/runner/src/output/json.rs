//! JSON: an array of objects, or one object a line.
//!
//! Numbers keep their digits: integers and decimals are written as they are (a decimal at full scale), floats so that
//! they round-trip. JSON has no NaN and no infinities; they become null. Lists are arrays, structs are objects, and so
//! are maps, whose keys are written as text. Members of one object have different names: a column whose name an earlier
//! one has gets `_1`, `_2` and so on behind it.

use super::Encoder;
use super::cells::Formatter;
use anyhow::bail;
use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type};
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::ops::Range;

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
            push_object(&columns, row, &mut self.text)?;
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
    Bare(Formatter<'a>),
    Float(Vec<f64>, Formatter<'a>),
    Quoted(Formatter<'a>),
    List(Vec<Range<usize>>, Box<Column<'a>>),
    Struct(Vec<Column<'a>>),
    /// The entries of each map; their keys and values.
    Map(Vec<Range<usize>>, Formatter<'a>, Box<Column<'a>>),
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
    let names = distinct(&fields.map(|field| field.name().as_str()).collect::<Vec<_>>());
    names.iter().zip(arrays).map(|(name, array)| column(name, array)).collect()
}

/// The names, those that an earlier one has with the first number behind it that makes it different from all.
fn distinct(names: &[&str]) -> Vec<String> {
    let mut taken: HashSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = HashSet::new();
    let mut distinct = Vec::with_capacity(names.len());
    for name in names {
        if seen.insert(*name) {
            distinct.push((*name).to_owned());
            continue;
        }
        let mut number = 1_u64;
        while !taken.insert(format!("{name}_{number}")) {
            number += 1;
        }
        distinct.push(format!("{name}_{number}"));
    }
    distinct
}

/// Where the items of each list lie.
fn ranges<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<Range<usize>> {
    offsets.windows(2).map(|pair| pair[0].as_usize()..pair[1].as_usize()).collect()
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
        DataType::Boolean => Values::Bare(Formatter::new(array)?),
        t if t.is_numeric() => Values::Bare(Formatter::new(array)?),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            Values::List(ranges(list.value_offsets()), Box::new(column("", list.values())?))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            Values::List(ranges(list.value_offsets()), Box::new(column("", list.values())?))
        }
        DataType::Struct(fields) => {
            Values::Struct(columns(fields.iter().map(AsRef::as_ref), array.as_struct().columns())?)
        }
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let items = list.value_length() as usize;
            let ranges = (0..list.len()).map(|i| i * items..(i + 1) * items);
            Values::List(ranges.collect(), Box::new(column("", list.values())?))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            Values::Map(
                ranges(map.value_offsets()),
                Formatter::new(map.keys())?,
                Box::new(column("", map.values())?),
            )
        }
        DataType::Union(..) => {
            bail!("column '{name}' is of type {}, which --format json cannot write yet", array.data_type())
        }
        _ => Values::Quoted(Formatter::new(array)?),
    };
    Ok(Column { key, array, values })
}

fn floats<'a>(array: &'a ArrayRef, values: impl Iterator<Item = f64>) -> anyhow::Result<Values<'a>> {
    Ok(Values::Float(values.collect(), Formatter::new(array)?))
}

fn push_object(columns: &[Column<'_>], row: usize, text: &mut String) -> fmt::Result {
    text.push('{');
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&column.key);
        text.push(':');
        push_value(column, row, text)?;
    }
    text.push('}');
    Ok(())
}

fn push_value(column: &Column<'_>, row: usize, text: &mut String) -> fmt::Result {
    if column.array.is_null(row) {
        text.push_str("null");
        return Ok(());
    }
    match &column.values {
        Values::Null => text.push_str("null"),
        Values::Bare(formatter) => formatter.append(row, text)?,
        Values::Float(values, formatter) if values[row].is_finite() => formatter.append(row, text)?,
        Values::Float(..) => text.push_str("null"),
        Values::Quoted(formatter) => push_quoted(formatter, row, text)?,
        Values::List(ranges, items) => {
            text.push('[');
            for (i, item) in ranges[row].clone().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                push_value(items, item, text)?;
            }
            text.push(']');
        }
        Values::Struct(fields) => push_object(fields, row, text)?,
        Values::Map(ranges, keys, values) => {
            text.push('{');
            for (i, entry) in ranges[row].clone().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                push_quoted(keys, entry, text)?;
                text.push(':');
                push_value(values, entry, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn push_quoted(formatter: &Formatter<'_>, row: usize, text: &mut String) -> fmt::Result {
    let mut value = String::new();
    formatter.append(row, &mut value)?;
    push_string(&value, text);
    Ok(())
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
    use arrow::array::{
        FixedSizeListArray, Float64Array, Int32Builder, Int64Array, ListArray, MapBuilder, StringArray,
        StructArray,
    };
    use arrow::datatypes::{Int32Type, Int64Type};
    use std::sync::Arc;

    fn lines(batch: &RecordBatch) -> String {
        let mut out = Vec::new();
        let mut encoder = Box::new(JsonEncoder::lines(&mut out));
        encoder.write(batch).expect("encodes");
        encoder.finish().expect("ends");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn lists_of_one_length_are_arrays_and_maps_are_objects() {
        let lists = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
            [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(6)])],
            2,
        );
        let mut maps = MapBuilder::new(None, Int32Builder::new(), Int32Builder::new());
        maps.keys().append_slice(&[1, 2]);
        maps.values().append_option(Some(10));
        maps.values().append_option(None);
        maps.append(true).expect("as many keys as values");
        maps.append(false).expect("none");
        maps.append(true).expect("none");
        let batch =
            RecordBatch::try_from_iter([("f", Arc::new(lists) as ArrayRef), ("m", Arc::new(maps.finish()))])
                .expect("columns of one length");
        let expected =
            "{\"f\":[1,2],\"m\":{\"1\":10,\"2\":null}}\n{\"f\":null,\"m\":null}\n{\"f\":[null,6],\"m\":{}}\n";
        assert_eq!(lines(&batch), expected);
        // Part of an array: what lies before it counts.
        let expected = expected.split_once('\n').expect("lines").1;
        assert_eq!(lines(&batch.slice(1, 2)), expected);
    }

    #[test]
    fn members_of_one_name_are_told_apart() {
        assert_eq!(distinct(&["a", "a", "a_1", "b", "a"]), ["a", "a_2", "a_1", "b", "a_3"]);
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let fields = ["x", "x"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(arrow::datatypes::Schema::new(fields.to_vec()));
        let batch = RecordBatch::try_new(schema, vec![Arc::clone(&one), one]).expect("two columns");
        assert_eq!(lines(&batch), "{\"x\":1,\"x_1\":1}\n");
    }

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
        assert_eq!(
            lines(&batch),
            "{\"l\":[1,null],\"o\":{\"s\":\"tab\\t\"},\"f\":null}\n\
             {\"l\":null,\"o\":{\"s\":\"bell\\u0007\"},\"f\":2.0}\n"
        );
    }
}
