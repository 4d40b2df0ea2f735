//! Comparisons: 64 rows to a word of the resulting bitmap.

use super::boolean;
use super::operand::{Native, Operand, both_valid, for_physical, operand, validity};
use super::simd::{FillBits, Kernel, dispatch, pack};
use super::temporal::interval_order;
use crate::data::{
    Bitmap, BitmapMut, Buf, DataType, FlatVector, MAX_INLINE_BYTES, PhysicalType, Scalar, Values, Vector,
    view_bytes, view_len,
};
use crate::error::{Error, Result};
use crate::expr::CompareOp;
use crate::mem::{Account, Denied};

/// Compares two vectors of logical type `data_type`; the result is boolean.
pub(crate) fn compare(
    op: CompareOp,
    left: &Vector,
    right: &Vector,
    data_type: &DataType,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    if let CompareOp::IsDistinct | CompareOp::IsNotDistinct = op {
        return distinct(op == CompareOp::IsDistinct, left, right, data_type, rows, account);
    }
    let bits = compare_values(op, left, right, data_type, rows, account)?;
    let validity = both_valid(validity(left), validity(right), account)?;
    Ok(Vector::Flat(FlatVector { values: Values::Bool(bits), validity, bounds: None }))
}

fn distinct(
    is_distinct: bool,
    left: &Vector,
    right: &Vector,
    data_type: &DataType,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    let valid = |vector: &Vector| -> Result<Bitmap, Denied> {
        match vector {
            Vector::Constant { value, .. } if value.is_null() => {
                Ok(BitmapMut::with_len(account, rows)?.freeze())
            }
            other => match validity(other) {
                Some(valid) => Ok(valid.clone()),
                None => Ok(BitmapMut::ones(account, rows)?.freeze()),
            },
        }
    };
    let (left_valid, right_valid) = (valid(left)?, valid(right)?);
    let equal = compare_values(CompareOp::Eq, left, right, data_type, rows, account)?;
    let mut out = BitmapMut::with_len(account, rows)?;
    let words = left_valid.words().iter().zip(right_valid.words()).zip(equal.words());
    for (out, ((l, r), eq)) in out.words_mut().iter_mut().zip(words) {
        let same = (l & r & eq) | (!l & !r);
        *out = if is_distinct { !same } else { same };
    }
    Ok(Vector::Flat(FlatVector::new(Values::Bool(out.freeze()))))
}

fn compare_values(
    op: CompareOp,
    left: &Vector,
    right: &Vector,
    data_type: &DataType,
    rows: usize,
    account: &Account,
) -> Result<Bitmap> {
    match data_type {
        DataType::Decimal { .. } if is_narrow(left) && is_narrow(right) => {
            Ok(compare_native::<i64>(op, operand(left)?, operand(right)?, rows, account)?)
        }
        DataType::Decimal { .. } => {
            let (left, right) = (widened(left, account)?, widened(right, account)?);
            Ok(compare_native::<i128>(op, operand(&left)?, operand(&right)?, rows, account)?)
        }
        DataType::Interval => {
            let (left, right) = (interval_order(left, account)?, interval_order(right, account)?);
            Ok(compare_native::<i128>(op, operand(&left)?, operand(&right)?, rows, account)?)
        }
        other => for_physical!(
            other.physical(),
            T => Ok(compare_native::<T>(op, operand(left)?, operand(right)?, rows, account)?),
            _ => match other.physical() {
                PhysicalType::Bool => compare_bools(op, left, right, rows, account),
                PhysicalType::View => compare_views(op, left, right, rows, account),
                _ => Err(Error::unsupported(format!("comparing values of type {other}"), None)),
            },
        ),
    }
}

/// Whether a decimal vector's values are 64 bits wide (or a constant that fits).
pub(super) fn is_narrow(vector: &Vector) -> bool {
    match vector {
        Vector::Flat(flat) => flat.values.physical() == PhysicalType::I64,
        Vector::Constant { value, .. } => i64::try_from(value.as_int().unwrap_or(0)).is_ok(),
        Vector::Dict { dictionary, .. } => dictionary.values().values.physical() == PhysicalType::I64,
    }
}

