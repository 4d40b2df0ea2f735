//! Membership in a list of values.

use super::compare::equals_value;
use super::operand::{Native, Operand, for_physical, operand, validity};
use super::simd::{FillBits, Kernel};
use crate::data::{Bitmap, BitmapMut, DataType, FlatVector, Scalar, Values, Vector, view_bytes};
use crate::error::Result;
use crate::mem::Account;
use hashbrown::HashSet;
use std::sync::Arc;

/// Up to this many values are compared one after the other, which vectorises.
const MAX_LINEAR_VALUES: usize = 8;

/// A prepared list.
#[derive(Clone, Debug)]
pub(crate) struct InSet {
    /// The values that are not null.
    values: Vec<Scalar>,
    has_null: bool,
    lookup: Lookup,
}

#[derive(Clone, Debug)]
enum Lookup {
    Linear,
    Integers(HashSet<i128, foldhash::fast::RandomState>),
    Bytes(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
}

impl InSet {
    /// Prepares values of one type.
    pub(crate) fn new(list: &Arc<[Scalar]>) -> Self {
        let values: Vec<Scalar> = list.iter().filter(|s| !s.is_null()).cloned().collect();
        let has_null = values.len() < list.len();
        let integers: Option<Vec<i128>> = values.iter().map(Scalar::as_int).collect();
        let strings: Option<Vec<&[u8]>> = values.iter().map(Scalar::as_bytes).collect();
        let is_interval = values.first().is_some_and(|v| v.data_type == DataType::Interval);
        let lookup = match (integers, strings) {
            _ if values.len() <= MAX_LINEAR_VALUES || is_interval => Lookup::Linear,
            (Some(integers), _) => Lookup::Integers(integers.into_iter().collect()),
            (None, Some(strings)) => Lookup::Bytes(strings.into_iter().map(Into::into).collect()),
            (None, None) => Lookup::Linear,
        };
        Self { values, has_null, lookup }
    }

    /// Whether each row of `vector`, of type `data_type`, is in the list; null where it is not but a null might be.
    pub(crate) fn contains(
        &self,
        vector: &Vector,
        data_type: &DataType,
        rows: usize,
        account: &Account,
    ) -> Result<Vector> {
        let found = self.found(vector, data_type, rows, account)?;
        let validity = match (validity(vector), self.has_null) {
            (valid, false) => valid.cloned(),
            (None, true) => Some(found.clone()),
            (Some(valid), true) => Some(found.and(valid, account)?),
        };
        Ok(Vector::Flat(FlatVector { values: Values::Bool(found), validity, bounds: None }))
    }

    fn found(&self, vector: &Vector, data_type: &DataType, rows: usize, account: &Account) -> Result<Bitmap> {
        let mut bits = BitmapMut::with_len(account, rows)?;
        match (&self.lookup, vector) {
            (Lookup::Bytes(set), Vector::Flat(FlatVector { values: Values::View(s), .. })) => {
                bits.fill_from(|row| set.contains(view_bytes(&s.views[row], &s.buffers)));
            }
            (Lookup::Integers(set), Vector::Flat(flat)) => {
                for_physical!(
                    flat.values.physical(),
                    T => look_up(set, operand::<T>(vector)?, rows, bits.words_mut()),
                    _ => return Err(crate::error::Error::internal("integers are fixed-width")),
                );
            }
            (_, Vector::Constant { value, .. }) => {
                let found =
                    self.values.iter().any(|v| v.compare(value).is_some_and(std::cmp::Ordering::is_eq));
                return Ok(if found { BitmapMut::ones(account, rows)?.freeze() } else { bits.freeze() });
            }
            (_, _) => {
                for value in &self.values {
                    let equal = equals_value(vector, value, data_type, rows, account)?;
                    for (out, word) in bits.words_mut().iter_mut().zip(equal.words()) {
                        *out |= word;
                    }
                }
            }
        }
        Ok(bits.freeze())
    }
}

fn look_up<T>(
    set: &HashSet<i128, foldhash::fast::RandomState>,
    values: Operand<'_, T>,
    rows: usize,
    out: &mut [u64],
) where
    T: Native + AsExact,
{
    FillBits { out, len: rows, f: |row| values.get(row).exact().is_some_and(|v| set.contains(&v)) }.run();
}

/// A number as an exact one, if it is.
trait AsExact {
    fn exact(self) -> Option<i128>;
}
macro_rules! exact { ($($t:ty),*) => { $(
    impl AsExact for $t {
        #[inline(always)]
        fn exact(self) -> Option<i128> {
            Some(self as i128)
        }
    }
)* } }
exact!(i8, i16, i32, i64, i128, u8, u16, u32, u64);
macro_rules! inexact { ($($t:ty),*) => { $(
    impl AsExact for $t {
        fn exact(self) -> Option<i128> {
            None
        }
    }
)* } }
inexact!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Value;
    use crate::expr::kernels::testing::{Lab, Random};

    #[test]
    fn membership_has_three_values_for_every_type_and_length() {
        let lab = Lab::new();
        let mut random = Random::new(31);
        for data_type in Lab::types() {
            for len in [1, 5, 30] {
                for with_null in [false, true] {
                    let list: Vec<Scalar> = random
                        .scalars(&data_type, len)
                        .into_iter()
                        .filter(|s| with_null || !s.is_null())
                        .collect();
                    let rows = random.scalars(&data_type, 90);
                    let set = InSet::new(&list.clone().into());
                    let vector = lab.flat(&data_type, &rows);
                    let result = set.contains(&vector, &data_type, 90, &lab.account).expect("fits");
                    for (row, value) in rows.iter().enumerate() {
                        let found =
                            list.iter().any(|v| v.compare(value).is_some_and(std::cmp::Ordering::is_eq));
                        let want = match found {
                            true => Value::Boolean(true),
                            false if value.is_null() || list.iter().any(Scalar::is_null) => Value::Null,
                            false => Value::Boolean(false),
                        };
                        // An empty list never says null; the binder does not build one.
                        if !list.is_empty() {
                            assert_eq!(
                                result.scalar(row, &DataType::Boolean).value,
                                want,
                                "{data_type} {value}"
                            );
                        }
                    }
                }
            }
        }
    }
}
