//! DELTA_BINARY_PACKED: integers as differences to the one before, bit-packed in blocks of miniblocks.
//!
//! Owns: [`Delta`], a position in such a stream. The bytes are passed to every call, as those of a hybrid stream are.
//!
//! Invariants:
//! 1. Arithmetic wraps in 64 bits, so the lower 32 bits of a value are right for 32-bit columns too.
//! 2. The packed bytes of values that are decoded lie inside the stream; the padding of its last miniblock may be
//!    missing.
//! 3. Nothing is allocated, and a walk takes no more steps than the stream has bytes or values.

use super::unpack::{READ_AHEAD_BYTES, extract_wide};
use super::{Kernels, Result, Short};
use std::ops::Range;

/// Values decoded at a time.
pub(super) const STEP: usize = 64;
/// The largest block there is any use for.
const LARGEST_BLOCK: u64 = 1 << 24;

const CUT: Short = Short("a page ends before its last value");

/// A position between two values of a stream of differences.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    end: usize,
    /// Values to come.
    left: usize,
    /// The value before the next; while `is_first`, the next.
    last: i64,
    is_first: bool,
    miniblocks: usize,
    miniblock_values: usize,
    /// Of the current block: the least difference, where its widths lie, and how many of its miniblocks have begun.
    min_delta: i64,
    widths: usize,
    begun: usize,
    /// Of the current miniblock: its bytes, the width and index of its next value, and how many are left.
    start: usize,
    width: u32,
    next: usize,
    inside: usize,
    /// Where the next miniblock or block begins.
    at: usize,
}

impl Delta {
    /// At the beginning of the stream that begins where `range` does and ends inside it. No bytes are no values.
    pub(crate) fn new(bytes: &[u8], range: Range<usize>) -> Result<Self> {
        let mut at = range.start;
        let end = range.end.min(bytes.len());
        let mut delta = Self {
            end,
            left: 0,
            last: 0,
            is_first: true,
            miniblocks: 1,
            miniblock_values: 0,
            min_delta: 0,
            widths: 0,
            begun: 1,
            start: 0,
            width: 0,
            next: 0,
            inside: 0,
            at,
        };
        if range.is_empty() {
            return Ok(delta);
        }
        let block = varint(bytes, &mut at, end)?;
        let miniblocks = varint(bytes, &mut at, end)?;
        let values = varint(bytes, &mut at, end)?;
        let first = varint(bytes, &mut at, end)?;
        let is_even = miniblocks > 0 && block.is_multiple_of(miniblocks);
        // Miniblocks begin at whole bytes.
        if !is_even || block > LARGEST_BLOCK || block == 0 || !(block / miniblocks).is_multiple_of(8) {
            return Err(Short("the blocks of a page are of no possible size"));
        }
        delta.left = usize::try_from(values).map_err(|_| CUT)?;
        delta.last = zigzag(first);
        delta.miniblocks = miniblocks as usize;
        delta.miniblock_values = (block / miniblocks) as usize;
        delta.begun = delta.miniblocks;
        delta.at = at;
        Ok(delta)
    }

    /// Values to come.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Where the stream ends, and what is stored behind it begins.
    pub(crate) fn end(&self, bytes: &[u8]) -> Result<usize> {
        let mut walk = self.clone();
        walk.left -= walk.inside + usize::from(walk.is_first && walk.left > 0);
        while walk.left > 0 {
            walk.begin_miniblock(bytes)?;
            walk.left -= walk.inside;
        }
        Ok(walk.at)
    }

    /// Goes into the next miniblock. There are values to come, and all of the one before have been given.
    fn begin_miniblock(&mut self, bytes: &[u8]) -> Result<()> {
        if self.begun == self.miniblocks {
            self.min_delta = zigzag(varint(bytes, &mut self.at, self.end)?);
            self.widths = self.at;
            self.begun = 0;
            if self.miniblocks > self.end - self.at {
                return Err(CUT);
            }
            self.at += self.miniblocks;
        }
        let width = *bytes.get(self.widths + self.begun).ok_or(CUT)?;
        if width > 64 {
            return Err(Short("differences are wider than 64 bits"));
        }
        self.begun += 1;
        self.width = width.into();
        self.start = self.at;
        self.next = 0;
        self.inside = self.miniblock_values.min(self.left);
        let left = self.end - self.at;
        if (self.inside * usize::from(width)).div_ceil(8) > left {
            return Err(CUT);
        }
        self.at += (self.miniblock_values * usize::from(width) / 8).min(left);
        Ok(())
    }