/// A decimal vector with 128-bit values.
pub(super) fn widened(vector: &Vector, account: &Account) -> Result<Vector, Denied> {
    let Vector::Flat(FlatVector { values: Values::I64(narrow), validity, bounds }) = vector else {
        return Ok(vector.clone());
    };
    let (wide, _) = super::operand::map(narrow, account, |v| (i128::from(v), false))?;
    Ok(Vector::Flat(FlatVector { values: Values::I128(wide), validity: validity.clone(), bounds: *bounds }))
}

struct Slices<'a, T, F> {
    out: &'a mut [u64],
    left: &'a [T],
    right: &'a [T],
    f: F,
}

impl<T: Copy, F: Fn(T, T) -> bool> Kernel for Slices<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((word, left), right) in self.out.iter_mut().zip(self.left.chunks(64)).zip(self.right.chunks(64))
        {
            let mut bytes = [0; 64];
            for ((byte, l), r) in bytes.iter_mut().zip(left).zip(right) {
                *byte = u8::from((self.f)(*l, *r));
            }
            *word = pack(&bytes);
        }
    }
}

struct SliceAndValue<'a, T, F> {
    out: &'a mut [u64],
    left: &'a [T],
    right: T,
    f: F,
}

impl<T: Copy, F: Fn(T, T) -> bool> Kernel for SliceAndValue<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let right = self.right;
        for (word, left) in self.out.iter_mut().zip(self.left.chunks(64)) {
            let mut bytes = [0; 64];
            for (byte, l) in bytes.iter_mut().zip(left) {
                *byte = u8::from((self.f)(*l, right));
            }
            *word = pack(&bytes);
        }
    }
}

/// Fixed-width values. Every operator is one of three loops, perhaps with operands exchanged or bits inverted.
pub(super) fn compare_native<T: Native>(
    op: CompareOp,
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    rows: usize,
    account: &Account,
) -> Result<Bitmap, Denied> {
    let mut bits = BitmapMut::with_len(account, rows)?;
    let out = bits.words_mut();
    let invert = match (left, right) {
        (Operand::Slice(left), Operand::Slice(right)) => {
            let (a, b, invert) = match op {
                CompareOp::Gt | CompareOp::LtEq => (right, left, op == CompareOp::LtEq),
                CompareOp::Lt | CompareOp::GtEq => (left, right, op == CompareOp::GtEq),
                CompareOp::Eq | CompareOp::IsNotDistinct => (left, right, false),
                CompareOp::NotEq | CompareOp::IsDistinct => (left, right, true),
            };
            match op {
                CompareOp::Lt | CompareOp::GtEq | CompareOp::Gt | CompareOp::LtEq => {
                    T::dispatch(Slices { out, left: a, right: b, f: T::less });
                }
                CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct => {
                    T::dispatch(Slices { out, left: a, right: b, f: T::equals });
                }
            }
            invert
        }
        (Operand::Slice(left), Operand::Value(right)) => slice_and_value(op, left, right, out),
        (Operand::Value(left), Operand::Slice(right)) => slice_and_value(op.swapped(), right, left, out),
        (Operand::Value(left), Operand::Value(right)) => slice_and_value(op, &vec![left; rows], right, out),
    };
    if invert {
        out.iter_mut().for_each(|w| *w = !*w);
    }
    Ok(bits.freeze())
}

fn slice_and_value<T: Native>(op: CompareOp, left: &[T], right: T, out: &mut [u64]) -> bool {
    match op {
        CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct => {
            T::dispatch(SliceAndValue { out, left, right, f: T::equals });
            matches!(op, CompareOp::NotEq | CompareOp::IsDistinct)
        }
        CompareOp::Lt | CompareOp::GtEq => {
            T::dispatch(SliceAndValue { out, left, right, f: T::less });
            op == CompareOp::GtEq
        }
        CompareOp::Gt | CompareOp::LtEq => {
            T::dispatch(SliceAndValue { out, left, right, f: |l: T, r: T| r.less(l) });
            op == CompareOp::LtEq
        }
    }
}

