//! Choosing between vectors row by row, and spreading results of some rows over all.

use super::compare::{is_narrow, widened};
use super::operand::{Native, Operand, for_physical, operand};
use super::simd::Kernel;
use crate::data::{
    Bitmap, BitmapMut, Bounds, Buf, BufMut, DataType, FlatVector, MAX_INLINE_BYTES, PhysicalType,
    StringViews, Values, Vector, view_len,
};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};
use arrow::array::{Array, MutableArrayData, make_array};

/// Rows of `when` where `mask` is set, of `otherwise` elsewhere. Both are of type `data_type`, flat or constant.
pub(crate) fn blend(
    mask: &Bitmap,
    when: &Vector,
    otherwise: &Vector,
    data_type: &DataType,
    account: &Account,
) -> Result<Vector> {
    let rows = mask.len();
    if let (Vector::Constant { value: a, .. }, Vector::Constant { value: b, .. }) = (when, otherwise)
        && a == b
    {
        return Ok(when.clone());
    }
    let validity = blend_validity(mask, when, otherwise, account)?;
    let is_mixed = matches!(data_type, DataType::Decimal { .. }) && is_narrow(when) != is_narrow(otherwise);
    let (wide_when, wide_otherwise);
    let (when, otherwise) = if is_mixed {
        (wide_when, wide_otherwise) = (widened(when, account)?, widened(otherwise, account)?);
        (&wide_when, &wide_otherwise)
    } else {
        (when, otherwise)
    };
    let physical = match data_type {
        DataType::Decimal { .. } if !is_narrow(when) || !is_narrow(otherwise) => PhysicalType::I128,
        DataType::Decimal { .. } => PhysicalType::I64,
        other => other.physical(),
    };
    let values = for_physical!(
        physical,
        T => T::wrap(blend_native::<T>(mask, operand(when)?, operand(otherwise)?, account)?),
        _ => match physical {
            PhysicalType::Bool => {
                let (a, b) = (bits(when, rows, account)?, bits(otherwise, rows, account)?);
                let mut out = BitmapMut::with_len(account, rows)?;
                let words = mask.words().iter().zip(a.words().iter().zip(b.words()));
                for (out, (m, (a, b))) in out.words_mut().iter_mut().zip(words) {
                    *out = (a & m) | (b & !m);
                }
                Values::Bool(out.freeze())
            }
            PhysicalType::View => Values::View(blend_views(mask, when, otherwise, account)?),
            _ => return blend_nested(mask, when, otherwise, account),
        },
    );
    Ok(Vector::Flat(FlatVector { values, validity, bounds: union_bounds(when, otherwise) }))
}

fn bits(vector: &Vector, rows: usize, account: &Account) -> Result<Bitmap> {
    super::boolean::bits(vector, rows, account)
}

fn union_bounds(a: &Vector, b: &Vector) -> Option<Bounds> {
    // A null constant contributes no value.
    let of = |vector: &Vector, other: &Vector| match vector {
        Vector::Constant { value, .. } if value.is_null() => super::operand::bounds(other),
        _ => super::operand::bounds(vector),
    };
    let (a, b) = (of(a, b)?, of(b, a)?);
    Some(Bounds { min: a.min.min(b.min), max: a.max.max(b.max) })
}

fn blend_validity(
    mask: &Bitmap,
    when: &Vector,
    otherwise: &Vector,
    account: &Account,
) -> Result<Option<Bitmap>, Denied> {
    let word = |vector: &Vector, at: usize| match vector {
        Vector::Constant { value, .. } if value.is_null() => 0,
        other => super::operand::validity(other).map_or(u64::MAX, |v| v.words()[at]),
    };
    let has_nulls = |vector: &Vector| match vector {
        Vector::Constant { value, .. } => value.is_null(),
        other => super::operand::validity(other).is_some(),
    };
    if !has_nulls(when) && !has_nulls(otherwise) {
        return Ok(None);
    }
    let mut out = BitmapMut::with_len(account, mask.len())?;
    for (at, (out, m)) in out.words_mut().iter_mut().zip(mask.words()).enumerate() {
        *out = (word(when, at) & m) | (word(otherwise, at) & !m);
    }
    Ok(Some(out.freeze()))
}

struct Blend<'a, T> {
    out: &'a mut [T],
    mask: &'a [u64],
    when: Operand<'a, T>,
    otherwise: Operand<'a, T>,
}

impl<T: Copy> Kernel for Blend<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (at, (out, &mask)) in self.out.chunks_mut(64).zip(self.mask).enumerate() {
            let base = at * 64;
            for (i, out) in out.iter_mut().enumerate() {
                let (a, b) = (self.when.get(base + i), self.otherwise.get(base + i));
                *out = if mask >> i & 1 == 1 { a } else { b };
            }
        }
    }
}

