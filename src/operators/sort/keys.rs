//! Sort keys as bytes whose order as unsigned bytes is the order of the rows.
//!
//! A row's key is its columns' encodings one after the other, most significant first. No encoding of a value is a
//! prefix of that of another value of the same column, so later columns count only among equals.
//!
//! - A nullable column begins with a byte that puts nulls before or behind everything else.
//! - Integers, decimals, dates and times of 32 bits and more begin with a byte that tells their sign and how many bytes
//!   come after it, which are those that zeros or, of negative numbers, ones do not fill: what is close to zero is short,
//!   in whatever width it comes. The first byte is also that of a null.
//! - Smaller integers are big-endian with the sign bit flipped; a float's bits are flipped so that they ascend, after -0.0
//!   has become 0.0 and every NaN the greatest one.
//! - In strings a zero byte is followed by 0xFF, and two zero bytes end them.
//! - Descending columns have all bits of a value flipped.

use super::SortKey;
use crate::data::{BufMut, DataType, FlatVector, PhysicalType, StringViews, Values};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};

/// Bytes of a key that are compared as one number before anything else is looked at.
pub(super) const PREFIX_BYTES: usize = 8;

const NULL_FIRST: u8 = 0x00;
const VALID: u8 = 0x01;
const NULL_LAST: u8 = 0xFF;

/// What an integer of no bytes begins with that is not negative, which is 0; one byte less is of -1.
const ZERO: u8 = 0x80;

/// The first bytes of a key as a number of the same order, zeros behind a shorter key.
pub(in crate::operators) fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; PREFIX_BYTES];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

/// Bytes of a key that a merge compares as one number.
pub(super) const WIDE_PREFIX_BYTES: usize = 16;

/// As [`prefix`], of twice as many bytes. Keys are no prefixes of each other, so one that ends within its prefix equals
/// every key of the same prefix.
pub(super) fn wide_prefix(key: &[u8]) -> u128 {
    match key.first_chunk() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => {
            let (high, low) = key.split_at(key.len().min(PREFIX_BYTES));
            u128::from(prefix(high)) << 64 | u128::from(prefix(low))
        }
    }
}

/// Keys of rows, one after the other.
pub(in crate::operators) struct Keys {
    /// Where each key begins, and where the last one ends.
    pub(super) offsets: BufMut<u32>,
    pub(super) bytes: BufMut<u8>,
}

impl Keys {
    /// No keys, with room for some.
    pub(in crate::operators) fn new(account: &Account) -> Result<Self, Denied> {
        let mut offsets = BufMut::with_capacity(account, 1)?;
        offsets.push(0);
        Ok(Self { offsets, bytes: BufMut::with_capacity(account, 1)? })
    }

    /// Number of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Key number `row`.
    pub(in crate::operators) fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// Forgets the keys and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.offsets.set_len(1);
        self.bytes.set_len(0);
    }

    /// Forgets the keys and gives back the memory of their bytes.
    pub(super) fn release(&mut self) {
        self.clear();
        self.bytes = BufMut::empty();
    }

    /// Makes room for `rows` more keys of `bytes` in all.
    pub(super) fn reserve(&mut self, rows: usize, bytes: usize, account: &Account) -> Result<()> {
        let end = self.bytes.len() + bytes;
        if u32::try_from(end).is_err() {
            return Err(Error::unsupported("sort keys of 4 GiB in one batch", None));
        }
        self.offsets.reserve(account, self.offsets.len() + rows)?;
        self.bytes.reserve(account, end)?;
        Ok(())
    }
}

/// How one column is encoded.
#[derive(Clone, Copy, Debug)]
struct ColumnEncoding {
    /// What a null begins with, if there can be one.
    null: Option<u8>,
    /// Flipped into every byte of a value.
    flip: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Always null.
    Null,
    /// Of so many bytes.
    Fixed(usize),
    /// Of as many bytes as it takes.
    Integer,
    /// Months, days and nanoseconds, which compare as a length of time: a month is 30 days.
    Interval,
    /// Bytes of any number.
    Bytes,
}

/// Makes keys of evaluated columns.
#[derive(Debug)]
pub(in crate::operators) struct KeyEncoder {
    columns: Vec<ColumnEncoding>,
}

