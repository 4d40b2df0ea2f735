//! How the rows of a join are told apart where they go to disk.
//!
//! Invariants:
//! 1. The partition of a row follows from its word and from the split alone, on both sides and in every lane.
//! 2. Partitions by hash use bits that the directory does not: the rows of one are spread over all slots.
//! 3. Only the first split may be by value. Where values are spread less evenly than it takes for, its partitions are
//!    told apart by hash.

use super::direct::{Extent, Order};
use super::keys::KeyPlan;
use super::plan::Plan;
use super::spread::Spread;
use crate::data::hash::hash_word;
use crate::mem::Knobs;

/// Bits that partitions of partitions may spend in all.
const MOST_BITS: u32 = 48;
/// So few cost next to nothing, and estimates are often too low.
const LEAST_PARTITIONS: u64 = 16;
/// Parts of fewer values are not worth telling apart by value.
const LEAST_PART_VALUES: u64 = 64;
/// Makes the bits of partitions others than those of slots.
const SALT: u64 = 0x8CB9_2BA7_2F3D_8DD7;

/// What tells rows apart: `2^bits` partitions by some rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    rule: Rule,
    bits: u32,
    /// Of partitions of partitions of... how deep these are, from 1.
    depth: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// By bits of the hash; so many above them are the same in all rows.
    Hash { used_bits: u32 },
    /// By the value of the one key: equal parts of its range. Rows that come in the order of the key stay together, and
    /// the keys of a partition lie close enough together to be found by value.
    Value(Parts),
}

/// Equal parts of a range of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    order: Order,
    least: u64,
    /// The last value's distance from the least.
    span: u64,
    /// Parts per value, in 2^-64.
    scale: u64,
}

impl Parts {
    /// `2^bits` parts of `extent`; `None` if they would be of few values each.
    fn new(order: Order, extent: Extent, bits: u32) -> Option<Self> {
        let (least, span) = extent.least_and_span()?;
        if span >> bits < LEAST_PART_VALUES {
            return None;
        }
        let scale = (1_u128 << (u64::BITS + bits)) / (u128::from(span) + 1);
        Some(Self { order, least, span, scale: u64::try_from(scale).ok()? })
    }

    /// The part of a word's value. What lies outside of the range, which then was no more than a hint, is of the first or
    /// the last one.
    #[inline(always)]
    fn part_of(self, word: u64) -> usize {
        let distance = self.order.number(word).saturating_sub(self.least).min(self.span);
        ((u128::from(distance) * u128::from(self.scale)) >> u64::BITS) as usize
    }
}

impl Split {
    /// The partitions of a join as a whole, in a budget of `limit_bytes`: as many as it takes that each lane can hold one,
    /// if there are as many build rows as expected. More would make blocks smaller for nothing. By value if the keys lie so
    /// close together that they could be found by it.
    pub(super) fn first(plan: &Plan, knobs: &Knobs, limit_bytes: usize) -> Self {
        if !plan.roles.has_keys() {
            return Self { rule: Rule::Hash { used_bits: 0 }, bits: 0, depth: 1 };
        }
        // Floors take up to half of the budget, or a little more.
        let lane_bytes = (limit_bytes / (2 * knobs.lanes)).max(1) as u64;
        let wanted = plan.expected_build_bytes().map_or(u64::MAX, |bytes| bytes / lane_bytes);
        let most = knobs.fan_out.max(2) as u64;
        let bits = wanted.min(most).next_power_of_two().clamp(LEAST_PARTITIONS.min(most), most).ilog2();
        let parts = plan.expected_extent().and_then(|(order, extent)| Parts::new(order, extent, bits));
        let rule = parts.map_or(Rule::Hash { used_bits: 0 }, Rule::Value);
        Self { rule, bits, depth: 1 }
    }

    /// The partitions of one of its partitions; `None` if there are no bits left to tell them apart.
    pub(super) fn next(self) -> Option<Self> {
        let used_bits = match self.rule {
            Rule::Hash { used_bits } => used_bits + self.bits,
            Rule::Value(_) => 0,
        };
        let is_possible = self.bits > 0 && used_bits + self.bits <= MOST_BITS;
        is_possible.then_some(Self { rule: Rule::Hash { used_bits }, depth: self.depth + 1, ..self })
    }

    /// How many partitions there are.
    pub(super) fn partitions(self) -> usize {
        1 << self.bits
    }

    /// Of partitions of partitions of... how deep these are, from 1.
    pub(super) fn depth(self) -> u32 {
        self.depth
    }

    /// Where build rows go that no key finds.
    pub(super) fn unkeyed(self) -> u32 {
        1 << self.bits
    }

    /// The partition of the row with a word.
    #[inline(always)]
    pub(super) fn partitioner(self, keys: &KeyPlan) -> impl Fn(u64) -> usize + Copy + use<> {
        let hash_of = Spread::by_hash(keys).places();
        move |word| match self.rule {
            Rule::Hash { used_bits } => {
                let mixed = hash_word(hash_of(word) ^ SALT);
                // Shifted twice, for bits may be 0.
                (mixed << used_bits >> 1 >> (u64::BITS - 1 - self.bits)) as usize
            }
            Rule::Value(parts) => parts.part_of(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataType;

    const LEAST: i32 = -70_000;
    const GREATEST: i32 = 1_000_001;

    fn by_value(bits: u32) -> Split {
        let order = Order::of_bits(32);
        let extent = Extent::of_values(order, i64::from(LEAST)..=i64::from(GREATEST)).expect("in order");
        let parts = Parts::new(order, extent, bits).expect("many values each");
        Split { rule: Rule::Value(parts), bits, depth: 1 }
    }

    #[test]
    fn parts_of_a_range_are_even_and_in_order() {
        let keys = KeyPlan::new(vec![DataType::Int32], vec![false]);
        for bits in [0, 1, 4, 6] {
            let split = by_value(bits);
            let partition_of = split.partitioner(&keys);
            let mut counts = vec![0; split.partitions()];
            let mut before = 0;
            for value in LEAST..=GREATEST {
                let partition = partition_of(u64::from(value as u32));
                assert!(partition >= before, "{value}");
                before = partition;
                counts[partition] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 2), "{counts:?}");
            assert_eq!(partition_of(u64::from(i32::MIN as u32)), 0, "what lies before");
            assert_eq!(partition_of(u64::from(i32::MAX as u32)), split.partitions() - 1, "what lies behind");
        }
    }

    #[test]
    fn partitions_of_partitions_are_told_apart_by_hash() {
        let keys = KeyPlan::new(vec![DataType::Int32], vec![false]);
        let first = by_value(4);
        let second = first.next().expect("fresh bits");
        let third = second.next().expect("more of them");
        assert_eq!((first.depth(), second.depth(), third.depth()), (1, 2, 3));
        assert_ne!(second, third);
        let partition_of = second.partitioner(&keys);
        let first_part = (0..1000_u64).filter(|&word| first.partitioner(&keys)(word) == 1);
        let mut seen = vec![false; second.partitions()];
        first_part.for_each(|word| seen[partition_of(word)] = true);
        assert_eq!(seen, [true; 16]);
    }

    #[test]
    fn few_values_are_no_range_to_divide() {
        let order = Order::of_bits(64);
        let parts = |range, bits| Parts::new(order, Extent::of_values(order, range)?, bits);
        assert!(parts(0..=1000, 4).is_none());
        assert!(parts(4..=5, 0).is_none());
        assert!(parts(i64::MIN..=i64::MAX, 6).is_some());
    }
}
