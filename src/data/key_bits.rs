//! Values of fixed width as bits of keys.
//!
//! Invariants:
//! 1. Equal values of one type have equal bits, whatever the width of the vector they come in, and only they.

use super::{BufMut, DataType, PhysicalType, Plain};
use crate::mem::{Account, Denied};

/// A value of fixed width as the bits of a key: equal values have equal bits, and only they.
pub(crate) trait KeyBits: Copy {
    /// Sign-extended, so that it may be cut to the width of its type; floats at their own width.
    fn key_bits(self) -> u128;
}

macro_rules! signed { ($($t:ty)*) => { $(impl KeyBits for $t {
    #[inline(always)]
    fn key_bits(self) -> u128 {
        i128::from(self) as u128
    }
})* } }
signed!(i8 i16 i32 i64 i128);

macro_rules! unsigned { ($($t:ty)*) => { $(impl KeyBits for $t {
    #[inline(always)]
    fn key_bits(self) -> u128 {
        self.into()
    }
})* } }
unsigned!(bool u8 u16 u32 u64);

macro_rules! float { ($($t:ty)*) => { $(impl KeyBits for $t {
    #[inline(always)]
    fn key_bits(self) -> u128 {
        // Adding zero turns -0.0 into 0.0; all NaNs are one value.
        let value = if self.is_nan() { Self::NAN } else { self + 0.0 };
        value.to_bits().into()
    }
})* } }
float!(f32 f64);

/// The bits of a value `bits` wide.
#[inline(always)]
pub(crate) fn low_bits(bits: u32) -> u128 {
    u128::MAX >> (u128::BITS - bits)
}

/// Makes a scratch buffer `len` long, content unspecified.
pub(crate) fn resize<T: Plain>(buf: &mut BufMut<T>, len: usize, account: &Account) -> Result<(), Denied> {
    if len > buf.capacity() {
        // Nothing in it is worth copying.
        *buf = BufMut::empty();
        *buf = BufMut::with_capacity(account, len)?;
    }
    buf.set_len(len);
    Ok(())
}

/// Bits of a value of fixed width; strings need rows.
pub(crate) fn value_bits(data_type: &DataType) -> u32 {
    match data_type.physical() {
        PhysicalType::Bool => 1,
        _ => 8 * data_type.value_bytes() as u32,
    }
}
