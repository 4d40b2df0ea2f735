//! Rows as text, the same as `tests/slt/generate.py` writes: floats at twelve significant digits (the last bits of a
//! sum are free), everything else exact.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::Write;

/// Significant digits of floats.
const FLOAT_DIGITS: usize = 12;

/// All rows of `batches`, cell by cell.
pub fn texts(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| row_texts(batch, row))).collect()
}

fn row_texts(batch: &RecordBatch, row: usize) -> Vec<String> {
    batch.columns().iter().map(|column| cell(column.as_ref(), row)).collect()
}

fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) || *column.data_type() == DataType::Null {
        return String::from("NULL");
    }
    match column.data_type() {
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        _ => {
            let options = FormatOptions::new().with_display_error(false);
            let formatter = ArrayFormatter::try_new(column, &options).expect("every type has a text");
            let text = formatter.value(row).to_string();
            if text.is_empty() { String::from("(empty)") } else { text }
        }
    }
}

/// `1.5`, `0`, `-3`, `1e20`, `NaN`, `inf`.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return String::from("NaN");
    }
    if value.is_infinite() {
        return String::from(if value > 0.0 { "inf" } else { "-inf" });
    }
    if value == 0.0 {
        return String::from("0");
    }
    // "d.ddde±x", rounded; then without the zeros that say nothing.
    let scientific = format!("{value:.*e}", FLOAT_DIGITS - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("invariant: {:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("invariant: {:e} writes a whole exponent");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    let count = i32::try_from(digits.len()).expect("invariant: at most twelve digits");
    if !(-5..15).contains(&exponent) {
        text.push_str(&digits[..1]);
        if count > 1 {
            write!(text, ".{}", &digits[1..]).expect("invariant: writing to a String cannot fail");
        }
        write!(text, "e{exponent}").expect("invariant: writing to a String cannot fail");
    } else if exponent < 0 {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        text.push_str(digits);
    } else if count <= exponent + 1 {
        text.push_str(digits);
        text.extend(std::iter::repeat_n('0', (exponent + 1 - count) as usize));
    } else {
        let (whole, fraction) = digits.split_at((exponent + 1) as usize);
        write!(text, "{whole}.{fraction}").expect("invariant: writing to a String cannot fail");
    }
    text
}
