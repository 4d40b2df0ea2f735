//! Arrow arrays to vectors and back, sharing memory where the layouts agree.
//!
//! Invariants:
//! 1. An exported array keeps the slabs it points into alive and charged.
//! 2. Strings imported as `Utf8` are valid because Arrow says so; blobs exported as strings never occur.

use super::bitmap::{Bitmap, BitmapMut};
use super::buffer::{Buf, BufMut, Plain};
use super::dictionary::{Dictionary, DictionaryIds};
use super::types::{DataType, Field};
use super::vector::{FlatVector, Values, Vector};
use super::views::{StringViews, ViewBuilder, view_of};
use super::{Batch, PhysicalType};
use crate::error::{Error, Result};
use crate::mem::Account;
use arrow::array::{self as arrays, Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{self as arrow_types, ArrowNativeType, SchemaRef};
use std::sync::Arc;

/// The Arrow schema of a result.
pub(crate) fn arrow_schema(fields: &[Field]) -> SchemaRef {
    let field = |f: &Field| arrow_types::Field::new(&f.name, f.data_type.to_arrow(), f.nullable);
    Arc::new(arrow_types::Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// The rows alive of `batch` as a record batch of `schema`, which [`arrow_schema`] made from `types`.
pub(crate) fn to_record_batch(
    batch: &Batch,
    types: &[Field],
    schema: &SchemaRef,
    account: &Account,
) -> Result<RecordBatch> {
    let arrays = batch.columns().iter().zip(types).map(|(column, field)| {
        let flat = match batch.selection() {
            Some(selection) => column.gather(selection.indices(), account)?.flatten(account)?,
            None => column.flatten(account)?,
        };
        to_array(&flat, &field.data_type, account)
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.rows()));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|e| Error::internal(format!("a result does not fit its schema: {e}")))
}

/// A flat vector of logical type `data_type` as an Arrow array of `data_type.to_arrow()`.
pub(crate) fn to_array(flat: &FlatVector, data_type: &DataType, account: &Account) -> Result<ArrayRef> {
    let nulls = flat.validity.as_ref().map(|v| NullBuffer::new(boolean_buffer(v)));
    macro_rules! primitive {
        ($arrow:ty, $buf:expr) => {
            Arc::new(arrays::PrimitiveArray::<$arrow>::new(scalar_buffer($buf), nulls)) as ArrayRef
        };
    }
    let array = match (&flat.values, data_type) {
        (Values::Nested(array), _) => return Ok(Arc::clone(array)),
        (Values::Bool(_), DataType::Null) => arrays::new_null_array(&arrow_types::DataType::Null, flat.len()),
        (Values::Bool(b), _) => Arc::new(arrays::BooleanArray::new(boolean_buffer(b), nulls)),
        (Values::I8(v), _) => primitive!(arrow_types::Int8Type, v),
        (Values::I16(v), _) => primitive!(arrow_types::Int16Type, v),
        (Values::I32(v), DataType::Date) => primitive!(arrow_types::Date32Type, v),
        (Values::I32(v), _) => primitive!(arrow_types::Int32Type, v),
        (Values::U8(v), _) => primitive!(arrow_types::UInt8Type, v),
        (Values::U16(v), _) => primitive!(arrow_types::UInt16Type, v),
        (Values::U32(v), _) => primitive!(arrow_types::UInt32Type, v),
        (Values::U64(v), _) => primitive!(arrow_types::UInt64Type, v),
        (Values::F32(v), _) => primitive!(arrow_types::Float32Type, v),
        (Values::F64(v), _) => primitive!(arrow_types::Float64Type, v),
        (Values::I64(v), DataType::Decimal { precision, scale }) => {
            let mut wide = BufMut::<i128>::with_len(account, v.len())?;
            for (to, from) in wide.iter_mut().zip(v.iter()) {
                *to = (*from).into();
            }
            decimal_array(&wide.freeze(), nulls, *precision, *scale)?
        }
        (Values::I128(v), DataType::Decimal { precision, scale }) => {
            decimal_array(v, nulls, *precision, *scale)?
        }
        (Values::I128(v), DataType::Int128) => decimal_array(v, nulls, DataType::MAX_PRECISION, 0)?,
        (Values::I64(v), DataType::Time(unit)) => time_array(v, nulls, *unit),
        (Values::I64(v), DataType::Timestamp(unit, zone)) => timestamp_array(v, nulls, *unit, zone.as_ref()),
        (Values::I64(v), _) => primitive!(arrow_types::Int64Type, v),
        (Values::I128(v), _) => {
            let intervals = v.iter().map(|&packed| interval_from_packed(packed));
            let array = arrays::IntervalMonthDayNanoArray::from_iter_values(intervals);
            Arc::new(arrays::IntervalMonthDayNanoArray::new(array.values().clone(), nulls))
        }
        (Values::View(s), data_type) => {
            let views = scalar_buffer(&s.views);
            let buffers: Arc<[_]> = s.buffers.iter().map(Buf::to_arrow).collect();
            let array: ArrayRef = if *data_type == DataType::Utf8 {
                // SAFETY: views invariants 1 and 3: views point into their buffers and hold valid UTF-8.
                Arc::new(unsafe { arrays::StringViewArray::new_unchecked(views, buffers, nulls) })
            } else {
                // SAFETY: views invariant 1.
                Arc::new(unsafe { arrays::BinaryViewArray::new_unchecked(views, buffers, nulls) })
            };
            array
        }
    };
    Ok(array)
}

fn scalar_buffer<T: Plain + ArrowNativeType>(values: &Buf<T>) -> ScalarBuffer<T> {
    ScalarBuffer::new(values.to_arrow(), 0, values.len())
}

fn boolean_buffer(bits: &Bitmap) -> BooleanBuffer {
    BooleanBuffer::new(bits.words_buf().to_arrow(), 0, bits.len())
}

fn decimal_array(
    values: &Buf<i128>,
    nulls: Option<NullBuffer>,
    precision: u8,
    scale: u8,
) -> Result<ArrayRef> {
    let array = arrays::Decimal128Array::new(scalar_buffer(values), nulls);
    let array = array.with_precision_and_scale(precision, scale as i8);
    Ok(Arc::new(array.map_err(|e| Error::internal(format!("decimal result: {e}")))?))
}

fn time_array(values: &Buf<i64>, nulls: Option<NullBuffer>, unit: super::TimeUnit) -> ArrayRef {
    use super::TimeUnit as U;
    let narrow = || ScalarBuffer::from_iter(values.iter().map(|&v| v as i32));
    match unit {
        U::Second => Arc::new(arrays::Time32SecondArray::new(narrow(), nulls)),
        U::Millisecond => Arc::new(arrays::Time32MillisecondArray::new(narrow(), nulls)),
        U::Microsecond => Arc::new(arrays::Time64MicrosecondArray::new(scalar_buffer(values), nulls)),
        U::Nanosecond => Arc::new(arrays::Time64NanosecondArray::new(scalar_buffer(values), nulls)),
    }
}

fn timestamp_array(
    values: &Buf<i64>,
    nulls: Option<NullBuffer>,
    unit: super::TimeUnit,
    zone: Option<&Arc<str>>,
) -> ArrayRef {
    use super::TimeUnit as U;
    let values = scalar_buffer(values);
    let zone = zone.cloned();
    match unit {
        U::Second => Arc::new(arrays::TimestampSecondArray::new(values, nulls).with_timezone_opt(zone)),
        U::Millisecond => {
            Arc::new(arrays::TimestampMillisecondArray::new(values, nulls).with_timezone_opt(zone))
        }
        U::Microsecond => {
            Arc::new(arrays::TimestampMicrosecondArray::new(values, nulls).with_timezone_opt(zone))
        }
        U::Nanosecond => {
            Arc::new(arrays::TimestampNanosecondArray::new(values, nulls).with_timezone_opt(zone))
        }
    }
}

/// Months in the top 32 bits, then days, then nanoseconds.
fn interval_from_packed(packed: i128) -> arrow_types::IntervalMonthDayNano {
    arrow_types::IntervalMonthDayNano::new((packed >> 96) as i32, (packed >> 64) as i32, packed as i64)
}

fn interval_to_packed(interval: arrow_types::IntervalMonthDayNano) -> i128 {
    i128::from(interval.months) << 96
        | i128::from(interval.days as u32) << 64
        | i128::from(interval.nanoseconds as u64)
}

/// An Arrow array as a vector of `DataType::from_arrow` of its type.
///
/// # Errors
/// [`Error::Unsupported`] for types the engine has no values for; memory errors.
pub(crate) fn from_arrow_array(array: &ArrayRef, ids: &DictionaryIds, account: &Account) -> Result<Vector> {
    use arrow_types::DataType as A;
    let validity = validity_of(array.as_ref(), account)?;
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        if dictionary.values().is_empty() || dictionary.values().null_count() > 0 {
            let plain = arrow::array::make_array(flatten_dictionary(dictionary)?);
            return from_arrow_array(&plain, ids, account);
        }
        let Vector::Flat(values) = from_arrow_array(dictionary.values(), ids, account)? else {
            return Err(Error::unsupported("dictionaries of dictionaries", None));
        };
        let mut codes = BufMut::with_len(account, array.len())?;
        for (at, (to, key)) in codes.iter_mut().zip(dictionary.normalized_keys()).enumerate() {
            *to = if validity.as_ref().is_none_or(|v| v.get(at)) { key as u32 } else { 0 };
        }
        let dictionary = Arc::new(Dictionary::new(ids, values));
        return Ok(Vector::Dict { codes: codes.freeze(), validity, dictionary });
    }
    macro_rules! copied {
        ($variant:ident, $arrow:ty) => {
            copied!($variant, $arrow, |v| v)
        };
        ($variant:ident, $arrow:ty, $convert:expr) => {{
            let from = array.as_primitive::<$arrow>().values();
            let mut to = BufMut::with_len(account, from.len())?;
            for (to, from) in to.iter_mut().zip(from.iter()) {
                *to = $convert(*from);
            }
            Values::$variant(to.freeze())
        }};
    }
    macro_rules! shared {
        ($variant:ident, $arrow:ty) => {
            match Buf::from_arrow(array.as_primitive::<$arrow>().values().inner().clone()) {
                Some(shared) => Values::$variant(shared),
                None => copied!($variant, $arrow),
            }
        };
    }
    let narrow = matches!(DataType::from_arrow(array.data_type())?.physical(), PhysicalType::I64);
    let values = match array.data_type() {
        A::Null => {
            return Ok(Vector::Constant { value: super::Scalar::null(DataType::Null), len: array.len() });
        }
        A::Boolean => Values::Bool(copy_bits(array.as_boolean().values(), account)?),
        A::Int8 => shared!(I8, arrow_types::Int8Type),
        A::Int16 => shared!(I16, arrow_types::Int16Type),
        A::Int32 => shared!(I32, arrow_types::Int32Type),
        A::Int64 => shared!(I64, arrow_types::Int64Type),
        A::UInt8 => shared!(U8, arrow_types::UInt8Type),
        A::UInt16 => shared!(U16, arrow_types::UInt16Type),
        A::UInt32 => shared!(U32, arrow_types::UInt32Type),
        A::UInt64 => shared!(U64, arrow_types::UInt64Type),
        A::Float32 => shared!(F32, arrow_types::Float32Type),
        A::Float64 => shared!(F64, arrow_types::Float64Type),
        A::Date32 => shared!(I32, arrow_types::Date32Type),
        A::Float16 => copied!(F32, arrow_types::Float16Type, f32::from),
        A::Decimal32(..) => copied!(I64, arrow_types::Decimal32Type, i64::from),
        A::Decimal64(..) => shared!(I64, arrow_types::Decimal64Type),
        A::Decimal128(..) if narrow => copied!(I64, arrow_types::Decimal128Type, |v| v as i64),
        A::Decimal128(..) => shared!(I128, arrow_types::Decimal128Type),
        A::Time32(arrow_types::TimeUnit::Second) => copied!(I64, arrow_types::Time32SecondType, i64::from),
        A::Time32(_) => copied!(I64, arrow_types::Time32MillisecondType, i64::from),
        A::Time64(arrow_types::TimeUnit::Microsecond) => shared!(I64, arrow_types::Time64MicrosecondType),
        A::Time64(_) => shared!(I64, arrow_types::Time64NanosecondType),
        A::Timestamp(arrow_types::TimeUnit::Second, _) => shared!(I64, arrow_types::TimestampSecondType),
        A::Timestamp(arrow_types::TimeUnit::Millisecond, _) => {
            shared!(I64, arrow_types::TimestampMillisecondType)
        }
        A::Timestamp(arrow_types::TimeUnit::Microsecond, _) => {
            shared!(I64, arrow_types::TimestampMicrosecondType)
        }
        A::Timestamp(arrow_types::TimeUnit::Nanosecond, _) => {
            shared!(I64, arrow_types::TimestampNanosecondType)
        }
        A::Interval(_) => copied!(I128, arrow_types::IntervalMonthDayNanoType, interval_to_packed),
        A::Utf8 => strings(array.as_string::<i32>().iter().map(|s| s.map(str::as_bytes)), account)?,
        A::LargeUtf8 => strings(array.as_string::<i64>().iter().map(|s| s.map(str::as_bytes)), account)?,
        A::Binary => strings(array.as_binary::<i32>().iter(), account)?,
        A::LargeBinary => strings(array.as_binary::<i64>().iter(), account)?,
        A::FixedSizeBinary(_) => strings(array.as_fixed_size_binary().iter(), account)?,
        A::Utf8View => views(array.as_string_view().views(), array.as_string_view().data_buffers(), account)?,
        A::BinaryView => {
            views(array.as_binary_view().views(), array.as_binary_view().data_buffers(), account)?
        }
        _ => return Ok(Vector::Flat(FlatVector::new(Values::Nested(Arc::clone(array))))),
    };
    Ok(Vector::Flat(FlatVector { values, validity, bounds: None }))
}

/// As [`from_arrow_array`], with every value in memory of `account`, nested ones aside. A dictionary of more values than
/// there are rows does not stay one: only what the rows have of it is copied.
///
/// # Errors
/// As [`from_arrow_array`].
pub(crate) fn copy_arrow_array(array: &ArrayRef, ids: &DictionaryIds, account: &Account) -> Result<Vector> {
    let owned = |flat: &FlatVector| -> Result<FlatVector> {
        Ok(FlatVector { values: flat.values.owned(account)?, ..flat.clone() })
    };
    Ok(match from_arrow_array(array, ids, account)? {
        Vector::Flat(flat) => Vector::Flat(owned(&flat)?),
        Vector::Dict { codes, validity, dictionary } if dictionary.values().len() <= codes.len() => {
            let dictionary = Arc::new(Dictionary::new(ids, owned(dictionary.values())?));
            Vector::Dict { codes, validity, dictionary }
        }
        dict @ Vector::Dict { .. } => Vector::Flat(owned(&dict.flatten(account)?)?),
        constant @ Vector::Constant { .. } => constant,
    })
}

fn flatten_dictionary(dictionary: &dyn arrays::AnyDictionaryArray) -> Result<arrow::array::ArrayData> {
    let values = dictionary.values().to_data();
    let mut out = arrays::MutableArrayData::new(vec![&values], true, dictionary.len());
    for (row, key) in dictionary.normalized_keys().into_iter().enumerate() {
        let extended = if dictionary.is_null(row) || values.is_empty() {
            out.try_extend_nulls(1)
        } else {
            out.try_extend(0, key, key + 1)
        };
        extended.map_err(|e| Error::unsupported(format!("an array whose offsets do not fit: {e}"), None))?;
    }
    Ok(out.freeze())
}

fn validity_of(array: &dyn Array, account: &Account) -> Result<Option<Bitmap>> {
    match array.nulls() {
        Some(nulls) if nulls.null_count() > 0 => Ok(Some(copy_bits(nulls.inner(), account)?)),
        _ => Ok(None),
    }
}

fn copy_bits(bits: &BooleanBuffer, account: &Account) -> Result<Bitmap> {
    let mut out = BitmapMut::with_len(account, bits.len())?;
    out.fill_from(|i| bits.value(i));
    Ok(out.freeze())
}

fn strings<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>, account: &Account) -> Result<Values> {
    let mut builder = ViewBuilder::new(account, values.len())?;
    for value in values {
        builder.push(account, value.unwrap_or_default())?;
    }
    Ok(Values::View(builder.freeze()))
}

