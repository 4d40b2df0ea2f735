//! Which types meet, and the typed nodes that result. DuckDB's rules.
//!
//! Builders fold what is constant, so that `date '1998-12-01' - interval '90' day` reaches scans as a literal, and
//! turn comparisons with a literal of a finer type into comparisons in the column's own type, so that the column
//! is not cast row by row and statistics apply to it.

use super::eval::{evaluate_constant, fold};
use super::kernels::cast::is_possible;
use super::kernels::decimal::{has_precision, power_of_ten, scale_of};
use super::tree::{ArithmeticOp, CompareOp, Expr, ScalarFunction};
use crate::data::{DataType, Scalar, TimeUnit};
use crate::error::{Error, Result};
use std::sync::Arc;

/// The type two values are compared, listed or chosen between in; `None` if they do not mix.
pub(crate) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as D;
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (D::Null, other) | (other, D::Null) => other.clone(),
        (D::Boolean, other) | (other, D::Boolean) if other.is_numeric() => other.clone(),
        (a, b) if a.is_numeric() && b.is_numeric() => common_number(a, b),
        (D::Utf8, D::Nested(_) | D::Interval) | (D::Nested(_) | D::Interval, D::Utf8) => return None,
        // A string is read as the other side's type.
        (D::Utf8, other) | (other, D::Utf8) => other.clone(),
        (D::Date, D::Timestamp(unit, zone)) | (D::Timestamp(unit, zone), D::Date) => {
            D::Timestamp(*unit, zone.clone())
        }
        (D::Timestamp(a, a_zone), D::Timestamp(b, b_zone)) => {
            D::Timestamp(finer(*a, *b), a_zone.clone().or_else(|| b_zone.clone()))
        }
        (D::Time(a), D::Time(b)) => D::Time(finer(*a, *b)),
        _ => return None,
    })
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    if a.per_second() >= b.per_second() { a } else { b }
}

fn common_number(a: &DataType, b: &DataType) -> DataType {
    if *a == DataType::Float64 || *b == DataType::Float64 {
        return DataType::Float64;
    }
    if a.is_float() || b.is_float() {
        return DataType::Float32;
    }
    match (a, b) {
        (DataType::Decimal { .. }, _) | (_, DataType::Decimal { .. }) => {
            let ((ap, a_scale), (bp, b_scale)) = (digits(a), digits(b));
            let scale = a_scale.max(b_scale);
            if *a == DataType::Int128 || *b == DataType::Int128 {
                return DataType::Decimal { precision: DataType::MAX_PRECISION, scale };
            }
            let whole = (ap - a_scale).max(bp - b_scale);
            let precision = (whole + scale).min(DataType::MAX_PRECISION);
            DataType::Decimal { precision, scale: scale.min(DataType::MAX_PRECISION - whole) }
        }
        _ => common_integer(a, b),
    }
}

fn common_integer(a: &DataType, b: &DataType) -> DataType {
    let signed = |bits: usize| match bits {
        0..=8 => DataType::Int8,
        9..=16 => DataType::Int16,
        17..=32 => DataType::Int32,
        33..=64 => DataType::Int64,
        _ => DataType::Int128,
    };
    let bits = |t: &DataType| t.value_bytes() * 8;
    match (is_unsigned(a), is_unsigned(b)) {
        (true, true) | (false, false) => {
            if bits(a) >= bits(b) {
                a.clone()
            } else {
                b.clone()
            }
        }
        (true, false) => signed(bits(b).max(bits(a) * 2)),
        (false, true) => signed(bits(a).max(bits(b) * 2)),
    }
}

fn is_unsigned(t: &DataType) -> bool {
    matches!(t, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64)
}

/// Precision and scale of the decimal that holds every value of an exact type.
fn digits(t: &DataType) -> (u8, u8) {
    match t {
        DataType::Decimal { precision, scale } => (*precision, *scale),
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Boolean => (1, 0),
        _ => (DataType::MAX_PRECISION, 0),
    }
}