impl KeyEncoder {
    /// An encoder for the order of `keys`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for keys of nested types, which have no order yet.
    pub(in crate::operators) fn new(keys: &[SortKey]) -> Result<Self> {
        let column = |key: &SortKey| {
            let data_type = key.expr.data_type();
            let kind = match (&data_type, data_type.physical()) {
                (DataType::Null, _) => Kind::Null,
                (DataType::Interval, _) => Kind::Interval,
                (DataType::Decimal { .. }, _)
                | (
                    _,
                    PhysicalType::I32
                    | PhysicalType::U32
                    | PhysicalType::I64
                    | PhysicalType::U64
                    | PhysicalType::I128,
                ) => Kind::Integer,
                (_, PhysicalType::View) => Kind::Bytes,
                (_, PhysicalType::Nested) => {
                    return Err(Error::unsupported(format!("ORDER BY a value of type {data_type}"), None));
                }
                (_, PhysicalType::Bool | PhysicalType::I8 | PhysicalType::U8) => Kind::Fixed(1),
                (_, PhysicalType::I16 | PhysicalType::U16) => Kind::Fixed(2),
                (_, PhysicalType::F32) => Kind::Fixed(4),
                (_, PhysicalType::F64) => Kind::Fixed(8),
            };
            let is_nullable = key.nullable || kind == Kind::Null;
            let null = if key.nulls_first { NULL_FIRST } else { NULL_LAST };
            let flip = if key.descending { 0xFF } else { 0x00 };
            Ok(ColumnEncoding { null: is_nullable.then_some(null), flip, kind })
        };
        Ok(Self { columns: keys.iter().map(column).collect::<Result<_>>()? })
    }

    /// Whether one of the columns that `strict` is true for is null in `key`.
    pub(in crate::operators) fn has_null(&self, key: &[u8], strict: &[bool]) -> bool {
        let mut rest = key;
        for (column, is_strict) in self.columns.iter().zip(strict) {
            let is_null = column.null.is_some() && rest.first().copied() == column.null;
            if is_null && *is_strict {
                return true;
            }
            let lead = column.lead_bytes();
            let len =
                if is_null { 1 } else { lead + column.encoded_len(rest.get(lead..).unwrap_or_default()) };
            rest = rest.get(len..).unwrap_or_default();
        }
        false
    }

    /// Sets `keys` to the keys of `rows` (positions in `columns`, one vector for each key column).
    pub(in crate::operators) fn encode(
        &self,
        columns: &[FlatVector],
        rows: &[u32],
        keys: &mut Keys,
        account: &Account,
    ) -> Result<()> {
        keys.clear();
        // First how long each key is, then the bytes column by column, each row's end moving forward.
        let mut ends = BufMut::<u32>::zeroed(account, rows.len())?;
        for (encoding, column) in self.columns.iter().zip(columns) {
            encoding.check(column)?;
            for (end, &row) in ends.iter_mut().zip(rows) {
                *end = end.saturating_add(encoding.len(column, row as usize) as u32);
            }
        }
        let total: u64 = ends.iter().map(|len| u64::from(*len)).sum();
        keys.reserve(rows.len(), usize::try_from(total).unwrap_or(usize::MAX), account)?;
        keys.bytes.set_len(total as usize);
        let mut at = 0;
        for end in ends.iter_mut() {
            let len = std::mem::replace(end, at);
            at += len;
            keys.offsets.push(at);
        }
        for (encoding, column) in self.columns.iter().zip(columns) {
            encoding.write(column, rows, &mut ends, &mut keys.bytes)?;
        }
        Ok(())
    }
}

impl ColumnEncoding {
    /// A column said to be without nulls must be.
    fn check(&self, column: &FlatVector) -> Result<()> {
        let has_nulls = column.validity.as_ref().is_some_and(|v| v.count_ones() < v.len());
        if has_nulls && self.null.is_none() {
            return Err(Error::internal("a sort key is null where its type says it cannot be"));
        }
        Ok(())
    }

    /// Bytes that tell a value from null and nothing else.
    fn lead_bytes(&self) -> usize {
        usize::from(self.null.is_some() && self.kind != Kind::Integer)
    }

