//! Three-valued logic on bitmaps.

use super::operand::validity;
use crate::data::{Bitmap, BitmapMut, FlatVector, Scalar, Value, Values, Vector};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};

/// The values of a boolean vector; unspecified where null.
pub(crate) fn bits(vector: &Vector, rows: usize, account: &Account) -> Result<Bitmap> {
    match vector {
        Vector::Flat(FlatVector { values: Values::Bool(bits), .. }) => Ok(bits.clone()),
        Vector::Constant { value, .. } if value.value == Value::Boolean(true) => {
            Ok(BitmapMut::ones(account, rows)?.freeze())
        }
        Vector::Constant { .. } => Ok(BitmapMut::with_len(account, rows)?.freeze()),
        Vector::Dict { .. } => {
            let flat = vector.flatten(account)?;
            bits(&Vector::Flat(flat), rows, account)
        }
        Vector::Flat(_) => Err(Error::internal("a boolean kernel met other values")),
    }
}

/// Ones where the value is true, and not null.
pub(crate) fn true_bits(vector: &Vector, rows: usize, account: &Account) -> Result<Bitmap> {
    let bits = bits(vector, rows, account)?;
    match validity(vector) {
        Some(valid) => Ok(bits.and(valid, account)?),
        None => Ok(bits),
    }
}

/// A conjunction or disjunction being computed: which rows are known true, which known false.
pub(crate) struct Connective {
    is_and: bool,
    /// Rows in which some operand has settled the answer (false for AND, true for OR).
    settled: BitmapMut,
    /// Rows in which every operand so far was of the other truth.
    neutral: BitmapMut,
}

impl Connective {
    /// No operands yet.
    pub(crate) fn new(is_and: bool, rows: usize, account: &Account) -> Result<Self, Denied> {
        let settled = BitmapMut::with_len(account, rows)?;
        Ok(Self { is_and, settled, neutral: BitmapMut::ones(account, rows)? })
    }

    /// Counts an operand in.
    pub(crate) fn merge(&mut self, operand: &Vector, rows: usize, account: &Account) -> Result<()> {
        let values = bits(operand, rows, account)?;
        let valid = match operand {
            Vector::Constant { value, .. } if value.is_null() => {
                Some(BitmapMut::with_len(account, rows)?.freeze())
            }
            other => validity(other).cloned(),
        };
        let words = self.settled.words_mut().iter_mut().zip(self.neutral.words_mut());
        for (at, (settled, neutral)) in words.enumerate() {
            let valid = valid.as_ref().map_or(u64::MAX, |v| v.words()[at]);
            let truth = values.words()[at] & valid;
            let falsehood = !values.words()[at] & valid;
            let (settles, agrees) = if self.is_and { (falsehood, truth) } else { (truth, falsehood) };
            *settled |= settles;
            *neutral &= agrees;
        }
        Ok(())
    }

    /// Rows whose answer further operands can change.
    pub(crate) fn open_rows(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.settled.len()).filter(|&row| !self.settled.get(row)).map(|row| row as u32)
    }

    /// Whether no further operand matters.
    pub(crate) fn is_settled(&mut self) -> bool {
        let rows = self.settled.len();
        self.settled.words_mut().iter().enumerate().all(|(at, word)| word & mask(rows, at) == mask(rows, at))
    }

    /// The answer.
    pub(crate) fn finish(mut self, account: &Account) -> Result<Vector, Denied> {
        let rows = self.settled.len();
        let mut valid = BitmapMut::with_len(account, rows)?;
        let mut all_known = true;
        let words = valid.words_mut().iter_mut().zip(self.settled.words_mut()).zip(self.neutral.words_mut());
        for (at, ((valid, settled), neutral)) in words.enumerate() {
            *valid = *settled | *neutral;
            all_known &= *valid & mask(rows, at) == mask(rows, at);
        }
        let values = if self.is_and { self.neutral } else { self.settled };
        let validity = (!all_known).then(|| valid.freeze());
        Ok(Vector::Flat(FlatVector { values: Values::Bool(values.freeze()), validity, bounds: None }))
    }
}

/// The bits of word `at` that stand for rows; those beyond are noise while a bitmap is being written.
fn mask(rows: usize, at: usize) -> u64 {
    match rows - at * 64 {
        tail @ 0..64 => (1 << tail) - 1,
        _ => u64::MAX,
    }
}

/// `NOT`.
pub(crate) fn not(vector: &Vector, rows: usize, account: &Account) -> Result<Vector> {
    let values = bits(vector, rows, account)?;
    let mut out = BitmapMut::with_len(account, rows)?;
    for (out, word) in out.words_mut().iter_mut().zip(values.words()) {
        *out = !word;
    }
    let validity = validity(vector).cloned();
    Ok(Vector::Flat(FlatVector { values: Values::Bool(out.freeze()), validity, bounds: None }))
}

/// `IS NULL`.
pub(crate) fn is_null(vector: &Vector, rows: usize, account: &Account) -> Result<Vector> {
    if let Vector::Flat(FlatVector { values: Values::Nested(_), .. }) = vector {
        let mut out = BitmapMut::with_len(account, rows)?;
        out.fill_from(|row| vector.is_null(row));
        return Ok(Vector::Flat(FlatVector::new(Values::Bool(out.freeze()))));
    }
    let Some(valid) = validity(vector) else {
        let is_null = matches!(vector, Vector::Constant { value, .. } if value.is_null());
        return Ok(Vector::Constant { value: Scalar::boolean(is_null), len: rows });
    };
    let mut out = BitmapMut::with_len(account, rows)?;
    for (out, word) in out.words_mut().iter_mut().zip(valid.words()) {
        *out = !word;
    }
    Ok(Vector::Flat(FlatVector::new(Values::Bool(out.freeze()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataType;
    use crate::expr::kernels::testing::Lab;

    #[test]
    fn truth_tables_have_three_values() {
        let lab = Lab::new();
        let truths = [Some(true), Some(false), None];
        let scalar = |t: Option<bool>| t.map_or(Scalar::null(DataType::Boolean), Scalar::boolean);
        let pairs: Vec<_> = truths.iter().flat_map(|l| truths.iter().map(|r| (*l, *r))).collect();
        let left: Vec<_> = pairs.iter().map(|p| scalar(p.0)).collect();
        let right: Vec<_> = pairs.iter().map(|p| scalar(p.1)).collect();
        for is_and in [true, false] {
            let mut connective = Connective::new(is_and, 9, &lab.account).expect("fits");
            connective.merge(&lab.flat(&DataType::Boolean, &left), 9, &lab.account).expect("fits");
            connective.merge(&lab.flat(&DataType::Boolean, &right), 9, &lab.account).expect("fits");
            let result = connective.finish(&lab.account).expect("fits");
            for (row, (l, r)) in pairs.iter().enumerate() {
                let want = match (is_and, l, r) {
                    (true, Some(false), _) | (true, _, Some(false)) => Some(false),
                    (false, Some(true), _) | (false, _, Some(true)) => Some(true),
                    (_, None, _) | (_, _, None) => None,
                    (true, ..) => Some(true),
                    (false, ..) => Some(false),
                };
                assert_eq!(result.scalar(row, &DataType::Boolean), scalar(want), "{is_and} {l:?} {r:?}");
            }
        }
        let inverted = not(&lab.flat(&DataType::Boolean, &left), 9, &lab.account).expect("fits");
        for (row, (l, _)) in pairs.iter().enumerate() {
            assert_eq!(inverted.scalar(row, &DataType::Boolean), scalar(l.map(|l| !l)));
        }
    }
}
