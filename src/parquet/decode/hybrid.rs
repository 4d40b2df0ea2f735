//! The RLE/bit-packed hybrid: dictionary codes, definition levels, booleans.
//!
//! Owns: [`Hybrid`], a position in such a stream. The bytes are passed to every call, because they live in a page
//! buffer beside it.

use super::unpack::{READ_AHEAD_BYTES, extract};
use super::{Kernels, Result, Short};
use std::ops::Range;

#[derive(Clone, Copy, Debug)]
enum Run {
    Repeated {
        value: u32,
    },
    Packed {
        /// Where the run's bytes begin, in the buffer.
        start: usize,
        /// The next value in the run.
        next: usize,
    },
}

/// A position between two values of a hybrid stream.
#[derive(Clone, Debug)]
pub(crate) struct Hybrid {
    width: u32,
    /// The next run's header.
    at: usize,
    end: usize,
    run: Run,
    left: usize,
}

impl Hybrid {
    /// At the beginning of the stream in `range` of a buffer, of values of `width` bits.
    pub(crate) fn new(width: u32, range: Range<usize>) -> Result<Self> {
        if width > 32 {
            return Err(Short("codes are wider than 32 bits"));
        }
        Ok(Self { width, at: range.start, end: range.end, run: Run::Repeated { value: 0 }, left: 0 })
    }

    /// Starts the next run that has values.
    fn start_run(&mut self, bytes: &[u8]) -> Result<()> {
        while self.left == 0 {
            let stream = bytes.get(..self.end).ok_or(Short("a stream is longer than its page"))?;
            let mut head = 0u64;
            for shift in (0..).step_by(7) {
                let byte = *stream.get(self.at).ok_or(Short("a page ends before its last value"))?;
                if shift > 28 {
                    return Err(Short("a run is longer than a page"));
                }
                self.at += 1;
                head |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let count = (head >> 1) as usize;
            if head & 1 == 0 {
                let value_bytes = self.width.div_ceil(8) as usize;
                let raw =
                    stream.get(self.at..self.at + value_bytes).ok_or(Short("a page ends inside a run"))?;
                let mut value = [0; 4];
                value[..value_bytes].copy_from_slice(raw);
                self.at += value_bytes;
                self.run = Run::Repeated { value: u32::from_le_bytes(value) };
                self.left = count;
            } else {
                // Writers may cut the padding of the last group off, so the count is what the bytes allow.
                let run_bytes = (count * self.width as usize).min(self.end - self.at);
                let values = count * 8;
                self.left = match self.width {
                    0 => values,
                    width => values.min(run_bytes * 8 / width as usize),
                };
                if self.left == 0 && count > 0 {
                    return Err(Short("a page ends inside a run"));
                }
                self.run = Run::Packed { start: self.at, next: 0 };
                self.at += run_bytes;
            }
        }
        Ok(())
    }

    /// If all of the next `count` values lie in one repeated run, its value.
    pub(crate) fn repeats(&mut self, bytes: &[u8], count: usize) -> Result<Option<u32>> {
        if count > 0 {
            self.start_run(bytes)?;
        }
        Ok(match self.run {
            Run::Repeated { value } if self.left >= count => Some(value),
            Run::Repeated { .. } | Run::Packed { .. } => None,
        })
    }

    /// Passes over the next `count` values.
    pub(crate) fn skip(&mut self, bytes: &[u8], mut count: usize) -> Result<()> {
        while count > 0 {
            self.start_run(bytes)?;
            let step = count.min(self.left);
            self.step(step);
            count -= step;
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, count: usize) {
        self.left -= count;
        if let Run::Packed { next, .. } = &mut self.run {
            *next += count;
        }
    }

    fn packed<'a>(&self, bytes: &'a [u8], start: usize, values: usize) -> Result<&'a [u8]> {
        // The padding behind a page lets kernels load whole words at its end.
        let need = start + (values * self.width as usize).div_ceil(8) + READ_AHEAD_BYTES;
        if need > bytes.len() { Err(Short("a page lacks its padding")) } else { Ok(&bytes[start..]) }
    }

    /// The next `out.len()` values; returns the largest. `bytes` must include the page's padding.
    pub(crate) fn read(&mut self, bytes: &[u8], kernels: Kernels, out: &mut [u32]) -> Result<u32> {
        let (mut done, mut most) = (0, 0);
        while done < out.len() {
            self.start_run(bytes)?;
            let step = self.left.min(out.len() - done);
            let to = &mut out[done..done + step];
            let run_most = match self.run {
                Run::Repeated { value } => {
                    to.fill(value);
                    value
                }
                Run::Packed { start, next } => {
                    kernels.unpack(self.packed(bytes, start, next + step)?, self.width, next, to)
                }
            };
            most = most.max(run_most);
            self.step(step);
            done += step;
        }
        Ok(most)
    }