fn compare_bools(
    op: CompareOp,
    left: &Vector,
    right: &Vector,
    rows: usize,
    account: &Account,
) -> Result<Bitmap> {
    let (left, right) = (boolean::bits(left, rows, account)?, boolean::bits(right, rows, account)?);
    let mut out = BitmapMut::with_len(account, rows)?;
    for (out, (l, r)) in out.words_mut().iter_mut().zip(left.words().iter().zip(right.words())) {
        *out = match op {
            CompareOp::Eq | CompareOp::IsNotDistinct => !(l ^ r),
            CompareOp::NotEq | CompareOp::IsDistinct => l ^ r,
            CompareOp::Lt => !l & r,
            CompareOp::LtEq => !l | r,
            CompareOp::Gt => l & !r,
            CompareOp::GtEq => l | !r,
        };
    }
    Ok(out.freeze())
}

/// Strings or blobs of one side.
struct Strings<'a> {
    views: Operand<'a, u128>,
    buffers: &'a [Buf<u8>],
}

impl Strings<'_> {
    /// The first four bytes as a number in the order of bytes; missing ones are zero.
    #[inline(always)]
    fn prefix(view: u128) -> u32 {
        ((view >> 32) as u32).swap_bytes()
    }
}

fn compare_views(
    op: CompareOp,
    left: &Vector,
    right: &Vector,
    rows: usize,
    account: &Account,
) -> Result<Bitmap> {
    let one = |vector: &Vector| -> Result<Option<Values>> {
        match vector {
            Vector::Constant { value, .. } => Ok(Some(Values::repeat(value, 1, account)?)),
            Vector::Flat(_) => Ok(None),
            Vector::Dict { .. } => Err(Error::internal("kernel operands are flattened first")),
        }
    };
    let (left_one, right_one) = (one(left)?, one(right)?);
    let (l, r) = (strings(left, left_one.as_ref())?, strings(right, right_one.as_ref())?);
    let mut bits = BitmapMut::with_len(account, rows)?;
    let out = bits.words_mut();
    let invert = match op {
        CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct => {
            equal_views(&l, &r, rows, out);
            matches!(op, CompareOp::NotEq | CompareOp::IsDistinct)
        }
        CompareOp::Lt | CompareOp::GtEq => {
            less_views(&l, &r, rows, out);
            op == CompareOp::GtEq
        }
        CompareOp::Gt | CompareOp::LtEq => {
            less_views(&r, &l, rows, out);
            op == CompareOp::LtEq
        }
    };
    if invert {
        out.iter_mut().for_each(|w| *w = !*w);
    }
    Ok(bits.freeze())
}

fn strings<'a>(vector: &'a Vector, one: Option<&'a Values>) -> Result<Strings<'a>> {
    match (vector, one) {
        (_, Some(Values::View(s))) => Ok(Strings { views: Operand::Value(s.views[0]), buffers: &s.buffers }),
        (Vector::Flat(FlatVector { values: Values::View(s), .. }), None) => {
            Ok(Strings { views: Operand::Slice(&s.views), buffers: &s.buffers })
        }
        _ => Err(Error::internal("a string kernel met other values")),
    }
}

fn equal_views(left: &Strings<'_>, right: &Strings<'_>, rows: usize, out: &mut [u64]) {
    if let (Operand::Slice(views), Operand::Value(v)) | (Operand::Value(v), Operand::Slice(views)) =
        (left.views, right.views)
        && view_len(v) <= MAX_INLINE_BYTES
    {
        // A short value is its view: zero padding makes equal values equal words.
        dispatch(SliceAndValue { out, left: views, right: v, f: |l: u128, r: u128| l == r });
        return;
    }
    let f = |row| {
        let (l, r) = (left.views.get(row), right.views.get(row));
        // Length and prefix first: most unequal strings differ there.
        if l as u64 != r as u64 {
            return false;
        }
        if view_len(l) <= MAX_INLINE_BYTES {
            return l == r;
        }
        view_bytes(&l, left.buffers) == view_bytes(&r, right.buffers)
    };
    FillBits { out, len: rows, f }.run();
}

