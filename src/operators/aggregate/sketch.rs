//! About how many different hashes there were (Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog", AofA 2007).

/// Registers; the error is about 1.04 by the root of that: 1.6 %.
const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 12;

/// Hashes seen.
pub(super) struct Sketch {
    /// For each low end of a hash, the longest run of zeros that any such hash begins with, and one more.
    registers: Box<[u8; REGISTERS]>,
    added: usize,
}

impl Sketch {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { registers: Box::new([0; REGISTERS]), added: 0 }
    }

    /// Notes a hash.
    #[inline]
    pub(super) fn add(&mut self, hash: u64) {
        let register = &mut self.registers[hash as usize & (REGISTERS - 1)];
        // The index's place is ones, so that there is an end to zeros.
        let rank = (hash | (REGISTERS as u64 - 1)).leading_zeros() as u8 + 1;
        *register = rank.max(*register);
        self.added += 1;
    }

    /// How many have been noted.
    pub(super) fn added(&self) -> usize {
        self.added
    }

    /// About how many of them differ.
    pub(super) fn distinct(&self) -> f64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|&rank| f64::powi(2.0, -i32::from(rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.registers.iter().filter(|&&rank| rank == 0).count();
        // Few hashes leave registers empty, which tells more.
        if estimate <= 2.5 * registers && empty > 0 {
            return registers * (registers / empty as f64).ln();
        }
        estimate
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::hash_word;
    use super::*;

    #[test]
    fn counts_different_hashes_to_a_few_percent() {
        for distinct in [10u64, 1000, 10_000, 20_000, 100_000, 1_000_000] {
            let mut sketch = Sketch::new();
            for key in (0..distinct).chain(0..distinct / 2) {
                sketch.add(hash_word(key));
            }
            let error = sketch.distinct() / distinct as f64 - 1.0;
            assert!(error.abs() < 0.06, "{distinct}: {error}");
            assert_eq!(sketch.added() as u64, distinct + distinct / 2);
        }
    }
}
