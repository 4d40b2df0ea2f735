//! A fast 64-bit checksum against damage on disk. Not against forgery, and not stable between versions: spill files
//! do not outlive their process.
//!
//! Eight independent lanes each take every eighth word by `x ↦ rotate((x ^ word) · odd)`. Each step is a bijection of
//! the lane, so damage confined to one word is always noticed; wider damage goes unnoticed once in 2⁶⁴.

/// Bytes taken at a time; what is hashed must be a multiple of this.
pub(super) const STRIPE_BYTES: usize = 64;

const LANES: usize = STRIPE_BYTES / 8;
/// Fractional bits of the golden ratio, odd.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A checksum over stripes, fed piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Checksum {
    lanes: [u64; LANES],
}

impl Checksum {
    /// A checksum of nothing yet.
    pub(super) fn new() -> Self {
        Self { lanes: std::array::from_fn(|i| MULTIPLIER.wrapping_mul(2 * i as u64 + 1)) }
    }

    /// Takes whole stripes. Panics in debug builds if a part of one is left over.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (stripes, rest) = bytes.as_chunks::<STRIPE_BYTES>();
        debug_assert!(rest.is_empty(), "checksums cover whole stripes");
        let mut lanes = self.lanes;
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER).rotate_left(29);
            }
        }
        self.lanes = lanes;
    }

    /// The checksum of everything taken.
    pub(super) fn finish(&self) -> u64 {
        let mixed = self.lanes.iter().fold(MULTIPLIER, |sum, lane| {
            (sum.rotate_left(23) ^ lane).wrapping_mul(MULTIPLIER) ^ (lane >> 32)
        });
        (mixed ^ (mixed >> 29)).wrapping_mul(MULTIPLIER) ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut checksum = Checksum::new();
        checksum.update(bytes);
        checksum.finish()
    }

    #[test]
    fn every_flipped_bit_and_every_swap_of_stripes_is_noticed() {
        let mut bytes: Vec<u8> = (0..512u32).map(|i| (i * 7 + i / 64) as u8).collect();
        let whole = of(&bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&bytes), whole, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes.rotate_left(STRIPE_BYTES);
        assert_ne!(of(&bytes), whole);
        bytes.rotate_right(STRIPE_BYTES + 8);
        assert_ne!(of(&bytes), whole);
    }

    #[test]
    fn pieces_and_the_whole_agree() {
        let bytes: Vec<u8> = (0..640u32).map(|i| (i * i) as u8).collect();
        let mut pieces = Checksum::new();
        pieces.update(&bytes[..192]);
        pieces.update(&bytes[192..]);
        assert_eq!(pieces.finish(), of(&bytes));
    }
}
