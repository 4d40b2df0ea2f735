//! DELTA_LENGTH_BYTE_ARRAY: the lengths of all values as differences, then their bytes.
//!
//! Owns: [`DeltaLength`], a position in such a page.
//!
//! Invariants:
//! 1. Lengths are not negative, and every value lies inside the page.

use super::delta::STEP;
use super::{Delta, Kernels, Result, Short};
use std::ops::Range;

/// A position between two values.
#[derive(Clone, Debug)]
pub(crate) struct DeltaLength {
    lengths: Delta,
    /// The next value's bytes.
    at: usize,
    end: usize,
}

/// A length as stored.
#[inline]
pub(super) fn length(raw: i64) -> Result<usize> {
    // The upper half says nothing: lengths are 32-bit numbers.
    usize::try_from(raw as i32).map_err(|_| Short("a length is negative"))
}

impl DeltaLength {
    /// At the first value of those in `range`.
    pub(crate) fn new(bytes: &[u8], range: Range<usize>) -> Result<Self> {
        let end = range.end;
        let lengths = Delta::new(bytes, range)?;
        let at = lengths.end(bytes)?;
        Ok(Self { lengths, at, end })
    }

    /// Values to come.
    pub(super) fn left(&self) -> usize {
        self.lengths.left()
    }

    /// The lengths of the next values, one for each of `out`, and where their bytes begin; passes over them.
    pub(super) fn take(&mut self, bytes: &[u8], kernels: Kernels, out: &mut [usize]) -> Result<usize> {
        let first = self.at;
        let mut raw = [0; STEP];
        for out in out.chunks_mut(STEP) {
            let raw = &mut raw[..out.len()];
            self.lengths.read(bytes, kernels, raw, |v| v)?;
            for (to, &raw) in out.iter_mut().zip(&*raw) {
                *to = length(raw)?;
                self.at += *to;
            }
            if self.at > self.end {
                return Err(Short("a page ends before its last value"));
            }
        }
        Ok(first)
    }

    /// Gives index, offset and bytes of each of the next `count` values. `bytes` must include the page's padding.
    pub(crate) fn for_each<'a>(
        &mut self,
        bytes: &'a [u8],
        kernels: Kernels,
        count: usize,
        mut f: impl FnMut(usize, usize, &'a [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut lengths = [0; STEP];
        let mut done = 0;
        while done < count {
            let step = STEP.min(count - done);
            let mut at = self.take(bytes, kernels, &mut lengths[..step])?;
            for (i, &len) in lengths[..step].iter().enumerate() {
                f(done + i, at, &bytes[at..at + len])?;
                at += len;
            }
            done += step;
        }
        Ok(())
    }

    /// Passes over the next `count` values.
    pub(crate) fn skip(&mut self, bytes: &[u8], kernels: Kernels, count: usize) -> Result<()> {
        self.for_each(bytes, kernels, count, |_, _, _| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::tests::{encode, padded};
    use super::*;

    fn page(values: &[&str]) -> Vec<u8> {
        let lengths: Vec<i64> = values.iter().map(|v| v.len() as i64).collect();
        let mut bytes = encode(&lengths, 4, 32, true);
        values.iter().for_each(|v| bytes.extend(v.as_bytes()));
        bytes
    }

    #[test]
    fn values_are_read_and_passed_over() {
        let values: Vec<String> = (0..200).map(|i| "x".repeat(i % 17) + &i.to_string()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let bytes = page(&values);
        let all = padded(&bytes);
        for skip in [0, 1, 64, 65, 199, 200] {
            let mut stream = DeltaLength::new(&all, 0..bytes.len()).expect("valid");
            stream.skip(&all, Kernels::detect(), skip).expect("inside");
            let mut seen = 0;
            let read = stream.for_each(&all, Kernels::detect(), 200 - skip, |i, at, value| {
                assert_eq!(value, values[skip + i].as_bytes());
                assert_eq!(&all[at..at + value.len()], value);
                seen += 1;
                Ok(())
            });
            assert_eq!((read, seen), (Ok(()), 200 - skip));
            assert!(stream.skip(&all, Kernels::detect(), 1).is_err());
        }
    }

    #[test]
    fn cut_pages_and_negative_lengths_are_errors() {
        let bytes = page(&["abc", "", "defg", "a longer one than the others"]);
        for len in 1..bytes.len() {
            let all = padded(&bytes[..len]);
            let outcome = DeltaLength::new(&all, 0..len).and_then(|mut s| s.skip(&all, Kernels::detect(), 4));
            assert!(outcome.is_err(), "{len}");
        }
        let negative = encode(&[3, -1, 2], 4, 32, true);
        let all = padded(&[&negative[..], b"abcdefgh"].concat());
        let mut stream = DeltaLength::new(&all, 0..negative.len() + 8).expect("a good header");
        assert_eq!(stream.skip(&all, Kernels::detect(), 3), Err(Short("a length is negative")));
    }
}
