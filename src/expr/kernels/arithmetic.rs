//! Arithmetic on integers and floats, and the choice of the kernel for every other type.

use super::operand::{
    Native, Operand, both_valid, bounds, first_bad, for_physical, map, operand, validity, zip,
};
use super::{decimal, temporal};
use crate::data::{Bitmap, Bounds, Buf, DataType, FlatVector, PhysicalType, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::ArithmeticOp;
use crate::mem::{Account, Denied};
use std::fmt::Display;
use std::ops::{Add, Div, Mul, Rem, Sub};

/// The types of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArithmeticTypes<'a> {
    pub(crate) left: &'a DataType,
    pub(crate) right: &'a DataType,
    pub(crate) result: &'a DataType,
}

/// `left op right`.
///
/// # Errors
/// A value error naming the operation and its operands if the result of a row does not fit its type.
pub(crate) fn arithmetic(
    op: ArithmeticOp,
    left: &Vector,
    right: &Vector,
    types: ArithmeticTypes<'_>,
    rows: usize,
    account: &Account,
) -> Result<Vector> {
    let valid = both_valid(validity(left), validity(right), account)?;
    if let (DataType::Decimal { .. }, DataType::Decimal { .. }) = (types.left, types.right) {
        return decimal::arithmetic(op, left, right, types, valid, rows, account);
    }
    if types.left.is_numeric() && types.right.is_numeric() {
        if types.left != types.right || types.left.physical() != types.result.physical() {
            return Err(Error::internal(format!(
                "{op:?} of {} and {} is not coerced",
                types.left, types.right
            )));
        }
        let shared = Shared { op, bounds: (bounds(left), bounds(right)), valid, rows, account };
        return match types.left.physical() {
            PhysicalType::F32 => floats::<f32>(shared, operand(left)?, operand(right)?),
            PhysicalType::F64 => floats::<f64>(shared, operand(left)?, operand(right)?),
            PhysicalType::I8 => integers::<i8>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::I16 => integers::<i16>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::I32 => integers::<i32>(shared, operand(left)?, operand(right)?, inlined),
            PhysicalType::I64 => integers::<i64>(shared, operand(left)?, operand(right)?, inlined),
            PhysicalType::I128 => integers::<i128>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::U8 => integers::<u8>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::U16 => integers::<u16>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::U32 => integers::<u32>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::U64 => integers::<u64>(shared, operand(left)?, operand(right)?, by_pointer),
            PhysicalType::Bool | PhysicalType::View | PhysicalType::Nested => {
                Err(Error::internal("numbers are fixed-width"))
            }
        };
    }
    temporal::arithmetic(op, left, right, types, valid, rows, account)
}

/// What the numeric kernels share.
struct Shared<'a> {
    op: ArithmeticOp,
    bounds: (Option<Bounds>, Option<Bounds>),
    valid: Option<Bitmap>,
    rows: usize,
    account: &'a Account,
}

