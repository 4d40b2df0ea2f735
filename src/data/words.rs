//! Words that many threads write.
//!
//! Invariants:
//! 1. `start` points to `len` words in the slab of `words`, which is reached only through it; a slab's mapping never
//!    moves.

use super::BufMut;
use crate::mem::{Account, Denied};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words in a slab, shared. Accesses are relaxed: who reads what others wrote has waited for them otherwise.
pub(crate) struct AtomicWords {
    start: NonNull<AtomicU64>,
    len: usize,
    words: BufMut<u64>,
}

// SAFETY: the words are atomics in memory the value owns (invariant 1).
unsafe impl Send for AtomicWords {}
// SAFETY: as above.
unsafe impl Sync for AtomicWords {}

impl AtomicWords {
    /// `len` words of unspecified content.
    pub(crate) fn with_len(account: &Account, len: usize) -> Result<Self, Denied> {
        Ok(Self::from_words(BufMut::with_len(account, len)?))
    }

    /// `len` zeros.
    pub(crate) fn zeroed(account: &Account, len: usize) -> Result<Self, Denied> {
        Ok(Self::from_words(BufMut::zeroed(account, len)?))
    }

    fn from_words(mut words: BufMut<u64>) -> Self {
        let start = NonNull::from(&mut *words).cast();
        Self { start, len: words.len(), words }
    }

    /// The words.
    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[AtomicU64] {
        // SAFETY: invariant 1; an `AtomicU64` has the size and alignment of the `u64` it lies in.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Bytes of memory behind them.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.words.allocated_bytes()
    }

    /// Sets bit `index`. Rows that match often are common, so that it is only written once.
    #[inline]
    pub(crate) fn set_bit(&self, index: usize) {
        let (word, bit) = (&self.as_slice()[index / 64], 1 << (index % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }
}
