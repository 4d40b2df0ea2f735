//! Decimal arithmetic: 64 bits wherever the values fit, else 128.
//!
//! Operands keep their scales. Sums align them by powers of ten, products add them. Where bounds (known, or found by
//! looking at the batch) prove that the result fits 64 bits, the loop is unchecked; otherwise it is checked, and a
//! batch that overflows is computed again in 128 bits.

use super::arithmetic::{ArithmeticTypes, combined, overflow, refuse_zero_divisors};
use super::compare::is_narrow;
use super::operand::{Operand, bounds, first_bad, operand, scan_bounds, zip};
use crate::data::{Bitmap, Bounds, Buf, BufMut, DataType, FlatVector, Values, Vector, format_decimal};
use crate::error::{Error, Result};
use crate::expr::ArithmeticOp;
use crate::mem::Account;

/// `10^exponent`; `None` above 38.
pub(crate) fn power_of_ten(exponent: u8) -> Option<i128> {
    10i128.checked_pow(exponent.into())
}

/// Whether a value has at most `precision` digits.
pub(crate) fn has_precision(value: i128, precision: u8) -> bool {
    power_of_ten(precision).is_none_or(|limit| value.unsigned_abs() < limit.unsigned_abs())
}

/// The scale of a decimal type; 0 of others.
pub(crate) fn scale_of(data_type: &DataType) -> u8 {
    if let DataType::Decimal { scale, .. } = data_type { *scale } else { 0 }
}

/// One side: the vector, its scale, and the factor that aligns it.
struct Side<'a> {
    vector: &'a Vector,
    scale: u8,
    factor: i128,
}

pub(super) fn arithmetic(
    op: ArithmeticOp,
    left: &Vector,
    right: &Vector,
    types: ArithmeticTypes<'_>,
    valid: Option<Bitmap>,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    let (left_scale, right_scale) = (scale_of(types.left), scale_of(types.right));
    let factor = |scale: u8| match op {
        ArithmeticOp::Multiply => Some(1),
        ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Modulo => {
            power_of_ten(scale_of(types.result).checked_sub(scale)?)
        }
        ArithmeticOp::Divide | ArithmeticOp::IntegerDivide => None,
    };
    let (Some(left_factor), Some(right_factor)) = (factor(left_scale), factor(right_scale)) else {
        return Err(Error::internal(format!("{op:?} of {} and {} is not coerced", types.left, types.right)));
    };
    let left = Side { vector: left, scale: left_scale, factor: left_factor };
    let right = Side { vector: right, scale: right_scale, factor: right_factor };
    if op == ArithmeticOp::Modulo {
        return modulo(&left, &right, valid, rows, account);
    }
    if is_narrow(left.vector)
        && is_narrow(right.vector)
        && let Some((values, bounds)) = narrow(op, &left, &right, rows, account)?
    {
        return Ok(Vector::Flat(FlatVector { values: Values::I64(values), validity: valid, bounds }));
    }
    let values = wide(op, &left, &right, valid.as_ref(), types.result, rows, account)?;
    Ok(Vector::Flat(FlatVector { values: Values::I128(values), validity: valid, bounds: None }))
}

