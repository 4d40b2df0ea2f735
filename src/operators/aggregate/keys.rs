//! Group keys in the representation that suits their types.

use super::packed::{Long, PackedKeys};
use super::rows::RowKeys;
use super::slots::Slots;
pub(super) use crate::data::key_bits::{KeyBits, low_bits, resize, value_bits};
use crate::data::{Bitmap, BufMut, DataType, DictionaryIds, PhysicalType, Scalar, Values, Vector};
use crate::error::Error;
use crate::functions::aggregate::{GroupSet, Rows};
use crate::mem::{Account, Denied};

/// What a table grows by.
pub(super) struct Growth<'a> {
    /// Where it lives.
    pub(super) account: &'a Account,
    /// Whether it is to be refused more, memory or not.
    pub(super) refuses: &'a dyn Fn() -> bool,
    /// Whether the query should go on; a table it should not is of no more use.
    pub(super) check: &'a dyn Fn() -> Result<(), Error>,
}

impl Growth<'_> {
    /// As `check`.
    pub(super) fn check(&self) -> Result<(), Halt> {
        (self.check)().map_err(Halt::Failed)
    }
}

/// Why groups could not take a batch.
pub(super) enum Halt {
    /// Memory was refused; nothing has been counted.
    Denied(Denied),
    /// The query fails.
    Failed(Error),
}

impl From<Denied> for Halt {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The keys of all groups, by group number, with the directory that finds them.
pub(super) enum KeyTable {
    /// No keys: one group, always there.
    Single,
    /// Keys of at most 64 bits together.
    Narrow(PackedKeys<u64>),
    /// Keys of at most 128 bits together.
    Wide(PackedKeys<u128>),
    /// Keys of at most 256 bits together.
    Long(PackedKeys<Long>),
    /// Anything else, as bytes.
    Rows(RowKeys),
}

/// Runs the same code for every kind of keys.
macro_rules! for_keys {
    ($table:expr, $single:expr, $keys:ident => $body:expr) => {
        match $table {
            KeyTable::Single => $single,
            KeyTable::Narrow($keys) => $body,
            KeyTable::Wide($keys) => $body,
            KeyTable::Long($keys) => $body,
            KeyTable::Rows($keys) => $body,
        }
    };
}

impl KeyTable {
    /// No groups (one, if there are no keys) of keys of `types`, of which strings are numbered if they are to be and
    /// their numbers fit.
    pub(super) fn new(types: &[DataType], codes_strings: bool) -> Self {
        let has_strings = types.iter().any(is_string);
        let bits: u32 = types.iter().map(packed_bits).sum();
        match bits {
            _ if types.is_empty() => Self::Single,
            _ if has_strings && !codes_strings || types.len() > u32::BITS as usize => {
                Self::Rows(RowKeys::new(types))
            }
            0..=64 => Self::Narrow(PackedKeys::new(types)),
            65..=128 => Self::Wide(PackedKeys::new(types)),
            129..=256 => Self::Long(PackedKeys::new(types)),
            _ => Self::Rows(RowKeys::new(types)),
        }
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        for_keys!(self, 1, keys => keys.len())
    }

    /// Looks up the rows that count: their groups into `ids`, which is made as long, those without one as
    /// [`NO_GROUP`](super::slots::NO_GROUP) with their number among the rows that count in `missing`.
    pub(super) fn find(
        &mut self,
        columns: &[Vector],
        rows: Rows<'_>,
        ids: &mut BufMut<u32>,
        missing: &mut BufMut<u32>,
        account: &Account,
    ) -> Result<(), Halt> {
        begin(ids, missing, rows.len(), account)?;
        for_keys!(self, ids.fill(0), keys => {
            keys.encode(columns, rows, account)?;
            keys.find(ids, missing);
        });
        Ok(())
    }

