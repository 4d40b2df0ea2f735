//! Keys of fixed width, all columns packed into one word. Of strings that have few values the word has numbers
//! ([`Interner`]).
//!
//! Invariants:
//! 1. Equal keys have equal words and equal null masks, within one table; the bits of a null value are zero.
//! 2. `nulls` is empty until a group with a null exists, then as long as `keys`.
//! 3. The hash of a key is that of its values, the same in all tables, though numbers of strings differ.

use super::hash::{hash_word, prefetch};
use super::interner::Interner;
use super::keys::{
    Growth, Halt, KeyBits, KeyColumn, constant_bits, is_string, low_bits, packed_bits, resize,
    values_from_bits,
};
use super::slots::Slots;
use crate::data::{
    BitmapMut, BufMut, DataType, DictionaryIds, FlatVector, Plain, Values, Vector, for_each_values,
};
use crate::error::Error;
use crate::functions::aggregate::{GroupSet, Rows};
use crate::mem::{Account, Denied};
use std::ops::{BitAnd, BitOrAssign};

/// A word that keys are packed into.
pub(super) trait Word: Plain + Eq + BitAnd<Output = Self> + BitOrAssign {
    /// The low bits of `bits`, moved up.
    fn place(bits: u128, shift: u32) -> Self;
    /// All bits, moved down.
    fn take(self, shift: u32) -> u128;
    /// A hash of all bits.
    fn hash(self) -> u64;
}

impl Word for u64 {
    #[inline(always)]
    fn place(bits: u128, shift: u32) -> Self {
        (bits as Self) << shift
    }
    #[inline(always)]
    fn take(self, shift: u32) -> u128 {
        (self >> shift).into()
    }
    #[inline(always)]
    fn hash(self) -> u64 {
        hash_word(self)
    }
}

impl Word for u128 {
    #[inline(always)]
    fn place(bits: u128, shift: u32) -> Self {
        bits << shift
    }
    #[inline(always)]
    fn take(self, shift: u32) -> u128 {
        self >> shift
    }
    #[inline(always)]
    fn hash(self) -> u64 {
        hash_word(hash_word(self as u64).wrapping_add((self >> 64) as u64))
    }
}

/// A word of 256 bits, the low half first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Long([u128; 2]);

// SAFETY: two integers one after the other have no invalid bit patterns and no padding.
unsafe impl Plain for Long {}

impl BitAnd for Long {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }
}

impl BitOrAssign for Long {
    #[inline(always)]
    fn bitor_assign(&mut self, other: Self) {
        self.0[0] |= other.0[0];
        self.0[1] |= other.0[1];
    }
}

impl Word for Long {
    #[inline(always)]
    fn place(bits: u128, shift: u32) -> Self {
        match shift {
            0 => Self([bits, 0]),
            1..128 => Self([bits << shift, bits >> (u128::BITS - shift)]),
            _ => Self([0, bits << (shift - u128::BITS)]),
        }
    }
    #[inline(always)]
    fn take(self, shift: u32) -> u128 {
        match shift {
            0 => self.0[0],
            1..128 => self.0[0] >> shift | self.0[1] << (u128::BITS - shift),
            _ => self.0[1] >> (shift - u128::BITS),
        }
    }
    #[inline(always)]
    fn hash(self) -> u64 {
        hash_word(self.0[0].hash().wrapping_add(self.0[1].hash().rotate_left(32)))
    }
}

struct Column {
    data_type: DataType,
    shift: u32,
    bits: u32,
}

/// Keys by group, and those of the batch at hand.
pub(super) struct PackedKeys<W: Word> {
    columns: Vec<Column>,
    strings: Strings<W>,
    keys: BufMut<W>,
    nulls: BufMut<u32>,
    slots: Slots,
    batch: BatchKeys<W>,
}

/// Keys that are being added to.
struct Stored<'a, W> {
    keys: &'a mut [W],
    nulls: &'a mut [u32],
    groups: usize,
}

/// The columns of strings.
struct Strings<W: Word> {
    /// Which columns they are, and their strings.
    columns: Vec<(usize, Interner)>,
    /// The bits of all other columns.
    others: W,
}

/// The encoded rows of a batch; scratch.
struct BatchKeys<W: Word> {
    keys: BufMut<W>,
    /// A mask of null columns per row, if any row has a null.
    nulls: BufMut<u32>,
    has_nulls: bool,
    hashes: BufMut<u64>,
}

