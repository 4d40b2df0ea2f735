//! Signatures of quantiles.

use super::super::wrong_type;
use crate::data::{DataType, TimeUnit};
use crate::error::{Error, Result};

/// The type of what lies between two values; `None` if nothing does.
pub(crate) fn between_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Null => Some(DataType::Float64),
        DataType::Float32 | DataType::Decimal { .. } | DataType::Timestamp(..) => Some(data_type.clone()),
        DataType::Date => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        numeric if numeric.is_numeric() => Some(DataType::Float64),
        _ => None,
    }
}

/// The value's type, of what `name` is called with.
pub(crate) fn value_and_fraction<'a>(name: &str, arguments: &'a [DataType]) -> Result<&'a DataType> {
    match arguments {
        [value, fraction] if fraction.is_numeric() || *fraction == DataType::Null => Ok(value),
        [_, other] => Err(wrong_type(name, "a fraction from 0 to 1 after the value", other)),
        _ => Err(Error::plan(
            format!(
                "{name} takes a value and a fraction from 0 to 1, but has {}; write {name}(x, 0.5)",
                arguments.len()
            ),
            None,
        )),
    }
}
