//! Keys as words.
//!
//! Invariants:
//! 1. Equal keys have equal words, on both sides and in every representation. Of packed keys the words are equal only
//!    if the keys are; of hashed keys the columns must be compared.
//! 2. A key column of a row that is looked up is null only where that is compared like a value.

use crate::data::hash::{bytes_hasher, hash_bytes, hash_word};
use crate::data::key_bits::{KeyBits, low_bits, resize, value_bits};
use crate::data::{
    BufMut, DataType, Dictionary, FlatVector, PhysicalType, Selection, Vector, for_each_values,
};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied, size_class_bytes};

/// Stands for null among hashed values.
const NULL_WORD: u64 = 0x6E75_6C6C_6E75_6C6C;

/// The keys of a join.
pub(super) struct KeyPlan {
    pub(super) types: Vec<DataType>,
    /// For each key, whether two nulls are equal.
    null_safe: Vec<bool>,
    pub(super) shape: KeyShape,
}

/// How keys become words.
pub(super) enum KeyShape {
    /// All columns of a key fit into its word; where each begins.
    Packed { shifts: Vec<u32> },
    /// A word is a hash.
    Hashed,
}

impl KeyPlan {
    /// Keys of `types`.
    pub(super) fn new(types: Vec<DataType>, null_safe: Vec<bool>) -> Self {
        let has_strings =
            types.iter().any(|t| matches!(t.physical(), PhysicalType::View | PhysicalType::Nested));
        let mut shifts = Vec::with_capacity(types.len());
        let mut bits = 0;
        for (data_type, null_safe) in types.iter().zip(&null_safe) {
            shifts.push(bits);
            bits += value_bits(data_type) + u32::from(*null_safe);
        }
        let shape =
            if has_strings || bits > u64::BITS { KeyShape::Hashed } else { KeyShape::Packed { shifts } };
        Self { types, null_safe, shape }
    }

    /// At most so many bytes an encoder takes for batches of `rows`: words, positions of rows with keys and without, and
    /// hashes of dictionaries.
    pub(super) fn scratch_bytes(&self, rows: usize) -> usize {
        let positions = 2 * size_class_bytes((rows + 1) * size_of::<u32>());
        let hashes = match self.shape {
            KeyShape::Packed { .. } => 0,
            KeyShape::Hashed => self.types.len() * size_class_bytes(rows * size_of::<u64>()),
        };
        size_class_bytes(rows * size_of::<u64>()) + positions + hashes
    }

    /// Bits of a word, if it is one key's value as it is, and no null.
    pub(super) fn single_key_bits(&self) -> Option<u32> {
        match (&self.shape, &self.types[..], &self.null_safe[..]) {
            (KeyShape::Packed { .. }, [one], [false]) => Some(value_bits(one)),
            _ => None,
        }
    }
}

/// Turns keys of batches into words. One per lane.
pub(super) struct KeyEncoder {
    words: BufMut<u64>,
    /// Positions of the rows that may have a match.
    positions: BufMut<u32>,
    /// Positions of those that cannot, for a key is null.
    null_positions: BufMut<u32>,
    /// For each key, hashes of the dictionary it last came with.
    dictionaries: Vec<DictionaryHashes>,
}

#[derive(Default)]
struct DictionaryHashes {
    id: Option<u64>,
    hashes: Option<BufMut<u64>>,
}

impl KeyEncoder {
    /// An encoder of `plan`'s keys.
    pub(super) fn new(plan: &KeyPlan) -> Self {
        Self {
            words: BufMut::empty(),
            positions: BufMut::empty(),
            null_positions: BufMut::empty(),
            dictionaries: plan.types.iter().map(|_| DictionaryHashes::default()).collect(),
        }
    }

    /// The words of the last batch, by position.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The positions of the last batch's rows that may have a match.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The positions of the last batch's rows that cannot.
    pub(super) fn null_positions(&self) -> &[u32] {
        &self.null_positions
    }