    /// Of the next `count` values those at `positions` (ascending, below `count`); returns the largest read.
    pub(crate) fn read_selected(
        &mut self,
        bytes: &[u8],
        count: usize,
        positions: &[u32],
        out: &mut [u32],
    ) -> Result<u32> {
        debug_assert_eq!(positions.len(), out.len());
        let (mut taken, mut base, mut most) = (0, 0, 0);
        while taken < positions.len() {
            self.start_run(bytes)?;
            let step = self.left.min(count - base);
            let end = base + step;
            // Runs are mostly long: all that is left usually lies in this one.
            let inside = match positions.last() {
                Some(&last) if (last as usize) < end => positions.len() - taken,
                _ => positions[taken..].partition_point(|&p| (p as usize) < end),
            };
            let range = taken..taken + inside;
            match self.run {
                Run::Repeated { value } => {
                    out[range].fill(value);
                    most = if inside > 0 { most.max(value) } else { most };
                }
                Run::Packed { start, next } if self.width > 0 => {
                    let packed = self.packed(bytes, start, next + step)?;
                    for (to, &position) in out[range.clone()].iter_mut().zip(&positions[range]) {
                        *to = extract(packed, self.width, next + position as usize - base);
                        most = most.max(*to);
                    }
                }
                Run::Packed { .. } => out[range].fill(0),
            }
            taken += inside;
            self.step(step);
            base = end;
            if step == 0 {
                return Err(Short("a position lies past the values"));
            }
        }
        self.skip(bytes, count - base)?;
        Ok(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of 3 bits: 20 × 5, 16 packed, 7 × 1, 8 packed.
    fn stream() -> (Vec<u8>, Vec<u32>) {
        let mut bytes = vec![40, 5];
        let mut values = vec![5; 20];
        let mut pack = |bytes: &mut Vec<u8>, count: u32| {
            bytes.push((count / 8 * 2 + 1) as u8);
            let at = bytes.len();
            bytes.resize(at + count as usize * 3 / 8, 0);
            for i in 0..count {
                let value = (i * 3 + 1) % 8;
                values.push(value);
                for bit in 0..3 {
                    let to = i as usize * 3 + bit;
                    bytes[at + to / 8] |= ((value >> bit & 1) as u8) << (to % 8);
                }
            }
            if count == 16 {
                bytes.extend([14, 1]);
                values.extend([1; 7]);
            }
        };
        pack(&mut bytes, 16);
        pack(&mut bytes, 8);
        (bytes, values)
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        out.resize(bytes.len() + READ_AHEAD_BYTES, 0xff);
        out
    }

    #[test]
    fn reading_skipping_and_selecting_agree() {
        let (bytes, values) = stream();
        let range = 0..bytes.len();
        let padded = padded(&bytes);
        for skip in 0..values.len() {
            for len in 0..values.len() - skip {
                let mut all = Hybrid::new(3, range.clone()).expect("narrow");
                let mut some = all.clone();
                let mut out = vec![0; len];
                all.skip(&padded, skip).expect("inside");
                all.read(&padded, Kernels::detect(), &mut out).expect("inside");
                assert_eq!(out, &values[skip..skip + len]);
                some.skip(&padded, skip).expect("inside");
                let positions: Vec<u32> = (0..len as u32).filter(|p| p % 3 != 1).collect();
                let mut picked = vec![0; positions.len()];
                some.read_selected(&padded, len, &positions, &mut picked).expect("inside");
                assert!(positions.iter().zip(&picked).all(|(p, v)| out[*p as usize] == *v));
                let (mut a, mut b) = ([0], [0]);
                all.read(&padded, Kernels::Portable, &mut a).expect("one more");
                some.read(&padded, Kernels::Portable, &mut b).expect("one more");
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn cut_streams_are_errors() {
        let (bytes, values) = stream();
        for len in 0..bytes.len() {
            let mut hybrid = Hybrid::new(3, 0..len).expect("narrow");
            let mut out = vec![0; values.len()];
            assert!(hybrid.read(&padded(&bytes[..len]), Kernels::detect(), &mut out).is_err(), "{len}");
        }
        assert!(Hybrid::new(33, 0..0).is_err());
    }
}
