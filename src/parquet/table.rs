//! A table made of Parquet files.
//!
//! Owns: [`ParquetTable`].
//!
//! Invariants:
//! 1. All files have the first one's columns: names, order and types.

use super::distinct;
use super::file::ParquetFile;
use super::footer::Bound;
use super::sample::Sampler;
use super::scan::ParquetScan;
use crate::catalog::{ColumnStatistics, Sampled, TableProvider, TableStatistics};
use crate::data::{DataType, Field, Scalar, Schema, Value};
use crate::error::{Error, Origin, Result};
use crate::exec::SourceBox;
use crate::expr::{ColumnId, Expr};
use crate::mem::Pool;
use crate::scan::{ColumnOrder, ScanProvider, ScanRequest};
use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;

/// One or more Parquet files read as one table.
#[derive(Debug)]
pub(crate) struct ParquetTable {
    files: Arc<[Arc<ParquetFile>]>,
    schema: Schema,
    statistics: TableStatistics,
    order: Box<[ColumnOrder]>,
    sampler: Option<Sampler>,
}

impl ParquetTable {
    /// Opens `paths`; footers are charged to `pool` for as long as the table lives.
    ///
    /// # Errors
    /// As [`ParquetFile::open`]; [`Error::Plan`] without any path, [`Error::Data`] if the files' columns differ.
    pub(crate) fn open(paths: &[PathBuf], pool: &Pool) -> Result<Self> {
        let files = paths.iter().enumerate().map(|(i, path)| ParquetFile::open(i, path, pool).map(Arc::new));
        let table = Self::from_files(files.collect::<Result<_>>()?)?;
        Ok(Self { sampler: Some(Sampler::new(pool)), ..table })
    }

    /// A table of files that are already open.
    pub(crate) fn from_files(files: Vec<Arc<ParquetFile>>) -> Result<Self> {
        let [first, rest @ ..] = &files[..] else {
            return Err(Error::plan("no Parquet file matches; give at least one path", None));
        };
        let mut fields: Vec<Field> = first.footer.schema.to_vec();
        for file in rest {
            let other = &file.footer.schema;
            let differs = |what: String| {
                let origin = Origin { file: file.read.path().to_owned(), ..Origin::default() };
                let first = first.read.path().display();
                Error::data(format!("{what}, unlike '{first}'; read files of one schema together"), origin)
            };
            if other.len() != fields.len() {
                return Err(differs(format!("it has {} columns", other.len())));
            }
            for (field, other) in fields.iter_mut().zip(other.iter()) {
                if field.name != other.name || field.data_type != other.data_type {
                    return Err(differs(format!(
                        "its column '{}' is of type {}",
                        other.name, other.data_type
                    )));
                }
                field.nullable |= other.nullable;
            }
        }
        let statistics = statistics_of(&files, &fields);
        let order = order_of(&files, &fields);
        Ok(Self { files: files.into(), schema: fields.into(), statistics, order, sampler: None })
    }
}

impl TableProvider for ParquetTable {
    fn schema(&self) -> Schema {
        Arc::clone(&self.schema)
    }

    fn statistics(&self) -> TableStatistics {
        self.statistics.clone()
    }

    fn sample(&self, predicates: &[Expr], columns: &[(ColumnId, usize)]) -> Option<Sampled> {
        self.sampler.as_ref()?.ask(&self.files, predicates, columns)
    }
}

impl ScanProvider for ParquetTable {
    fn scan(&self, request: ScanRequest) -> Result<SourceBox> {
        Ok(SourceBox::new(ParquetScan::new(Arc::clone(&self.files), &self.schema, request)?))
    }

    fn order(&self) -> &[ColumnOrder] {
        &self.order
    }
}

