//! Keys of any types as bytes, equal exactly where the keys are equal.
//!
//! Invariants:
//! 1. A key's bytes are: a bit per column that is null, then values of fixed width (zero where null) and lengths of
//!    strings (zero where null) in column order, then the bytes of the strings. The head tells the length of the whole,
//!    so no key is a prefix of another.
//! 2. Keys of all groups lie in chunks that never move; a location is the chunk above the offset in it.

use super::hash::{bytes_hasher, hash_bytes, prefetch};
use super::keys::{Growth, Halt, KeyBits, KeyColumn, constant_bits, resize, values_from_bits};
use super::slots::Slots;
use crate::data::{
    BitmapMut, BufMut, DataType, FlatVector, PhysicalType, Values, Vector, ViewBuilder, for_each_values,
};
use crate::error::Error;
use crate::functions::aggregate::{GroupSet, Rows};
use crate::mem::{Account, Denied};
use foldhash::quality::FixedState;

const LENGTH_BYTES: usize = size_of::<u32>();
const FIRST_CHUNK_BYTES: usize = 4 << 10;
const LARGEST_CHUNK_BYTES: usize = 1 << 20;
/// Keys of another table fetched ahead of the one being copied.
const COPY_AHEAD: usize = 12;

struct Column {
    data_type: DataType,
    /// Where its value or length lies in the head.
    offset: usize,
    width: usize,
    is_string: bool,
    /// Whether a key of a group may be null here.
    has_nulls: bool,
}

/// Keys by group, and those of the batch at hand.
pub(super) struct RowKeys {
    columns: Vec<Column>,
    head_bytes: usize,
    chunks: Vec<BufMut<u8>>,
    locations: BufMut<u64>,
    lengths: BufMut<u32>,
    hashes: BufMut<u64>,
    slots: Slots,
    batch: BatchRows,
    hasher: FixedState,
}

/// The encoded rows of a batch; scratch.
struct BatchRows {
    bytes: BufMut<u8>,
    /// Where each row starts, and where the last one ends.
    offsets: BufMut<u64>,
    /// Where each row's next string goes.
    cursors: BufMut<u64>,
    hashes: BufMut<u64>,
}