    /// The next values of the current miniblock.
    #[inline]
    fn fill(&mut self, bytes: &[u8], kernels: Kernels, out: &mut [i64]) -> Result<()> {
        debug_assert!(out.len() <= STEP && out.len() <= self.inside);
        let need =
            self.start + ((self.next + out.len()) * self.width as usize).div_ceil(8) + READ_AHEAD_BYTES;
        if need > bytes.len() {
            return Err(Short("a page lacks its padding"));
        }
        let packed = &bytes[self.start..];
        let (mut last, min) = (self.last, self.min_delta);
        if self.width == 0 {
            for to in &mut *out {
                last = last.wrapping_add(min);
                *to = last;
            }
        } else if self.width <= 32 {
            let mut raw = [0; STEP];
            let raw = &mut raw[..out.len()];
            kernels.unpack(packed, self.width, self.next, raw);
            for (to, raw) in out.iter_mut().zip(raw) {
                last = last.wrapping_add(min.wrapping_add(i64::from(*raw)));
                *to = last;
            }
        } else {
            for (i, to) in out.iter_mut().enumerate() {
                let raw = extract_wide(packed, self.width, self.next + i).cast_signed();
                last = last.wrapping_add(min.wrapping_add(raw));
                *to = last;
            }
        }
        self.last = last;
        self.next += out.len();
        self.inside -= out.len();
        self.left -= out.len();
        Ok(())
    }

    /// The next `count` values, in runs: `f` gets the index of a run's first value, and the run. `bytes` must include
    /// the page's padding.
    #[inline]
    pub(super) fn for_each_run(
        &mut self,
        bytes: &[u8],
        kernels: Kernels,
        count: usize,
        mut f: impl FnMut(usize, &[i64]),
    ) -> Result<()> {
        if count > self.left {
            return Err(CUT);
        }
        let mut run = [0; STEP];
        let mut done = 0;
        if count > 0 && self.is_first {
            self.is_first = false;
            self.left -= 1;
            f(0, &[self.last]);
            done = 1;
        }
        while done < count {
            if self.inside == 0 {
                self.begin_miniblock(bytes)?;
            }
            let step = STEP.min(self.inside).min(count - done);
            self.fill(bytes, kernels, &mut run[..step])?;
            f(done, &run[..step]);
            done += step;
        }
        Ok(())
    }

    /// A value for each of `out`.
    pub(crate) fn read<T>(
        &mut self,
        bytes: &[u8],
        kernels: Kernels,
        out: &mut [T],
        convert: impl Fn(i64) -> T,
    ) -> Result<()> {
        self.for_each_run(bytes, kernels, out.len(), |first, run| {
            for (to, from) in out[first..first + run.len()].iter_mut().zip(run) {
                *to = convert(*from);
            }
        })
    }

    /// Of the next `count` values those at `positions` (ascending, below `count`).
    pub(crate) fn read_selected<T>(
        &mut self,
        bytes: &[u8],
        kernels: Kernels,
        count: usize,
        positions: &[u32],
        out: &mut [T],
        convert: impl Fn(i64) -> T,
    ) -> Result<()> {
        debug_assert_eq!(positions.len(), out.len());
        let mut wanted = positions.iter().zip(out).peekable();
        self.for_each_run(bytes, kernels, count, |first, run| {
            let end = first + run.len();
            while let Some((position, to)) = wanted.next_if(|(p, _)| (**p as usize) < end) {
                *to = convert(run[*position as usize - first]);
            }
        })?;
        if wanted.next().is_some() { Err(Short("a position lies past the values")) } else { Ok(()) }
    }

    /// Passes over the next `count` values.
    pub(crate) fn skip(&mut self, bytes: &[u8], kernels: Kernels, count: usize) -> Result<()> {
        self.for_each_run(bytes, kernels, count, |_, _| {})
    }
}

fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(..end).and_then(|stream| stream.get(*at)).ok_or(CUT)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Short("a number of a page's blocks is longer than 64 bits"))
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn push_varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn push_zigzag(value: i64, out: &mut Vec<u8>) {
        push_varint((value << 1 ^ value >> 63).cast_unsigned(), out);
    }

    /// `values` in blocks of `miniblocks` miniblocks of `each` values; the last miniblock is padded or cut.
    pub(in super::super) fn encode(
        values: &[i64],
        miniblocks: usize,
        each: usize,
        is_padded: bool,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint((miniblocks * each) as u64, &mut out);
        push_varint(miniblocks as u64, &mut out);
        push_varint(values.len() as u64, &mut out);
        push_zigzag(values.first().copied().unwrap_or(0), &mut out);
        let deltas: Vec<i64> = values.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        for block in deltas.chunks(miniblocks * each) {
            let least = block.iter().copied().min().expect("chunks have values");
            push_zigzag(least, &mut out);
            let raw: Vec<u64> = block.iter().map(|d| d.wrapping_sub(least).cast_unsigned()).collect();
            let width = |part: &[u64]| part.iter().map(|v| 64 - v.leading_zeros()).max().unwrap_or(0);
            let mut widths: Vec<u8> = raw.chunks(each).map(|part| width(part) as u8).collect();
            // Those of miniblocks without values may be anything.
            widths.resize(miniblocks, 99);
            out.extend(&widths);
            for (part, &width) in raw.chunks(each).zip(&widths) {
                let width = usize::from(width);
                let first = out.len();
                let values = if is_padded { each } else { part.len() };
                out.resize(first + (values * width).div_ceil(8), 0);
                for (i, value) in part.iter().enumerate() {
                    for bit in 0..width {
                        let to = i * width + bit;
                        out[first + to / 8] |= ((value >> bit & 1) as u8) << (to % 8);
                    }
                }
            }
        }
        out
    }

    pub(in super::super) fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        out.resize(bytes.len() + READ_AHEAD_BYTES, 0xff);
        out
    }

    fn samples() -> Vec<Vec<i64>> {
        let mixed = |bits: u32| {
            let value = move |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)).cast_signed();
            (0..300).map(value).collect::<Vec<i64>>()
        };
        let mut all: Vec<Vec<i64>> = [1, 7, 20, 31, 32, 33, 47, 63, 64].into_iter().map(mixed).collect();
        all.push((0..300).map(|i| i * 3 - 100).collect());
        all.push((0..300).map(|i| if i % 2 == 0 { i64::MAX } else { i64::MIN }).collect());
        all.extend([vec![], vec![7], vec![7, -7], vec![i64::MIN; 33]]);
        all
    }

    #[test]
    fn reading_skipping_and_selecting_agree() {
        for values in samples() {
            for (miniblocks, each, is_padded) in [(4, 32, true), (1, 128, false), (8, 8, true)] {
                let bytes = encode(&values, miniblocks, each, is_padded);
                let all = padded(&bytes);
                let start = Delta::new(&all, 0..bytes.len()).expect("valid");
                assert_eq!(start.left(), values.len());
                assert_eq!(start.end(&all), Ok(bytes.len()));
                for skip in (0..=values.len()).step_by(13) {
                    for kernels in [Kernels::detect(), Kernels::Portable] {
                        let mut at = start.clone();
                        at.skip(&all, kernels, skip).expect("inside");
                        assert_eq!(at.end(&all), Ok(bytes.len()));
                        let mut some = at.clone();
                        let len = (values.len() - skip).min(150);
                        let mut out = vec![0; len];
                        at.read(&all, kernels, &mut out, |v| v).expect("inside");
                        assert_eq!(out, &values[skip..skip + len]);
                        let positions: Vec<u32> = (0..len as u32).filter(|p| p % 5 == 1).collect();
                        let mut out = vec![0; positions.len()];
                        some.read_selected(&all, kernels, len, &positions, &mut out, |v| v).expect("inside");
                        let expected: Vec<i64> =
                            positions.iter().map(|p| values[skip + *p as usize]).collect();
                        assert_eq!(out, expected);
                        assert_eq!((some.left, some.last), (at.left, at.last));
                    }
                }
            }
        }
    }

    #[test]
    fn cut_and_lying_streams_are_errors() {
        for values in samples().into_iter().filter(|v| v.len() > 2) {
            let bytes = encode(&values, 4, 32, false);
            for len in 1..bytes.len() {
                let all = padded(&bytes[..len]);
                let outcome = Delta::new(&all, 0..len)
                    .and_then(|mut d| d.read(&all, Kernels::detect(), &mut vec![0; values.len()], |v| v));
                assert!(outcome.is_err(), "{len} of {}", bytes.len());
            }
            let all = padded(&bytes);
            let mut delta = Delta::new(&all, 0..bytes.len()).expect("valid");
            assert!(delta.skip(&all, Kernels::detect(), values.len() + 1).is_err(), "one too many");
        }
        for header in [[0, 1, 1, 0], [128, 0, 1, 0], [9, 2, 1, 0], [12, 1, 1, 0]] {
            assert!(Delta::new(&header, 0..4).is_err(), "{header:?}");
        }
        assert_eq!(Delta::new(&[], 0..0).expect("no values").left(), 0);
    }
}
