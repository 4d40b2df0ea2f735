//! Typed access to operands: a slice, or one value for all rows.

use super::simd::{Kernel, dispatch};
use crate::data::{Bitmap, Bounds, Buf, BufMut, FlatVector, Plain, Scalar, Value, Values, Vector};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};

/// Fixed-width values and the [`Values`] variant that carries them.
pub(crate) trait Native: Plain + PartialOrd {
    /// The values, if the variant is this type's.
    fn slice(values: &Values) -> Option<&[Self]>;
    /// The variant holding `buf`.
    fn wrap(buf: Buf<Self>) -> Values;
    /// A scalar's payload, which is of this type or null (then zero).
    fn from_scalar(scalar: &Scalar) -> Self;
    /// The order of SQL: NaN last and equal to itself.
    fn equals(self, other: Self) -> bool;
    /// As `equals`.
    fn less(self, other: Self) -> bool;
    /// Runs a loop that makes values of this type, or compares them. Only the types that large columns have get
    /// loops of their own for every vector width: code for the others would be compiled for nothing.
    fn dispatch<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }
}

macro_rules! native_integers { ($($t:ty, $variant:ident $(, $hot:ident)?);*) => { $(
    impl Native for $t {
        fn slice(values: &Values) -> Option<&[Self]> {
            if let Values::$variant(buf) = values { Some(buf) } else { None }
        }
        fn wrap(buf: Buf<Self>) -> Values {
            Values::$variant(buf)
        }
        fn from_scalar(scalar: &Scalar) -> Self {
            scalar.as_int().unwrap_or(0) as Self
        }
        #[inline(always)]
        fn equals(self, other: Self) -> bool {
            self == other
        }
        #[inline(always)]
        fn less(self, other: Self) -> bool {
            self < other
        }
        $(
            fn dispatch<K: Kernel>(kernel: K) -> K::Output {
                $hot(kernel)
            }
        )?
    }
)* } }
native_integers!(i8, I8; i16, I16; i32, I32, dispatch; i64, I64, dispatch; i128, I128; u8, U8; u16, U16; u32, U32; u64, U64);

macro_rules! native_floats { ($($t:ty, $variant:ident $(, $hot:ident)?);*) => { $(
    impl Native for $t {
        fn slice(values: &Values) -> Option<&[Self]> {
            if let Values::$variant(buf) = values { Some(buf) } else { None }
        }
        fn wrap(buf: Buf<Self>) -> Values {
            Values::$variant(buf)
        }
        fn from_scalar(scalar: &Scalar) -> Self {
            if let Value::Float(v) = scalar.value { v as Self } else { 0.0 }
        }
        #[inline(always)]
        fn equals(self, other: Self) -> bool {
            (self == other) | (self.is_nan() & other.is_nan())
        }
        #[inline(always)]
        fn less(self, other: Self) -> bool {
            (self < other) | (!self.is_nan() & other.is_nan())
        }
        $(
            fn dispatch<K: Kernel>(kernel: K) -> K::Output {
                $hot(kernel)
            }
        )?
    }
)* } }
native_floats!(f32, F32; f64, F64, dispatch);

/// Runs `$body` with `$T` bound to the Rust type of a fixed-width [`PhysicalType`](crate::data::PhysicalType), or
/// `$other` for the rest.
macro_rules! for_physical {
    ($physical:expr, $T:ident => $body:expr, _ => $other:expr $(,)?) => {
        for_physical!(@arms $physical, $T, $body, $other,
            I8 i8, I16 i16, I32 i32, I64 i64, I128 i128, U8 u8, U16 u16, U32 u32, U64 u64, F32 f32, F64 f64)
    };
    (@arms $physical:expr, $T:ident, $body:expr, $other:expr, $($name:ident $rust:ty),*) => {
        match $physical {
            $( $crate::data::PhysicalType::$name => { type $T = $rust; $body } )*
            $crate::data::PhysicalType::Bool
            | $crate::data::PhysicalType::View
            | $crate::data::PhysicalType::Nested => $other,
        }
    };
}
pub(crate) use for_physical;

/// One side of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a, T> {
    /// A value per row.
    Slice(&'a [T]),
    /// The same value for every row.
    Value(T),
}

impl<T: Copy> Operand<'_, T> {
    /// The value of a row.
    #[inline(always)]
    pub(crate) fn get(&self, row: usize) -> T {
        match self {
            Self::Slice(slice) => slice[row],
            Self::Value(value) => *value,
        }
    }
}

/// The operand behind `vector`, whose values must be of type `T`.
///
/// # Errors
/// An internal error if they are not.
pub(crate) fn operand<T: Native>(vector: &Vector) -> Result<Operand<'_, T>> {
    match vector {
        Vector::Flat(flat) => match T::slice(&flat.values) {
            Some(slice) => Ok(Operand::Slice(slice)),
            None => Err(mismatch(flat)),
        },
        Vector::Constant { value, .. } => Ok(Operand::Value(T::from_scalar(value))),
        Vector::Dict { .. } => Err(Error::internal("kernel operands are flattened first")),
    }
}

fn mismatch(flat: &FlatVector) -> Error {
    Error::internal(format!("a kernel met values of type {:?} it was not built for", flat.values.physical()))
}