impl RowKeys {
    /// No groups of keys of `types`.
    pub(super) fn new(types: &[DataType]) -> Self {
        let mut head_bytes = types.len().div_ceil(8);
        let columns = types.iter().map(|data_type| {
            let is_string = data_type.physical() == PhysicalType::View;
            let width = if is_string { LENGTH_BYTES } else { data_type.value_bytes() };
            head_bytes += width;
            Column {
                data_type: data_type.clone(),
                offset: head_bytes - width,
                width,
                is_string,
                has_nulls: false,
            }
        });
        let columns = columns.collect();
        let batch = BatchRows {
            bytes: BufMut::empty(),
            offsets: BufMut::empty(),
            cursors: BufMut::empty(),
            hashes: BufMut::empty(),
        };
        Self {
            columns,
            head_bytes,
            chunks: Vec::new(),
            locations: BufMut::empty(),
            lengths: BufMut::empty(),
            hashes: BufMut::empty(),
            slots: Slots::new(),
            batch,
            hasher: bytes_hasher(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.locations.len()
    }

    /// Encodes and hashes the rows that count.
    pub(super) fn encode(
        &mut self,
        vectors: &[Vector],
        rows: Rows<'_>,
        account: &Account,
    ) -> Result<(), Halt> {
        let batch = &mut self.batch;
        let count = rows.len();
        resize(&mut batch.hashes, count, account)?;
        resize(&mut batch.cursors, count, account)?;
        resize(&mut batch.offsets, count + 1, account)?;
        batch.cursors.fill(self.head_bytes as u64);
        let strings = vectors.iter().zip(&self.columns).filter(|(_, column)| column.is_string);
        for (vector, _) in strings {
            for_each_string(vector, rows, |k, string| batch.cursors[k] += string.len() as u64)?;
        }
        let mut end = 0;
        for (offset, cursor) in batch.offsets.iter_mut().zip(batch.cursors.iter_mut()) {
            *offset = end;
            end += *cursor;
            *cursor = *offset + self.head_bytes as u64;
        }
        batch.offsets[count] = end;
        resize(&mut batch.bytes, end as usize, account)?;
        let null_bytes = self.columns.len().div_ceil(8);
        for &offset in &batch.offsets[..count] {
            batch.bytes[offset as usize..][..null_bytes].fill(0);
        }
        for (at, (vector, column)) in vectors.iter().zip(&mut self.columns).enumerate() {
            column.has_nulls |= match vector {
                Vector::Constant { value, .. } => value.is_null(),
                Vector::Flat(flat) => flat.validity.is_some(),
                Vector::Dict { validity, .. } => validity.is_some(),
            };
            if column.is_string {
                batch.encode_strings(vector, column, at, rows)?;
            } else {
                batch.encode_fixed(vector, column, at, rows)?;
            }
        }
        let BatchRows { bytes, offsets, hashes, .. } = batch;
        for (hash, ends) in hashes.iter_mut().zip(offsets.windows(2)) {
            *hash = hash_bytes(&self.hasher, &bytes[ends[0] as usize..ends[1] as usize]);
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
        let (batch, count) = (&mut self.batch, groups.len());
        resize(&mut batch.hashes, count, account)?;
        resize(&mut batch.offsets, count + 1, account)?;
        let mut end = 0;
        for i in 0..count {
            let group = groups.group(i);
            batch.offsets[i] = end;
            batch.hashes[i] = other.hashes[group];
            end += u64::from(other.lengths[group]);
        }
        batch.offsets[count] = end;
        resize(&mut batch.bytes, end as usize, account)?;
        for i in 0..count {
            if i + COPY_AHEAD < count
                && let Some(first) = other.key(groups.group(i + COPY_AHEAD)).first()
            {
                prefetch(first);
            }
            let (from, to) = (batch.offsets[i] as usize, batch.offsets[i + 1] as usize);
            batch.bytes[from..to].copy_from_slice(other.key(groups.group(i)));
        }
        for (mine, others) in self.columns.iter_mut().zip(&other.columns) {
            mine.has_nulls |= others.has_nulls;
        }
        Ok(())
    }

    pub(super) fn find(&self, ids: &mut [u32], missing: &mut BufMut<u32>) {
        let is_equal = |k: usize, group: u32| self.key(group as usize) == self.batch.row(k);
        let fetch = |group: u32| {
            prefetch(&self.locations[group as usize]);
            prefetch(&self.lengths[group as usize]);
        };
        self.slots.find_all(&self.batch.hashes, ids, missing, is_equal, fetch);
    }

    pub(super) fn reserve(&mut self, missing: &[u32], growth: &Growth<'_>) -> Result<(), Halt> {
        let account = growth.account;
        let groups = self.len() + missing.len();
        self.locations.reserve(account, groups)?;
        self.lengths.reserve(account, groups)?;
        self.hashes.reserve(account, groups)?;
        let bytes: usize = missing.iter().map(|&k| self.batch.row(k as usize).len()).sum();
        let last = self.chunks.last();
        if last.is_none_or(|chunk| chunk.capacity() - chunk.len() < bytes) {
            let next = last.map_or(0, |chunk| 2 * chunk.capacity());
            let next = next.clamp(FIRST_CHUNK_BYTES, LARGEST_CHUNK_BYTES).max(bytes);
            self.chunks.push(BufMut::with_capacity(account, next)?);
        }
        let hashes: &[u64] = &self.hashes;
        self.slots.reserve(hashes.len(), missing.len(), |group| hashes[group], account, || growth.check())
    }

    pub(super) fn insert(&mut self, ids: &mut [u32], missing: &[u32]) {
        struct Stored<'a> {
            chunks: &'a mut [BufMut<u8>],
            locations: &'a mut BufMut<u64>,
            lengths: &'a mut BufMut<u32>,
            hashes: &'a mut BufMut<u64>,
        }
        let batch = &self.batch;
        let mut stored = Stored {
            chunks: &mut self.chunks,
            locations: &mut self.locations,
            lengths: &mut self.lengths,
            hashes: &mut self.hashes,
        };
        self.slots.insert_all(
            &batch.hashes,
            ids,
            missing,
            &mut stored,
            |stored, k, group| {
                let (location, length) = (stored.locations[group as usize], stored.lengths[group as usize]);
                key_at(stored.chunks, location, length) == batch.row(k)
            },
            |stored, k| {
                let key = batch.row(k);
                let last = stored.chunks.len() - 1;
                let chunk = &mut stored.chunks[last];
                stored.locations.push((last as u64) << 32 | chunk.len() as u64);
                chunk.extend_from_slice(key);
                stored.lengths.push(key.len() as u32);
                stored.hashes.push(batch.hashes[k]);
                stored.locations.len() as u32 - 1
            },
        );
    }

    #[inline]
    pub(super) fn hash(&self, group: usize) -> u64 {
        self.hashes[group]
    }

    #[inline]
    fn key(&self, group: usize) -> &[u8] {
        key_at(&self.chunks, self.locations[group], self.lengths[group])
    }

    pub(super) fn decode(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>, Denied> {
        let len = groups.len();
        // Where the next string of each key starts.
        let mut cursors: BufMut<u32> = BufMut::with_len(account, len)?;
        cursors.fill(self.head_bytes as u32);
        let mut decoded = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            let is_null = |i: usize| self.key(groups.group(i))[at / 8] >> (at % 8) & 1 == 1;
            let validity = if column.has_nulls && (0..len).any(is_null) {
                let mut bits = BitmapMut::with_len(account, len)?;
                bits.fill_from(|i| !is_null(i));
                Some(bits.freeze())
            } else {
                None
            };
            let values = if column.is_string {
                let mut builder = ViewBuilder::new(account, len)?;
                for (i, cursor) in cursors.iter_mut().enumerate() {
                    let key = self.key(groups.group(i));
                    let string = &key[*cursor as usize..][..read_bits(key, column) as usize];
                    builder.push(account, string)?;
                    *cursor += string.len() as u32;
                }
                Values::View(builder.freeze())
            } else {
                values_from_bits(&column.data_type, len, account, |i| {
                    read_bits(self.key(groups.group(i)), column)
                })?
            };
            decoded.push(Vector::Flat(FlatVector { values, validity, bounds: None }));
        }
        Ok(decoded)
    }

    pub(super) fn slots(&mut self) -> &mut Slots {
        &mut self.slots
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.locations = BufMut::empty();
        self.lengths = BufMut::empty();
        self.hashes = BufMut::empty();
        self.slots.clear();
        // Rows may have been long; the next batch's need not be.
        self.batch.bytes = BufMut::empty();
        self.columns.iter_mut().for_each(|column| column.has_nulls = false);
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.chunks.iter().map(BufMut::allocated_bytes).sum::<usize>()
            + self.locations.allocated_bytes()
            + self.lengths.allocated_bytes()
            + self.hashes.allocated_bytes()
            + self.slots.allocated_bytes()
    }
}

#[inline(always)]
fn key_at(chunks: &[BufMut<u8>], location: u64, length: u32) -> &[u8] {
    &chunks[(location >> 32) as usize][location as u32 as usize..][..length as usize]
}

/// The value of fixed width, or the length, that `column` has in the head of `key`.
#[inline(always)]
fn read_bits(key: &[u8], column: &Column) -> u128 {
    let from = &key[column.offset..];
    // Copies of a width known here are single moves.
    macro_rules! read {
        ($($width:literal)*) => {
            match column.width {
                $($width => {
                    let mut bytes = [0; size_of::<u128>()];
                    bytes[..$width].copy_from_slice(&from[..$width]);
                    u128::from_le_bytes(bytes)
                })*
                width => unreachable!("invariant: values are 1, 2, 4, 8 or 16 bytes wide, not {width}"),
            }
        };
    }
    read!(1 2 4 8 16)
}

/// Writes `bits` as `column`'s value into the head of `key`.
#[inline(always)]
fn write_bits(key: &mut [u8], column: &Column, bits: u128) {
    let (to, bytes) = (&mut key[column.offset..], bits.to_le_bytes());
    macro_rules! write {
        ($($width:literal)*) => {
            match column.width {
                $($width => to[..$width].copy_from_slice(&bytes[..$width]),)*
                width => unreachable!("invariant: values are 1, 2, 4, 8 or 16 bytes wide, not {width}"),
            }
        };
    }
    write!(1 2 4 8 16);
}

/// Calls `f(k, string)` for each row that counts whose string is not null.
fn for_each_string(vector: &Vector, rows: Rows<'_>, mut f: impl FnMut(usize, &[u8])) -> Result<(), Error> {
    match KeyColumn::new(vector) {
        KeyColumn::Constant(value) => {
            if let Some(string) = value.as_bytes() {
                (0..rows.len()).for_each(|k| f(k, string));
            }
        }
        KeyColumn::Values { values: Values::View(strings), codes, validity } => {
            for k in 0..rows.len() {
                let row = rows.position(k);
                if validity.is_none_or(|v| v.get(row)) {
                    f(k, strings.get(codes.map_or(row, |codes| codes[row] as usize)));
                }
            }
        }
        KeyColumn::Values { .. } => return Err(Error::internal("a string group key has other values")),
    }
    Ok(())
}

impl BatchRows {
    #[inline(always)]
    fn row(&self, k: usize) -> &[u8] {
        &self.bytes[self.offsets[k] as usize..self.offsets[k + 1] as usize]
    }

    fn set_null(&mut self, k: usize, at: usize) {
        self.bytes[self.offsets[k] as usize + at / 8] |= 1 << (at % 8);
    }

    fn encode_strings(
        &mut self,
        vector: &Vector,
        column: &Column,
        at: usize,
        rows: Rows<'_>,
    ) -> Result<(), Error> {
        // Lengths of nulls are zero; those of the others are written over.
        for &offset in &self.offsets[..rows.len()] {
            self.bytes[offset as usize + column.offset..][..LENGTH_BYTES].fill(0);
        }
        for k in (0..rows.len()).filter(|&k| vector.is_null(rows.position(k))) {
            self.bytes[self.offsets[k] as usize + at / 8] |= 1 << (at % 8);
        }
        for_each_string(vector, rows, |k, string| {
            let length = &mut self.bytes[self.offsets[k] as usize + column.offset..][..LENGTH_BYTES];
            length.copy_from_slice(&(string.len() as u32).to_le_bytes());
            let cursor = self.cursors[k] as usize;
            self.bytes[cursor..cursor + string.len()].copy_from_slice(string);
            self.cursors[k] += string.len() as u64;
        })
    }

    fn encode_fixed(
        &mut self,
        vector: &Vector,
        column: &Column,
        at: usize,
        rows: Rows<'_>,
    ) -> Result<(), Error> {
        let put = |this: &mut Self, k: usize, bits: u128| {
            write_bits(&mut this.bytes[this.offsets[k] as usize..], column, bits);
        };
        match KeyColumn::new(vector) {
            KeyColumn::Constant(value) => {
                let bits = constant_bits(value);
                for k in 0..rows.len() {
                    put(self, k, bits.unwrap_or(0));
                    if bits.is_none() {
                        self.set_null(k, at);
                    }
                }
            }
            KeyColumn::Values { values, codes, validity } => {
                let put_all = |this: &mut Self, bits: &dyn Fn(usize) -> u128| {
                    for k in 0..rows.len() {
                        let row = rows.position(k);
                        if validity.is_none_or(|v| v.get(row)) {
                            put(this, k, bits(codes.map_or(row, |codes| codes[row] as usize)));
                        } else {
                            put(this, k, 0);
                            this.set_null(k, at);
                        }
                    }
                };
                for_each_values!(
                    values,
                    fixed(v, V) => put_all(self, &|place| v[place].key_bits()),
                    bool(b) => put_all(self, &|place| b.get(place).key_bits()),
                    view(_s) => return Err(Error::internal("a group key of fixed width has strings")),
                    nested(_n) => return Err(Error::internal("a group key of fixed width is nested")),
                );
            }
        }
        Ok(())
    }
}
