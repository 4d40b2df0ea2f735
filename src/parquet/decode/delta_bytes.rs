//! DELTA_BYTE_ARRAY: of each value how many bytes it shares with the one before, and the rest.
//!
//! Owns: [`DeltaBytes`], a position in such a page. The value before the next one is kept by the caller, in a buffer
//! that takes the longest.
//!
//! Invariants:
//! 1. A value shares no more bytes than the one before has; none is longer than the page.

use super::delta::STEP;
use super::delta_length::length;
use super::{Delta, DeltaLength, Kernels, Result, Short};
use std::ops::Range;

/// A position between two values.
#[derive(Clone, Debug)]
pub(crate) struct DeltaBytes {
    prefixes: Delta,
    suffixes: DeltaLength,
    /// Bytes of the value before the next.
    last: usize,
}

/// The parts of a few values.
struct Parts {
    prefixes: [i64; STEP],
    suffixes: [usize; STEP],
}

impl DeltaBytes {
    /// At the first value of those in `range`.
    pub(crate) fn new(bytes: &[u8], range: Range<usize>) -> Result<Self> {
        let prefixes = Delta::new(bytes, range.clone())?;
        let suffixes = DeltaLength::new(bytes, prefixes.end(bytes)?..range.end)?;
        if prefixes.left() != suffixes.left() {
            return Err(Short("a page has not as many prefixes as values"));
        }
        Ok(Self { prefixes, suffixes, last: 0 })
    }

    /// The length of the longest value to come.
    pub(crate) fn longest(&self, bytes: &[u8], kernels: Kernels) -> Result<usize> {
        let mut longest = 0;
        self.for_each_len(bytes, kernels, self.prefixes.left(), |_, len| longest = longest.max(len))?;
        Ok(longest)
    }

    /// The next `step` values' parts, and where their own bytes begin.
    #[inline]
    fn take(&mut self, bytes: &[u8], kernels: Kernels, step: usize, parts: &mut Parts) -> Result<usize> {
        self.prefixes.read(bytes, kernels, &mut parts.prefixes[..step], |v| v)?;
        self.suffixes.take(bytes, kernels, &mut parts.suffixes[..step])
    }

    #[inline]
    fn prefix(&self, raw: i64) -> Result<usize> {
        let prefix = length(raw)?;
        if prefix > self.last { Err(Short("a prefix is longer than the value before")) } else { Ok(prefix) }
    }

    /// Gives index and length of each of the next `count` values, without passing over them.
    pub(crate) fn for_each_len(
        &self,
        bytes: &[u8],
        kernels: Kernels,
        count: usize,
        mut f: impl FnMut(usize, usize),
    ) -> Result<()> {
        let mut walk = self.clone();
        let mut parts = Parts { prefixes: [0; STEP], suffixes: [0; STEP] };
        let mut done = 0;
        while done < count {
            let step = STEP.min(count - done);
            walk.take(bytes, kernels, step, &mut parts)?;
            for i in 0..step {
                walk.last = walk.prefix(parts.prefixes[i])? + parts.suffixes[i];
                f(done + i, walk.last);
            }
            done += step;
        }
        Ok(())
    }

    /// Gives index and bytes of each of the next `count` values. `value` holds the one before, in a buffer as long as
    /// the longest; `bytes` must include the page's padding.
    pub(crate) fn for_each(
        &mut self,
        bytes: &[u8],
        kernels: Kernels,
        value: &mut [u8],
        count: usize,
        mut f: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut parts = Parts { prefixes: [0; STEP], suffixes: [0; STEP] };
        let mut done = 0;
        while done < count {
            let step = STEP.min(count - done);
            let mut at = self.take(bytes, kernels, step, &mut parts)?;
            for i in 0..step {
                let (prefix, suffix) = (self.prefix(parts.prefixes[i])?, parts.suffixes[i]);
                let own = value.get_mut(prefix..prefix + suffix);
                let own = own.ok_or(Short("a value is longer than the longest of its page"))?;
                own.copy_from_slice(&bytes[at..at + suffix]);
                at += suffix;
                self.last = prefix + suffix;
                f(done + i, &value[..self.last])?;
            }
            done += step;
        }
        Ok(())
    }

