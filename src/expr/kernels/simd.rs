//! Run-time choice of the widest vectors the machine has.
//!
//! A kernel is a struct that borrows its operands; its loop is compiled three times and the choice is made once a
//! batch. The standard library caches what it detects.

/// A loop to be compiled for several vector widths. `run` must be `#[inline(always)]`, or the widths are lost.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs the loop.
    fn run(self) -> Self::Output;
}

/// Runs `kernel` with the widest vectors of this machine.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the features were detected.
            return unsafe { with_avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was detected.
            return unsafe { with_avx2(kernel) };
        }
    }
    kernel.run()
}

/// Whether the AVX-512 subset the kernels are compiled for is there.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// The low bits of 64 bytes, each 0 or 1, as one word.
#[inline(always)]
pub(crate) fn pack(bytes: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (at, eight) in bytes.chunks_exact(8).enumerate() {
        let mut lanes = [0; 8];
        lanes.copy_from_slice(eight);
        // Each factor bit moves one byte's low bit to its place in the top byte; no two terms meet, so none carries.
        let bits = u64::from_le_bytes(lanes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (at * 8);
    }
    word
}

/// `out[i] = f(i)` for each bit, 64 at a time. `f` must accept every index below `len`.
pub(crate) struct FillBits<'a, F> {
    /// Words of the result; bits past `len` become zero.
    pub(crate) out: &'a mut [u64],
    /// Number of bits.
    pub(crate) len: usize,
    /// The bit at an index.
    pub(crate) f: F,
}

impl<F: Fn(usize) -> bool> Kernel for FillBits<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (at, word) in self.out.iter_mut().enumerate() {
            let base = at * 64;
            let mut bytes = [0; 64];
            if base + 64 <= self.len {
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from((self.f)(base + i));
                }
            } else {
                for (i, byte) in bytes.iter_mut().take(self.len - base).enumerate() {
                    *byte = u8::from((self.f)(base + i));
                }
            }
            *word = pack(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_bit_in_place() {
        for seed in 0u64..64 {
            let expected = 1u64 << seed | 0x8000_0000_0000_0001 | seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut bytes = [0; 64];
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = (expected >> i & 1) as u8;
            }
            assert_eq!(pack(&bytes), expected);
        }
    }

    #[test]
    fn bits_are_filled_to_the_last_and_no_further() {
        for len in [0, 1, 63, 64, 65, 200] {
            let mut words = vec![u64::MAX; usize::div_ceil(len, 64)];
            dispatch(FillBits { out: &mut words, len, f: |i| i % 3 == 0 });
            for i in 0..words.len() * 64 {
                assert_eq!(words[i / 64] >> (i % 64) & 1 == 1, i < len && i % 3 == 0, "{i} of {len}");
            }
        }
    }
}