/// The validity of a vector; `None` if no row is null. Constants are taken as not null.
pub(crate) fn validity(vector: &Vector) -> Option<&Bitmap> {
    match vector {
        Vector::Flat(flat) => flat.validity.as_ref(),
        Vector::Dict { validity, .. } => validity.as_ref(),
        Vector::Constant { .. } => None,
    }
}

/// Where both are valid.
pub(crate) fn both_valid(
    left: Option<&Bitmap>,
    right: Option<&Bitmap>,
    account: &Account,
) -> Result<Option<Bitmap>, Denied> {
    match (left, right) {
        (None, None) => Ok(None),
        (Some(one), None) | (None, Some(one)) => Ok(Some(one.clone())),
        (Some(left), Some(right)) => left.and(right, account).map(Some),
    }
}

/// Known bounds of an integer operand.
pub(crate) fn bounds(vector: &Vector) -> Option<Bounds> {
    match vector {
        Vector::Flat(flat) => flat.bounds,
        Vector::Constant { value, .. } => {
            let value = i64::try_from(value.as_int()?).ok()?;
            Some(Bounds { min: value, max: value })
        }
        Vector::Dict { dictionary, .. } => dictionary.values().bounds,
    }
}

/// Bounds of what is there, found by looking.
pub(crate) fn scan_bounds(values: &[i64]) -> Bounds {
    struct MinMax<'a>(&'a [i64]);
    impl Kernel for MinMax<'_> {
        type Output = Bounds;
        #[inline(always)]
        fn run(self) -> Bounds {
            let mut bounds = Bounds { min: i64::MAX, max: i64::MIN };
            for &v in self.0 {
                bounds.min = bounds.min.min(v);
                bounds.max = bounds.max.max(v);
            }
            bounds
        }
    }
    match values {
        [] => Bounds { min: 0, max: 0 },
        _ => dispatch(MinMax(values)),
    }
}

/// `out[i] = f(l[i], r[i])`; the flag ORs what `f` reports.
struct Zip<'a, A, B, R, F> {
    out: &'a mut [R],
    left: Operand<'a, A>,
    right: Operand<'a, B>,
    f: F,
}

impl<A: Copy, B: Copy, R: Copy, F: Fn(A, B) -> (R, bool)> Kernel for Zip<'_, A, B, R, F> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let mut flag = false;
        let f = self.f;
        match (self.left, self.right) {
            (Operand::Slice(left), Operand::Slice(right)) => {
                for ((out, l), r) in self.out.iter_mut().zip(left).zip(right) {
                    let (value, bad) = f(*l, *r);
                    *out = value;
                    flag |= bad;
                }
            }
            (Operand::Slice(left), Operand::Value(r)) => {
                for (out, l) in self.out.iter_mut().zip(left) {
                    let (value, bad) = f(*l, r);
                    *out = value;
                    flag |= bad;
                }
            }
            (Operand::Value(l), Operand::Slice(right)) => {
                for (out, r) in self.out.iter_mut().zip(right) {
                    let (value, bad) = f(l, *r);
                    *out = value;
                    flag |= bad;
                }
            }
            // Constants meet as one flat row; this arm is for completeness.
            (Operand::Value(l), Operand::Value(r)) => {
                let (value, bad) = f(l, r);
                self.out.fill(value);
                flag = bad;
            }
        }
        flag
    }
}

/// Results of `f` for each row, and whether `f` flagged any of them.
pub(crate) fn zip<A: Copy, B: Copy, R: Native>(
    left: Operand<'_, A>,
    right: Operand<'_, B>,
    rows: usize,
    account: &Account,
    f: impl Fn(A, B) -> (R, bool),
) -> Result<(Buf<R>, bool), Denied> {
    let mut out = BufMut::with_len(account, rows)?;
    let flag = R::dispatch(Zip { out: &mut out, left, right, f });
    Ok((out.freeze(), flag))
}

/// Results of `f` for each value, and whether `f` flagged any of them.
pub(crate) fn map<A: Copy, R: Native>(
    values: &[A],
    account: &Account,
    f: impl Fn(A) -> (R, bool),
) -> Result<(Buf<R>, bool), Denied> {
    let mut out = BufMut::with_len(account, values.len())?;
    let flag = R::dispatch(Map { out: &mut out, values, f });
    Ok((out.freeze(), flag))
}

struct Map<'a, A, R, F> {
    out: &'a mut [R],
    values: &'a [A],
    f: F,
}

impl<A: Copy, R, F: Fn(A) -> (R, bool)> Kernel for Map<'_, A, R, F> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let mut flag = false;
        for (out, v) in self.out.iter_mut().zip(self.values) {
            let (value, bad) = (self.f)(*v);
            *out = value;
            flag |= bad;
        }
        flag
    }
}

/// The first row that is not null and for which `is_bad` holds.
pub(crate) fn first_bad(
    validity: Option<&Bitmap>,
    rows: usize,
    is_bad: impl Fn(usize) -> bool,
) -> Option<usize> {
    (0..rows).find(|&row| validity.is_none_or(|v| v.get(row)) && is_bad(row))
}