    /// Passes over the next `count` values.
    pub(crate) fn skip(
        &mut self,
        bytes: &[u8],
        kernels: Kernels,
        value: &mut [u8],
        count: usize,
    ) -> Result<()> {
        self.for_each(bytes, kernels, value, count, |_, _| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::tests::{encode, padded};
    use super::*;

    fn page(values: &[String]) -> Vec<u8> {
        let mut before = "";
        let mut parts = Vec::new();
        for value in values {
            let shared = before.bytes().zip(value.bytes()).take_while(|(a, b)| a == b).count();
            parts.push((shared as i64, &value.as_bytes()[shared..]));
            before = value;
        }
        let mut bytes = encode(&parts.iter().map(|p| p.0).collect::<Vec<_>>(), 4, 32, true);
        // Another layout than that of the prefixes.
        bytes.extend(encode(&parts.iter().map(|p| p.1.len() as i64).collect::<Vec<_>>(), 2, 64, true));
        parts.iter().for_each(|p| bytes.extend(p.1));
        bytes
    }

    fn values() -> Vec<String> {
        (0..300).map(|i| format!("{}{:05}{}", "prefix".repeat(i % 4), i / 3, "s".repeat(i % 11))).collect()
    }

    #[test]
    fn values_are_read_and_passed_over() {
        let values = values();
        let bytes = page(&values);
        let all = padded(&bytes);
        let start = DeltaBytes::new(&all, 0..bytes.len()).expect("valid");
        let longest = start.longest(&all, Kernels::detect()).expect("valid");
        assert_eq!(Some(longest), values.iter().map(String::len).max());
        for skip in [0, 1, 63, 64, 130, 299, 300] {
            let (mut stream, mut value) = (start.clone(), vec![0; longest]);
            stream.skip(&all, Kernels::detect(), &mut value, skip).expect("inside");
            let mut lens = Vec::new();
            stream
                .for_each_len(&all, Kernels::detect(), 300 - skip, |_, len| lens.push(len))
                .expect("inside");
            assert!(lens.iter().eq(values[skip..].iter().map(String::len).collect::<Vec<_>>().iter()));
            let read = stream.for_each(&all, Kernels::detect(), &mut value, 300 - skip, |i, value| {
                assert_eq!(value, values[skip + i].as_bytes());
                Ok(())
            });
            assert_eq!(read, Ok(()));
            assert!(stream.skip(&all, Kernels::detect(), &mut value, 1).is_err());
        }
    }

    #[test]
    fn cut_pages_and_prefixes_of_nothing_are_errors() {
        let bytes = page(&values()[..40]);
        for len in 1..bytes.len() {
            let all = padded(&bytes[..len]);
            let outcome =
                DeltaBytes::new(&all, 0..len).and_then(|stream| stream.longest(&all, Kernels::detect()));
            assert!(outcome.is_err(), "{len}");
        }
        let mut lying = encode(&[0, 4], 4, 32, true);
        lying.extend(encode(&[3, 1], 4, 32, true));
        lying.extend(b"abcd");
        let all = padded(&lying);
        let stream = DeltaBytes::new(&all, 0..lying.len()).expect("good headers");
        let expected = Short("a prefix is longer than the value before");
        assert_eq!(stream.longest(&all, Kernels::detect()), Err(expected));
        assert_eq!(stream.clone().skip(&all, Kernels::detect(), &mut [0; 9], 2), Err(expected));
        let mut short = stream;
        assert!(short.skip(&all, Kernels::detect(), &mut [0; 2], 1).is_err(), "a buffer too short");
    }
}