/// Integers with overflow reported; `checked` operations return the wrapped result and whether it is wrong.
pub(crate) trait Integer: Native + Display {
    /// The name the type has in messages.
    const NAME: &'static str;
    fn checked_plus(self, other: Self) -> (Self, bool);
    fn checked_minus(self, other: Self) -> (Self, bool);
    fn checked_times(self, other: Self) -> (Self, bool);
    /// Quotient towards zero; 0 for a zero divisor.
    fn checked_quotient(self, divisor: Self) -> (Self, bool);
    /// Remainder with the dividend's sign; 0 for a zero divisor.
    fn remainder(self, divisor: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// The least and greatest value as far as 128 bits tell.
    fn range() -> (i128, i128);
}

macro_rules! integer {
    (@common $t:ty, $name:literal) => {
        const NAME: &'static str = $name;
        #[inline(always)]
        fn checked_quotient(self, divisor: Self) -> (Self, bool) {
            if divisor == 0 { (0, false) } else { self.overflowing_div(divisor) }
        }
        #[inline(always)]
        fn remainder(self, divisor: Self) -> Self {
            if divisor == 0 { 0 } else { self.wrapping_rem(divisor) }
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            self.wrapping_add(other)
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            self.wrapping_sub(other)
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            self.wrapping_mul(other)
        }
        fn range() -> (i128, i128) {
            (<$t>::MIN as i128, <$t>::MAX as i128)
        }
    };
    // Computing in a wider type and comparing vectorises; the overflow intrinsics do not.
    (narrow $($t:ty, $wide:ty, $name:literal);*) => { $(
        impl Integer for $t {
            integer!(@common $t, $name);
            #[inline(always)]
            fn checked_plus(self, other: Self) -> (Self, bool) {
                let wide = self as $wide + other as $wide;
                (wide as $t, wide != (wide as $t) as $wide)
            }
            #[inline(always)]
            fn checked_minus(self, other: Self) -> (Self, bool) {
                let wide = self as $wide - other as $wide;
                (wide as $t, wide != (wide as $t) as $wide)
            }
            #[inline(always)]
            fn checked_times(self, other: Self) -> (Self, bool) {
                let wide = self as $wide * other as $wide;
                (wide as $t, wide != (wide as $t) as $wide)
            }
        }
    )* };
    (wide $($t:ty, $name:literal);*) => { $(
        impl Integer for $t {
            integer!(@common $t, $name);
            #[inline(always)]
            fn checked_plus(self, other: Self) -> (Self, bool) {
                self.overflowing_add(other)
            }
            #[inline(always)]
            fn checked_minus(self, other: Self) -> (Self, bool) {
                self.overflowing_sub(other)
            }
            #[inline(always)]
            fn checked_times(self, other: Self) -> (Self, bool) {
                self.overflowing_mul(other)
            }
        }
    )* };
}
integer!(narrow i8, i32, "TINYINT"; i16, i32, "SMALLINT"; i32, i64, "INTEGER"; u8, i32, "UTINYINT";
    u16, i64, "USMALLINT"; u32, i128, "UINTEGER");
integer!(wide u64, "UBIGINT"; i128, "HUGEINT");

impl Integer for i64 {
    integer!(@common i64, "BIGINT");
    #[inline(always)]
    fn checked_plus(self, other: Self) -> (Self, bool) {
        let sum = self.wrapping_add(other);
        (sum, (self ^ sum) & (other ^ sum) < 0)
    }
    #[inline(always)]
    fn checked_minus(self, other: Self) -> (Self, bool) {
        let difference = self.wrapping_sub(other);
        (difference, (self ^ other) & (self ^ difference) < 0)
    }
    #[inline(always)]
    fn checked_times(self, other: Self) -> (Self, bool) {
        self.overflowing_mul(other)
    }
}

/// Bounds of a sum, difference or product of values within bounds, if they fit 64 bits.
pub(super) fn combined(op: ArithmeticOp, left: Bounds, right: Bounds) -> Option<Bounds> {
    let (l, r) = ([left.min, left.max].map(i128::from), [right.min, right.max].map(i128::from));
    let (min, max) = match op {
        ArithmeticOp::Add => (l[0] + r[0], l[1] + r[1]),
        ArithmeticOp::Subtract => (l[0] - r[1], l[1] - r[0]),
        ArithmeticOp::Multiply => {
            let corners = [l[0] * r[0], l[0] * r[1], l[1] * r[0], l[1] * r[1]];
            corners.iter().fold((i128::MAX, i128::MIN), |(min, max), &c| (min.min(c), max.max(c)))
        }
        ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo => return None,
    };
    Some(Bounds { min: i64::try_from(min).ok()?, max: i64::try_from(max).ok()? })
}

/// The operation, whether bounds prove that it cannot overflow, and its checked form.
type Operation<T> = (ArithmeticOp, bool, fn(T, T) -> (T, bool));

/// How a loop over integers is run: which operation, on what, and whether bounds prove that it cannot overflow.
type Loop<T> =
    fn(Operation<T>, Operand<'_, T>, Operand<'_, T>, usize, &Account) -> Result<(Buf<T>, bool), Denied>;

/// Calls the operation through its pointer: small code, for types that large columns seldom have.
fn by_pointer<T: Integer>(
    (_, _, checked): Operation<T>,
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    rows: usize,
    account: &Account,
) -> Result<(Buf<T>, bool), Denied> {
    zip(left, right, rows, account, checked)
}

/// A loop for each operation, checked and unchecked.
fn inlined<T: Integer>(
    (op, fits, checked): Operation<T>,
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    rows: usize,
    account: &Account,
) -> Result<(Buf<T>, bool), Denied> {
    match (op, fits) {
        (ArithmeticOp::Add, true) => zip(left, right, rows, account, |l: T, r: T| (l.plus(r), false)),
        (ArithmeticOp::Add, false) => zip(left, right, rows, account, T::checked_plus),
        (ArithmeticOp::Subtract, true) => zip(left, right, rows, account, |l: T, r: T| (l.minus(r), false)),
        (ArithmeticOp::Subtract, false) => zip(left, right, rows, account, T::checked_minus),
        (ArithmeticOp::Multiply, true) => zip(left, right, rows, account, |l: T, r: T| (l.times(r), false)),
        (ArithmeticOp::Multiply, false) => zip(left, right, rows, account, T::checked_times),
        (ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo, _) => {
            zip(left, right, rows, account, checked)
        }
    }
}

fn integers<T: Integer>(
    shared: Shared<'_>,
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    run: Loop<T>,
) -> Result<Vector> {
    let Shared { op, bounds, valid, rows, account } = shared;
    let result_bounds = bounds.0.zip(bounds.1).and_then(|(l, r)| combined(op, l, r));
    let (least, greatest) = T::range();
    let fits = result_bounds.is_some_and(|b| i128::from(b.min) >= least && i128::from(b.max) <= greatest);
    let checked: fn(T, T) -> (T, bool) = match op {
        ArithmeticOp::Add => T::checked_plus,
        ArithmeticOp::Subtract => T::checked_minus,
        ArithmeticOp::Multiply => T::checked_times,
        ArithmeticOp::IntegerDivide => T::checked_quotient,
        ArithmeticOp::Modulo => |l, r| (l.remainder(r), false),
        ArithmeticOp::Divide => return Err(Error::internal("division of integers is coerced to DOUBLE")),
    };
    let (out, overflowed) = run((op, fits, checked), left, right, rows, account)?;
    if matches!(op, ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo) {
        refuse_zero_divisors(op, valid.as_ref(), right, rows)?;
    }
    if overflowed
        && let Some(row) = first_bad(valid.as_ref(), rows, |row| checked(left.get(row), right.get(row)).1)
    {
        return Err(overflow(op, T::NAME, &left.get(row), &right.get(row)));
    }
    let bounds = result_bounds.filter(|_| fits);
    Ok(Vector::Flat(FlatVector { values: T::wrap(out), validity: valid, bounds }))
}

/// Fails at the first row, if any, whose divisor is zero; null operands excuse theirs.
pub(super) fn refuse_zero_divisors<T: Native>(
    op: ArithmeticOp,
    valid: Option<&Bitmap>,
    divisor: Operand<'_, T>,
    rows: usize,
) -> Result<()> {
    let zero = T::default();
    let has_zero = match divisor {
        Operand::Value(value) => value == zero,
        Operand::Slice(slice) => slice.contains(&zero),
    };
    if has_zero && first_bad(valid, rows, |row| divisor.get(row) == zero).is_some() {
        return Err(Error::value(format!(
            "division by zero in {}; write NULLIF(divisor, 0) for null instead",
            op.symbol()
        )));
    }
    Ok(())
}

fn floats<T>(shared: Shared<'_>, left: Operand<'_, T>, right: Operand<'_, T>) -> Result<Vector>
where
    T: Native + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + Div<Output = T> + Rem<Output = T>,
{
    let Shared { op, valid, rows, account, .. } = shared;
    let (out, _) = match op {
        ArithmeticOp::Add => zip(left, right, rows, account, |l: T, r: T| (l + r, false))?,
        ArithmeticOp::Subtract => zip(left, right, rows, account, |l: T, r: T| (l - r, false))?,
        ArithmeticOp::Multiply => zip(left, right, rows, account, |l: T, r: T| (l * r, false))?,
        ArithmeticOp::Divide | ArithmeticOp::IntegerDivide => {
            zip(left, right, rows, account, |l: T, r: T| (l / r, false))?
        }
        ArithmeticOp::Modulo => zip(left, right, rows, account, |l: T, r: T| (l % r, false))?,
    };
    // `/` and `%` of floats are IEEE 754's, with infinities and NaN; `//` is not, though it has no integers here.
    if op == ArithmeticOp::IntegerDivide {
        refuse_zero_divisors(op, valid.as_ref(), right, rows)?;
    }
    Ok(Vector::Flat(FlatVector { values: T::wrap(out), validity: valid, bounds: None }))
}

/// The error of a result that does not fit.
pub(super) fn overflow(op: ArithmeticOp, type_name: &str, left: &dyn Display, right: &dyn Display) -> Error {
    let operation = match op {
        ArithmeticOp::Add => "addition",
        ArithmeticOp::Subtract => "subtraction",
        ArithmeticOp::Multiply => "multiplication",
        ArithmeticOp::Divide | ArithmeticOp::IntegerDivide => "division",
        ArithmeticOp::Modulo => "modulo",
    };
    Error::value(format!(
        "overflow in {operation} of {type_name} ({left} {} {right}); cast an operand to a wider type",
        op.symbol()
    ))
}

/// Unary minus.
///
/// # Errors
/// A value error for the one integer whose negation does not fit, and for positive unsigned ones.
pub(crate) fn negate(vector: &Vector, data_type: &DataType, account: &Account) -> Result<Vector> {
    let Vector::Flat(flat) = vector else {
        return Err(Error::internal("constants are evaluated as one flat row"));
    };
    let bounds = flat.bounds.and_then(|b| combined(ArithmeticOp::Subtract, Bounds { min: 0, max: 0 }, b));
    let values = match (&flat.values, data_type) {
        (Values::F32(v), _) => Values::F32(map(v, account, |v: f32| (-v, false))?.0),
        (Values::F64(v), _) => Values::F64(map(v, account, |v: f64| (-v, false))?.0),
        (Values::I128(v), DataType::Interval) => Values::I128(map(v, account, temporal::negated)?.0),
        (values, _) => for_physical!(
            values.physical(),
            T => negate_integers(flat, T::slice(values), data_type, account)?,
            _ => return Err(Error::internal(format!("minus on {data_type}"))),
        ),
    };
    Ok(Vector::Flat(FlatVector { values, validity: flat.validity.clone(), bounds }))
}

/// Negation through `0 - v`; generic over every native type only so that one macro can dispatch it.
fn negate_integers<T: Native>(
    flat: &FlatVector,
    values: Option<&[T]>,
    data_type: &DataType,
    account: &Account,
) -> Result<Values> {
    let zero = Vector::Constant { value: crate::data::Scalar::int(data_type.clone(), 0), len: flat.len() };
    let types = ArithmeticTypes { left: data_type, right: data_type, result: data_type };
    let vector = Vector::Flat(flat.clone());
    let rows = values.map_or(0, <[T]>::len);
    match arithmetic(ArithmeticOp::Subtract, &zero, &vector, types, rows, account)? {
        Vector::Flat(negated) => Ok(negated.values),
        Vector::Constant { .. } | Vector::Dict { .. } => Err(Error::internal("kernels return flat vectors")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Scalar, Value};
    use crate::expr::kernels::testing::{Lab, Random};

    fn run(lab: &Lab, op: ArithmeticOp, t: &DataType, l: &[Scalar], r: &[Scalar]) -> Result<Vector> {
        let types = ArithmeticTypes { left: t, right: t, result: t };
        arithmetic(op, &lab.flat(t, l), &lab.flat(t, r), types, l.len(), &lab.account)
    }

    #[test]
    fn integers_agree_with_scalars() {
        let lab = Lab::new();
        let mut random = Random::new(11);
        let ops = [
            ArithmeticOp::Add,
            ArithmeticOp::Subtract,
            ArithmeticOp::Multiply,
            ArithmeticOp::IntegerDivide,
            ArithmeticOp::Modulo,
        ];
        for t in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64, DataType::Int128] {
            let l = random.scalars(&t, 150);
            let nonzero = |v: Scalar| if v.as_int() == Some(0) { Scalar::int(t.clone(), 3) } else { v };
            let r: Vec<_> = random.scalars(&t, 150).into_iter().map(nonzero).collect();
            for op in ops {
                let result = run(&lab, op, &t, &l, &r).expect("small values");
                for row in 0..150 {
                    let want = match (l[row].as_int(), r[row].as_int()) {
                        (Some(l), Some(r)) => match op {
                            ArithmeticOp::Add => Some(l + r),
                            ArithmeticOp::Subtract => Some(l - r),
                            ArithmeticOp::Multiply => Some(l * r),
                            ArithmeticOp::IntegerDivide => l.checked_div(r),
                            ArithmeticOp::Divide | ArithmeticOp::Modulo => l.checked_rem(r),
                        },
                        _ => None,
                    };
                    assert_eq!(result.scalar(row, &t).as_int(), want, "{op:?} row {row}");
                }
            }
        }
    }

    #[test]
    fn overflow_is_an_error_except_at_nulls() {
        let lab = Lab::new();
        for t in [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64, DataType::UInt32] {
            let (min, max) = match t {
                DataType::Int8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
                DataType::Int16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
                DataType::Int32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
                DataType::UInt32 => (0, i128::from(u32::MAX)),
                _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
            };
            let int = |v| Scalar::int(t.clone(), v);
            let null = Scalar::null(t.clone());
            for (op, l, r) in [
                (ArithmeticOp::Add, max, 1),
                (ArithmeticOp::Subtract, min, 1),
                (ArithmeticOp::Multiply, max, 2),
            ] {
                let error = run(&lab, op, &t, &[int(1), int(l)], &[int(1), int(r)]).expect_err("overflows");
                assert!(error.to_string().contains(&l.to_string()), "{error}");
                assert!(run(&lab, op, &t, &[int(l), int(2)], &[null.clone(), int(1)]).is_ok());
            }
        }
        let least = [Scalar::int(DataType::Int64, i64::MIN.into())];
        assert!(negate(&lab.flat(&DataType::Int64, &least), &DataType::Int64, &lab.account).is_err());
    }

    #[test]
    fn bounds_propagate_and_zero_divisors_are_errors_but_for_floats() {
        let lab = Lab::new();
        let t = DataType::Int32;
        let bounded = |v: &[i128], bounds| match lab
            .flat(&t, &v.iter().map(|v| Scalar::int(t.clone(), *v)).collect::<Vec<_>>())
        {
            Vector::Flat(flat) => Vector::Flat(FlatVector { bounds, ..flat }),
            other => other,
        };
        let l = bounded(&[1, 2], Some(Bounds { min: 0, max: 10 }));
        let r = bounded(&[3, 0], Some(Bounds { min: -2, max: 3 }));
        let types = ArithmeticTypes { left: &t, right: &t, result: &t };
        let product = arithmetic(ArithmeticOp::Multiply, &l, &r, types, 2, &lab.account).expect("fits");
        assert!(matches!(
            product,
            Vector::Flat(FlatVector { bounds: Some(Bounds { min: -20, max: 30 }), .. })
        ));
        for op in [ArithmeticOp::IntegerDivide, ArithmeticOp::Modulo] {
            let error = arithmetic(op, &l, &r, types, 2, &lab.account).expect_err("a zero divisor");
            assert!(error.to_string().contains("division by zero"), "{error}");
        }
        let f = DataType::Float64;
        let result = run(&lab, ArithmeticOp::Divide, &f, &[Scalar::float(1.0)], &[Scalar::float(0.0)]);
        assert_eq!(result.expect("infinity").scalar(0, &f).value, Value::Float(f64::INFINITY));
    }
}
