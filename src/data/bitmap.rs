//! Bits, least significant first: validity and booleans.

use super::buffer::{Buf, BufMut};
use crate::mem::{Account, Denied};

/// An immutable sequence of bits. Bits past the length, in the last word, are zero.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    words: Buf<u64>,
    len: usize,
}

impl Bitmap {
    /// Shares the first `len` bits of `words`. Bits past them in the last word must be zero; panics if there are too
    /// few words.
    pub(crate) fn from_words(words: &Buf<u64>, len: usize) -> Self {
        let words = words.slice(0, len.div_ceil(64));
        let is_clear = len.is_multiple_of(64) || words.last().is_none_or(|last| last >> (len % 64) == 0);
        debug_assert!(is_clear, "bits past the length are zero");
        Self { words, len }
    }

    /// Number of bits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bits in words of 64.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words as a shared buffer.
    pub(crate) fn words_buf(&self) -> &Buf<u64> {
        &self.words
    }

    /// The bit at `index`. Panics past the end.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Number of ones.
    pub(crate) fn count_ones(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Both bits set.
    pub(crate) fn and(&self, other: &Self, account: &Account) -> Result<Self, Denied> {
        self.zip(other, account, |a, b| a & b)
    }

    /// Word by word; `f(0, 0)` must be 0 so that the bits past the end stay zero.
    pub(crate) fn zip(
        &self,
        other: &Self,
        account: &Account,
        f: impl Fn(u64, u64) -> u64,
    ) -> Result<Self, Denied> {
        debug_assert_eq!(self.len, other.len);
        let mut words = BufMut::with_len(account, self.words.len())?;
        for ((out, a), b) in words.iter_mut().zip(self.words()).zip(other.words()) {
            *out = f(*a, *b);
        }
        Ok(Self { words: words.freeze(), len: self.len })
    }

    /// The bits at `indices`.
    pub(crate) fn gather(&self, indices: &[u32], account: &Account) -> Result<Self, Denied> {
        let mut out = BitmapMut::with_len(account, indices.len())?;
        out.fill_from(|i| self.get(indices[i] as usize));
        Ok(out.freeze())
    }

    /// The bits of a range, shifted to begin at zero.
    pub(crate) fn slice(&self, start: usize, len: usize, account: &Account) -> Result<Self, Denied> {
        let mut out = BitmapMut::with_len(account, len)?;
        out.fill_from(|i| self.get(start + i));
        Ok(out.freeze())
    }

    /// Indices of the ones, ascending.
    pub(crate) fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors(Some(word), |w| Some(w & w.wrapping_sub(1)))
                .take_while(|w| *w != 0)
                .map(move |w| at * 64 + w.trailing_zeros() as usize)
        })
    }
}

/// Bits being written.
#[derive(Debug)]
pub(crate) struct BitmapMut {
    words: BufMut<u64>,
    len: usize,
}

impl BitmapMut {
    /// `len` zeros.
    pub(crate) fn with_len(account: &Account, len: usize) -> Result<Self, Denied> {
        Ok(Self { words: BufMut::zeroed(account, len.div_ceil(64))?, len })
    }

    /// `len` ones.
    pub(crate) fn ones(account: &Account, len: usize) -> Result<Self, Denied> {
        let mut words = BufMut::with_len(account, len.div_ceil(64))?;
        words.fill(u64::MAX);
        let mut bits = Self { words, len };
        bits.clear_tail();
        Ok(bits)
    }

    /// Number of bits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The words, to write. Bits past the length are cleared by [`freeze`](Self::freeze).
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Sets the bit at `index`. Panics past the end.
    #[inline]
    pub(crate) fn set(&mut self, index: usize, value: bool) {
        let word = &mut self.words[index / 64];
        *word = *word & !(1 << (index % 64)) | u64::from(value) << (index % 64);
    }

    /// The bit at `index`. Panics past the end.
    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets every bit from its index, a word at a time.
    #[inline]
    pub(crate) fn fill_from(&mut self, mut bit: impl FnMut(usize) -> bool) {
        let len = self.len;
        for (at, word) in self.words.iter_mut().enumerate() {
            let base = at * 64;
            let mut bits = 0;
            for i in 0..(len - base).min(64) {
                bits |= u64::from(bit(base + i)) << i;
            }
            *word = bits;
        }
    }

    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    /// Ends writing.
    pub(crate) fn freeze(mut self) -> Bitmap {
        self.clear_tail();
        Bitmap { words: self.words.freeze(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn bits_are_set_counted_and_listed() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut bits = BitmapMut::ones(&account, 130).expect("fits");
        bits.set(64, false);
        let bits = bits.freeze();
        assert_eq!(bits.count_ones(), 129);
        assert_eq!(bits.ones().filter(|i| *i > 62).take(3).collect::<Vec<_>>(), [63, 65, 66]);
        let gathered = bits.gather(&[64, 65, 0], &account).expect("fits");
        assert_eq!(gathered.words(), &[0b110]);
        assert_eq!(bits.slice(63, 3, &account).expect("fits").words(), &[0b101]);
    }
}