    /// Bytes of the encoded value that `bytes` begin with.
    fn encoded_len(&self, bytes: &[u8]) -> usize {
        let is = |at: usize, byte: u8| bytes.get(at).is_some_and(|found| found ^ self.flip == byte);
        match self.kind {
            Kind::Null => 0,
            Kind::Fixed(len) => len,
            Kind::Interval => 16,
            Kind::Integer => {
                let first = bytes.first().map_or(ZERO, |first| first ^ self.flip);
                1 + usize::from(if first < ZERO { ZERO - 1 - first } else { first - ZERO })
            }
            Kind::Bytes => {
                let mut at = 0;
                while at < bytes.len() && !(is(at, 0) && is(at + 1, 0)) {
                    at += if is(at, 0) { 2 } else { 1 };
                }
                at + 2
            }
        }
    }

    /// Bytes of the encoding of one row.
    fn len(&self, column: &FlatVector, row: usize) -> usize {
        if self.kind == Kind::Null || (self.null.is_some() && column.is_null(row)) {
            return 1;
        }
        self.lead_bytes()
            + match (self.kind, &column.values) {
                (Kind::Fixed(bytes), _) => bytes,
                (Kind::Interval, _) => 16,
                (Kind::Integer, Values::I32(v)) => integer_len(v[row].into()),
                (Kind::Integer, Values::U32(v)) => integer_len(v[row].into()),
                (Kind::Integer, Values::I64(v)) => integer_len(v[row]),
                (Kind::Integer, Values::U64(v)) => wide_len(v[row].into()),
                (Kind::Integer, Values::I128(v)) => wide_len(v[row]),
                (Kind::Bytes, Values::View(strings)) => escaped_len(strings, row),
                (Kind::Null | Kind::Bytes | Kind::Integer, _) => 0,
            }
    }

    /// Writes null bytes, and what `write` makes of each row that is not null.
    fn each(
        &self,
        column: &FlatVector,
        rows: &[u32],
        ats: &mut [u32],
        bytes: &mut [u8],
        write: impl Fn(usize, &mut [u8]) -> usize,
    ) {
        for (at, &row) in ats.iter_mut().zip(rows) {
            let (row, mut to) = (row as usize, &mut bytes[*at as usize..]);
            if let Some(null) = self.null {
                // It is the first byte of an integer, too.
                let lead = self.lead_bytes();
                let is_null = self.kind == Kind::Null || column.is_null(row);
                if is_null {
                    to[0] = null;
                    *at += 1;
                    continue;
                }
                to[..lead].fill(VALID);
                *at += lead as u32;
                to = &mut to[lead..];
            }
            let len = write(row, to);
            if self.flip != 0 {
                to[..len].iter_mut().for_each(|byte| *byte ^= self.flip);
            }
            *at += len as u32;
        }
    }

    /// Writes the rows' encodings where `ats` say and moves those behind them.
    fn write(&self, column: &FlatVector, rows: &[u32], ats: &mut [u32], bytes: &mut [u8]) -> Result<()> {
        macro_rules! each {
            ($write:expr) => {
                self.each(column, rows, ats, bytes, $write)
            };
        }
        fn put<const N: usize>(to: &mut [u8], bytes: [u8; N]) -> usize {
            to[..N].copy_from_slice(&bytes);
            N
        }
        match (self.kind, &column.values) {
            (Kind::Null, _) => each!(|_, _| 0),
            (Kind::Interval, Values::I128(v)) => {
                each!(|row, to| put(to, (interval_nanos(v[row]) ^ i128::MIN).to_be_bytes()));
            }
            (Kind::Integer, Values::I32(v)) => each!(|row, to| put_integer(to, v[row].into())),
            (Kind::Integer, Values::U32(v)) => each!(|row, to| put_integer(to, v[row].into())),
            (Kind::Integer, Values::I64(v)) => each!(|row, to| put_integer(to, v[row])),
            (Kind::Integer, Values::U64(v)) => each!(|row, to| put_wide(to, v[row].into())),
            (Kind::Integer, Values::I128(v)) => each!(|row, to| put_wide(to, v[row])),
            (Kind::Bytes, Values::View(strings)) => each!(|row, to| put_escaped(to, strings.get(row))),
            (Kind::Fixed(1), Values::Bool(b)) => each!(|row, to| put(to, [u8::from(b.get(row))])),
            (Kind::Fixed(1), Values::I8(v)) => each!(|row, to| put(to, (v[row] ^ i8::MIN).to_be_bytes())),
            (Kind::Fixed(2), Values::I16(v)) => {
                each!(|row, to| put(to, (v[row] ^ i16::MIN).to_be_bytes()));
            }
            (Kind::Fixed(1), Values::U8(v)) => each!(|row, to| put(to, [v[row]])),
            (Kind::Fixed(2), Values::U16(v)) => each!(|row, to| put(to, v[row].to_be_bytes())),
            (Kind::Fixed(4), Values::F32(v)) => {
                each!(|row, to| put(to, ordered_f32(v[row]).to_be_bytes()));
            }
            (Kind::Fixed(8), Values::F64(v)) => {
                each!(|row, to| put(to, ordered_f64(v[row]).to_be_bytes()));
            }
            (_, other) => {
                let found = other.physical();
                return Err(Error::internal(format!("a sort key of kind {:?} came as {found:?}", self.kind)));
            }
        }
        Ok(())
    }
}

