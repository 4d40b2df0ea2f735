//! Columns of a batch in the representation that suits them.

use super::bitmap::{Bitmap, BitmapMut};
use super::buffer::{Buf, BufMut, Plain};
use super::dictionary::Dictionary;
use super::scalar::{Scalar, Value};
use super::types::{DataType, PhysicalType};
use super::views::{StringViews, ViewBuilder, view_of};
use crate::mem::{Account, Denied};
use arrow::array::{Array, ArrayRef};
use std::sync::Arc;

/// The least and greatest value that can occur, for 64-bit integers and narrow decimals; nulls aside.
///
/// Bounds come from file statistics and propagate through arithmetic; kernels skip overflow checks where they
/// prove none can happen. They are claims about values, never about memory safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// No value is less.
    pub(crate) min: i64,
    /// No value is greater.
    pub(crate) max: i64,
}

/// Values one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    Bool(Bitmap),
    I8(Buf<i8>),
    I16(Buf<i16>),
    I32(Buf<i32>),
    I64(Buf<i64>),
    I128(Buf<i128>),
    U8(Buf<u8>),
    U16(Buf<u16>),
    U32(Buf<u32>),
    U64(Buf<u64>),
    F32(Buf<f32>),
    F64(Buf<f64>),
    View(StringViews),
    Nested(ArrayRef),
}

/// Runs the same code for every fixed-width variant of [`Values`], and names code for the others:
/// `for_each_values!(values, fixed(v, V) => …, bool(b) => …, view(s) => …, nested(n) => …)`, where `V` is the
/// variant, to build a result of the same type.
macro_rules! for_each_values {
    ($values:expr, fixed($v:ident, $variant:ident) => $fixed:expr, bool($b:ident) => $bool:expr,
     view($s:ident) => $view:expr, nested($n:ident) => $nested:expr $(,)?) => {
        for_each_values!(@arms $values, $v, $variant, $fixed, $b, $bool, $s, $view, $n, $nested,
            I8 I16 I32 I64 I128 U8 U16 U32 U64 F32 F64)
    };
    (@arms $values:expr, $v:ident, $variant:ident, $fixed:expr, $b:ident, $bool:expr, $s:ident, $view:expr,
     $n:ident, $nested:expr, $($name:ident)*) => {
        match $values {
            $(
                $crate::data::Values::$name($v) => {
                    #[allow(unused_imports, reason = "not every use builds a value of the same variant")]
                    use $crate::data::Values::$name as $variant;
                    $fixed
                }
            )*
            $crate::data::Values::Bool($b) => $bool,
            $crate::data::Values::View($s) => $view,
            $crate::data::Values::Nested($n) => $nested,
        }
    };
}
pub(crate) use for_each_values;

