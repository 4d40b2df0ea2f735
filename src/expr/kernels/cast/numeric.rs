//! Numbers and booleans among themselves.
//!
//! Integers and decimals are read as 64 or 128 bits with a scale, rescaled, and narrowed; floats go through doubles.
//! Decimals round half away from zero, floats to integers half to even.

use super::{Failures, mark_all, zeros_and_ones};
use crate::data::{BitmapMut, Bounds, Buf, DataType, FlatVector, PhysicalType, Values, for_each_values};
use crate::error::{Error, Result};
use crate::expr::ArithmeticOp;
use crate::expr::kernels::arithmetic::{Integer, combined};
use crate::expr::kernels::decimal::{has_precision, power_of_ten, scale_of};
use crate::expr::kernels::operand::{Native, map, scan_bounds};
use crate::mem::Account;
use std::io::Write;
use std::ops::Div;
use std::str::FromStr;

/// Exact numbers in one of two widths.
enum Exact {
    Narrow(Buf<i64>),
    Wide(Buf<i128>),
}

pub(super) fn cast(
    vector: &FlatVector,
    from: &DataType,
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<FlatVector> {
    if *to == DataType::Boolean {
        return to_boolean(vector, account);
    }
    match &vector.values {
        Values::F32(v) if *to == DataType::Float64 => {
            let (values, _) = map(v, account, |v: f32| (f64::from(v), false))?;
            Ok(FlatVector::new(Values::F64(values)))
        }
        Values::F32(v) => {
            let (doubles, _) = map(v, account, |v: f32| (f64::from(v), false))?;
            from_doubles(&doubles, to, failures, account)
        }
        Values::F64(v) => from_doubles(v, to, failures, account),
        _ => {
            let exact = read(vector, account)?;
            let scale = scale_of(from);
            if to.is_float() {
                return to_float(&exact, scale, vector.bounds, to, account);
            }
            rescale(exact, (scale, scale_of(to)), vector.bounds, to, failures, account)
        }
    }
}

fn to_boolean(vector: &FlatVector, account: &Account) -> Result<FlatVector> {
    let mut bits = BitmapMut::with_len(account, vector.len())?;
    for_each_values!(
        &vector.values,
        fixed(v, _V) => bits.fill_from(|i| v[i] != Default::default()),
        bool(b) => bits.fill_from(|i| b.get(i)),
        view(_s) => return Err(Error::internal("text is parsed")),
        nested(_n) => return Err(Error::internal("nested values are not numbers")),
    );
    Ok(FlatVector::new(Values::Bool(bits.freeze())))
}

fn read(vector: &FlatVector, account: &Account) -> Result<Exact> {
    macro_rules! narrow {
        ($v:expr) => {
            Exact::Narrow(map($v, account, |v| (i64::from(v), false))?.0)
        };
    }
    Ok(match &vector.values {
        Values::Bool(_) => Exact::Narrow(zeros_and_ones(vector, account)?),
        Values::I8(v) => narrow!(v),
        Values::I16(v) => narrow!(v),
        Values::I32(v) => narrow!(v),
        Values::U8(v) => narrow!(v),
        Values::U16(v) => narrow!(v),
        Values::U32(v) => narrow!(v),
        Values::I64(v) => Exact::Narrow(v.clone()),
        Values::U64(v) => Exact::Wide(map(v, account, |v: u64| (i128::from(v), false))?.0),
        Values::I128(v) => Exact::Wide(v.clone()),
        Values::F32(_) | Values::F64(_) | Values::View(_) | Values::Nested(_) => {
            return Err(Error::internal("exact numbers are integers"));
        }
    })
}

fn to_float(
    exact: &Exact,
    scale: u8,
    bounds: Option<Bounds>,
    to: &DataType,
    account: &Account,
) -> Result<FlatVector> {
    if *to == DataType::Float32 {
        let (floats, _) = match exact {
            Exact::Narrow(v) if scale == 0 => map(v, account, |v: i64| (v as f32, false))?,
            Exact::Narrow(v) => map(v, account, |v: i64| (nearest(v.into(), scale), false))?,
            Exact::Wide(v) => map(v, account, |v: i128| (nearest(v, scale), false))?,
        };
        return Ok(FlatVector::new(Values::F32(floats)));
    }
    let (doubles, _) = match exact {
        Exact::Narrow(v) if scale == 0 => map(v, account, |v: i64| (v as f64, false))?,
        Exact::Narrow(v) => {
            let is_exact =
                |bounds: Bounds| f64::is_exact(bounds.min.into()) && f64::is_exact(bounds.max.into());
            match f64::exact_power_of_ten(scale) {
                Some(divisor) if is_exact(bounds.unwrap_or_else(|| scan_bounds(v))) => {
                    map(v, account, |v: i64| (v as f64 / divisor, false))?
                }
                _ => map(v, account, |v: i64| (nearest(v.into(), scale), false))?,
            }
        }
        Exact::Wide(v) => map(v, account, |v: i128| (nearest(v, scale), false))?,
    };
    Ok(FlatVector::new(Values::F64(doubles)))
}

/// A binary floating-point number.
trait Binary: Copy + FromStr + Div<Output = Self> {
    /// Bits of which all integers have an exact value.
    const EXACT_BITS: u32;
    /// The largest exact power of ten.
    const EXACT_POWER: u8;

    fn from_integer(value: i128) -> Self;

    fn is_exact(value: i128) -> bool {
        value.unsigned_abs() <= 1 << Self::EXACT_BITS
    }

    fn exact_power_of_ten(power: u8) -> Option<Self> {
        (power <= Self::EXACT_POWER).then(|| power_of_ten(power)).flatten().map(Self::from_integer)
    }
}

impl Binary for f64 {
    const EXACT_BITS: u32 = Self::MANTISSA_DIGITS;
    const EXACT_POWER: u8 = 22;

    fn from_integer(value: i128) -> Self {
        value as Self
    }
}

impl Binary for f32 {
    const EXACT_BITS: u32 = Self::MANTISSA_DIGITS;
    const EXACT_POWER: u8 = 10;

    fn from_integer(value: i128) -> Self {
        value as Self
    }
}

/// The number nearest to `value` / 10^`scale`. One operation on exact operands rounds once; where there are none, as many
/// digits as it takes are looked at.
fn nearest<F: Binary>(value: i128, scale: u8) -> F {
    if scale == 0 {
        return F::from_integer(value);
    }
    if F::is_exact(value)
        && let Some(divisor) = F::exact_power_of_ten(scale)
    {
        return F::from_integer(value) / divisor;
    }
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    let written = write!(rest, "{value}e-{scale}").map(|()| rest.len());
    let text = written.ok().and_then(|left| str::from_utf8(&text[..text.len() - left]).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| F::from_integer(value))
}

/// A value divided by a power of ten, rounded half away from zero.
pub(crate) fn divided(value: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (value / divisor, value % divisor);
    if rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2) {
        quotient + value.signum()
    } else {
        quotient
    }
}