    /// Moves to `to` the positions of the last batch's rows whose words `leave`.
    pub(super) fn divide(
        &mut self,
        leaves: impl Fn(u64) -> bool,
        to: &mut BufMut<u32>,
        account: &Account,
    ) -> Result<(), Denied> {
        let len = self.positions.len();
        // One more, so that every row may be written before it is known where it belongs.
        resize(to, len + 1, account)?;
        let (moved, positions): (&mut [u32], &mut [u32]) = (to, &mut self.positions);
        let (mut kept, mut left) = (0, 0);
        for at in 0..len {
            let row = positions[at];
            // Without keys there are no words.
            let goes = leaves(self.words.get(row as usize).copied().unwrap_or_default());
            (positions[kept], moved[left]) = (row, row);
            kept += usize::from(!goes);
            left += usize::from(goes);
        }
        self.positions.set_len(kept);
        to.set_len(left);
        Ok(())
    }

    /// Encodes `keys`, which are `rows` long, of which those in `selection` count. Returns the values of the keys.
    pub(super) fn encode(
        &mut self,
        plan: &KeyPlan,
        keys: &[Vector],
        rows: usize,
        selection: Option<&Selection>,
        account: &Account,
    ) -> Result<Vec<FlatVector>> {
        let mut flat = Vec::with_capacity(keys.len());
        for key in keys {
            flat.push(key.flatten(account)?);
        }
        self.list_positions(plan, &flat, rows, selection, account)?;
        if keys.is_empty() {
            return Ok(flat);
        }
        resize(&mut self.words, rows, account)?;
        self.words.fill(0);
        match &plan.shape {
            KeyShape::Packed { shifts } => {
                for (key, (values, shift)) in flat.iter().zip(shifts).enumerate() {
                    pack(&mut self.words, values, value_bits(&plan.types[key]), *shift, plan.null_safe[key])?;
                }
            }
            KeyShape::Hashed => {
                for (key, values) in flat.iter().enumerate() {
                    let hashes = match &keys[key] {
                        Vector::Dict { codes, dictionary, .. } => self.dictionaries[key]
                            .of(dictionary, &plan.types[key], rows, account)?
                            .map(|hashes| (hashes, &**codes)),
                        Vector::Flat(_) | Vector::Constant { .. } => None,
                    };
                    hash(&mut self.words, values, &plan.types[key], hashes)?;
                }
            }
        }
        Ok(flat)
    }

    /// Takes rows as they were encoded before, none of them without a match for a null key.
    pub(super) fn take_words(&mut self, words: &[u64], account: &Account) -> Result<(), Denied> {
        resize(&mut self.words, words.len(), account)?;
        self.words.copy_from_slice(words);
        resize(&mut self.positions, words.len(), account)?;
        self.positions.iter_mut().zip(0..).for_each(|(to, row)| *to = row);
        self.null_positions.set_len(0);
        Ok(())
    }

    fn list_positions(
        &mut self,
        plan: &KeyPlan,
        keys: &[FlatVector],
        rows: usize,
        selection: Option<&Selection>,
        account: &Account,
    ) -> Result<()> {
        let alive = selection.map_or(rows, Selection::len);
        // One more, so that every row may be written before it is known where it belongs.
        resize(&mut self.positions, alive + 1, account)?;
        resize(&mut self.null_positions, 0, account)?;
        let strict = keys.iter().zip(&plan.null_safe).filter(|(_, null_safe)| !**null_safe);
        let nullable: Vec<_> = strict.filter_map(|(key, _)| key.validity.as_ref()).collect();
        let positions: &mut [u32] = &mut self.positions;
        if nullable.is_empty() {
            match selection {
                Some(selection) => positions[..alive].copy_from_slice(selection.indices()),
                None => positions.iter_mut().zip(0..).for_each(|(to, row)| *to = row),
            }
            self.positions.set_len(alive);
            return Ok(());
        }
        resize(&mut self.null_positions, alive + 1, account)?;
        let null_positions: &mut [u32] = &mut self.null_positions;
        let (mut valid, mut null) = (0, 0);
        for at in 0..alive {
            let row = selection.map_or(at as u32, |selection| selection.indices()[at]);
            let is_valid = nullable.iter().all(|bits| bits.get(row as usize));
            positions[valid] = row;
            null_positions[null] = row;
            valid += usize::from(is_valid);
            null += usize::from(!is_valid);
        }
        self.positions.set_len(valid);
        self.null_positions.set_len(null);
        Ok(())
    }
}

