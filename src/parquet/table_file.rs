//! A file as part of a table, whose columns may be more, in another order and of wider types than the file's.
//!
//! Owns: [`TableFile`], [`Place`], [`unify`].
//!
//! Invariants:
//! 1. Columns belong together by name, without regard to case unless several differ in nothing else.
//! 2. A column's type in the table holds every value of its type in each file, exactly; dates and times may leave the
//!    range of a finer unit, which is an error when such a value is read.
//! 3. A column that a file lacks is null in all its rows.

use super::file::ParquetFile;
use super::footer::{ChunkMeta, ColumnLayout};
use super::nested_types;
use crate::data::{DataType, Field};
use crate::error::{Error, Origin, Result};
use crate::expr::common_type;
use std::sync::Arc;

/// Where a column of the table is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Missing,
    /// The file's column, of the table's type.
    Same(usize),
    /// The file's column, of a narrower type.
    Widened(usize),
}

impl Place {
    /// The file's column.
    pub(crate) fn in_file(self) -> Option<usize> {
        match self {
            Self::Missing => None,
            Self::Same(at) | Self::Widened(at) => Some(at),
        }
    }
}

/// A file of a table.
#[derive(Debug)]
pub(crate) struct TableFile {
    pub(crate) file: Arc<ParquetFile>,
    /// By the columns of the table.
    places: Box<[Place]>,
}

impl TableFile {
    /// Where column `column` of the table is in the file.
    pub(crate) fn place(&self, column: usize) -> Place {
        self.places[column]
    }

    /// How column `column` of the table lies in the file; `None` if it does not.
    pub(crate) fn layout(&self, column: usize) -> Option<&ColumnLayout> {
        Some(&self.file.footer.columns[self.place(column).in_file()?])
    }

    /// Its chunk in a row group, if our decoders read it.
    pub(crate) fn flat_chunk(&self, row_group: usize, column: usize) -> Option<&ChunkMeta> {
        let layout = self.layout(column)?;
        layout.decode?;
        Some(self.file.footer.chunk(row_group, layout.leaves.start))
    }

    /// The column of the table that a file's column is, if its type is the table's.
    pub(crate) fn same_column(&self, in_file: usize) -> Option<usize> {
        self.places.iter().position(|place| *place == Place::Same(in_file))
    }
}

/// The columns of a table made of `files`: those of the first, then what others have beside them.
///
/// # Errors
/// [`Error::Data`] names the file and the column whose type no other holds exactly.
pub(crate) fn unify(files: Vec<Arc<ParquetFile>>) -> Result<(Vec<TableFile>, Vec<Field>)> {
    let mut fields: Vec<Field> = Vec::new();
    // By file, the table's column of each of its columns.
    let mut columns_of: Vec<Vec<usize>> = Vec::with_capacity(files.len());
    for file in &files {
        let mut taken = vec![false; fields.len()];
        let mut columns = Vec::with_capacity(file.footer.schema.len());
        for (at, field) in file.footer.schema.iter().enumerate() {
            let column = match find(&fields, &taken, at, &field.name) {
                // The first file's columns are the table's, even if two have one name.
                Some(column) if !columns_of.is_empty() => {
                    taken[column] = true;
                    let known = &mut fields[column];
                    if known.data_type != field.data_type {
                        let wider = wider(&known.data_type, &field.data_type);
                        known.data_type = wider.ok_or_else(|| unlike(file, field, &known.data_type))?;
                    }
                    known.nullable |= field.nullable;
                    column
                }
                Some(_) | None => {
                    let nullable = field.nullable || !columns_of.is_empty();
                    fields.push(Field { nullable, ..field.clone() });
                    taken.push(true);
                    fields.len() - 1
                }
            };
            columns.push(column);
        }
        for (field, _) in fields.iter_mut().zip(&taken).filter(|(_, is_taken)| !**is_taken) {
            field.nullable = true;
        }
        columns_of.push(columns);
    }
    let placed = files.into_iter().zip(columns_of).map(|(file, columns)| {
        let mut places = vec![Place::Missing; fields.len()];
        for (at, column) in columns.into_iter().enumerate() {
            let is_same = file.footer.schema[at].data_type == fields[column].data_type;
            places[column] = if is_same { Place::Same(at) } else { Place::Widened(at) };
        }
        TableFile { file, places: places.into() }
    });
    Ok((placed.collect(), fields))
}