fn blend_native<T: Native>(
    mask: &Bitmap,
    when: Operand<'_, T>,
    otherwise: Operand<'_, T>,
    account: &Account,
) -> Result<Buf<T>, Denied> {
    let mut out = BufMut::with_len(account, mask.len())?;
    T::dispatch(Blend { out: &mut out, mask: mask.words(), when, otherwise });
    Ok(out.freeze())
}

/// The strings of a flat or constant vector.
fn views(vector: &Vector, account: &Account) -> Result<StringViews> {
    match vector.flatten(account)?.values {
        Values::View(strings) => Ok(strings),
        _ => Err(Error::internal("a string kernel met other values")),
    }
}

fn blend_views(mask: &Bitmap, when: &Vector, otherwise: &Vector, account: &Account) -> Result<StringViews> {
    let (a, b) = (views(when, account)?, views(otherwise, account)?);
    let shift = a.buffers.len() as u128;
    let mut out = BufMut::with_len(account, mask.len())?;
    for (row, out) in out.iter_mut().enumerate() {
        *out = if mask.get(row) { a.views[row] } else { moved(b.views[row], shift) };
    }
    let buffers = a.buffers.iter().chain(b.buffers.iter()).cloned().collect();
    Ok(StringViews { views: out.freeze(), buffers })
}

/// A view whose buffer has moved `shift` places up.
fn moved(view: u128, shift: u128) -> u128 {
    if view_len(view) <= MAX_INLINE_BYTES { view } else { view + (shift << 64) }
}

fn blend_nested(mask: &Bitmap, when: &Vector, otherwise: &Vector, account: &Account) -> Result<Vector> {
    let array = |vector: &Vector| match vector.flatten(account)?.values {
        Values::Nested(array) => Ok(array.to_data()),
        _ => Err(Error::internal("a nested kernel met other values")),
    };
    let (a, b) = (array(when)?, array(otherwise)?);
    let mut out = MutableArrayData::new(vec![&a, &b], true, mask.len());
    for row in 0..mask.len() {
        out.try_extend(usize::from(!mask.get(row)), row, row + 1).map_err(|e| {
            Error::unsupported(format!("a nested result whose offsets do not fit: {e}"), None)
        })?;
    }
    Ok(Vector::Flat(FlatVector::new(Values::Nested(make_array(out.freeze())))))
}

/// A vector of `rows` rows in which row `indices[i]` is row `i` of `vector`; the other rows are unspecified.
pub(crate) fn scatter(vector: Vector, indices: &[u32], rows: usize, account: &Account) -> Result<Vector> {
    if let Vector::Constant { value, .. } = vector {
        return Ok(Vector::Constant { value, len: rows });
    }
    // Gathering through the inverse: rows not named take row 0, unspecified but readable.
    if indices.is_empty() {
        return Err(Error::internal("a scatter of no rows has nothing to show elsewhere"));
    }
    let mut inverse = BufMut::zeroed(account, rows)?;
    for (from, &to) in indices.iter().enumerate() {
        inverse[to as usize] = from as u32;
    }
    Ok(vector.gather(&inverse.freeze(), account)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::kernels::testing::{Lab, Random};

    #[test]
    fn rows_come_from_the_side_the_mask_names() {
        let lab = Lab::new();
        let mut random = Random::new(13);
        for data_type in Lab::types() {
            let (a, b) = (random.scalars(&data_type, 100), random.scalars(&data_type, 100));
            let mut mask = BitmapMut::with_len(&lab.account, 100).expect("fits");
            mask.fill_from(|_| random.below(2) == 0);
            let mask = mask.freeze();
            let (va, vb) = (lab.flat(&data_type, &a), lab.flat(&data_type, &b));
            let constant = Vector::Constant { value: b[0].clone(), len: 100 };
            let both = blend(&mask, &va, &vb, &data_type, &lab.account).expect("fits");
            let one = blend(&mask, &va, &constant, &data_type, &lab.account).expect("fits");
            let shown = |v: &Vector, row| format!("{:?}", v.scalar(row, &data_type));
            for row in 0..100 {
                let want = if mask.get(row) { &a[row] } else { &b[row] };
                assert_eq!(shown(&both, row), format!("{want:?}"));
                let want = if mask.get(row) { &a[row] } else { &b[0] };
                assert_eq!(shown(&one, row), format!("{want:?}"));
            }
            let indices: Vec<u32> = mask.ones().map(|i| i as u32).collect();
            let packed = va.gather(&indices, &lab.account).expect("fits");
            let spread = scatter(packed, &indices, 100, &lab.account).expect("fits");
            for &row in &indices {
                assert_eq!(shown(&spread, row as usize), format!("{:?}", a[row as usize]));
            }
        }
    }
}