    /// As `find`, where the rows' keys ascend from the greatest that there is, so that none has to be looked for; whether
    /// they do. If not, or if keys are wide, nothing is found.
    pub(super) fn find_ascending(
        &mut self,
        columns: &[Vector],
        rows: Rows<'_>,
        ids: &mut BufMut<u32>,
        missing: &mut BufMut<u32>,
        account: &Account,
    ) -> Result<bool, Halt> {
        let Self::Narrow(keys) = self else { return Ok(false) };
        begin(ids, missing, rows.len(), account)?;
        keys.find_ascending(columns, rows, ids, missing, account)
    }

    /// As `find`, of the keys of another table's `groups` in place of rows.
    pub(super) fn find_groups(
        &mut self,
        other: &Self,
        groups: GroupSet<'_>,
        ids: &mut BufMut<u32>,
        missing: &mut BufMut<u32>,
        account: &Account,
    ) -> Result<(), Halt> {
        begin(ids, missing, groups.len(), account)?;
        match (self, other) {
            (Self::Single, Self::Single) => ids.fill(0),
            (Self::Narrow(keys), Self::Narrow(other)) => {
                keys.copy(other, groups, account)?;
                keys.find(ids, missing);
            }
            (Self::Wide(keys), Self::Wide(other)) => {
                keys.copy(other, groups, account)?;
                keys.find(ids, missing);
            }
            (Self::Rows(keys), Self::Rows(other)) => {
                keys.copy(other, groups, account)?;
                keys.find(ids, missing);
            }
            (Self::Long(keys), Self::Long(other)) => {
                keys.copy(other, groups, account)?;
                keys.find(ids, missing);
            }
            (Self::Single | Self::Narrow(_) | Self::Wide(_) | Self::Long(_) | Self::Rows(_), _) => {
                return Err(Error::internal("tables of one aggregation differ in their keys").into());
            }
        }
        Ok(())
    }

    /// Makes room for `missing` rows of the last `find`.
    pub(super) fn reserve(&mut self, missing: &[u32], growth: &Growth<'_>) -> Result<(), Halt> {
        for_keys!(self, Ok(()), keys => keys.reserve(missing, growth))
    }

    /// Gives the rows missing in the last `find` their groups.
    pub(super) fn insert(&mut self, ids: &mut [u32], missing: &[u32]) {
        for_keys!(self, {}, keys => keys.insert(ids, missing));
    }

    /// The hash of a group.
    #[inline]
    pub(super) fn hash(&self, group: usize) -> u64 {
        for_keys!(self, 0, keys => keys.hash(group))
    }

    /// The keys of `groups` as columns; with `ids` they may be codes of dictionaries.
    pub(super) fn decode(
        &self,
        groups: GroupSet<'_>,
        ids: Option<&DictionaryIds>,
        account: &Account,
    ) -> Result<Vec<Vector>, Denied> {
        match self {
            Self::Single => Ok(Vec::new()),
            Self::Narrow(keys) => keys.decode(groups, ids, account),
            Self::Wide(keys) => keys.decode(groups, ids, account),
            Self::Long(keys) => keys.decode(groups, ids, account),
            Self::Rows(keys) => keys.decode(groups, account),
        }
    }

    /// The keys as words of 64 bits, if they are such, mean the same in all tables, and none has a null.
    pub(super) fn narrow(&self) -> Option<&[u64]> {
        match self {
            Self::Narrow(keys) => keys.words(),
            Self::Single | Self::Wide(_) | Self::Long(_) | Self::Rows(_) => None,
        }
    }

    /// The keys as words of 128 bits, likewise.
    pub(super) fn wide(&self) -> Option<&[u128]> {
        match self {
            Self::Wide(keys) => keys.words(),
            Self::Single | Self::Narrow(_) | Self::Long(_) | Self::Rows(_) => None,
        }
    }

    /// What finds groups; none without keys.
    pub(super) fn slots(&mut self) -> Option<&mut Slots> {
        for_keys!(self, None, keys => Some(keys.slots()))
    }

