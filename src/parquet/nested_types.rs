//! Lists, structs and maps of one column that differ from file to file.
//!
//! Owns: the type that holds both of two nested types, and arrays of one as arrays of the other.
//!
//! Invariants:
//! 1. Fields of structs belong together by name, without regard to case where that is clear; one that is missing is null.
//! 2. Elements are of types that hold every value of both exactly, as columns are (`wider` of the caller).
//! 3. What the elements of lists and the entries of maps are called says nothing.

use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray,
    new_null_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;
use std::sync::Arc;

/// The type that holds all values of both exactly; `leaf` tells that of types that are not nested.
pub(super) fn wider(
    a: &DataType,
    b: &DataType,
    leaf: &impl Fn(&DataType, &DataType) -> Option<DataType>,
) -> Option<DataType> {
    use DataType as D;
    let item = |a: &FieldRef, b: &FieldRef| {
        let data_type = wider(a.data_type(), b.data_type(), leaf)?;
        Some(Arc::new(Field::new(a.name(), data_type, a.is_nullable() || b.is_nullable())))
    };
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (D::List(a), D::List(b)) => D::List(item(a, b)?),
        (D::List(a) | D::LargeList(a), D::List(b) | D::LargeList(b)) => D::LargeList(item(a, b)?),
        (D::FixedSizeList(a, n), D::FixedSizeList(b, m)) if n == m => D::FixedSizeList(item(a, b)?, *n),
        (D::Map(a, sorted), D::Map(b, also_sorted)) => {
            let ((key_a, value_a), (key_b, value_b)) = (entry(a)?, entry(b)?);
            let entries = Fields::from(vec![item(key_a, key_b)?, item(value_a, value_b)?]);
            let entries = Field::new(a.name(), D::Struct(entries), false);
            D::Map(Arc::new(entries), *sorted && *also_sorted)
        }
        (D::Struct(a), D::Struct(b)) => {
            let mut fields = Vec::with_capacity(a.len());
            for field in a {
                fields.push(match find(b, field.name(), a) {
                    Some(at) if b[at].name() == field.name() => item(field, &b[at])?,
                    // Beside a third one, of which both might be, it may be neither.
                    Some(at) => Arc::new(item(field, &b[at])?.as_ref().clone().with_nullable(true)),
                    None => Arc::new(field.as_ref().clone().with_nullable(true)),
                });
            }
            let missing = b.iter().filter(|field| find(a, field.name(), b).is_none());
            fields.extend(missing.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
            D::Struct(fields.into())
        }
        (D::Null, other) | (other, D::Null) => other.clone(),
        (a, b) if a.is_nested() || b.is_nested() => return None,
        (a, b) => leaf(a, b)?,
    })
}

/// The fields of a map's entries.
fn entry(field: &FieldRef) -> Option<(&FieldRef, &FieldRef)> {
    match field.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Some((&fields[0], &fields[1])),
        _ => None,
    }
}

/// The field of `fields` that is called `name` in `others`: an exact match, or the only one but for case on both sides.
fn find(fields: &Fields, name: &str, others: &Fields) -> Option<usize> {
    let exact = fields.iter().position(|field| field.name() == name);
    exact.or_else(|| {
        let alike = |fields: &Fields| {
            let mut alike = (0..fields.len()).filter(|at| fields[*at].name().eq_ignore_ascii_case(name));
            alike.next().filter(|_| alike.next().is_none())
        };
        alike(others)?;
        alike(fields).filter(|at| others.iter().all(|other| other.name() != fields[*at].name()))
    })
}

/// `array` as one of type `to`, which [`wider`] made of its type and others.
///
/// # Errors
/// [`Error::Unsupported`] for a value that `to` does not hold, as a date too far away for its unit.
pub(super) fn widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    try_widen(array, to).map_err(|e| {
        Error::unsupported(format!("values that do not become {to} as other files have them: {e}"), None)
    })
}