/// The column called `name`: that at the same position if it is, else an exact match, else one that differs in case.
fn find(fields: &[Field], taken: &[bool], at: usize, name: &str) -> Option<usize> {
    let mut free = fields.iter().enumerate().filter(|(column, _)| !taken[*column]);
    let is_here = fields.get(at).is_some_and(|field| field.name == name) && !taken[at];
    let exact = || free.clone().find(|(_, field)| field.name == name).map(|(column, _)| column);
    let found = if is_here { Some(at) } else { exact() };
    found.or_else(|| free.find(|(_, field)| field.name.eq_ignore_ascii_case(name)).map(|(column, _)| column))
}

fn unlike(file: &ParquetFile, field: &Field, known: &DataType) -> Error {
    let origin =
        Origin { file: file.read.path().to_owned(), column: Some(field.name.clone()), ..Origin::default() };
    let (name, data_type) = (&field.name, &field.data_type);
    let what = format!(
        "its column '{name}' is of type {data_type}, that of the files before it of type {known}, and no type holds \
         the values of both; make them tables of their own and UNION ALL what is cast"
    );
    Error::data(what, origin)
}

/// The type that holds all values of both exactly.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    if let (DataType::Nested(a), DataType::Nested(b)) = (a, b) {
        let known = |arrow: &_| DataType::from_arrow(arrow).ok();
        let leaf = |a: &_, b: &_| wider(&known(a)?, &known(b)?).map(|wider| wider.to_arrow());
        return nested_types::wider(a, b, &leaf).map(|wider| DataType::Nested(Arc::new(wider)));
    }
    let wider = common_type(a, b)?;
    (is_held(a, &wider) && is_held(b, &wider)).then_some(wider)
}

fn is_held(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let digits = |data_type: &DataType| match data_type {
        D::Decimal { precision, scale } => Some((precision - scale, *scale)),
        D::Int8 | D::UInt8 => Some((3, 0)),
        D::Int16 | D::UInt16 => Some((5, 0)),
        D::Int32 | D::UInt32 => Some((10, 0)),
        D::Int64 => Some((19, 0)),
        D::UInt64 => Some((20, 0)),
        _ => None,
    };
    match (from, to) {
        (a, b) if a == b => true,
        (D::Null, _) | (D::Float32, D::Float64) => true,
        (integer, D::Float64) if integer.is_integer() => integer.value_bytes() <= 4,
        (integer, D::Float32) if integer.is_integer() => integer.value_bytes() <= 2,
        (from, to @ D::Decimal { .. }) => match (digits(from), digits(to)) {
            (Some((whole, scale)), Some((to_whole, to_scale))) => whole <= to_whole && scale <= to_scale,
            (_, _) => false,
        },
        // The common type of integers holds both.
        (a, b) if a.is_integer() && b.is_integer() => true,
        (D::Date, D::Timestamp(_, None)) | (D::Time(_), D::Time(_)) => true,
        (D::Timestamp(_, zone), D::Timestamp(_, to_zone)) => zone == to_zone,
        (_, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_types_hold_both_exactly_or_are_none() {
        use DataType as D;
        let decimal = |precision, scale| D::Decimal { precision, scale };
        assert_eq!(wider(&D::Int32, &D::Int64), Some(D::Int64));
        assert_eq!(wider(&D::UInt32, &D::Int8), Some(D::Int64));
        assert_eq!(wider(&D::Float32, &D::Float64), Some(D::Float64));
        assert_eq!(wider(&D::Int32, &D::Float64), Some(D::Float64));
        assert_eq!(wider(&decimal(9, 2), &decimal(12, 4)), Some(decimal(12, 4)));
        assert_eq!(wider(&decimal(9, 2), &D::Int32), Some(decimal(12, 2)));
        assert_eq!(wider(&D::Int64, &D::Float64), None, "not exact");
        assert_eq!(wider(&decimal(38, 0), &decimal(38, 10)), None, "too many digits");
        assert_eq!(wider(&D::Utf8, &D::Int32), None);
        assert_eq!(wider(&D::Boolean, &D::Int32), None);
        assert_eq!(wider(&D::Null, &D::Utf8), Some(D::Utf8));
    }
}
