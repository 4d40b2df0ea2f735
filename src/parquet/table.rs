//! A table made of Parquet files.
//!
//! Owns: [`ParquetTable`].
//!
//! Invariants:
//! 1. Statistics and order are those of the table's types, over all files.

use super::clusters;
use super::distinct;
use super::file::ParquetFile;
use super::footer::{Bound, ChunkMeta};
use super::sample::Sampler;
use super::scan::ParquetScan;
use super::table_file::{TableFile, unify};
use crate::catalog::{ColumnStatistics, Sampled, TableProvider, TableStatistics};
use crate::data::{Field, Scalar, Schema};
use crate::error::{Error, Result};
use crate::exec::SourceBox;
use crate::expr::{ColumnId, Expr};
use crate::io::OpenFiles;
use crate::mem::Pool;
use crate::scan::{ColumnOrder, ScanProvider, ScanRequest};
use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;

/// One or more Parquet files read as one table.
#[derive(Debug)]
pub(crate) struct ParquetTable {
    pub(super) files: Arc<[TableFile]>,
    schema: Schema,
    statistics: TableStatistics,
    order: Box<[ColumnOrder]>,
    sampler: Option<Sampler>,
}

impl ParquetTable {
    /// Opens `paths`, as files `among` others; footers are charged to `pool` for as long as the table lives.
    ///
    /// # Errors
    /// As [`ParquetFile::open`]; [`Error::Plan`] without any path, [`Error::Data`] if no type holds the values of a
    /// column in all files.
    pub(crate) fn open(paths: &[PathBuf], among: &Arc<OpenFiles>, pool: &Pool) -> Result<Self> {
        let open = |(at, path): (usize, &PathBuf)| ParquetFile::open(at, path, among, pool).map(Arc::new);
        let files = paths.iter().enumerate().map(open);
        let table = Self::from_files(files.collect::<Result<_>>()?)?;
        Ok(Self { sampler: Some(Sampler::new(pool)), ..table })
    }

    /// A table of files that are already open.
    pub(crate) fn from_files(files: Vec<Arc<ParquetFile>>) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::plan("no Parquet file matches; give at least one path", None));
        }
        let (files, fields) = unify(files)?;
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

    fn is_clustered_by(&self, column: usize) -> bool {
        clusters::is_clustered(&self.files, column, &self.schema[column].data_type)
    }
}

/// The order of the rows of all files, one after the other: what all row groups declare, as far as their bounds prove
/// that each begins where the one before ends.
fn order_of(files: &[TableFile], fields: &[Field]) -> Box<[ColumnOrder]> {
    let declared = |file: &TableFile| -> Vec<ColumnOrder> {
        let known =
            |order: &ColumnOrder| Some(ColumnOrder { column: file.same_column(order.column)?, ..*order });
        file.file.footer.order.iter().map_while(known).collect()
    };
    let mut common = files.first().map(declared).unwrap_or_default();
    for file in files {
        let other = declared(file);
        let agree = common.iter().zip(&other).take_while(|(a, b)| a == b).count();
        common.truncate(agree);
    }
    // Where NaN goes is for every writer to say.
    let usable = common.iter().take_while(|order| !fields[order.column].data_type.is_float()).count();
    common.truncate(usable);
    let Some(first) = common.first().copied() else { return common.into() };
    let groups = files.iter().flat_map(|file| (0..file.file.footer.row_groups()).map(move |at| (file, at)));
    let groups = groups.filter(|(file, at)| file.file.footer.row_group_rows[*at] > 0);
    let mut end: Option<Option<Scalar>> = None;
    for (file, at) in groups {
        let chunk = file.flat_chunk(at, first.column);
        let value = |bound: fn(&ChunkMeta) -> Bound| {
            let chunk = chunk.filter(|chunk| chunk.null_count() == Some(0))?;
            scalar_of(file, bound(chunk), first.column, &fields[first.column])
        };
        let (mut start, mut own_end) = (value(|chunk| chunk.min), value(|chunk| chunk.max));
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

fn statistics_of(files: &[TableFile], fields: &[Field]) -> TableStatistics {
    let rows = files.iter().map(|f| f.file.footer.rows()).sum();
    let columns = fields.iter().enumerate().map(|(at, field)| column_statistics(files, at, field)).collect();
    TableStatistics { rows: Some(rows), columns }
}

/// Bounds and nulls over all row groups, where every one of them knows its own.
fn column_statistics(files: &[TableFile], column: usize, field: &Field) -> ColumnStatistics {
    let mut statistics = ColumnStatistics { null_count: Some(0), ..ColumnStatistics::default() };
    let (mut has_min, mut has_max) = (true, !field.data_type.is_float());
    for file in files {
        let footer = &file.file.footer;
        let Some(layout) = file.layout(column) else {
            statistics.null_count = statistics.null_count.map(|nulls| nulls + footer.rows());
            continue;
        };
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
            let value = |bound| scalar_of(file, bound, column, field);
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

/// A bound of the table's column in a file, as a value of the table's type.
fn scalar_of(file: &TableFile, bound: Bound, column: usize, field: &Field) -> Option<Scalar> {
    let footer = &file.file.footer;
    let stored = &footer.schema[file.place(column).in_file()?].data_type;
    footer.edge(bound).widened(stored, &field.data_type).to_scalar(&field.data_type)
}