fn less_views(left: &Strings<'_>, right: &Strings<'_>, rows: usize, out: &mut [u64]) {
    let f = |row| {
        let (l, r) = (left.views.get(row), right.views.get(row));
        let (lp, rp) = (Strings::prefix(l), Strings::prefix(r));
        if lp != rp {
            return lp < rp;
        }
        view_bytes(&l, left.buffers) < view_bytes(&r, right.buffers)
    };
    FillBits { out, len: rows, f }.run();
}

/// Rows of `vector` equal to `value`, nulls aside; for list membership.
pub(super) fn equals_value(
    vector: &Vector,
    value: &Scalar,
    data_type: &DataType,
    rows: usize,
    account: &Account,
) -> Result<Bitmap> {
    let constant = Vector::Constant { value: value.clone(), len: rows };
    compare_values(CompareOp::Eq, vector, &constant, data_type, rows, account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::kernels::testing::{Lab, Random};
    use std::cmp::Ordering;

    const OPS: [CompareOp; 8] = [
        CompareOp::Eq,
        CompareOp::NotEq,
        CompareOp::Lt,
        CompareOp::LtEq,
        CompareOp::Gt,
        CompareOp::GtEq,
        CompareOp::IsDistinct,
        CompareOp::IsNotDistinct,
    ];

    fn expected(op: CompareOp, l: &Scalar, r: &Scalar) -> Scalar {
        let holds = match (op, l.compare(r)) {
            (CompareOp::IsDistinct, o) => o != Some(Ordering::Equal) && !(l.is_null() && r.is_null()),
            (CompareOp::IsNotDistinct, o) => o == Some(Ordering::Equal) || (l.is_null() && r.is_null()),
            (_, None) => return Scalar::null(DataType::Boolean),
            (CompareOp::Eq, Some(o)) => o.is_eq(),
            (CompareOp::NotEq, Some(o)) => o.is_ne(),
            (CompareOp::Lt, Some(o)) => o.is_lt(),
            (CompareOp::LtEq, Some(o)) => o.is_le(),
            (CompareOp::Gt, Some(o)) => o.is_gt(),
            (CompareOp::GtEq, Some(o)) => o.is_ge(),
        };
        Scalar::boolean(holds)
    }

    #[test]
    fn every_type_and_operator_agrees_with_scalars() {
        let lab = Lab::new();
        let mut random = Random::new(7);
        for data_type in Lab::types() {
            for rows in [1, 64, 131] {
                let left = random.scalars(&data_type, rows);
                let right = random.scalars(&data_type, rows);
                let (l, r) = (lab.flat(&data_type, &left), lab.flat(&data_type, &right));
                let one = left.iter().find(|s| !s.is_null()).cloned();
                for op in OPS {
                    let result = compare(op, &l, &r, &data_type, rows, &lab.account).expect("fits");
                    for row in 0..rows {
                        let want = expected(op, &left[row], &right[row]);
                        assert_eq!(
                            result.scalar(row, &DataType::Boolean),
                            want,
                            "{op:?} {data_type} row {row}"
                        );
                    }
                    let Some(one) = &one else { continue };
                    let constant = Vector::Constant { value: one.clone(), len: rows };
                    let ahead = compare(op, &constant, &r, &data_type, rows, &lab.account).expect("fits");
                    let behind = compare(op, &l, &constant, &data_type, rows, &lab.account).expect("fits");
                    for row in 0..rows {
                        let want = expected(op, one, &right[row]);
                        assert_eq!(ahead.scalar(row, &DataType::Boolean), want, "{op:?} {data_type}");
                        let want = expected(op, &left[row], one);
                        assert_eq!(behind.scalar(row, &DataType::Boolean), want, "{op:?} {data_type}");
                    }
                }
            }
        }
    }
}
