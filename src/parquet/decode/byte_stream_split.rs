//! BYTE_STREAM_SPLIT: the first bytes of all values, then the second bytes, and so on.
//!
//! Owns: [`Split`], a position in such a page.
//!
//! Invariants:
//! 1. `next` is at most the number of values, and each of the streams has that many bytes.

use super::{Result, Short};
use std::ops::Range;

const CUT: Short = Short("a page ends before its last value");

/// A position between two values.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    start: usize,
    width: usize,
    /// Values of the page.
    values: usize,
    next: usize,
}

impl Split {
    /// At the first of the values of `width` bytes in `range`.
    pub(crate) fn new(width: usize, range: Range<usize>) -> Result<Self> {
        if width == 0 || !range.len().is_multiple_of(width) {
            return Err(Short("a page does not hold a whole number of values"));
        }
        Ok(Self { start: range.start, width, values: range.len() / width, next: 0 })
    }

    /// Bytes of a value.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Passes over the next `count` values.
    pub(crate) fn skip(&mut self, count: usize) -> Result<()> {
        if count > self.values - self.next {
            return Err(CUT);
        }
        self.next += count;
        Ok(())
    }

    /// Byte `byte` of each of the next `count` values.
    fn stream<'a>(&self, bytes: &'a [u8], byte: usize, count: usize) -> Result<&'a [u8]> {
        let first = self.start + byte * self.values + self.next;
        match bytes.get(first..first + count) {
            Some(stream) if count <= self.values - self.next => Ok(stream),
            _ => Err(CUT),
        }
    }

    fn streams<'a, const W: usize>(&self, bytes: &'a [u8], count: usize) -> Result<[&'a [u8]; W]> {
        if self.width != W {
            return Err(Short("its stored type does not fit the column's"));
        }
        let mut streams = [&bytes[..0]; W];
        for (byte, stream) in streams.iter_mut().enumerate() {
            *stream = self.stream(bytes, byte, count)?;
        }
        Ok(streams)
    }

    /// A value of `W` bytes for each of `out`.
    pub(crate) fn read<T, const W: usize>(
        &mut self,
        bytes: &[u8],
        out: &mut [T],
        convert: impl Fn([u8; W]) -> T,
    ) -> Result<()> {
        // Of one length that the compiler sees, so that it need not check each index.
        let streams = self.streams::<W>(bytes, out.len())?.map(|stream| &stream[..out.len()]);
        for (i, to) in out.iter_mut().enumerate() {
            *to = convert(streams.map(|stream| stream[i]));
        }
        self.skip(out.len())
    }

    /// Of the next `count` values those at `positions`, all below `count`.
    pub(crate) fn read_at<T, const W: usize>(
        &mut self,
        bytes: &[u8],
        count: usize,
        positions: &[u32],
        out: &mut [T],
        convert: impl Fn([u8; W]) -> T,
    ) -> Result<()> {
        let streams = self.streams::<W>(bytes, count)?;
        for (to, &position) in out.iter_mut().zip(positions) {
            *to = convert(streams.map(|stream| stream[position as usize]));
        }
        self.skip(count)
    }

    /// The next `count` values, or those of them at `positions`, one after the other in `out`, which is as long as they
    /// are. For widths only known at run time.
    pub(crate) fn gather(
        &mut self,
        bytes: &[u8],
        count: usize,
        positions: Option<&[u32]>,
        out: &mut [u8],
    ) -> Result<()> {
        for byte in 0..self.width {
            let stream = self.stream(bytes, byte, count)?;
            let to = out.iter_mut().skip(byte).step_by(self.width);
            match positions {
                None => to.zip(stream).for_each(|(to, from)| *to = *from),
                Some(positions) => to.zip(positions).for_each(|(to, &p)| *to = stream[p as usize]),
            }
        }
        self.skip(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_skipping_selecting_and_gathering_agree() {
        let values: Vec<u32> = (0..50u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let mut bytes = vec![9; 3];
        (0..4).for_each(|byte| bytes.extend(values.iter().map(|v| v.to_le_bytes()[byte])));
        for skip in 0..50 {
            let mut all = Split::new(4, 3..203).expect("whole");
            all.skip(skip).expect("inside");
            let (mut some, mut raw, mut few) = (all.clone(), all.clone(), all.clone());
            let len = 50 - skip;
            let mut out = vec![0; len];
            all.read(&bytes, &mut out, u32::from_le_bytes).expect("inside");
            assert_eq!(out, &values[skip..]);
            let positions: Vec<u32> = (0..len as u32).step_by(3).collect();
            let mut out = vec![0; positions.len()];
            some.read_at(&bytes, len, &positions, &mut out, u32::from_le_bytes).expect("inside");
            let expected: Vec<u32> = positions.iter().map(|p| values[skip + *p as usize]).collect();
            assert_eq!(out, expected);
            let mut out = vec![0; len * 4];
            raw.gather(&bytes, len, None, &mut out).expect("inside");
            assert!(
                out.as_chunks::<4>().0.iter().map(|v| u32::from_le_bytes(*v)).eq(values[skip..].to_vec())
            );
            let mut out = vec![0; positions.len() * 4];
            few.gather(&bytes, len, Some(&positions), &mut out).expect("inside");
            assert!(out.as_chunks::<4>().0.iter().map(|v| u32::from_le_bytes(*v)).eq(expected));
            for mut ended in [all, some, raw, few] {
                assert_eq!(ended.skip(1), Err(CUT));
            }
        }
    }

    #[test]
    fn short_pages_are_errors() {
        assert!(Split::new(4, 0..7).is_err());
        assert!(Split::new(0, 0..8).is_err());
        let mut split = Split::new(4, 0..8).expect("whole");
        assert!(split.read(&[0; 8], &mut [0; 3], u32::from_le_bytes).is_err());
        assert!(split.read(&[0; 7], &mut [0; 2], u32::from_le_bytes).is_err());
        assert!(split.read(&[0; 8], &mut [0; 1], u64::from_le_bytes).is_err());
        assert!(split.gather(&[0; 8], 3, None, &mut [0; 12]).is_err());
    }
}
