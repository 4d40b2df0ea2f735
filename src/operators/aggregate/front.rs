//! From dictionary codes straight to groups, without looking at keys.
//!
//! While all keys of a batch are dictionaries, constants or booleans and the product of their sizes is small, a dense
//! array maps each combination of codes to its group. The array speaks of the dictionaries at hand; when one changes
//! (with the row group, as a rule) it starts empty, and each combination is looked up by value once.
//!
//! Invariants:
//! 1. An entry of the map is [`UNSET`], or the group of its combination in the table as it is.
//! 2. The map belongs to `shapes`; any change of dictionary, constant or table empties it.
//! 3. A large map is not made again once memory has been short: it must not take what the table needs.

use super::keys::resize;
use crate::data::{BufMut, Scalar, Values, Vector};
use crate::functions::aggregate::Rows;
use crate::mem::Account;

/// The most combinations a map is made for.
const MOST_COMBINATIONS: usize = 64 << 10;
/// The most that are mapped where memory is short.
const FEW_COMBINATIONS: usize = 4 << 10;
/// What a small map with its scratch takes at most, for floors.
pub(super) const SMALL_FRONT_BYTES: usize = 3 * FEW_COMBINATIONS * size_of::<u32>();
/// No group is known for the combination.
const UNSET: u32 = u32::MAX;
/// The combination is among those being looked up.
const PENDING: u32 = u32::MAX - 1;

/// What a key column's codes mean.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// Codes of the dictionary with an id.
    Dictionary { id: u64, len: usize },
    /// One value.
    Constant(Scalar),
    /// False, true.
    Boolean,
}

impl Shape {
    fn new(vector: &Vector) -> Option<Self> {
        match vector {
            Vector::Constant { value, .. } => Some(Self::Constant(value.clone())),
            Vector::Dict { dictionary, .. } => {
                Some(Self::Dictionary { id: dictionary.id(), len: dictionary.len() })
            }
            Vector::Flat(flat) => matches!(flat.values, Values::Bool(_)).then_some(Self::Boolean),
        }
    }

    /// Codes, and one more for null.
    fn size(&self) -> usize {
        match self {
            Self::Dictionary { len, .. } => len + 1,
            Self::Constant(_) => 1,
            Self::Boolean => 3,
        }
    }
}

/// What the front made of a batch.
pub(super) enum Mapped {
    /// All groups are known.
    All,
    /// Combinations are new: the rows listed in `new_rows`, one each.
    New,
    /// The batch is not for the front.
    Nothing,
}

/// The map.
pub(super) struct Front {
    shapes: Vec<Shape>,
    most_combinations: usize,
    map: BufMut<u32>,
    /// Positions of rows with new combinations, and the combinations.
    new_rows: BufMut<u32>,
    new_combinations: BufMut<u32>,
}

impl Front {
    /// No map.
    pub(super) const fn new() -> Self {
        Self {
            shapes: Vec::new(),
            most_combinations: MOST_COMBINATIONS,
            map: BufMut::empty(),
            new_rows: BufMut::empty(),
            new_combinations: BufMut::empty(),
        }
    }

    /// The positions of rows with new combinations.
    pub(super) fn new_rows(&self) -> &[u32] {
        &self.new_rows
    }

