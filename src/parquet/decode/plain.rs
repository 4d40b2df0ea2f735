//! PLAIN values: fixed width, bits, and length-prefixed bytes.

use super::{Result, Short};

const CUT: Short = Short("a page ends before its last value");

fn part(bytes: &[u8], at: usize, count: usize, width: usize) -> Result<&[u8]> {
    let len = count.checked_mul(width).ok_or(CUT)?;
    at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(CUT)
}

/// Values of `W` bytes from `at`, one for each of `out`.
pub(crate) fn fixed<T, const W: usize>(
    bytes: &[u8],
    at: usize,
    out: &mut [T],
    convert: impl Fn([u8; W]) -> T,
) -> Result<()> {
    let from = part(bytes, at, out.len(), W)?;
    for (to, from) in out.iter_mut().zip(from.as_chunks::<W>().0) {
        *to = convert(*from);
    }
    Ok(())
}

/// Of the `count` values from `at` those at `positions`, all below `count`.
pub(crate) fn fixed_at<T, const W: usize>(
    bytes: &[u8],
    at: usize,
    count: usize,
    positions: &[u32],
    out: &mut [T],
    convert: impl Fn([u8; W]) -> T,
) -> Result<()> {
    let from = part(bytes, at, count, W)?.as_chunks::<W>().0;
    for (to, &position) in out.iter_mut().zip(positions) {
        *to = convert(from[position as usize]);
    }
    Ok(())
}

/// Bits from bit `at` of `bytes`, as zeros and ones.
pub(crate) fn bits(bytes: &[u8], at: usize, out: &mut [u8]) -> Result<()> {
    if (at + out.len()).div_ceil(8) > bytes.len() {
        return Err(CUT);
    }
    for (i, to) in out.iter_mut().enumerate() {
        *to = bytes[(at + i) / 8] >> ((at + i) % 8) & 1;
    }
    Ok(())
}

/// Of the `count` bits from bit `at` those at `positions`.
pub(crate) fn bits_at(
    bytes: &[u8],
    at: usize,
    count: usize,
    positions: &[u32],
    out: &mut [u8],
) -> Result<()> {
    if (at + count).div_ceil(8) > bytes.len() {
        return Err(CUT);
    }
    for (to, &position) in out.iter_mut().zip(positions) {
        let bit = at + position as usize;
        *to = bytes[bit / 8] >> (bit % 8) & 1;
    }
    Ok(())
}

/// Walks `count` length-prefixed values from `at`, giving each one's index, offset and bytes; returns where the next
/// value begins.
#[inline]
pub(crate) fn for_each_bytes<'a>(
    bytes: &'a [u8],
    mut at: usize,
    count: usize,
    mut f: impl FnMut(usize, usize, &'a [u8]) -> Result<()>,
) -> Result<usize> {
    for index in 0..count {
        let prefix = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(CUT)?;
        let len = u32::from_le_bytes(*prefix) as usize;
        at += 4;
        let value = at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(CUT)?;
        f(index, at, value)?;
        at += len;
    }
    Ok(at)
}

/// A big-endian two's complement number of 1 to 16 bytes.
#[inline]
pub(crate) fn decimal_from_be(raw: &[u8]) -> i128 {
    let is_negative = raw.first().is_some_and(|b| b & 0x80 != 0);
    let mut wide = if is_negative { [0xff; 16] } else { [0; 16] };
    let len = raw.len().min(16);
    wide[16 - len..].copy_from_slice(&raw[raw.len() - len..]);
    i128::from_be_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_endian_decimals_of_any_length() {
        for value in [0i128, 1, -1, 127, -128, 128, 1 << 40, -(1 << 40), i128::MAX, i128::MIN] {
            for len in 1..=16 {
                let raw = &value.to_be_bytes()[16 - len..];
                let fits = value >> (len * 8 - 1).min(127) == 0 || value >> (len * 8 - 1).min(127) == -1;
                if fits {
                    assert_eq!(decimal_from_be(raw), value, "{len} bytes");
                }
            }
        }
    }

    #[test]
    fn short_pages_are_errors() {
        let bytes = [4, 0, 0, 0, b'a', b'b', b'c', b'd', 1, 0, 0];
        let mut seen = Vec::new();
        let walk = for_each_bytes(&bytes, 0, 2, |i, at, v| {
            seen.push((i, at, v.to_vec()));
            Ok(())
        });
        assert_eq!((walk, seen), (Err(CUT), vec![(0, 4, b"abcd".to_vec())]));
        assert!(for_each_bytes(&[0xff; 8], 0, 1, |_, _, _| Ok(())).is_err());
        assert!(fixed(&bytes, 8, &mut [0u32; 1], u32::from_le_bytes).is_err());
        assert!(fixed_at(&bytes, 0, 3, &[0], &mut [0u32; 1], u32::from_le_bytes).is_err());
        assert!(bits(&bytes, 80, &mut [0; 9]).is_err());
    }
}