/// In 64 bits; `None` if some row does not fit them.
fn narrow(
    op: ArithmeticOp,
    left: &Side<'_>,
    right: &Side<'_>,
    rows: usize,
    account: &Account,
) -> Result<Option<(Buf<i64>, Option<Bounds>)>> {
    let (l, r) = (operand::<i64>(left.vector)?, operand::<i64>(right.vector)?);
    let (Ok(lf), Ok(rf)) = (i64::try_from(left.factor), i64::try_from(right.factor)) else { return Ok(None) };
    let known = |side: &Side<'_>, operand: Operand<'_, i64>| {
        let found = match operand {
            Operand::Slice(slice) => bounds(side.vector).unwrap_or_else(|| scan_bounds(slice)),
            Operand::Value(value) => Bounds { min: value, max: value },
        };
        let factor = Bounds { min: side.factor as i64, max: side.factor as i64 };
        Some((found, combined(ArithmeticOp::Multiply, found, factor)?))
    };
    let proven = known(left, l)
        .zip(known(right, r))
        .and_then(|((l, scaled_l), (r, scaled_r))| Some((l, r, combined(op, scaled_l, scaled_r)?)));
    let (values, result_bounds) = match proven {
        Some((lb, rb, result)) => {
            let is_short = |b: Bounds| i32::try_from(b.min).is_ok() && i32::try_from(b.max).is_ok();
            let values = match op {
                // A product of two 32-bit numbers is one instruction for eight rows; a 64-bit one is several.
                ArithmeticOp::Multiply if is_short(lb) && is_short(rb) => {
                    let f = |l, r| (i64::from(l as i32).wrapping_mul(i64::from(r as i32)), false);
                    zip(l, r, rows, account, f)?.0
                }
                ArithmeticOp::Multiply => {
                    zip(l, r, rows, account, |l: i64, r: i64| (l.wrapping_mul(r), false))?.0
                }
                ArithmeticOp::Add if lf == 1 && rf == 1 => {
                    zip(l, r, rows, account, |l: i64, r: i64| (l.wrapping_add(r), false))?.0
                }
                ArithmeticOp::Subtract if lf == 1 && rf == 1 => {
                    zip(l, r, rows, account, |l: i64, r: i64| (l.wrapping_sub(r), false))?.0
                }
                ArithmeticOp::Add => {
                    let f = |l: i64, r: i64| (l.wrapping_mul(lf).wrapping_add(r.wrapping_mul(rf)), false);
                    zip(l, r, rows, account, f)?.0
                }
                ArithmeticOp::Subtract => {
                    let f = |l: i64, r: i64| (l.wrapping_mul(lf).wrapping_sub(r.wrapping_mul(rf)), false);
                    zip(l, r, rows, account, f)?.0
                }
                ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo => return Ok(None),
            };
            (values, Some(result))
        }
        None => {
            let (lf, rf) = (i128::from(lf), i128::from(rf));
            let narrowed = |wide: i128| (wide as i64, i128::from(wide as i64) != wide);
            let (values, overflowed) = match op {
                ArithmeticOp::Multiply => {
                    zip(l, r, rows, account, |l: i64, r: i64| narrowed(i128::from(l) * i128::from(r)))?
                }
                // 64-bit values times 64-bit factors stay below 2^127 even summed in pairs.
                ArithmeticOp::Add => zip(l, r, rows, account, |l: i64, r: i64| {
                    narrowed((i128::from(l) * lf).wrapping_add(i128::from(r) * rf))
                })?,
                ArithmeticOp::Subtract => zip(l, r, rows, account, |l: i64, r: i64| {
                    narrowed((i128::from(l) * lf).wrapping_sub(i128::from(r) * rf))
                })?,
                ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo => return Ok(None),
            };
            if overflowed {
                return Ok(None);
            }
            (values, None)
        }
    };
    Ok(Some((values, result_bounds)))
}