/// `expr` as a value of `to`. Literals are converted now.
///
/// # Errors
/// A plan error if there is no such conversion; a value error if a literal does not fit.
pub(crate) fn cast_to(expr: Expr, to: &DataType) -> Result<Expr> {
    let from = expr.data_type();
    if from == *to {
        return Ok(expr);
    }
    if !is_possible(&from, to) {
        return Err(Error::plan(format!("there is no conversion from {from} to {to} for {expr}"), None));
    }
    if let Expr::Literal(scalar) = &expr
        && scalar.is_null()
    {
        return Ok(Expr::Literal(Scalar::null(to.clone())));
    }
    let is_literal = matches!(expr, Expr::Literal(_));
    let cast = Expr::Cast { operand: Box::new(expr), data_type: to.clone(), is_try: false };
    if is_literal {
        return evaluate_constant(&cast).map(Expr::Literal);
    }
    Ok(cast)
}

/// A call of `function`, its arguments coerced.
///
/// # Errors
/// A plan error that says what the function takes.
pub(crate) fn call(function: Arc<dyn ScalarFunction>, arguments: Vec<Expr>) -> Result<Expr> {
    let given: Vec<DataType> = arguments.iter().map(Expr::data_type).collect();
    let (wanted, result) = function.signature(&given)?;
    let arguments = arguments.into_iter().zip(&wanted).map(|(argument, to)| cast_to(argument, to));
    let arguments = arguments.collect::<Result<Vec<_>>>()?;
    let data_type = function.refined(&arguments, result);
    Ok(fold(Expr::Call { function, arguments, data_type }))
}

/// `left op right` with coerced operands.
///
/// # Errors
/// A plan error if the operator is not defined on the types, or a product needs more than 38 decimal places.
pub(crate) fn arithmetic(op: ArithmeticOp, left: Expr, right: Expr) -> Result<Expr> {
    use DataType as D;
    let (lt, rt) = (left.data_type(), right.data_type());
    let micros = D::Timestamp(TimeUnit::Microsecond, None);
    match (&lt, &rt, op) {
        (D::Null, D::Null, _) => {
            let to = D::Int32;
            arithmetic(op, cast_to(left, &to)?, cast_to(right, &to)?)
        }
        // Interval arithmetic has no null of its own type to offer: a null amount is a null of the other's type.
        (D::Null, D::Date, _) | (D::Date, D::Null, _) => Ok(Expr::Literal(Scalar::null(D::Date))),
        (D::Null, _, _) => arithmetic(op, cast_to(left, &rt)?, right),
        (_, D::Null, _) => arithmetic(op, left, cast_to(right, &lt)?),
        (D::Date, t, ArithmeticOp::Add | ArithmeticOp::Subtract) if t.is_integer() => {
            Ok(node(op, left, cast_to(right, &D::Int32)?, D::Date))
        }
        (t, D::Date, ArithmeticOp::Add) if t.is_integer() => arithmetic(op, right, left),
        (D::Date, D::Date, ArithmeticOp::Subtract) => Ok(node(op, left, right, D::Int64)),
        (D::Date, D::Interval, ArithmeticOp::Add | ArithmeticOp::Subtract) => {
            Ok(node(op, cast_to(left, &micros)?, right, micros))
        }
        (D::Timestamp(..), D::Interval, ArithmeticOp::Add | ArithmeticOp::Subtract) => {
            Ok(node(op, left, right, lt))
        }
        (D::Interval, D::Date | D::Timestamp(..), ArithmeticOp::Add) => arithmetic(op, right, left),
        (D::Date | D::Timestamp(..), D::Date | D::Timestamp(..), ArithmeticOp::Subtract) => {
            let Some(common) = common_type(&lt, &rt) else { return Err(undefined(op, &lt, &rt)) };
            Ok(node(op, cast_to(left, &common)?, cast_to(right, &common)?, D::Interval))
        }
        (D::Interval, D::Interval, ArithmeticOp::Add | ArithmeticOp::Subtract) => {
            Ok(node(op, left, right, D::Interval))
        }
        (D::Interval, t, ArithmeticOp::Multiply) if t.is_integer() => {
            Ok(node(op, left, cast_to(right, &D::Int64)?, D::Interval))
        }
        (t, D::Interval, ArithmeticOp::Multiply) if t.is_integer() => arithmetic(op, right, left),
        (l, r, _) if l.is_numeric() && r.is_numeric() => numeric(op, left, right),
        _ => Err(undefined(op, &lt, &rt)),
    }
}