/// Bytes of an encoded integer.
#[inline]
fn integer_len(value: i64) -> usize {
    // Of negative numbers as many bits as of what is one less of the other sign.
    let bits = i64::BITS - (value ^ (value >> 63)).leading_zeros();
    1 + bits.div_ceil(8) as usize
}

/// The same of any width; those that fit 64 bits are as long as these.
fn wide_len(value: i128) -> usize {
    let bits = i128::BITS - (value ^ (value >> 127)).leading_zeros();
    1 + bits.div_ceil(8) as usize
}

#[inline]
fn put_integer(to: &mut [u8], value: i64) -> usize {
    let len = integer_len(value) - 1;
    to[0] = first_byte(len, value < 0);
    let bytes = value.to_be_bytes();
    // Copies of a length that is known take an instruction or two.
    macro_rules! copy {
        ($($len:literal)*) => {
            match len {
                $($len => to[1..=$len].copy_from_slice(&bytes[8 - $len..]),)*
                _ => {}
            }
        };
    }
    copy!(1 2 3 4 5 6 7 8);
    1 + len
}

fn put_wide(to: &mut [u8], value: i128) -> usize {
    let len = wide_len(value) - 1;
    to[0] = first_byte(len, value < 0);
    let bytes = value.to_be_bytes();
    to[1..=len].copy_from_slice(&bytes[bytes.len() - len..]);
    1 + len
}

#[inline]
fn first_byte(len: usize, is_negative: bool) -> u8 {
    if is_negative { ZERO - 1 - len as u8 } else { ZERO + len as u8 }
}

fn escaped_len(strings: &StringViews, row: usize) -> usize {
    let value = strings.get(row);
    value.len() + value.iter().filter(|byte| **byte == 0).count() + 2
}

fn put_escaped(to: &mut [u8], value: &[u8]) -> usize {
    let mut at = 0;
    if value.contains(&0) {
        for &byte in value {
            to[at] = byte;
            at += 1;
            if byte == 0 {
                to[at] = 0xFF;
                at += 1;
            }
        }
    } else {
        to[..value.len()].copy_from_slice(value);
        at = value.len();
    }
    to[at..at + 2].copy_from_slice(&[0, 0]);
    at + 2
}

/// Nanoseconds of a packed interval (months, days, nanoseconds from the high end).
fn interval_nanos(packed: i128) -> i128 {
    const DAY: i128 = 24 * 60 * 60 * 1_000_000_000;
    let (months, days, nanos) = ((packed >> 96) as i32, (packed >> 64) as i32, packed as i64);
    (i128::from(months) * 30 + i128::from(days)) * DAY + i128::from(nanos)
}

