//! Which bits of a group key's hash serve what.
//!
//! Invariants:
//! 1. Slots use the low bits, the tag in a slot the upper half, partitions the top bits downwards: at depth `d` of a
//!    fan-out of `2^b` the bits from `64 - (d + 1) * b`.

pub(super) use crate::data::hash::{bytes_hasher, hash_bytes, hash_word, prefetch};

/// The partition of a hash of which `used_bits` top bits are spent, among `2^bits`.
#[inline(always)]
pub(super) fn partition_of(hash: u64, used_bits: u32, bits: u32) -> usize {
    if bits == 0 { 0 } else { ((hash << used_bits) >> (u64::BITS - bits)) as usize }
}

/// Bits that partitions may spend in all; the rest are left to slots.
pub(super) const PARTITION_BITS: u32 = 48;