/// Values of either width, read as 128 bits.
enum Wide<'a> {
    Narrow(Operand<'a, i64>),
    Wide(Operand<'a, i128>),
}

impl<'a> Wide<'a> {
    fn new(vector: &'a Vector) -> Result<Self> {
        Ok(match vector {
            Vector::Flat(FlatVector { values: Values::I64(_), .. }) => Self::Narrow(operand(vector)?),
            _ => Self::Wide(operand(vector)?),
        })
    }

    #[inline(always)]
    fn get(&self, row: usize) -> i128 {
        match self {
            Self::Narrow(operand) => operand.get(row).into(),
            Self::Wide(operand) => operand.get(row),
        }
    }
}

fn wide(
    op: ArithmeticOp,
    left: &Side<'_>,
    right: &Side<'_>,
    valid: Option<&Bitmap>,
    result: &DataType,
    rows: usize,
    account: &Account,
) -> Result<Buf<i128>> {
    let (l, r) = (Wide::new(left.vector)?, Wide::new(right.vector)?);
    let compute = |row: usize| {
        let (l, r) = (l.get(row).checked_mul(left.factor)?, r.get(row).checked_mul(right.factor)?);
        match op {
            ArithmeticOp::Add => l.checked_add(r),
            ArithmeticOp::Subtract => l.checked_sub(r),
            ArithmeticOp::Multiply => l.checked_mul(r),
            ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo => None,
        }
        .filter(|value| has_precision(*value, DataType::MAX_PRECISION))
    };
    let mut out = BufMut::with_len(account, rows)?;
    let mut overflowed = false;
    for (row, out) in out.iter_mut().enumerate() {
        let value = compute(row);
        overflowed |= value.is_none();
        *out = value.unwrap_or(0);
    }
    if overflowed && let Some(row) = first_bad(valid, rows, |row| compute(row).is_none()) {
        let (l, r) = (format_decimal(l.get(row), left.scale), format_decimal(r.get(row), right.scale));
        return Err(overflow(op, &result.to_string(), &l, &r));
    }
    Ok(out.freeze())
}

fn modulo(
    left: &Side<'_>,
    right: &Side<'_>,
    valid: Option<Bitmap>,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    let (l, r) = (Wide::new(left.vector)?, Wide::new(right.vector)?);
    match &r {
        Wide::Narrow(divisor) => refuse_zero_divisors(ArithmeticOp::Modulo, valid.as_ref(), *divisor, rows)?,
        Wide::Wide(divisor) => refuse_zero_divisors(ArithmeticOp::Modulo, valid.as_ref(), *divisor, rows)?,
    }
    let compute = |row: usize| {
        let (l, r) = (l.get(row).checked_mul(left.factor)?, r.get(row).checked_mul(right.factor)?);
        Some(if r == 0 { 0 } else { l.wrapping_rem(r) })
    };
    let mut out = BufMut::with_len(account, rows)?;
    for (row, out) in out.iter_mut().enumerate() {
        *out = compute(row).unwrap_or(0);
    }
    if let Some(row) = first_bad(valid.as_ref(), rows, |row| compute(row).is_none()) {
        let (l, r) = (format_decimal(l.get(row), left.scale), format_decimal(r.get(row), right.scale));
        return Err(overflow(ArithmeticOp::Modulo, "DECIMAL", &l, &r));
    }
    Ok(Vector::Flat(FlatVector { values: Values::I128(out.freeze()), validity: valid, bounds: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Scalar;
    use crate::expr::kernels::arithmetic;
    use crate::expr::kernels::testing::{Lab, Random};

    fn decimal(precision: u8, scale: u8) -> DataType {
        DataType::Decimal { precision, scale }
    }

    fn run(lab: &Lab, op: ArithmeticOp, l: (&DataType, &[i128]), r: (&DataType, &[i128])) -> Result<Vector> {
        let result = match op {
            ArithmeticOp::Multiply => decimal(38, scale_of(l.0) + scale_of(r.0)),
            _ => decimal(38, scale_of(l.0).max(scale_of(r.0))),
        };
        let vector = |(t, values): (&DataType, &[i128])| {
            let scalars: Vec<_> = values.iter().map(|v| Scalar::int(t.clone(), *v)).collect();
            lab.flat(t, &scalars)
        };
        let types = ArithmeticTypes { left: l.0, right: r.0, result: &result };
        arithmetic::arithmetic(op, &vector(l), &vector(r), types, l.1.len(), &lab.account)
    }

    #[test]
    fn all_widths_agree_with_wide_integers() {
        let lab = Lab::new();
        let mut random = Random::new(5);
        for (lt, rt) in [
            (decimal(15, 2), decimal(15, 2)),
            (decimal(15, 2), decimal(18, 6)),
            (decimal(38, 4), decimal(15, 2)),
            (decimal(20, 0), decimal(30, 10)),
        ] {
            for spread in [8, 30, 40, 62] {
                let mut draw = || (random.next() >> (64 - spread)) as i128 - (1i128 << (spread - 1));
                let l: Vec<i128> = (0..100).map(|_| draw()).collect();
                // Zero divisors are errors of their own.
                let r: Vec<i128> = (0..100).map(|_| draw()).map(|v| if v == 0 { 1 } else { v }).collect();
                for op in
                    [ArithmeticOp::Add, ArithmeticOp::Subtract, ArithmeticOp::Multiply, ArithmeticOp::Modulo]
                {
                    let Ok(result) = run(&lab, op, (&lt, &l), (&rt, &r)) else { panic!("{op:?} overflowed") };
                    let scale = scale_of(&lt).max(scale_of(&rt));
                    let f = |t: &DataType| power_of_ten(scale - scale_of(t)).expect("small");
                    for row in 0..100 {
                        let (a, b) = (l[row] * f(&lt), r[row] * f(&rt));
                        let want = match op {
                            ArithmeticOp::Add => Some(a + b),
                            ArithmeticOp::Subtract => Some(a - b),
                            ArithmeticOp::Multiply => Some(l[row] * r[row]),
                            _ => a.checked_rem(b),
                        };
                        assert_eq!(
                            result.scalar(row, &decimal(38, 0)).as_int(),
                            want,
                            "{op:?} {lt} {rt} {row}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn results_widen_at_the_boundary_and_fail_past_38_digits() {
        let lab = Lab::new();
        let t = decimal(18, 0);
        let narrow = run(&lab, ArithmeticOp::Add, (&t, &[i64::MAX.into()]), (&t, &[0])).expect("fits");
        assert!(matches!(narrow, Vector::Flat(FlatVector { values: Values::I64(_), .. })));
        let wide = run(&lab, ArithmeticOp::Add, (&t, &[i64::MAX.into()]), (&t, &[1])).expect("fits wide");
        assert!(matches!(wide, Vector::Flat(FlatVector { values: Values::I128(_), .. })));
        assert_eq!(wide.scalar(0, &t).as_int(), Some(i128::from(i64::MAX) + 1));
        let t = decimal(38, 0);
        let most = 10i128.pow(38) - 1;
        assert!(run(&lab, ArithmeticOp::Add, (&t, &[most]), (&t, &[0])).is_ok());
        let error = run(&lab, ArithmeticOp::Add, (&t, &[most]), (&t, &[1])).expect_err("39 digits");
        assert!(error.to_string().contains("overflow in addition"), "{error}");
        assert!(run(&lab, ArithmeticOp::Multiply, (&t, &[most]), (&t, &[10])).is_err());
    }
}
