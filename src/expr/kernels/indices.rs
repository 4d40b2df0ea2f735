//! Bits to ascending row numbers.

use crate::data::{Buf, BufMut};
use crate::mem::{Account, Denied};

/// The positions of the ones in `words`, ascending.
pub(crate) fn positions(words: &[u64], account: &Account) -> Result<Buf<u32>, Denied> {
    let ones = words.iter().map(|w| w.count_ones() as usize).sum();
    // Vectors are stored whole, so there is room for one more than needed.
    let mut out = BufMut::with_len(account, ones + LANES)?;
    #[cfg(target_arch = "x86_64")]
    if super::simd::has_avx512() {
        // SAFETY: the features were detected.
        unsafe { compress(words, &mut out) };
        out.set_len(ones);
        return Ok(out.freeze());
    }
    scan(words, &mut out);
    out.set_len(ones);
    Ok(out.freeze())
}

const LANES: usize = 16;

fn scan(words: &[u64], out: &mut [u32]) {
    let mut at = 0;
    for (i, &word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            out[at] = (i * 64) as u32 + rest.trailing_zeros();
            at += 1;
            rest &= rest - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn compress(words: &[u64], out: &mut [u32]) {
    use std::arch::x86_64::{
        _mm512_add_epi32, _mm512_maskz_compress_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
        _mm512_storeu_si512,
    };
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut at = 0;
    for (i, &word) in words.iter().enumerate() {
        if word == 0 {
            continue;
        }
        for part in 0..4 {
            let mask = (word >> (part * 16)) as u16;
            let base = _mm512_set1_epi32((i * 64 + part * 16) as i32);
            let packed = _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(lanes, base));
            let room = &mut out[at..at + LANES];
            // SAFETY: `room` is 16 writable values of 32 bits.
            unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), packed) };
            at += mask.count_ones() as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::kernels::testing::{Lab, Random};

    #[test]
    fn both_ways_list_the_ones() {
        let lab = Lab::new();
        let mut random = Random::new(3);
        for density in 0..4 {
            let words: Vec<u64> = (0..9)
                .map(|_| (0..density).fold(u64::MAX, |w, _| w & random.next()))
                .chain([0, 1 << 63])
                .collect();
            let want: Vec<u32> = (0..words.len() as u32 * 64)
                .filter(|&i| words[i as usize / 64] >> (i % 64) & 1 == 1)
                .collect();
            assert_eq!(&*positions(&words, &lab.account).expect("fits"), &want[..]);
            let mut scanned = vec![0; want.len()];
            scan(&words, &mut scanned);
            assert_eq!(scanned, want);
        }
    }
}