fn views(views: &ScalarBuffer<u128>, data: &[arrow::buffer::Buffer], account: &Account) -> Result<Values> {
    let buffers: Option<Arc<[Buf<u8>]>> = data.iter().map(|b| Buf::from_arrow(b.clone())).collect();
    let buffers = buffers.ok_or_else(|| Error::internal("bytes are always aligned"))?;
    let views = match Buf::from_arrow(views.inner().clone()) {
        Some(shared) => shared,
        None => BufMut::copy_of(account, views)?.freeze(),
    };
    // Arrow leaves views at null positions unspecified; ours must be readable.
    let readable = |v: &u128| {
        super::view_len(*v) <= super::MAX_INLINE_BYTES
            || data
                .get((*v >> 64) as u32 as usize)
                .is_some_and(|b| (*v >> 96) as usize + super::view_len(*v) <= b.len())
    };
    if views.iter().all(readable) {
        return Ok(Values::View(StringViews { views, buffers }));
    }
    let mut fixed = BufMut::copy_of(account, &views)?;
    for view in fixed.iter_mut().filter(|v| !readable(v)) {
        *view = view_of(&[], 0, 0);
    }
    Ok(Values::View(StringViews { views: fixed.freeze(), buffers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn arrays_survive_the_round_trip() {
        let pool = Pool::new("p", 16 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let ids = DictionaryIds::default();
        let long = "a string of more than twelve bytes";
        let inputs: Vec<ArrayRef> = vec![
            Arc::new(arrays::Int64Array::from(vec![Some(1), None, Some(-3)])),
            Arc::new(arrays::StringViewArray::from(vec![Some(long), None, Some("x")])),
            Arc::new(arrays::BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(
                arrays::Decimal128Array::from(vec![Some(1), None, Some(-7)])
                    .with_precision_and_scale(12, 2)
                    .expect("valid"),
            ),
            Arc::new(arrays::Date32Array::from(vec![Some(1), None, Some(-7)])),
            Arc::new(arrays::IntervalMonthDayNanoArray::from(vec![
                Some(arrow_types::IntervalMonthDayNano::new(-1, 2, -3)),
                None,
                Some(arrow_types::IntervalMonthDayNano::new(1, -2, 3)),
            ])),
        ];
        for array in &inputs {
            let data_type = DataType::from_arrow(array.data_type()).expect("supported");
            let vector = from_arrow_array(array, &ids, &account).expect("fits");
            let flat = vector.gather(&[2, 1, 0], &account).and_then(|v| v.flatten(&account)).expect("fits");
            let back = to_array(&flat.gather(&[2, 1, 0], &account).expect("fits"), &data_type, &account);
            assert_eq!(&back.expect("fits"), array);
        }
    }

    #[test]
    fn dictionaries_keep_their_codes() {
        let pool = Pool::new("p", 16 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let array: arrays::DictionaryArray<arrow_types::Int8Type> =
            vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        let array: ArrayRef = Arc::new(array);
        let vector = from_arrow_array(&array, &DictionaryIds::default(), &account).expect("fits");
        let Vector::Dict { codes, .. } = &vector else { panic!("stays a dictionary") };
        assert_eq!(&**codes, &[0, 0, 1, 0]);
        assert!(vector.is_null(1));
        assert_eq!(vector.scalar(3, &DataType::Utf8), super::super::Scalar::utf8("a"));
    }

    #[test]
    fn copies_lie_in_slabs() {
        let pool = Pool::new("p", 16 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let long = "a string of more than twelve bytes";
        let words: arrays::DictionaryArray<arrow_types::Int8Type> =
            vec![Some(long), None, Some("b"), Some("a")].into_iter().collect();
        let inputs: Vec<ArrayRef> = vec![
            Arc::new(arrays::Int64Array::from(vec![Some(1), None, Some(-3), Some(4)])),
            Arc::new(arrays::StringViewArray::from(vec![Some(long), None, Some("x"), Some(long)])),
            Arc::new(arrays::StringArray::from(vec![Some(long), None, Some("x"), Some(long)])),
            Arc::new(words),
        ];
        for array in &inputs {
            for (start, len) in [(0, 4), (0, 2)] {
                let slice = array.slice(start, len);
                let ids = DictionaryIds::default();
                let copy = copy_arrow_array(&slice, &ids, &account).expect("fits");
                let shared = from_arrow_array(&slice, &ids, &account).expect("fits");
                let flat = copy.flatten(&account).expect("fits");
                match &flat.values {
                    Values::I64(values) => assert!(values.is_owned()),
                    Values::View(strings) => {
                        assert!(strings.views.is_owned() && strings.buffers.iter().all(Buf::is_owned));
                    }
                    other => panic!("{other:?}"),
                }
                let data_type = DataType::from_arrow(array.data_type()).expect("supported");
                for row in 0..len {
                    assert_eq!(copy.scalar(row, &data_type), shared.scalar(row, &data_type), "{array:?}");
                }
                // A dictionary of three for two rows is not worth copying.
                assert_eq!(
                    matches!(copy, Vector::Dict { .. }),
                    matches!(shared, Vector::Dict { .. }) && len == 4
                );
            }
        }
        assert_eq!(account.used_bytes(), 0, "nothing outlives its vector");
    }
}
