//! Hashes of group keys, and which of their bits serve what.
//!
//! Invariants:
//! 1. Slots use the low bits, the tag in a slot the upper half, partitions the top bits downwards: at depth `d` of a
//!    fan-out of `2^b` the bits from `64 - (d + 1) * b`.
//! 2. Hashes are the same in every lane and every run.

use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hasher};

/// Mixes all bits of `key`: David Stafford's "Mix13" finaliser.
#[inline(always)]
pub(super) fn hash_word(key: u64) -> u64 {
    let z = key ^ 0x9E37_79B9_7F4A_7C15;
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash of a key's bytes.
#[inline]
pub(super) fn hash_bytes(state: &FixedState, bytes: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The hasher of bytes.
pub(super) fn bytes_hasher() -> FixedState {
    FixedState::with_seed(0x5EED_0F6A_11A5_7E11)
}

/// The partition of a hash of which `used_bits` top bits are spent, among `2^bits`.
#[inline(always)]
pub(super) fn partition_of(hash: u64, used_bits: u32, bits: u32) -> usize {
    if bits == 0 { 0 } else { ((hash << used_bits) >> (u64::BITS - bits)) as usize }
}

/// Bits that partitions may spend in all; the rest are left to slots.
pub(super) const PARTITION_BITS: u32 = 48;
