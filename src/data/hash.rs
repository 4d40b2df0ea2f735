//! Hashes of keys, for every operator that looks rows up by key.
//!
//! Invariants:
//! 1. Hashes are the same in every lane and every run.

use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hasher};

/// Mixes all bits of `key`: David Stafford's "Mix13" finaliser.
#[inline(always)]
pub(crate) fn hash_word(key: u64) -> u64 {
    let z = key ^ 0x9E37_79B9_7F4A_7C15;
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash of a key's bytes.
#[inline]
pub(crate) fn hash_bytes(state: &FixedState, bytes: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The hasher of bytes.
pub(crate) fn bytes_hasher() -> FixedState {
    FixedState::with_seed(0x5EED_0F6A_11A5_7E11)
}

/// Asks for the cache line of `place`, which will be read soon.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory, and the address is a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