    /// Forgets all groups and gives their memory back; without keys the one group stays.
    pub(super) fn clear(&mut self) {
        for_keys!(self, {}, keys => keys.clear());
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        for_keys!(self, 0, keys => keys.allocated_bytes())
    }
}

/// Makes room for the groups of `rows` rows, none of which is missing yet.
fn begin(
    ids: &mut BufMut<u32>,
    missing: &mut BufMut<u32>,
    rows: usize,
    account: &Account,
) -> Result<(), Denied> {
    resize(ids, rows, account)?;
    resize(missing, rows, account)?;
    missing.set_len(0);
    Ok(())
}

/// Whether values of the type are strings or blobs.
pub(super) fn is_string(data_type: &DataType) -> bool {
    data_type.physical() == PhysicalType::View
}

/// Bits of a value, or of the number of a string.
pub(super) fn packed_bits(data_type: &DataType) -> u32 {
    if is_string(data_type) { u32::BITS } else { value_bits(data_type) }
}

/// A key column as it came: a constant, or values, perhaps behind codes.
pub(super) enum KeyColumn<'a> {
    Constant(&'a Scalar),
    Values { values: &'a Values, codes: Option<&'a [u32]>, validity: Option<&'a Bitmap> },
}

impl<'a> KeyColumn<'a> {
    /// The parts of `vector`.
    pub(super) fn new(vector: &'a Vector) -> Self {
        match vector {
            Vector::Constant { value, .. } => Self::Constant(value),
            Vector::Flat(flat) => {
                Self::Values { values: &flat.values, codes: None, validity: flat.validity.as_ref() }
            }
            Vector::Dict { codes, validity, dictionary } => Self::Values {
                values: &dictionary.values().values,
                codes: Some(codes),
                validity: validity.as_ref(),
            },
        }
    }
}

/// The key bits of a constant of fixed width; `None` if it is null.
pub(super) fn constant_bits(value: &Scalar) -> Option<u128> {
    use crate::data::Value;
    match &value.value {
        Value::Null | Value::Utf8(_) | Value::Binary(_) => None,
        Value::Boolean(b) => Some(b.key_bits()),
        Value::Int(i) => Some(i.key_bits()),
        Value::Float(f) if value.data_type == DataType::Float32 => Some((*f as f32).key_bits()),
        Value::Float(f) => Some(f.key_bits()),
    }
}

/// Values of `data_type` from key bits: `bits(i)` for value `i` of `len`.
pub(super) fn values_from_bits(
    data_type: &DataType,
    len: usize,
    account: &Account,
    bits: impl Fn(usize) -> u128,
) -> Result<Values, Denied> {
    macro_rules! fixed {
        ($variant:ident, $convert:expr) => {{
            let mut out = BufMut::with_len(account, len)?;
            for (i, to) in out.iter_mut().enumerate() {
                *to = $convert(bits(i));
            }
            Values::$variant(out.freeze())
        }};
    }
    Ok(match data_type.physical() {
        PhysicalType::Bool => {
            let mut out = crate::data::BitmapMut::with_len(account, len)?;
            out.fill_from(|i| bits(i) != 0);
            Values::Bool(out.freeze())
        }
        PhysicalType::I8 => fixed!(I8, |b: u128| b as i8),
        PhysicalType::I16 => fixed!(I16, |b: u128| b as i16),
        PhysicalType::I32 => fixed!(I32, |b: u128| b as i32),
        PhysicalType::I64 => fixed!(I64, |b: u128| b as i64),
        PhysicalType::U8 => fixed!(U8, |b: u128| b as u8),
        PhysicalType::U16 => fixed!(U16, |b: u128| b as u16),
        PhysicalType::U32 => fixed!(U32, |b: u128| b as u32),
        PhysicalType::U64 => fixed!(U64, |b: u128| b as u64),
        PhysicalType::F32 => fixed!(F32, |b: u128| f32::from_bits(b as u32)),
        PhysicalType::F64 => fixed!(F64, |b: u128| f64::from_bits(b as u64)),
        // Strings and nested values have no key bits; they never come here.
        PhysicalType::I128 | PhysicalType::View | PhysicalType::Nested => fixed!(I128, |b: u128| b as i128),
    })
}