fn undefined(op: ArithmeticOp, left: &DataType, right: &DataType) -> Error {
    Error::plan(
        format!("the operator {} is not defined on {left} and {right}; cast an operand", op.symbol()),
        None,
    )
}

fn node(op: ArithmeticOp, left: Expr, right: Expr, data_type: DataType) -> Expr {
    fold(Expr::Arithmetic { op, left: Box::new(left), right: Box::new(right), data_type })
}

fn numeric(op: ArithmeticOp, left: Expr, right: Expr) -> Result<Expr> {
    let (lt, rt) = (left.data_type(), right.data_type());
    let is_decimal = |t: &DataType| matches!(t, DataType::Decimal { .. });
    let is_exact = lt.is_integer() && rt.is_integer();
    if op == ArithmeticOp::Divide || op == ArithmeticOp::IntegerDivide && !is_exact {
        let is_single = lt == DataType::Float32 && rt == DataType::Float32;
        let to = if is_single { DataType::Float32 } else { DataType::Float64 };
        return Ok(node(ArithmeticOp::Divide, cast_to(left, &to)?, cast_to(right, &to)?, to));
    }
    if !lt.is_float() && !rt.is_float() && (is_decimal(&lt) || is_decimal(&rt)) {
        let (left, right) = (as_decimal(left)?, as_decimal(right)?);
        let ((lp, ls), (rp, rs)) = (digits(&left.data_type()), digits(&right.data_type()));
        let (precision, scale) = match op {
            ArithmeticOp::Multiply => (lp.saturating_add(rp), ls + rs),
            ArithmeticOp::Add | ArithmeticOp::Subtract => {
                let scale = ls.max(rs);
                ((lp - ls).max(rp - rs).saturating_add(scale).saturating_add(1), scale)
            }
            ArithmeticOp::Modulo | ArithmeticOp::Divide | ArithmeticOp::IntegerDivide => {
                let scale = ls.max(rs);
                ((lp - ls).max(rp - rs).saturating_add(scale), scale)
            }
        };
        if scale > DataType::MAX_PRECISION {
            return Err(Error::plan(
                format!(
                    "the product of {} and {} has {scale} decimal places, more than 38; cast an operand to a \
                     smaller scale",
                    left.data_type(),
                    right.data_type()
                ),
                None,
            ));
        }
        let precision = precision.min(DataType::MAX_PRECISION);
        return Ok(node(op, left, right, DataType::Decimal { precision, scale }));
    }
    let common = match (&left, &right) {
        // An integer literal takes the other side's type where it fits.
        (Expr::Literal(value), other) if !matches!(other, Expr::Literal(_)) && fits(value, &rt) => rt,
        (other, Expr::Literal(value)) if !matches!(other, Expr::Literal(_)) && fits(value, &lt) => lt,
        _ => match common_type(&lt, &rt) {
            Some(common) => common,
            None => return Err(undefined(op, &lt, &rt)),
        },
    };
    Ok(node(op, cast_to(left, &common)?, cast_to(right, &common)?, common))
}

fn as_decimal(expr: Expr) -> Result<Expr> {
    let t = expr.data_type();
    if let DataType::Decimal { .. } = t {
        return Ok(expr);
    }
    let precision = match &expr {
        Expr::Literal(scalar) => match scalar.as_int() {
            Some(value) => (1..DataType::MAX_PRECISION).find(|p| has_precision(value, *p)),
            None => None,
        },
        _ => None,
    };
    let precision = precision.unwrap_or(digits(&t).0);
    cast_to(expr, &DataType::Decimal { precision, scale: 0 })
}