fn ordered_f32(value: f32) -> u32 {
    let bits = if value.is_nan() { f32::NAN.abs().to_bits() } else { (value + 0.0).to_bits() };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn ordered_f64(value: f64) -> u64 {
    let bits = if value.is_nan() { f64::NAN.abs().to_bits() } else { (value + 0.0).to_bits() };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Harness;
    use super::*;
    use crate::data::{BitmapMut, Plain, Scalar, ViewBuilder};
    use crate::expr::{ColumnId, Expr};
    use std::cmp::Ordering;

    fn key(data_type: DataType, nullable: bool, descending: bool, nulls_first: bool) -> SortKey {
        let expr = Expr::Column { id: ColumnId(0), data_type, nullable };
        SortKey { expr, nullable, descending, nulls_first }
    }

    fn flat<T: Plain>(
        harness: &Harness,
        values: &[T],
        of: impl Fn(crate::data::Buf<T>) -> Values,
    ) -> FlatVector {
        FlatVector::new(of(BufMut::copy_of(&harness.account, values).expect("fits").freeze()))
    }

    fn strings(harness: &Harness, values: &[&[u8]]) -> FlatVector {
        let mut builder = ViewBuilder::new(&harness.account, values.len()).expect("fits");
        values.iter().for_each(|v| builder.push(&harness.account, v).expect("fits"));
        FlatVector::new(Values::View(builder.freeze()))
    }

    fn encode(harness: &Harness, keys: &[SortKey], columns: &[FlatVector]) -> Vec<Vec<u8>> {
        let encoder = KeyEncoder::new(keys).expect("sortable");
        let rows: Vec<u32> = (0..columns[0].len() as u32).collect();
        let mut out = Keys::new(&harness.account).expect("fits");
        encoder.encode(columns, &rows, &mut out, &harness.account).expect("fits");
        (0..out.len()).map(|row| out.get(row).to_vec()).collect()
    }

    /// Every pair of rows compares by its keys as by `order`, either way and with nulls anywhere.
    fn assert_order(data_type: &DataType, column: &FlatVector, order: impl Fn(usize, usize) -> Ordering) {
        let harness = Harness::new(4 << 20);
        for nullable in [false, true] {
            for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut column = column.clone();
                if nullable {
                    let mut bits = BitmapMut::with_len(&harness.account, column.len()).expect("fits");
                    bits.fill_from(|row| row % 3 != 0);
                    column.validity = Some(bits.freeze());
                }
                let key = key(data_type.clone(), nullable, descending, nulls_first);
                let keys = encode(&harness, &[key], std::slice::from_ref(&column));
                for a in 0..column.len() {
                    for b in 0..column.len() {
                        let expected = match (column.is_null(a), column.is_null(b)) {
                            (true, true) => Ordering::Equal,
                            (true, false) if nulls_first => Ordering::Less,
                            (false, true) if !nulls_first => Ordering::Less,
                            (true, false) | (false, true) => Ordering::Greater,
                            (false, false) if descending => order(b, a),
                            (false, false) => order(a, b),
                        };
                        assert_eq!(keys[a].cmp(&keys[b]), expected, "{data_type}: rows {a} and {b}");
                        if keys[a].cmp(&keys[b]).is_lt() {
                            assert!(prefix(&keys[a]) <= prefix(&keys[b]));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn keys_order_as_values_do() {
        let harness = Harness::new(4 << 20);
        macro_rules! ints {
            ($t:ty, $variant:ident, $data_type:expr) => {
                let values = [<$t>::MIN, <$t>::MIN + 1, 0, 1, 2, 77, <$t>::MAX - 1, <$t>::MAX, 5, 5];
                let column = flat(&harness, &values, Values::$variant);
                assert_order(&$data_type, &column, |a, b| values[a].cmp(&values[b]));
            };
        }
        ints!(i8, I8, DataType::Int8);
        ints!(i16, I16, DataType::Int16);
        ints!(i32, I32, DataType::Date);
        ints!(i64, I64, DataType::Int64);
        ints!(u8, U8, DataType::UInt8);
        ints!(u16, U16, DataType::UInt16);
        ints!(u32, U32, DataType::UInt32);
        ints!(u64, U64, DataType::UInt64);
        ints!(i128, I128, DataType::Int128);
        ints!(i64, I64, DataType::Decimal { precision: 15, scale: 2 });
        let mixed =
            [i128::from(i64::MIN) - 1, i64::MIN.into(), -1, i64::MAX.into(), i128::from(i64::MAX) + 1];
        let column = flat(&harness, &mixed, Values::I128);
        assert_order(&DataType::Decimal { precision: 38, scale: 0 }, &column, |a, b| mixed[a].cmp(&mixed[b]));
    }

    #[test]
    fn floats_follow_sql_order() {
        let harness = Harness::new(4 << 20);
        let values = [-0.0, 0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.5, -1.5, 5e-324];
        let order =
            |a: usize, b: usize| Scalar::float(values[a]).compare(&Scalar::float(values[b])).expect("floats");
        assert_order(&DataType::Float64, &flat(&harness, &values, Values::F64), order);
        let narrow = values.map(|v| v as f32);
        let order = |a: usize, b: usize| {
            let of = |at: usize| Scalar::float(narrow[at].into());
            of(a).compare(&of(b)).expect("floats")
        };
        assert_order(&DataType::Float32, &flat(&harness, &narrow, Values::F32), order);
    }

    #[test]
    fn strings_order_by_their_bytes_whatever_they_hold() {
        let harness = Harness::new(4 << 20);
        let values: [&[u8]; 11] = [
            b"",
            b"\0",
            b"\0\0",
            b"\0\xFF",
            b"\x01",
            b"a",
            b"a\0",
            b"a\0b",
            b"aa",
            b"a string of more than twelve bytes",
            b"\xFF",
        ];
        assert_order(&DataType::Binary, &strings(&harness, &values), |a, b| values[a].cmp(values[b]));
    }

    #[test]
    fn intervals_order_by_their_length() {
        let harness = Harness::new(4 << 20);
        let pack = |months: i128, days: i128, nanos: i128| months << 96 | days << 64 | nanos;
        let values =
            [pack(1, 0, 0), pack(0, 29, 0), pack(0, 30, 0), pack(0, 30, 1), pack(0, 0, 5), pack(2, 0, 0)];
        let ranks = [3, 2, 3, 4, 1, 5];
        let column = flat(&harness, &values, Values::I128);
        assert_order(&DataType::Interval, &column, |a, b| ranks[a].cmp(&ranks[b]));
    }

    #[test]
    fn later_columns_count_among_equals_only() {
        let harness = Harness::new(4 << 20);
        let first: [&[u8]; 6] = [b"a", b"a", b"a\0", b"ab", b"b", b"b"];
        let second = [9i64, 3, 1, 0, 5, 5];
        let columns = [strings(&harness, &first), flat(&harness, &second, Values::I64)];
        let keys = [key(DataType::Utf8, true, false, true), key(DataType::Int64, false, true, true)];
        let keys = encode(&harness, &keys, &columns);
        for a in 0..6 {
            for b in 0..6 {
                let expected = first[a].cmp(first[b]).then(second[b].cmp(&second[a]));
                assert_eq!(keys[a].cmp(&keys[b]), expected);
            }
        }
    }

    #[test]
    fn nulls_are_found_in_keys_wherever_they_are() {
        let harness = Harness::new(4 << 20);
        let text: [&[u8]; 6] = [b"", b"\0", b"a\0b", b"plain", b"\0\0", b"\xFF\0"];
        let wide = [0, i128::MAX, -1, i128::MIN, 1 << 70, 7];
        let with_nulls = |mut column: FlatVector, every: usize| {
            let mut bits = BitmapMut::with_len(&harness.account, 6).expect("fits");
            bits.fill_from(|row| row % every != 0);
            column.validity = Some(bits.freeze());
            column
        };
        let columns = [
            with_nulls(strings(&harness, &text), 2),
            with_nulls(flat(&harness, &wide, Values::I128), 3),
            with_nulls(flat(&harness, &[1i64, 2, 3, 4, 5, 6], Values::I64), 5),
        ];
        let types = [DataType::Binary, DataType::Decimal { precision: 38, scale: 0 }, DataType::Int64];
        for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let keys: Vec<_> = types.iter().map(|t| key(t.clone(), true, descending, nulls_first)).collect();
            let encoder = KeyEncoder::new(&keys).expect("sortable");
            for (row, key) in encode(&harness, &keys, &columns).iter().enumerate() {
                for strict in 0..8usize {
                    let strict = [strict & 1 > 0, strict & 2 > 0, strict & 4 > 0];
                    let expected = (0..3).any(|at| strict[at] && columns[at].is_null(row));
                    assert_eq!(encoder.has_null(key, &strict), expected, "row {row}, {strict:?}");
                }
            }
        }
    }

    #[test]
    fn nulls_where_none_can_be_and_nested_keys_are_errors() {
        let harness = Harness::new(4 << 20);
        let mut column = flat(&harness, &[1i64, 2], Values::I64);
        column.validity = Some(BitmapMut::with_len(&harness.account, 2).expect("fits").freeze());
        let encoder = KeyEncoder::new(&[key(DataType::Int64, false, false, false)]).expect("sortable");
        let mut keys = Keys::new(&harness.account).expect("fits");
        let error = encoder.encode(&[column], &[0, 1], &mut keys, &harness.account);
        assert!(matches!(error, Err(Error::Internal(_))));
        let list = arrow::datatypes::Field::new_list_field(arrow::datatypes::DataType::Int8, true);
        let list = DataType::Nested(arrow::datatypes::DataType::List(list.into()).into());
        assert!(matches!(KeyEncoder::new(&[key(list, true, false, false)]), Err(Error::Unsupported(_))));
    }
}