impl Values {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        for_each_values!(self, fixed(v, V) => v.len(), bool(b) => b.len(), view(s) => s.len(), nested(n) => n.len())
    }

    /// How the values lie in memory.
    pub(crate) fn physical(&self) -> PhysicalType {
        match self {
            Self::Bool(_) => PhysicalType::Bool,
            Self::I8(_) => PhysicalType::I8,
            Self::I16(_) => PhysicalType::I16,
            Self::I32(_) => PhysicalType::I32,
            Self::I64(_) => PhysicalType::I64,
            Self::I128(_) => PhysicalType::I128,
            Self::U8(_) => PhysicalType::U8,
            Self::U16(_) => PhysicalType::U16,
            Self::U32(_) => PhysicalType::U32,
            Self::U64(_) => PhysicalType::U64,
            Self::F32(_) => PhysicalType::F32,
            Self::F64(_) => PhysicalType::F64,
            Self::View(_) => PhysicalType::View,
            Self::Nested(_) => PhysicalType::Nested,
        }
    }

    /// The values at `indices`.
    pub(crate) fn gather(&self, indices: &[u32], account: &Account) -> Result<Self, Denied> {
        Ok(for_each_values!(
            self,
            fixed(v, V) => V(gather(v, indices, account)?),
            bool(b) => Self::Bool(b.gather(indices, account)?),
            view(s) => Self::View(StringViews {
                views: gather(&s.views, indices, account)?,
                buffers: Arc::clone(&s.buffers),
            }),
            nested(n) => Self::Nested(gather_nested(n, indices)),
        ))
    }

    /// Values `start..start + len`.
    pub(crate) fn slice(&self, start: usize, len: usize, account: &Account) -> Result<Self, Denied> {
        Ok(for_each_values!(
            self,
            fixed(v, V) => V(v.slice(start, len)),
            bool(b) => Self::Bool(b.slice(start, len, account)?),
            view(s) => Self::View(StringViews {
                views: s.views.slice(start, len),
                buffers: Arc::clone(&s.buffers),
            }),
            nested(n) => Self::Nested(n.slice(start, len)),
        ))
    }

    /// The same values in memory of `account`, or where they are if that is a slab's. Nested values stay.
    pub(crate) fn owned(&self, account: &Account) -> Result<Self, Denied> {
        Ok(for_each_values!(
            self,
            fixed(v, V) => V(v.owned(account)?),
            bool(b) => Self::Bool(b.clone()),
            view(s) => {
                if s.views.is_owned() && s.buffers.iter().all(Buf::is_owned) {
                    return Ok(self.clone());
                }
                let mut copied = ViewBuilder::new(account, s.len())?;
                for at in 0..s.len() {
                    copied.push(account, s.get(at))?;
                }
                Self::View(copied.freeze())
            },
            nested(n) => Self::Nested(Arc::clone(n)),
        ))
    }

    /// `len` copies of a value of the type; zeros if it is null.
    pub(crate) fn repeat(scalar: &Scalar, len: usize, account: &Account) -> Result<Self, Denied> {
        fn fill<T: Plain>(value: T, len: usize, account: &Account) -> Result<Buf<T>, Denied> {
            let mut buf = BufMut::with_len(account, len)?;
            buf.fill(value);
            Ok(buf.freeze())
        }
        let int = scalar.as_int().unwrap_or(0);
        let float = if let Value::Float(f) = scalar.value { f } else { 0.0 };
        Ok(match scalar.data_type.physical() {
            PhysicalType::Bool if scalar.value == Value::Boolean(true) => {
                Self::Bool(BitmapMut::ones(account, len)?.freeze())
            }
            PhysicalType::Bool => Self::Bool(BitmapMut::with_len(account, len)?.freeze()),
            PhysicalType::I8 => Self::I8(fill(int as i8, len, account)?),
            PhysicalType::I16 => Self::I16(fill(int as i16, len, account)?),
            PhysicalType::I32 => Self::I32(fill(int as i32, len, account)?),
            PhysicalType::I64 => Self::I64(fill(int as i64, len, account)?),
            PhysicalType::I128 => Self::I128(fill(int, len, account)?),
            PhysicalType::U8 => Self::U8(fill(int as u8, len, account)?),
            PhysicalType::U16 => Self::U16(fill(int as u16, len, account)?),
            PhysicalType::U32 => Self::U32(fill(int as u32, len, account)?),
            PhysicalType::U64 => Self::U64(fill(int as u64, len, account)?),
            PhysicalType::F32 => Self::F32(fill(float as f32, len, account)?),
            PhysicalType::F64 => Self::F64(fill(float, len, account)?),
            PhysicalType::View => {
                let bytes = scalar.as_bytes().unwrap_or_default();
                let data = BufMut::copy_of(account, bytes)?.freeze();
                let views = fill(view_of(bytes, 0, 0), len, account)?;
                Self::View(StringViews { views, buffers: Arc::new([data]) })
            }
            PhysicalType::Nested => {
                Self::Nested(arrow::array::new_null_array(&scalar.data_type.to_arrow(), len))
            }
        })
    }

    /// The value at `index` as a value of `data_type`. Panics past the end.
    pub(crate) fn scalar(&self, index: usize, data_type: &DataType) -> Scalar {
        let value = match self {
            Self::Bool(b) => Value::Boolean(b.get(index)),
            Self::I8(v) => Value::Int(v[index].into()),
            Self::I16(v) => Value::Int(v[index].into()),
            Self::I32(v) => Value::Int(v[index].into()),
            Self::I64(v) => Value::Int(v[index].into()),
            Self::I128(v) => Value::Int(v[index]),
            Self::U8(v) => Value::Int(v[index].into()),
            Self::U16(v) => Value::Int(v[index].into()),
            Self::U32(v) => Value::Int(v[index].into()),
            Self::U64(v) => Value::Int(v[index].into()),
            Self::F32(v) => Value::Float(v[index].into()),
            Self::F64(v) => Value::Float(v[index]),
            Self::View(s) => match (data_type, std::str::from_utf8(s.get(index))) {
                (DataType::Utf8, Ok(text)) => Value::Utf8(text.into()),
                (_, _) => Value::Binary(s.get(index).into()),
            },
            // Nested values have no scalar form; results carry them as Arrow arrays.
            Self::Nested(_) => Value::Null,
        };
        Scalar { data_type: data_type.clone(), value }
    }
}

/// The values at `indices`, which must be in bounds.
pub(crate) fn gather<T: Plain>(values: &[T], indices: &[u32], account: &Account) -> Result<Buf<T>, Denied> {
    let mut out = BufMut::with_len(account, indices.len())?;
    for (to, &from) in out.iter_mut().zip(indices) {
        *to = values[from as usize];
    }
    Ok(out.freeze())
}

fn gather_nested(array: &ArrayRef, indices: &[u32]) -> ArrayRef {
    let data = array.to_data();
    let mut out = arrow::array::MutableArrayData::new(vec![&data], true, indices.len());
    for &i in indices {
        out.try_extend(0, i as usize, i as usize + 1)
            .expect("a batch's rows, taken once each, fit its offsets");
    }
    arrow::array::make_array(out.freeze())
}

/// Values with their validity.
#[derive(Clone, Debug)]
pub(crate) struct FlatVector {
    pub(crate) values: Values,
    /// Ones where a value is not null; `None` if no value is null. Nested arrays carry their own.
    pub(crate) validity: Option<Bitmap>,
    /// For `I64` and narrower integers.
    pub(crate) bounds: Option<Bounds>,
}

