//! Whether rows are the stored answer.
//!
//! Owns: [`compare`] and the order rows must have.
//!
//! Invariants:
//! 1. Integers and decimals are compared exactly, floats (and numbers whose type cannot hold the stored digits) within
//!    1e-9 of their size, everything else as text.
//! 2. Rows must come in the order of the answer, except among rows that are equal in the query's sort keys.

use crate::output::Cells;
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;

/// Tolerance for floats, relative.
const RELATIVE_TOLERANCE: f64 = 1e-9;

/// NULL in answer files.
const NULL: &str = "NULL";

/// A column's way of being compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Integers and decimals, with their digits after the point.
    Exact(usize),
    Float,
    Text,
}

impl Kind {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => Self::Exact(usize::from(scale.unsigned_abs())),
            t if t.is_integer() => Self::Exact(0),
            t if t.is_floating() => Self::Float,
            _ => Self::Text,
        }
    }

    fn equal(self, actual: &str, expected: &str) -> bool {
        if actual == expected {
            return true;
        }
        let within = || match (actual.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(a), Ok(e)) => (a - e).abs() <= RELATIVE_TOLERANCE * a.abs().max(e.abs()),
            _ => false,
        };
        match self {
            Self::Text => false,
            Self::Float => within(),
            Self::Exact(scale) => {
                let stored_digits = expected.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                if stored_digits <= scale && !expected.contains(['e', 'E']) {
                    trimmed(actual) == trimmed(expected)
                } else {
                    within()
                }
            }
        }
    }
}

/// A plain number without the zeros that end its fraction.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Compares rows with a stored answer (a header, then `|`-separated rows). `order` holds the columns of the sort keys.
/// The error says what differs first.
pub(super) fn compare(batches: &[RecordBatch], answer: &str, order: &[usize]) -> Result<(), String> {
    let mut lines = answer.lines();
    let width = lines.next().map_or(0, |header| header.split('|').count());
    let expected: Vec<Vec<&str>> = lines.map(|line| line.split('|').collect()).collect();
    let (kinds, actual) = rows_of(batches)?;
    if actual.len() != expected.len() {
        return Err(format!("{} rows, but the answer has {}", actual.len(), expected.len()));
    }
    if expected.is_empty() {
        return Ok(());
    }
    if kinds.len() != width {
        return Err(format!("{} columns, but the answer has {width}", kinds.len()));
    }
    let same_keys = |a: &[&str], b: &[&str]| order.iter().all(|&c| kinds[c].equal(a[c], b[c]));
    let mut start = 0;
    while start < expected.len() {
        let ties = expected[start..].iter().take_while(|row| same_keys(row, &expected[start])).count();
        let mut open: Vec<usize> = (start..start + ties).collect();
        for (row, cells) in actual.iter().enumerate().skip(start).take(ties) {
            let matches = |e: &usize| (0..width).all(|c| kinds[c].equal(&cells[c], expected[*e][c]));
            match open.iter().position(matches) {
                Some(found) => {
                    open.remove(found);
                }
                None => {
                    return Err(format!(
                        "row {} is {}, but the answer has {}",
                        row + 1,
                        cells.join("|"),
                        expected[open[0]].join("|")
                    ));
                }
            }
        }
        start += ties;
    }
    Ok(())
}

fn rows_of(batches: &[RecordBatch]) -> Result<(Vec<Kind>, Vec<Vec<String>>), String> {
    let kinds = batches.first().map_or_else(Vec::new, |batch| {
        batch.schema_ref().fields().iter().map(|field| Kind::of(field.data_type())).collect()
    });
    let mut rows = Vec::new();
    for batch in batches {
        let cells = Cells::new(batch).map_err(|e| e.to_string())?;
        for row in 0..batch.num_rows() {
            let mut texts = Vec::with_capacity(cells.width());
            for column in 0..cells.width() {
                let mut text = String::new();
                if !cells.append(row, column, &mut text).map_err(|e| e.to_string())? {
                    text.push_str(NULL);
                }
                texts.push(text);
            }
            rows.push(texts);
        }
    }
    Ok((kinds, rows))
}

/// The output columns a query's last ORDER BY names, by the names in the answer's header.
pub(super) fn order_columns(sql: &str, answer: &str) -> Vec<usize> {
    let Some((_, keys)) = sql.rsplit_once("ORDER BY") else { return Vec::new() };
    let keys = keys.split("LIMIT").next().unwrap_or(keys).trim().trim_end_matches(';');
    let header: Vec<&str> = answer.lines().next().unwrap_or_default().split('|').collect();
    keys.split(',')
        .filter_map(|key| {
            let name = key.split_whitespace().next()?;
            header.iter().position(|column| *column == name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::files::QUERIES;
    use super::*;
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, StringArray};
    use std::sync::Arc;

    fn batch(rows: &[(&str, i128, f64)]) -> RecordBatch {
        let decimals = Decimal128Array::from_iter_values(rows.iter().map(|r| r.1))
            .with_precision_and_scale(20, 4)
            .expect("fits");
        RecordBatch::try_from_iter([
            ("name", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))) as ArrayRef),
            ("amount", Arc::new(decimals)),
            ("mean", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)))),
        ])
        .expect("columns of one length")
    }

    const ANSWER: &str = "name|amount|mean\na|1.5000|0.1\nb|1.5000|0.2\nc|9.0001|0.3\n";

    #[test]
    fn ties_may_swap_but_rows_may_not() {
        let good = [("b", 15_000, 0.2), ("a", 15_000, 0.1), ("c", 90_001, 0.3)];
        assert_eq!(compare(&[batch(&good)], ANSWER, &[1]), Ok(()));
        assert!(compare(&[batch(&good)], ANSWER, &[0]).is_err(), "the order of names is wrong");
        let swapped = [good[0], good[2], good[1]];
        assert!(compare(&[batch(&swapped)], ANSWER, &[1]).is_err());
        assert!(compare(&[batch(&good[..2])], ANSWER, &[1]).is_err(), "a row is missing");
        let doubled = [good[0], good[0], good[2]];
        assert!(compare(&[batch(&doubled)], ANSWER, &[1]).is_err(), "a row comes twice");
    }

    #[test]
    fn decimals_are_exact_and_floats_are_close() {
        let close = [("a", 15_000, 0.100_000_000_000_01), ("b", 15_000, 0.2), ("c", 90_001, 0.3)];
        assert_eq!(compare(&[batch(&close)], ANSWER, &[1]), Ok(()));
        let off = [close[0], close[1], ("c", 90_002, 0.3)];
        assert!(compare(&[batch(&off)], ANSWER, &[1]).is_err());
        let far = [("a", 15_000, 0.100_001), close[1], close[2]];
        assert!(compare(&[batch(&far)], ANSWER, &[1]).is_err());
    }

    #[test]
    fn order_keys_are_found_in_every_query() {
        for query in QUERIES {
            let (sql, answer) = (query.sql_at(1.0), query.answer_at(1.0).expect("stored"));
            let expected = match query.name {
                "q06" | "q14" | "q17" | "q19" => 0,
                "q04" | "q05" | "q08" | "q10" | "q11" | "q12" | "q15" | "q20" | "q22" => 1,
                "q01" | "q03" | "q09" | "q13" | "q18" | "q21" => 2,
                "q07" => 3,
                _ => 4,
            };
            assert_eq!(order_columns(&sql, answer).len(), expected, "{}", query.name);
        }
    }
}