impl<W: Word> PackedKeys<W> {
    /// No groups of keys of `types`, which fit the word together.
    pub(super) fn new(types: &[DataType]) -> Self {
        let mut shift = 0;
        let columns = types.iter().map(|data_type| {
            let bits = packed_bits(data_type);
            shift += bits;
            Column { data_type: data_type.clone(), shift: shift - bits, bits }
        });
        let columns: Vec<Column> = columns.collect();
        let mut others = W::default();
        for column in columns.iter().filter(|column| !is_string(&column.data_type)) {
            others |= W::place(low_bits(column.bits), column.shift);
        }
        let strings = columns.iter().enumerate().filter(|(_, column)| is_string(&column.data_type));
        let strings = strings.map(|(at, _)| (at, Interner::new())).collect();
        let batch = BatchKeys {
            keys: BufMut::empty(),
            nulls: BufMut::empty(),
            has_nulls: false,
            hashes: BufMut::empty(),
        };
        Self {
            columns,
            strings: Strings { columns: strings, others },
            keys: BufMut::empty(),
            nulls: BufMut::empty(),
            slots: Slots::new(),
            batch,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Packs and hashes the rows that count.
    pub(super) fn encode(
        &mut self,
        vectors: &[Vector],
        rows: Rows<'_>,
        account: &Account,
    ) -> Result<(), Halt> {
        self.pack(vectors, rows, account)?;
        let batch = &mut self.batch;
        if !self.strings.columns.is_empty() {
            for k in 0..rows.len() {
                batch.hashes[k] = self.strings.hash(&self.columns, batch.keys[k], batch.null_mask(k));
            }
        } else if batch.has_nulls {
            let keys = batch.keys.iter().zip(batch.nulls.iter());
            for (hash, (key, &nulls)) in batch.hashes.iter_mut().zip(keys) {
                *hash = hash_with_nulls(*key, nulls);
            }
        } else {
            for (hash, key) in batch.hashes.iter_mut().zip(batch.keys.iter()) {
                *hash = key.hash();
            }
        }
        Ok(())
    }

    /// Packs the rows that count.
    fn pack(&mut self, vectors: &[Vector], rows: Rows<'_>, account: &Account) -> Result<(), Halt> {
        let batch = &mut self.batch;
        resize(&mut batch.keys, rows.len(), account)?;
        resize(&mut batch.nulls, rows.len(), account)?;
        resize(&mut batch.hashes, rows.len(), account)?;
        batch.keys.fill(W::default());
        batch.has_nulls = false;
        for (at, (vector, column)) in vectors.iter().zip(&self.columns).enumerate() {
            match self.strings.columns.iter_mut().find(|(string, _)| *string == at) {
                Some((_, interner)) => {
                    interner.encode(vector, rows, account)?;
                    batch.place_codes(vector, interner.codes(), column.shift, at, rows);
                }
                None => batch.encode_column(vector, column, at, rows)?,
            }
        }
        Ok(())
    }

    /// Takes the keys of another table's groups in place of rows.
    pub(super) fn copy(
        &mut self,
        other: &Self,
        groups: GroupSet<'_>,
        account: &Account,
    ) -> Result<(), Denied> {
        let batch = &mut self.batch;
        resize(&mut batch.keys, groups.len(), account)?;
        resize(&mut batch.nulls, groups.len(), account)?;
        resize(&mut batch.hashes, groups.len(), account)?;
        batch.has_nulls = !other.nulls.is_empty();
        let keys: &[W] = &other.keys;
        if !self.strings.columns.is_empty() {
            return self.copy_strings(other, groups, account);
        }
        for (i, (key, hash)) in batch.keys.iter_mut().zip(batch.hashes.iter_mut()).enumerate() {
            *key = keys[groups.group(i)];
            *hash = key.hash();
        }
        if batch.has_nulls {
            let hashed = batch.hashes.iter_mut().zip(batch.keys.iter());
            for (i, (nulls, (hash, key))) in batch.nulls.iter_mut().zip(hashed).enumerate() {
                *nulls = other.nulls[groups.group(i)];
                *hash = hash_with_nulls(*key, *nulls);
            }
        }
        Ok(())
    }

    /// As `copy`: strings have other numbers here.
    fn copy_strings(&mut self, other: &Self, groups: GroupSet<'_>, account: &Account) -> Result<(), Denied> {
        let batch = &mut self.batch;
        for (i, nulls) in batch.nulls.iter_mut().enumerate() {
            *nulls = null_mask(&other.nulls, groups.group(i) as u32);
        }
        for (i, key) in batch.keys.iter_mut().enumerate() {
            *key = other.keys[groups.group(i)] & self.strings.others;
        }
        for ((at, interner), (_, others)) in self.strings.columns.iter_mut().zip(&other.strings.columns) {
            let shift = self.columns[*at].shift;
            interner.meet(others, account);
            for (i, key) in batch.keys.iter_mut().enumerate() {
                if batch.nulls[i] >> *at & 1 == 0 {
                    let code = other.keys[groups.group(i)].take(shift) as u32;
                    *key |= W::place(interner.translate(others, code, account)?.into(), shift);
                }
            }
        }
        for (i, hash) in batch.hashes.iter_mut().enumerate() {
            *hash = self.strings.hash(&self.columns, batch.keys[i], batch.nulls[i]);
        }
        Ok(())
    }

    /// Packs the rows that count and gives each its group, if they ascend from the greatest key there is; whether they do.
    /// New groups are those of the rows in `missing`, and must be inserted as such, with nothing sought. The keys there are
    /// must ascend, too.
    pub(super) fn find_ascending(
        &mut self,
        vectors: &[Vector],
        rows: Rows<'_>,
        ids: &mut [u32],
        missing: &mut BufMut<u32>,
        account: &Account,
    ) -> Result<bool, Halt>
    where
        W: Ord,
    {
        self.pack(vectors, rows, account)?;
        if self.batch.has_nulls {
            return Ok(false);
        }
        // The number of the next group; the greatest key is the last one's.
        let mut next = self.keys.len() as u32;
        let mut greatest = self.keys.last().copied();
        for (k, (&key, id)) in self.batch.keys.iter().zip(ids).enumerate() {
            if greatest != Some(key) {
                if greatest > Some(key) {
                    return Ok(false);
                }
                greatest = Some(key);
                missing.push(k as u32);
                next += 1;
            }
            *id = next - 1;
        }
        Ok(true)
    }

    pub(super) fn find(&self, ids: &mut [u32], missing: &mut BufMut<u32>) {
        let (batch, keys): (&[W], &[W]) = (&self.batch.keys, &self.keys);
        let (slots, hashes) = (&self.slots, &self.batch.hashes);
        let fetch = |group: u32| prefetch(&keys[group as usize]);
        if self.batch.has_nulls || !self.nulls.is_empty() {
            let nulls = |k, group| self.batch.null_mask(k) == null_mask(&self.nulls, group);
            let is_equal = |k: usize, group: u32| keys[group as usize] == batch[k] && nulls(k, group);
            slots.find_all(hashes, ids, missing, is_equal, fetch);
        } else {
            slots.find_all(hashes, ids, missing, |k, group| keys[group as usize] == batch[k], fetch);
        }
    }

    pub(super) fn reserve(&mut self, missing: &[u32], growth: &Growth<'_>) -> Result<(), Halt> {
        let account = growth.account;
        let groups = self.keys.len() + missing.len();
        self.keys.reserve(account, groups)?;
        if self.batch.has_nulls || !self.nulls.is_empty() {
            self.nulls.reserve(account, groups)?;
            let before = self.nulls.len();
            self.nulls.set_len(self.keys.len());
            self.nulls[before..].fill(0);
        }
        let (keys, nulls, strings, columns) = (&self.keys, &self.nulls, &self.strings, &self.columns);
        let hash = |group: usize| strings.hash(columns, keys[group], null_mask(nulls, group as u32));
        self.slots.reserve(keys.len(), missing.len(), hash, account, || growth.check())
    }

    pub(super) fn insert(&mut self, ids: &mut [u32], missing: &[u32]) {
        // Nothing has been reserved then.
        if missing.is_empty() {
            return;
        }
        let (keys, hashes): (&[W], &[u64]) = (&self.batch.keys, &self.batch.hashes);
        let has_nulls = self.batch.has_nulls || !self.nulls.is_empty();
        let row_nulls: &[u32] = if self.batch.has_nulls { &self.batch.nulls } else { &[] };
        // As many as there may be; what is said of a group is written before it is read.
        let groups = self.keys.len();
        self.keys.set_len(groups + missing.len());
        if has_nulls {
            self.nulls.set_len(groups + missing.len());
        }
        let mut stored = Stored { keys: &mut self.keys, nulls: &mut self.nulls, groups };
        self.slots.insert_all(
            hashes,
            ids,
            missing,
            &mut stored,
            |stored, k, group| {
                stored.keys[group as usize] == keys[k]
                    && null_mask(row_nulls, k as u32) == null_mask(stored.nulls, group)
            },
            |stored, k| {
                stored.keys[stored.groups] = keys[k];
                if has_nulls {
                    stored.nulls[stored.groups] = null_mask(row_nulls, k as u32);
                }
                stored.groups += 1;
                stored.groups as u32 - 1
            },
        );
        let groups = stored.groups;
        self.keys.set_len(groups);
        if has_nulls {
            self.nulls.set_len(groups);
        }
    }

    #[inline]
    pub(super) fn hash(&self, group: usize) -> u64 {
        self.strings.hash(&self.columns, self.keys[group], null_mask(&self.nulls, group as u32))
    }

    pub(super) fn decode(
        &self,
        groups: GroupSet<'_>,
        ids: Option<&DictionaryIds>,
        account: &Account,
    ) -> Result<Vec<Vector>, Denied> {
        let decode = |(at, column): (usize, &Column)| {
            let keys: &[W] = &self.keys;
            let low = low_bits(column.bits);
            let bits = |i: usize| keys[groups.group(i)].take(column.shift) & low;
            let is_null = |i| null_mask(&self.nulls, groups.group(i) as u32) >> at & 1 == 1;
            let validity = if !self.nulls.is_empty() && (0..groups.len()).any(is_null) {
                let mut bits = BitmapMut::with_len(account, groups.len())?;
                bits.fill_from(|i| !is_null(i));
                Some(bits.freeze())
            } else {
                None
            };
            let Some((_, interner)) = self.strings.columns.iter().find(|(string, _)| *string == at) else {
                let values = values_from_bits(&column.data_type, groups.len(), account, bits)?;
                return Ok(Vector::Flat(FlatVector { values, validity, bounds: None }));
            };
            if let Some(ids) = ids
                && let Some(dictionary) = interner.dictionary(groups.len(), ids, account)?
            {
                let mut codes = BufMut::with_len(account, groups.len())?;
                codes.iter_mut().enumerate().for_each(|(i, code)| *code = bits(i) as u32);
                return Ok(Vector::Dict { codes: codes.freeze(), validity, dictionary });
            }
            let code = |i| (!is_null(i)).then(|| bits(i) as u32);
            let values = Values::View(interner.gather(groups.len(), code, account)?);
            Ok(Vector::Flat(FlatVector { values, validity, bounds: None }))
        };
        self.columns.iter().enumerate().map(decode).collect()
    }

    /// The keys of all groups as words that mean the same in all tables; `None` if some have nulls, or strings.
    pub(super) fn words(&self) -> Option<&[W]> {
        (self.nulls.is_empty() && self.strings.columns.is_empty()).then_some(&self.keys)
    }

    pub(super) fn slots(&mut self) -> &mut Slots {
        &mut self.slots
    }

    pub(super) fn clear(&mut self) {
        self.keys = BufMut::empty();
        self.nulls = BufMut::empty();
        self.slots.clear();
        self.strings.columns.iter_mut().for_each(|(_, interner)| interner.clear());
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let strings: usize =
            self.strings.columns.iter().map(|(_, interner)| interner.allocated_bytes()).sum();
        self.keys.allocated_bytes() + self.nulls.allocated_bytes() + self.slots.allocated_bytes() + strings
    }
}

impl<W: Word> Strings<W> {
    /// The hash of a key.
    #[inline(always)]
    fn hash(&self, columns: &[Column], key: W, nulls: u32) -> u64 {
        if self.columns.is_empty() {
            return hash_with_nulls(key, nulls);
        }
        let mut hash = hash_with_nulls(key & self.others, nulls);
        for (at, interner) in &self.columns {
            if nulls >> at & 1 == 0 {
                let code = key.take(columns[*at].shift) as u32;
                hash = hash_word(hash ^ interner.hash(code));
            }
        }
        hash
    }
}

impl<W: Word> BatchKeys<W> {
    /// Puts the numbers of a column of strings into the keys, its nulls into the masks.
    fn place_codes(&mut self, vector: &Vector, codes: &[u32], shift: u32, at: usize, rows: Rows<'_>) {
        let is_nowhere_null = match vector {
            Vector::Flat(flat) => flat.validity.is_none(),
            Vector::Dict { validity, .. } => validity.is_none(),
            Vector::Constant { value, .. } => !value.is_null(),
        };
        if is_nowhere_null {
            for (key, &code) in self.keys.iter_mut().zip(codes) {
                *key |= W::place(code.into(), shift);
            }
            return;
        }
        self.start_nulls();
        for (k, (key, nulls)) in self.keys.iter_mut().zip(self.nulls.iter_mut()).enumerate() {
            if vector.is_null(rows.position(k)) {
                *nulls |= 1 << at;
            } else {
                *key |= W::place(codes[k].into(), shift);
            }
        }
    }

    fn encode_column(
        &mut self,
        vector: &Vector,
        column: &Column,
        at: usize,
        rows: Rows<'_>,
    ) -> Result<(), Error> {
        let (low, shift) = (low_bits(column.bits), column.shift);
        let (values, codes, validity) = match KeyColumn::new(vector) {
            KeyColumn::Constant(value) => {
                match constant_bits(value) {
                    Some(bits) => {
                        let placed = W::place(bits & low, shift);
                        self.keys.iter_mut().for_each(|key| *key |= placed);
                    }
                    None => {
                        self.start_nulls();
                        self.nulls.iter_mut().for_each(|nulls| *nulls |= 1 << at);
                    }
                }
                return Ok(());
            }
            KeyColumn::Values { values, codes, validity } => (values, codes, validity),
        };
        for_each_values!(
            values,
            fixed(v, V) => self.place(codes, validity, rows, at, |place| W::place(v[place].key_bits() & low, shift)),
            bool(b) => self.place(codes, validity, rows, at, |place| W::place(b.get(place).key_bits(), shift)),
            view(s) => return Err(misplaced(s.len())),
            nested(n) => return Err(misplaced(n.len())),
        );
        Ok(())
    }

    /// Puts a column's placed bits into the keys, its nulls into the masks.
    #[inline(always)]
    fn place(
        &mut self,
        codes: Option<&[u32]>,
        validity: Option<&crate::data::Bitmap>,
        rows: Rows<'_>,
        at: usize,
        placed: impl Fn(usize) -> W,
    ) {
        let place = |row: usize| codes.map_or(row, |codes| codes[row] as usize);
        let keys: &mut [W] = &mut self.keys;
        let Some(validity) = validity else {
            match (rows, codes) {
                (Rows::All(_), None) => {
                    keys.iter_mut().enumerate().for_each(|(row, key)| *key |= placed(row));
                }
                (_, _) => {
                    for (k, key) in keys.iter_mut().enumerate() {
                        *key |= placed(place(rows.position(k)));
                    }
                }
            }
            return;
        };
        self.start_nulls();
        for (k, (key, nulls)) in self.keys.iter_mut().zip(self.nulls.iter_mut()).enumerate() {
            let row = rows.position(k);
            if validity.get(row) {
                *key |= placed(place(row));
            } else {
                *nulls |= 1 << at;
            }
        }
    }

    fn start_nulls(&mut self) {
        if !self.has_nulls {
            self.has_nulls = true;
            self.nulls.fill(0);
        }
    }

    #[inline(always)]
    fn null_mask(&self, k: usize) -> u32 {
        if self.has_nulls { self.nulls[k] } else { 0 }
    }
}

#[inline(always)]
fn null_mask(nulls: &[u32], at: u32) -> u32 {
    if nulls.is_empty() { 0 } else { nulls[at as usize] }
}

#[inline(always)]
fn hash_with_nulls<W: Word>(key: W, nulls: u32) -> u64 {
    let hash = key.hash();
    if nulls == 0 { hash } else { hash_word(hash ^ u64::from(nulls)) }
}

fn misplaced(len: usize) -> Error {
    Error::internal(format!("{len} values without a fixed width came as a packed group key"))
}
