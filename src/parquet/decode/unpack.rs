//! Unpacking little-endian bit-packed numbers, and testing codes against a table.
//!
//! Owns: [`Kernels`].
//!
//! Invariants:
//! 1. Widths of codes are 0 to 32 bits.
//! 2. A kernel reads at most [`READ_AHEAD_BYTES`] past the last packed value, and checks that they exist.

/// Bytes that must be readable behind packed values.
pub(crate) const READ_AHEAD_BYTES: usize = 32;

/// The kernels this machine runs best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernels {
    /// Any machine.
    Portable,
    /// x86-64 with AVX2; made by [`Kernels::detect`] only.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

/// Proof that the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Kernels {
    /// Looks at the machine.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Self::Avx2(Avx2(()));
        }
        Self::Portable
    }

    /// Values `first..first + out.len()` of `packed`, `width` bits each; returns the largest.
    ///
    /// # Panics
    /// If `packed` does not hold them and [`READ_AHEAD_BYTES`] more.
    pub(crate) fn unpack(self, packed: &[u8], width: u32, first: usize, out: &mut [u32]) -> u32 {
        assert!(width <= 32, "invariant: widths are checked when a page is opened");
        let end_bits = (first + out.len()) * width as usize;
        assert!(
            end_bits.div_ceil(8) + READ_AHEAD_BYTES <= packed.len(),
            "invariant: packed values are padded"
        );
        if width == 0 {
            out.fill(0);
            return 0;
        }
        match self {
            Self::Portable => unpack_portable(packed, width, first, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) if width <= avx2::WIDEST => {
                let head = (8 - first % 8) % 8;
                let (head, rest) = out.split_at_mut(head.min(out.len()));
                let (whole, tail) = rest.split_at_mut(rest.len() / 8 * 8);
                let mut most = unpack_portable(packed, width, first, head);
                let first = first + head.len();
                // SAFETY: `Avx2` proves the machine has it. `first` is a multiple of 8 or `whole` is empty, and the
                // assertion above leaves READ_AHEAD_BYTES behind the last value.
                most = most.max(unsafe { avx2::unpack(packed, width, first, whole) });
                most.max(unpack_portable(packed, width, first + whole.len(), tail))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => unpack_portable(packed, width, first, out),
        }
    }

    /// Appends to `out` each position `base + i` for which `keep[codes[i]]` is 1; returns how many.
    ///
    /// `keep` holds zeros and ones, and three more bytes than there are codes.
    ///
    /// # Panics
    /// If `out` has not room for a position per code and 8 more, or if `keep` is too short for a code.
    pub(crate) fn filter_codes(self, codes: &[u32], keep: &[u8], base: u32, out: &mut [u32]) -> usize {
        assert!(out.len() >= codes.len() + 8, "invariant: room for every position and a vector more");
        match self {
            Self::Portable => filter_portable(codes, keep, base, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => {
                let whole = codes.len() / 8 * 8;
                // SAFETY: `Avx2` proves the machine has it; `out` has room by the assertion above.
                let count = unsafe { avx2::filter_codes(&codes[..whole], keep, base, out) };
                count + filter_portable(&codes[whole..], keep, base + whole as u32, &mut out[count..])
            }
        }
    }
}

fn mask(width: u32) -> u64 {
    (1u64 << width) - 1
}

/// Value `index` of `packed`. `width` is 1 to 32; 8 bytes from its first must be readable.
#[inline]
pub(super) fn extract(packed: &[u8], width: u32, index: usize) -> u32 {
    let bit = index * width as usize;
    let word: [u8; 8] = packed[bit / 8..bit / 8 + 8].try_into().expect("invariant: eight bytes were sliced");
    (u64::from_le_bytes(word) >> (bit % 8) & mask(width)) as u32
}

/// As [`extract`] for a `width` of 33 to 64; 16 bytes from the value's first must be readable.
#[inline]
pub(super) fn extract_wide(packed: &[u8], width: u32, index: usize) -> u64 {
    let bit = index * width as usize;
    let word: [u8; 16] =
        packed[bit / 8..bit / 8 + 16].try_into().expect("invariant: sixteen bytes were sliced");
    (u128::from_le_bytes(word) >> (bit % 8)) as u64 & (u64::MAX >> (64 - width))
}

fn unpack_portable(packed: &[u8], width: u32, first: usize, out: &mut [u32]) -> u32 {
    let mut most = 0;
    for (i, to) in out.iter_mut().enumerate() {
        *to = extract(packed, width, first + i);
        most = most.max(*to);
    }
    most
}

fn filter_portable(codes: &[u32], keep: &[u8], base: u32, out: &mut [u32]) -> usize {
    let mut count = 0;
    for (i, &code) in codes.iter().enumerate() {
        out[count] = base + i as u32;
        count += usize::from(keep[code as usize] & 1);
    }
    count
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    /// Widest value that lies in 4 bytes at any bit offset.
    pub(super) const WIDEST: u32 = 25;

    /// For each byte of kept lanes, the positions of its ones, moved to the front.
    static COMPACT: [[u32; 8]; 256] = compact_table();

    const fn compact_table() -> [[u32; 8]; 256] {
        let mut table = [[0; 8]; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut bit, mut count) = (0, 0);
            while bit < 8 {
                if byte >> bit & 1 == 1 {
                    table[byte][count] = bit;
                    count += 1;
                }
                bit += 1;
            }
            byte += 1;
        }
        table
    }

    /// Which four bytes, and which bit in them, each of eight values begins at. Values 4 to 7 are relative to the
    /// byte their half begins in.
    fn layout(width: usize) -> ([u8; 32], [u32; 8]) {
        let (mut bytes, mut shifts) = ([0; 32], [0; 8]);
        for value in 0..8 {
            let origin = if value < 4 { 0 } else { 4 * width / 8 * 8 };
            let bit = value * width - origin;
            shifts[value] = (bit % 8) as u32;
            for byte in 0..4 {
                bytes[value * 4 + byte] = (bit / 8 + byte) as u8;
            }
        }
        (bytes, shifts)
    }

    /// Unpacks a multiple of 8 values from a multiple of 8.
    ///
    /// # Safety
    /// AVX2; `width` is 1 to [`WIDEST`]; `packed` holds the values and 32 bytes more.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn unpack(packed: &[u8], width: u32, first: usize, out: &mut [u32]) -> u32 {
        let width = width as usize;
        let (bytes, shifts) = layout(width);
        // SAFETY: both arrays are 32 bytes long.
        let (shuffle, shifts) = unsafe {
            (_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_loadu_si256(shifts.as_ptr().cast()))
        };
        let mask = _mm256_set1_epi32(super::mask(width as u32) as i32);
        let half = 4 * width / 8;
        let mut most = _mm256_setzero_si256();
        let from = packed[first / 8 * width..].as_ptr();
        for (group, to) in out.chunks_exact_mut(8).enumerate() {
            // SAFETY: the group's `width` bytes begin inside `packed`, and 32 more follow the last group; both
            // loads end at most 12 + 16 bytes after the group's first byte plus `half`.
            let values = unsafe {
                let from = from.add(group * width);
                let low = _mm_loadu_si128(from.cast());
                let high = _mm_loadu_si128(from.add(half).cast());
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
            };
            let values = _mm256_srlv_epi32(_mm256_shuffle_epi8(values, shuffle), shifts);
            let values = _mm256_and_si256(values, mask);
            most = _mm256_max_epu32(most, values);
            // SAFETY: `to` is 8 values long.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values) };
        }
        let mut lanes = [0u32; 8];
        // SAFETY: `lanes` is 32 bytes long.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), most) };
        lanes.into_iter().max().unwrap_or(0)
    }

    /// As `Kernels::filter_codes`, for a multiple of 8 codes.
    ///
    /// # Safety
    /// AVX2; `out` has room for a position per code and 8 more.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn filter_codes(codes: &[u32], keep: &[u8], base: u32, out: &mut [u32]) -> usize {
        let last = keep.len().checked_sub(4).expect("invariant: a table has three bytes of padding");
        let last = _mm256_set1_epi32(i32::try_from(last).unwrap_or(i32::MAX));
        let mut count = 0;
        let mut beyond = _mm256_setzero_si256();
        for (group, codes) in codes.chunks_exact(8).enumerate() {
            // SAFETY: `codes` is 8 codes long.
            let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
            // Codes past the table are read as its last one here, and panic below.
            let inside = _mm256_min_epu32(codes, last);
            beyond = _mm256_or_si256(beyond, _mm256_xor_si256(codes, inside));
            // SAFETY: four bytes from each index ≤ len - 4 lie inside `keep`.
            let kept = unsafe { _mm256_i32gather_epi32::<1>(keep.as_ptr().cast(), inside) };
            let kept = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32::<31>(kept))) as usize;
            // SAFETY: a table row is 8 values long; `count ≤ group * 8`, so 8 more fit into `out`.
            unsafe {
                let positions = _mm256_loadu_si256(COMPACT[kept].as_ptr().cast());
                let positions =
                    _mm256_add_epi32(positions, _mm256_set1_epi32((base + group as u32 * 8) as i32));
                _mm256_storeu_si256(out.as_mut_ptr().add(count).cast(), positions);
            }
            count += kept.count_ones() as usize;
        }
        assert!(_mm256_testz_si256(beyond, beyond) == 1, "invariant: codes are inside their dictionary");
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(values: &[u32], width: u32) -> Vec<u8> {
        let mut out = vec![0; (values.len() * width as usize).div_ceil(8) + READ_AHEAD_BYTES];
        for (i, value) in values.iter().enumerate() {
            for bit in 0..width as usize {
                let at = i * width as usize + bit;
                out[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
            }
        }
        out
    }

    #[test]
    fn every_width_and_offset_unpacks_alike() {
        for width in 0..=32u32 {
            let values: Vec<u32> = (0..200u64)
                .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32 & mask(width) as u32)
                .collect();
            let packed = pack(&values, width);
            for kernels in [Kernels::Portable, Kernels::detect()] {
                for first in [0, 1, 7, 8, 13, 64] {
                    for len in [0, 1, 7, 8, 9, 100] {
                        let mut out = vec![u32::MAX; len];
                        let most = kernels.unpack(&packed, width, first, &mut out);
                        assert_eq!(
                            out,
                            &values[first..first + len],
                            "{width} bits from {first}, {kernels:?}"
                        );
                        assert_eq!(most, out.iter().copied().max().unwrap_or(0));
                    }
                }
            }
        }
    }

    #[test]
    fn codes_are_filtered_alike() {
        let codes: Vec<u32> = (0..1003u32).map(|i| i * 7 % 100).collect();
        let keep: Vec<u8> = (0..103).map(|i| u8::from(i % 3 == 0)).collect();
        for kernels in [Kernels::Portable, Kernels::detect()] {
            let mut out = vec![0; codes.len() + 8];
            let count = kernels.filter_codes(&codes, &keep, 5, &mut out);
            let expected: Vec<u32> =
                (0..1003).filter(|i| codes[*i as usize].is_multiple_of(3)).map(|i| i + 5).collect();
            assert_eq!(&out[..count], expected);
        }
    }
}