/// The order of the rows of all files, one after the other: what all row groups declare, as far as their bounds prove
/// that each begins where the one before ends.
fn order_of(files: &[Arc<ParquetFile>], fields: &[Field]) -> Box<[ColumnOrder]> {
    let mut common = files.first().map_or_else(Vec::new, |file| file.footer.order.to_vec());
    for file in files {
        let agree = common.iter().zip(&file.footer.order).take_while(|(a, b)| a == b).count();
        common.truncate(agree);
    }
    // Where NaN goes is for every writer to say.
    let usable = common.iter().take_while(|order| !fields[order.column].data_type.is_float()).count();
    common.truncate(usable);
    let Some(first) = common.first().copied() else { return common.into() };
    let data_type = &fields[first.column].data_type;
    let groups = files.iter().flat_map(|file| (0..file.footer.row_groups()).map(move |at| (file, at)));
    let groups = groups.filter(|(file, at)| file.footer.row_group_rows[*at] > 0);
    let mut end: Option<Option<Scalar>> = None;
    for (file, at) in groups {
        let footer = &file.footer;
        let chunk = footer.chunk(at, footer.columns[first.column].leaves.start);
        let value = |bound| {
            let value = scalar_of(bound, data_type, |at, len| footer.bound_bytes(at, len));
            value.filter(|_| chunk.null_count() == Some(0))
        };
        let (mut start, mut own_end) = (value(chunk.min), value(chunk.max));
        if first.descending {
            std::mem::swap(&mut start, &mut own_end);
        }
        if let Some(before) = end.replace(own_end) {
            let compared = before.zip(start).and_then(|(before, start)| before.compare(&start));
            match if first.descending { compared.map(Ordering::reverse) } else { compared } {
                Some(Ordering::Less) => {}
                // Rows of one value lie in both.
                Some(Ordering::Equal) => common.truncate(1),
                Some(Ordering::Greater) | None => return Box::default(),
            }
        }
    }
    common.into()
}

fn statistics_of(files: &[Arc<ParquetFile>], fields: &[Field]) -> TableStatistics {
    let rows = files.iter().map(|f| f.footer.rows()).sum();
    let columns = fields.iter().enumerate().map(|(at, field)| column_statistics(files, at, field)).collect();
    TableStatistics { rows: Some(rows), columns }
}

/// Bounds and nulls over all row groups, where every one of them knows its own.
fn column_statistics(files: &[Arc<ParquetFile>], column: usize, field: &Field) -> ColumnStatistics {
    let mut statistics = ColumnStatistics { null_count: Some(0), ..ColumnStatistics::default() };
    let (mut has_min, mut has_max) = (true, !field.data_type.is_float());
    for file in files {
        let footer = &file.footer;
        let layout = &footer.columns[column];
        if layout.decode.is_none() {
            return ColumnStatistics::default();
        }
        for row_group in 0..footer.row_groups() {
            let chunk = footer.chunk(row_group, layout.leaves.start);
            statistics.null_count = statistics.null_count.zip(chunk.null_count()).map(|(a, b)| a + b);
            let rows = footer.row_group_rows[row_group];
            if rows == 0 || chunk.null_count() == Some(rows) {
                continue;
            }
            let value = |bound| scalar_of(bound, &field.data_type, |at, len| footer.bound_bytes(at, len));
            let (min, max) = (value(chunk.min), value(chunk.max));
            (has_min, has_max) = (has_min && min.is_some(), has_max && max.is_some());
            let is_less = |a: &Scalar, b: &Option<Scalar>| {
                b.as_ref().is_none_or(|b| a.compare(b) == Some(Ordering::Less))
            };
            let is_greater = |a: &Scalar, b: &Option<Scalar>| {
                b.as_ref().is_none_or(|b| a.compare(b) == Some(Ordering::Greater))
            };
            if let Some(min) = min.filter(|m| is_less(m, &statistics.min)) {
                statistics.min = Some(min);
            }
            if let Some(max) = max.filter(|m| is_greater(m, &statistics.max)) {
                statistics.max = Some(max);
            }
        }
    }
    statistics.min = statistics.min.filter(|_| has_min);
    statistics.max = statistics.max.filter(|_| has_max);
    let int = |bound: &Option<Scalar>| bound.as_ref().and_then(Scalar::as_int);
    let range = int(&statistics.min).zip(int(&statistics.max)).map(|(min, max)| (max - min) as f64 + 1.0);
    statistics.distinct_count = distinct::estimate(files, column, range);
    statistics
}

fn scalar_of<'a>(bound: Bound, data_type: &DataType, bytes: impl Fn(u32, u32) -> &'a [u8]) -> Option<Scalar> {
    let value = match bound {
        Bound::Unknown => return None,
        Bound::Int(value) if *data_type == DataType::Boolean => Value::Boolean(value != 0),
        Bound::Int(value) => Value::Int(value.into()),
        Bound::Float(value) => Value::Float(value),
        Bound::Bytes { at, len } if *data_type == DataType::Utf8 => {
            Value::Utf8(std::str::from_utf8(bytes(at, len)).ok()?.into())
        }
        Bound::Bytes { at, len } => Value::Binary(bytes(at, len).into()),
    };
    Some(Scalar { data_type: data_type.clone(), value })
}