/// Whether an integer or decimal payload is a value of an exact type.
fn fits(value: &Scalar, t: &DataType) -> bool {
    let Some(v) = value.as_int().filter(|_| value.data_type.is_integer()) else { return false };
    t.is_integer() && in_range(v, t)
}

fn in_range(v: i128, t: &DataType) -> bool {
    let within = |min: i128, max: i128| (min..=max).contains(&v);
    match t {
        DataType::Int8 => within(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => within(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 | DataType::Date => within(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => within(i64::MIN.into(), i64::MAX.into()),
        DataType::Int128 => true,
        DataType::UInt8 => within(0, u8::MAX.into()),
        DataType::UInt16 => within(0, u16::MAX.into()),
        DataType::UInt32 => within(0, u32::MAX.into()),
        DataType::UInt64 => within(0, u64::MAX.into()),
        DataType::Decimal { precision, .. } => has_precision(v, *precision),
        _ => false,
    }
}

/// `left op right` with operands of one type.
///
/// # Errors
/// A plan error if values of these types are not comparable; a value error if a literal does not convert.
pub(crate) fn compare(op: CompareOp, left: Expr, right: Expr) -> Result<Expr> {
    let node = |op, left: Expr, right: Expr| {
        fold(Expr::Compare { op, left: Box::new(left), right: Box::new(right) })
    };
    let (left, right) = (fold(left), fold(right));
    let (op, left, right) = match (&left, &right) {
        (Expr::Literal(_), other) if !matches!(other, Expr::Literal(_)) => (op.swapped(), right, left),
        _ => (op, left, right),
    };
    if let (Expr::Literal(value), t) = (&right, left.data_type())
        && !matches!(left, Expr::Literal(_))
        && value.data_type != t
        && let Some((op, value)) = in_column_type(op, value, &t)
    {
        return Ok(node(op, left, Expr::Literal(value)));
    }
    let (lt, rt) = (left.data_type(), right.data_type());
    let Some(common) = common_type(&lt, &rt) else {
        return Err(Error::plan(format!("{lt} and {rt} cannot be compared; cast one side"), None));
    };
    Ok(node(op, cast_to(left, &common)?, cast_to(right, &common)?))
}

/// The comparison with `value` said in type `to`: values between two of that type fall to the lower one.
fn in_column_type(op: CompareOp, value: &Scalar, to: &DataType) -> Option<(CompareOp, Scalar)> {
    let v = value.as_int()?;
    let is_exact = |t: &DataType| t.is_integer() || matches!(t, DataType::Decimal { .. });
    let (floor, rest) = match (&value.data_type, to) {
        (DataType::Timestamp(unit, None), DataType::Date) => {
            let per_day = i128::from(unit.per_second()) * 86_400;
            (v.div_euclid(per_day), v.rem_euclid(per_day))
        }
        (from, to) if is_exact(from) && is_exact(to) => {
            let (from, to) = (scale_of(from), scale_of(to));
            if from <= to {
                (v.checked_mul(power_of_ten(to - from)?)?, 0)
            } else {
                let unit = power_of_ten(from - to)?;
                (v.div_euclid(unit), v.rem_euclid(unit))
            }
        }
        _ => return None,
    };
    if !in_range(floor, to) {
        return None;
    }
    let op = match op {
        _ if rest == 0 => op,
        CompareOp::Lt | CompareOp::LtEq => CompareOp::LtEq,
        CompareOp::Gt | CompareOp::GtEq => CompareOp::Gt,
        CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct => return None,
    };
    Some((op, Scalar::int(to.clone(), floor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::ColumnId;
    use crate::expr::kernels::temporal::Interval;

    fn column(data_type: DataType) -> Expr {
        Expr::Column { id: ColumnId(0), data_type, nullable: true }
    }

    const fn decimal(precision: u8, scale: u8) -> DataType {
        DataType::Decimal { precision, scale }
    }

    fn int(v: i128) -> Expr {
        Expr::Literal(Scalar::int(DataType::Int32, v))
    }

    #[test]
    fn types_meet_as_in_duckdb() {
        use DataType as D;
        for (a, b, want) in [
            (D::UInt8, D::Int8, D::Int16),
            (D::UInt64, D::Int8, D::Int128),
            (D::UInt32, D::Int16, D::Int64),
            (D::UInt8, D::Int32, D::Int32),
            (D::Int32, decimal(2, 1), decimal(11, 1)),
            (D::Int64, decimal(15, 2), decimal(21, 2)),
            (decimal(15, 2), decimal(38, 10), decimal(38, 10)),
            (decimal(38, 30), decimal(38, 2), decimal(38, 2)),
            (D::Int128, decimal(10, 2), decimal(38, 2)),
            (D::Int64, D::Float32, D::Float32),
            (decimal(10, 2), D::Float64, D::Float64),
            (D::Utf8, D::Date, D::Date),
            (D::Null, D::Utf8, D::Utf8),
            (D::Boolean, D::Int32, D::Int32),
        ] {
            assert_eq!(common_type(&a, &b), Some(want.clone()), "{a} {b}");
            assert_eq!(common_type(&b, &a), Some(want), "{b} {a}");
        }
        assert_eq!(common_type(&D::Date, &D::Int32), None);
    }

    #[test]
    fn arithmetic_is_typed() {
        let price = || column(decimal(15, 2));
        let revenue = arithmetic(ArithmeticOp::Subtract, int(1), price()).expect("typed");
        assert_eq!(revenue.data_type(), decimal(16, 2));
        let product = arithmetic(ArithmeticOp::Multiply, price(), revenue).expect("typed");
        assert_eq!(product.data_type(), decimal(31, 4));
        let quotient = arithmetic(ArithmeticOp::Divide, price(), int(2)).expect("typed");
        assert_eq!(quotient.data_type(), DataType::Float64);
        let small = arithmetic(ArithmeticOp::Add, column(DataType::Int8), int(1)).expect("typed");
        assert_eq!(small.data_type(), DataType::Int8);
        let large = arithmetic(ArithmeticOp::Add, column(DataType::Int8), int(1000)).expect("typed");
        assert_eq!(large.data_type(), DataType::Int32);
        let tiny = column(decimal(30, 20));
        assert!(arithmetic(ArithmeticOp::Multiply, tiny.clone(), tiny).is_err());
        assert!(arithmetic(ArithmeticOp::Add, column(DataType::Utf8), int(1)).is_err());
        let days = arithmetic(ArithmeticOp::Subtract, column(DataType::Date), column(DataType::Date));
        assert_eq!(days.expect("typed").data_type(), DataType::Int64);
    }

    #[test]
    fn literals_come_to_the_column() {
        let date = Scalar::int(DataType::Date, 100);
        let ninety = Interval { months: 0, days: 90, nanos: 0 };
        let interval = Expr::Literal(Scalar::int(DataType::Interval, ninety.pack()));
        let cutoff = arithmetic(ArithmeticOp::Subtract, Expr::Literal(date), interval).expect("typed");
        assert!(matches!(cutoff, Expr::Literal(_)), "folded: {cutoff}");
        let comparison = compare(CompareOp::LtEq, column(DataType::Date), cutoff).expect("typed");
        assert_eq!(comparison.to_string(), "(#0 <= '1970-01-11')");
        let five_and_half = Expr::Literal(Scalar::int(decimal(4, 3), 55));
        let finer = compare(CompareOp::GtEq, column(decimal(15, 2)), five_and_half).expect("typed");
        assert_eq!(finer.to_string(), "(#0 > 0.05)");
        let coarser = compare(CompareOp::Gt, int(24), column(decimal(15, 2))).expect("typed");
        assert_eq!(coarser.to_string(), "(#0 < 24.00)");
        let text = compare(CompareOp::Eq, column(DataType::Date), Expr::Literal(Scalar::utf8("1970-01-02")));
        assert_eq!(text.expect("typed").to_string(), "(#0 = '1970-01-02')");
        assert!(compare(CompareOp::Eq, column(DataType::Int32), Expr::Literal(Scalar::utf8("abc"))).is_err());
    }
}