fn rescale(
    exact: Exact,
    (from, to_scale): (u8, u8),
    bounds: Option<Bounds>,
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<FlatVector> {
    if from == to_scale {
        return narrow_to(exact, bounds, to, failures, account);
    }
    if from < to_scale {
        let Some(factor) = power_of_ten(to_scale - from) else {
            return Err(Error::internal("scales are at most 38"));
        };
        if let Exact::Narrow(v) = &exact {
            let found = bounds.unwrap_or_else(|| scan_bounds(v));
            let scaled = i64::try_from(factor).ok().and_then(|factor| {
                let result = combined(ArithmeticOp::Multiply, found, Bounds { min: factor, max: factor })?;
                Some((factor, result))
            });
            if let Some((factor, result)) = scaled {
                let (values, _) = map(v, account, |v: i64| (v.wrapping_mul(factor), false))?;
                return narrow_to(Exact::Narrow(values), Some(result), to, failures, account);
            }
        }
        let f = |v: i128| v.overflowing_mul(factor);
        let (values, failed) = match &exact {
            Exact::Narrow(v) => map(v, account, |v: i64| f(v.into()))?,
            Exact::Wide(v) => map(v, account, f)?,
        };
        if failed {
            match &exact {
                Exact::Narrow(v) => mark_all(v, |v| f(v.into()).1, failures, account)?,
                Exact::Wide(v) => mark_all(v, |v| f(v).1, failures, account)?,
            }
        }
        return narrow_to(Exact::Wide(values), None, to, failures, account);
    }
    let divisor = power_of_ten(from - to_scale).unwrap_or(i128::MAX);
    let exact = match (exact, i64::try_from(divisor)) {
        (Exact::Narrow(v), Ok(divisor)) => {
            let half = divisor / 2;
            let f = |v: i64| {
                let (quotient, rest) = (v / divisor, v % divisor);
                // The divisor is even, so half of it is exact.
                (quotient + i64::from(rest >= half) - i64::from(rest <= -half), false)
            };
            Exact::Narrow(map(&v, account, f)?.0)
        }
        (Exact::Narrow(v), Err(_)) => {
            Exact::Narrow(map(&v, account, |v: i64| (divided(v.into(), divisor) as i64, false))?.0)
        }
        (Exact::Wide(v), _) => Exact::Wide(map(&v, account, |v: i128| (divided(v, divisor), false))?.0),
    };
    narrow_to(exact, None, to, failures, account)
}

/// Exact numbers of the target's scale in the target's representation, range-checked.
fn narrow_to(
    exact: Exact,
    bounds: Option<Bounds>,
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<FlatVector> {
    if let DataType::Decimal { precision, .. } = to {
        return to_decimal(exact, bounds, *precision, failures, account);
    }
    let values = match to.physical() {
        PhysicalType::I8 => integers::<i8>(&exact, bounds, failures, account)?,
        PhysicalType::I16 => integers::<i16>(&exact, bounds, failures, account)?,
        PhysicalType::I32 => integers::<i32>(&exact, bounds, failures, account)?,
        PhysicalType::I64 => match exact {
            Exact::Narrow(v) => Values::I64(v),
            wide @ Exact::Wide(_) => integers::<i64>(&wide, bounds, failures, account)?,
        },
        PhysicalType::I128 => match exact {
            Exact::Narrow(v) => Values::I128(map(&v, account, |v: i64| (v.into(), false))?.0),
            Exact::Wide(v) => Values::I128(v),
        },
        PhysicalType::U8 => integers::<u8>(&exact, bounds, failures, account)?,
        PhysicalType::U16 => integers::<u16>(&exact, bounds, failures, account)?,
        PhysicalType::U32 => integers::<u32>(&exact, bounds, failures, account)?,
        PhysicalType::U64 => integers::<u64>(&exact, bounds, failures, account)?,
        PhysicalType::Bool
        | PhysicalType::F32
        | PhysicalType::F64
        | PhysicalType::View
        | PhysicalType::Nested => return Err(Error::internal(format!("{to} is not an exact number"))),
    };
    Ok(FlatVector { values, validity: None, bounds })
}

fn integers<T: Integer + Narrowed>(
    exact: &Exact,
    bounds: Option<Bounds>,
    failures: &mut Failures,
    account: &Account,
) -> Result<Values> {
    let (least, greatest) = T::range();
    let fits = bounds.is_some_and(|b| i128::from(b.min) >= least && i128::from(b.max) <= greatest);
    let (values, failed) = match exact {
        Exact::Narrow(v) if fits => map(v, account, |v| (T::narrowed(v), false))?,
        Exact::Narrow(v) => map(v, account, |v| (T::narrowed(v), !T::holds(v.into())))?,
        Exact::Wide(v) => map(v, account, |v| (T::narrowed(v as i64), !T::holds(v)))?,
    };
    if failed {
        match exact {
            Exact::Narrow(v) => mark_all(v, |v| !T::holds(v.into()), failures, account)?,
            Exact::Wide(v) => mark_all(v, |v| !T::holds(v), failures, account)?,
        }
    }
    Ok(T::wrap(values))
}

/// Truncation to a type, and whether it loses nothing.
trait Narrowed: Native {
    fn narrowed(value: i64) -> Self;
    fn holds(value: i128) -> bool;
}
macro_rules! narrowed { ($($t:ty),*) => { $(
    impl Narrowed for $t {
        #[inline(always)]
        fn narrowed(value: i64) -> Self {
            value as Self
        }
        #[inline(always)]
        fn holds(value: i128) -> bool {
            value >= Self::MIN as i128 && value <= Self::MAX as i128
        }
    }
)* } }
narrowed!(i8, i16, i32, i64, u8, u16, u32, u64);

fn to_decimal(
    exact: Exact,
    bounds: Option<Bounds>,
    precision: u8,
    failures: &mut Failures,
    account: &Account,
) -> Result<FlatVector> {
    let proven = bounds
        .is_some_and(|b| has_precision(b.min.into(), precision) && has_precision(b.max.into(), precision));
    match exact {
        Exact::Narrow(v) => {
            let found = bounds.unwrap_or_else(|| scan_bounds(&v));
            let fits = proven
                || has_precision(found.min.into(), precision) && has_precision(found.max.into(), precision);
            if !fits {
                mark_all(&v, |v| !has_precision(v.into(), precision), failures, account)?;
            }
            Ok(FlatVector { values: Values::I64(v), validity: None, bounds: fits.then_some(found) })
        }
        Exact::Wide(v) => {
            mark_all(&v, |v| !has_precision(v, precision), failures, account)?;
            Ok(FlatVector::new(Values::I128(v)))
        }
    }
}

fn from_doubles(
    doubles: &[f64],
    to: &DataType,
    failures: &mut Failures,
    account: &Account,
) -> Result<FlatVector> {
    match to {
        DataType::Float64 => Err(Error::internal("doubles are not cast to themselves")),
        DataType::Float32 => {
            let f = |v: f64| (v as f32, v.is_finite() && !(v as f32).is_finite());
            let (values, failed) = map(doubles, account, f)?;
            if failed {
                mark_all(doubles, |v| f(v).1, failures, account)?;
            }
            Ok(FlatVector::new(Values::F32(values)))
        }
        DataType::Decimal { precision, scale } => {
            let factor = power_of_ten(*scale).unwrap_or(1) as f64;
            let limit = power_of_ten(*precision).unwrap_or(i128::MAX) as f64;
            let f = |v: f64| {
                let scaled = (v * factor).round();
                (scaled as i128, scaled.is_nan() || scaled.abs() >= limit)
            };
            let (values, failed) = map(doubles, account, f)?;
            if failed {
                mark_all(doubles, |v| f(v).1, failures, account)?;
            }
            if *precision <= DataType::MAX_NARROW_PRECISION {
                let (narrow, _) = map(&values, account, |v: i128| (v as i64, false))?;
                return Ok(FlatVector::new(Values::I64(narrow)));
            }
            Ok(FlatVector::new(Values::I128(values)))
        }
        integer => {
            // Saturating conversion marks what 128 bits cannot hold; narrower targets check their own range.
            let f = |v: f64| (v.round_ties_even() as i128, v.is_nan() || v.abs() >= 1.7e38);
            let (values, failed) = map(doubles, account, f)?;
            if failed {
                mark_all(doubles, |v| f(v).1, failures, account)?;
            }
            narrow_to(Exact::Wide(values), None, integer, failures, account)
        }
    }
}