impl DictionaryHashes {
    /// The hash of each entry; `None` if there are more than rows that could use them.
    fn of(
        &mut self,
        dictionary: &Dictionary,
        data_type: &DataType,
        rows: usize,
        account: &Account,
    ) -> Result<Option<&[u64]>> {
        if self.id == Some(dictionary.id()) {
            return Ok(self.hashes.as_deref());
        }
        *self = Self::default();
        if dictionary.len() > rows {
            return Ok(None);
        }
        let mut hashes = BufMut::with_len(account, dictionary.len())?;
        each_input(dictionary.values(), data_type, |entry, input| hashes[entry] = input)?;
        self.id = Some(dictionary.id());
        Ok(Some(self.hashes.insert(hashes)))
    }
}

/// Puts the bits of a column into words.
fn pack(words: &mut [u64], column: &FlatVector, bits: u32, shift: u32, null_safe: bool) -> Result<()> {
    let low = low_bits(bits) as u64;
    // Other nulls are not looked up.
    let validity = column.validity.as_ref().filter(|_| null_safe);
    let null = if null_safe { 1u64 << (shift + bits) } else { 0 };
    macro_rules! place {
        ($bits:expr) => {
            match validity {
                None => {
                    words.iter_mut().enumerate().for_each(|(row, word)| *word |= ($bits(row) & low) << shift)
                }
                Some(validity) => words.iter_mut().enumerate().for_each(|(row, word)| {
                    *word |= if validity.get(row) { ($bits(row) & low) << shift } else { null };
                }),
            }
        };
    }
    for_each_values!(
        &column.values,
        fixed(v, V) => {
            let values = &v[..words.len()];
            place!(|row: usize| values[row].key_bits() as u64);
        },
        bool(b) => place!(|row: usize| u64::from(b.get(row))),
        view(s) => return Err(misplaced(s.len())),
        nested(n) => return Err(misplaced(n.len())),
    );
    Ok(())
}

/// Mixes a column into words. `by_code` are the inputs of a dictionary's entries, and the codes.
fn hash(
    words: &mut [u64],
    column: &FlatVector,
    data_type: &DataType,
    by_code: Option<(&[u64], &[u32])>,
) -> Result<()> {
    let is_null = |row: usize| column.validity.as_ref().is_some_and(|valid| !valid.get(row));
    let mix = |word: u64, input: u64| hash_word(word.rotate_left(29) ^ input);
    if let Some((inputs, codes)) = by_code {
        for (row, (word, &code)) in words.iter_mut().zip(codes).enumerate() {
            *word = mix(*word, if is_null(row) { NULL_WORD } else { inputs[code as usize] });
        }
        return Ok(());
    }
    each_input(column, data_type, |row, input| {
        words[row] = mix(words[row], if is_null(row) { NULL_WORD } else { input });
    })
}

/// Calls `f` with what goes into the hash for each value; for nulls it is unspecified.
fn each_input(column: &FlatVector, data_type: &DataType, mut f: impl FnMut(usize, u64)) -> Result<()> {
    let is_wide = data_type.physical() == PhysicalType::I128;
    let input = |bits: u128| {
        if is_wide { hash_word(bits as u64).wrapping_add((bits >> 64) as u64) } else { bits as u64 }
    };
    for_each_values!(
        &column.values,
        fixed(v, V) => v.iter().enumerate().for_each(|(row, v)| f(row, input(v.key_bits()))),
        bool(b) => (0..b.len()).for_each(|row| f(row, b.get(row).into())),
        view(s) => {
            let hasher = bytes_hasher();
            (0..s.len()).for_each(|row| f(row, hash_bytes(&hasher, s.get(row))));
        },
        nested(n) => return Err(misplaced(n.len())),
    );
    Ok(())
}

fn misplaced(len: usize) -> Error {
    Error::internal(format!("{len} values of a type that is not compared came as join keys"))
}