fn try_widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    use DataType as D;
    Ok(match (array.data_type(), to) {
        (from, to) if from == to => Arc::clone(array),
        (D::List(_), D::List(item)) => list::<i32, i32>(array.as_list(), item)?,
        (D::List(_), D::LargeList(item)) => list::<i32, i64>(array.as_list(), item)?,
        (D::LargeList(_), D::LargeList(item)) => list::<i64, i64>(array.as_list(), item)?,
        (D::FixedSizeList(..), D::FixedSizeList(item, size)) => {
            let lists = array.as_fixed_size_list();
            let values = try_widen(lists.values(), item.data_type())?;
            Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *size, values, lists.nulls().cloned())?)
        }
        (D::Map(..), D::Map(entries, is_sorted)) => {
            let map = array.as_map();
            let D::Struct(fields) = entries.data_type() else {
                return Err(ArrowError::SchemaError("the entries of a map are a struct".to_owned()));
            };
            let columns = [map.keys(), map.values()].into_iter().zip(fields);
            let columns = columns.map(|(column, field)| try_widen(column, field.data_type()));
            let pairs = StructArray::try_new(fields.clone(), columns.collect::<Result<_, _>>()?, None)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, *is_sorted)?)
        }
        (D::Struct(from), D::Struct(to)) => {
            let rows = array.as_struct();
            let column = |field: &FieldRef| match find(from, field.name(), to) {
                Some(at) => try_widen(rows.column(at), field.data_type()),
                None => Ok(new_null_array(field.data_type(), rows.len())),
            };
            let columns = to.iter().map(column).collect::<Result<_, _>>()?;
            Arc::new(StructArray::try_new_with_length(
                to.clone(),
                columns,
                rows.nulls().cloned(),
                rows.len(),
            )?)
        }
        (_, to) => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &options)?
        }
    })
}

fn list<From: OffsetSizeTrait, To: OffsetSizeTrait>(
    lists: &GenericListArray<From>,
    item: &FieldRef,
) -> Result<ArrayRef, ArrowError> {
    let values = try_widen(lists.values(), item.data_type())?;
    let offsets = lists.offsets().iter().map(|offset| To::usize_as(offset.as_usize()));
    let offsets = OffsetBuffer::new(offsets.collect::<ScalarBuffer<To>>());
    let lists = GenericListArray::try_new(Arc::clone(item), offsets, values, lists.nulls().cloned())?;
    Ok(Arc::new(lists))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(a: &DataType, b: &DataType) -> Option<DataType> {
        use DataType as D;
        matches!((a, b), (D::Int32 | D::Int64, D::Int32 | D::Int64)).then_some(D::Int64)
    }

    fn field(name: &str, data_type: DataType) -> Field {
        Field::new(name, data_type, false)
    }

    #[test]
    fn fields_belong_together_by_name() {
        use DataType as D;
        let a = D::Struct(vec![field("x", D::Int32), field("Y", D::Utf8)].into());
        let b = D::Struct(vec![field("y", D::Utf8), field("z", D::Boolean), field("x", D::Int64)].into());
        let expected = vec![
            field("x", D::Int64),
            field("Y", D::Utf8).with_nullable(true),
            field("z", D::Boolean).with_nullable(true),
        ];
        assert_eq!(wider(&a, &b, &integers), Some(D::Struct(expected.into())));
        let c = D::Struct(vec![field("x", D::Utf8)].into());
        assert_eq!(wider(&a, &c, &integers), None, "a string is no number");
    }

    #[test]
    fn names_of_elements_say_nothing() {
        use DataType as D;
        let of = |name: &str, data_type| D::List(Arc::new(field(name, data_type)));
        let large = |data_type| D::LargeList(Arc::new(field("item", data_type)));
        assert_eq!(
            wider(&of("item", D::Int32), &of("element", D::Int32), &integers),
            Some(of("item", D::Int32))
        );
        assert_eq!(wider(&large(D::Int32), &of("element", D::Int64), &integers), Some(large(D::Int64)));
        assert_eq!(wider(&of("item", D::Int32), &D::Int32, &integers), None);
        let deep = of("item", of("item", D::Int32));
        assert_eq!(wider(&of("item", D::Null), &deep, &integers), Some(deep));
    }

    #[test]
    fn names_that_differ_in_case_alone_stay_apart() {
        use DataType as D;
        let a = D::Struct(vec![field("x", D::Int32), field("X", D::Int32)].into());
        let b = D::Struct(vec![field("X", D::Int64)].into());
        let expected = vec![field("x", D::Int32).with_nullable(true), field("X", D::Int64)];
        assert_eq!(wider(&a, &b, &integers), Some(D::Struct(expected.into())));
    }
}