impl FlatVector {
    /// Values without nulls or known bounds.
    pub(crate) fn new(values: Values) -> Self {
        Self { values, validity: None, bounds: None }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the value at `index` is null.
    pub(crate) fn is_null(&self, index: usize) -> bool {
        match &self.values {
            Values::Nested(array) => array.is_null(index),
            _ => self.validity.as_ref().is_some_and(|v| !v.get(index)),
        }
    }

    /// The rows at `indices`.
    pub(crate) fn gather(&self, indices: &[u32], account: &Account) -> Result<Self, Denied> {
        let validity = self.validity.as_ref().map(|v| v.gather(indices, account)).transpose()?;
        Ok(Self { values: self.values.gather(indices, account)?, validity, bounds: self.bounds })
    }
}

/// One column of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Vector {
    /// A value per row.
    Flat(FlatVector),
    /// The same value, perhaps null, in every row.
    Constant {
        /// The value.
        value: Scalar,
        /// Number of rows.
        len: usize,
    },
    /// Codes into a dictionary.
    Dict {
        /// One per row, always in bounds, even where null.
        codes: Buf<u32>,
        /// Ones where not null; `None` if no row is.
        validity: Option<Bitmap>,
        /// What the codes point into; not empty.
        dictionary: Arc<Dictionary>,
    },
}

impl Vector {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Flat(flat) => flat.len(),
            Self::Constant { len, .. } => *len,
            Self::Dict { codes, .. } => codes.len(),
        }
    }

    /// Whether row `index` is null.
    pub(crate) fn is_null(&self, index: usize) -> bool {
        match self {
            Self::Flat(flat) => flat.is_null(index),
            Self::Constant { value, .. } => value.is_null(),
            Self::Dict { validity, .. } => validity.as_ref().is_some_and(|v| !v.get(index)),
        }
    }

    /// The value of row `index`. For results and tests; not for loops over rows.
    pub(crate) fn scalar(&self, index: usize, data_type: &DataType) -> Scalar {
        if self.is_null(index) {
            return Scalar::null(data_type.clone());
        }
        match self {
            Self::Flat(flat) => flat.values.scalar(index, data_type),
            Self::Constant { value, .. } => value.clone(),
            Self::Dict { codes, dictionary, .. } => {
                dictionary.values().values.scalar(codes[index] as usize, data_type)
            }
        }
    }

    /// The same rows, one value each.
    pub(crate) fn flatten(&self, account: &Account) -> Result<FlatVector, Denied> {
        match self {
            Self::Flat(flat) => Ok(flat.clone()),
            Self::Constant { value, len } => {
                let validity = value.is_null().then(|| BitmapMut::with_len(account, *len)).transpose()?;
                let bounds =
                    value.as_int().and_then(|v| i64::try_from(v).ok()).map(|v| Bounds { min: v, max: v });
                let mut values = Values::repeat(value, *len, account)?;
                if let (Values::I128(wide), Some(b)) = (&values, bounds) {
                    // A wide decimal constant that fits is narrow, as its vectors would be.
                    let mut narrow = BufMut::with_len(account, wide.len())?;
                    narrow.fill(b.min);
                    if matches!(value.data_type, DataType::Decimal { .. }) {
                        values = Values::I64(narrow.freeze());
                    }
                }
                Ok(FlatVector { values, validity: validity.map(BitmapMut::freeze), bounds })
            }
            Self::Dict { codes, validity, dictionary } => {
                let values = dictionary.values().values.gather(codes, account)?;
                Ok(FlatVector { values, validity: validity.clone(), bounds: dictionary.values().bounds })
            }
        }
    }

    /// The rows at `indices`, in the same representation.
    pub(crate) fn gather(&self, indices: &[u32], account: &Account) -> Result<Self, Denied> {
        Ok(match self {
            Self::Flat(flat) => Self::Flat(flat.gather(indices, account)?),
            Self::Constant { value, .. } => Self::Constant { value: value.clone(), len: indices.len() },
            Self::Dict { codes, validity, dictionary } => Self::Dict {
                codes: gather(codes, indices, account)?,
                validity: validity.as_ref().map(|v| v.gather(indices, account)).transpose()?,
                dictionary: Arc::clone(dictionary),
            },
        })
    }

    /// Rows `start..start + len`, in the same representation.
    pub(crate) fn slice(&self, start: usize, len: usize, account: &Account) -> Result<Self, Denied> {
        Ok(match self {
            Self::Flat(flat) => Self::Flat(FlatVector {
                values: flat.values.slice(start, len, account)?,
                validity: flat.validity.as_ref().map(|v| v.slice(start, len, account)).transpose()?,
                bounds: flat.bounds,
            }),
            Self::Constant { value, .. } => Self::Constant { value: value.clone(), len },
            Self::Dict { codes, validity, dictionary } => Self::Dict {
                codes: codes.slice(start, len),
                validity: validity.as_ref().map(|v| v.slice(start, len, account)).transpose()?,
                dictionary: Arc::clone(dictionary),
            },
        })
    }
}