    /// Finds the groups of the rows that count, into `ids`, which is made as long. After [`Mapped::New`] it holds
    /// combinations, for [`complete`](Self::complete).
    pub(super) fn map(
        &mut self,
        keys: &[Vector],
        rows: Rows<'_>,
        ids: &mut BufMut<u32>,
        account: &Account,
    ) -> Mapped {
        if !self.fits(keys, rows.len(), ids, account) {
            return Mapped::Nothing;
        }
        combine(keys, &self.shapes, rows, ids);
        let map: &[u32] = &self.map;
        let highest = ids.iter().fold(0, |highest, &combination| highest.max(map[combination as usize]));
        if highest < PENDING {
            ids.iter_mut().for_each(|id| *id = map[*id as usize]);
            return Mapped::All;
        }
        let map: &mut [u32] = &mut self.map;
        let most = map.len().min(rows.len());
        if resize(&mut self.new_rows, most, account).is_err()
            || resize(&mut self.new_combinations, most, account).is_err()
        {
            return Mapped::Nothing;
        }
        self.new_rows.set_len(0);
        self.new_combinations.set_len(0);
        for (k, &combination) in ids.iter().enumerate() {
            let entry = &mut map[combination as usize];
            if *entry == UNSET {
                *entry = PENDING;
                self.new_rows.push(rows.position(k) as u32);
                self.new_combinations.push(combination);
            }
        }
        Mapped::New
    }

    /// Enters the groups of the new rows and turns the combinations in `ids` into groups.
    pub(super) fn complete(&mut self, new_ids: &[u32], ids: &mut [u32]) {
        for (&combination, &group) in self.new_combinations.iter().zip(new_ids) {
            self.map[combination as usize] = group;
        }
        let map: &[u32] = &self.map;
        ids.iter_mut().for_each(|id| *id = map[*id as usize]);
    }

    /// Forgets what is known; groups have changed.
    pub(super) fn clear(&mut self) {
        *self = Self { most_combinations: self.most_combinations, ..Self::new() };
    }

    /// Forgets what is known, because a lookup was refused memory.
    pub(super) fn shrink(&mut self) {
        self.most_combinations = FEW_COMBINATIONS;
        self.clear();
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.map.allocated_bytes() + self.new_rows.allocated_bytes() + self.new_combinations.allocated_bytes()
    }

    /// Makes the map for the keys' shapes, unless it is there; whether it fits.
    fn fits(&mut self, keys: &[Vector], rows: usize, ids: &mut BufMut<u32>, account: &Account) -> bool {
        let Some(shapes) = keys.iter().map(Shape::new).collect::<Option<Vec<_>>>() else { return false };
        if resize(ids, rows, account).is_err() {
            return false;
        }
        if shapes == self.shapes {
            return true;
        }
        let combinations = shapes.iter().try_fold(1usize, |product, shape| product.checked_mul(shape.size()));
        let Some(combinations) = combinations.filter(|&c| c <= self.most_combinations) else { return false };
        self.shapes.clear();
        if resize(&mut self.map, combinations, account).is_err() {
            return false;
        }
        self.map.fill(UNSET);
        self.shapes = shapes;
        true
    }
}

/// The combination of codes of each row that counts.
fn combine(keys: &[Vector], shapes: &[Shape], rows: Rows<'_>, combinations: &mut [u32]) {
    combinations.fill(0);
    let mut stride = 1;
    for (vector, shape) in keys.iter().zip(shapes) {
        let null_code = shape.size() as u32 - 1;
        match vector {
            Vector::Constant { .. } => {}
            Vector::Dict { codes, validity: None, .. } => match rows {
                Rows::All(count) => {
                    for (to, code) in combinations.iter_mut().zip(&codes[..count]) {
                        *to += code * stride;
                    }
                }
                Rows::At(positions) => {
                    for (to, &row) in combinations.iter_mut().zip(positions) {
                        *to += codes[row as usize] * stride;
                    }
                }
            },
            Vector::Dict { codes, validity: Some(validity), .. } => {
                for (k, to) in combinations.iter_mut().enumerate() {
                    let row = rows.position(k);
                    *to += if validity.get(row) { codes[row] } else { null_code } * stride;
                }
            }
            Vector::Flat(flat) => {
                let Values::Bool(bits) = &flat.values else { continue };
                for (k, to) in combinations.iter_mut().enumerate() {
                    let row = rows.position(k);
                    *to += if flat.is_null(row) { null_code } else { bits.get(row).into() } * stride;
                }
            }
        }
        stride *= shape.size() as u32;
    }
}
