//! The arithmetic of fairness: what a slice costs its group, and the engine's virtual time.
//!
//! Owns: [`Priority`], [`Stride`] (ticks for a slice), [`VirtualClock`].
//!
//! Invariants:
//! 1. Pure integers: the same slices give the same ticks on every machine, so fairness is tested without timing.
//! 2. A slice costs at least one tick, so nobody runs for nothing.
//! 3. A group's effective priority falls from its full weight to `1 / 2^FLOOR_HALVINGS` of it, never below and
//!    never back.
//! 4. The virtual clock never goes back.
//!
//! Must not know: groups, tasks, threads.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// A query's share of the workers relative to the other queries, before decay: 200 gets twice the time of 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(NonZeroU32);

impl Priority {
    /// A quarter of the usual share.
    pub const LOW: Self = match Self::new(25) {
        Some(priority) => priority,
        None => unreachable!(),
    };

    /// The weight of a query nobody gave another: 100.
    pub const DEFAULT: Self = match Self::new(100) {
        Some(priority) => priority,
        None => unreachable!(),
    };

    /// Four times the usual share.
    pub const HIGH: Self = match Self::new(400) {
        Some(priority) => priority,
        None => unreachable!(),
    };

    /// A priority of `weight`; `None` for zero, which would be a query that never runs.
    pub const fn new(weight: u32) -> Option<Self> {
        match NonZeroU32::new(weight) {
            Some(weight) => Some(Self(weight)),
            None => None,
        }
    }

    /// The weight.
    pub const fn weight(self) -> u32 {
        self.0.get()
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<NonZeroU32> for Priority {
    fn from(weight: NonZeroU32) -> Self {
        Self(weight)
    }
}

/// One as a fixed-point fraction.
const ONE: u64 = 1 << 16;
/// A default-weight group that has not decayed pays one tick for this many nanoseconds.
const NANOS_PER_TICK: u64 = 1_000;
/// The floor of the decay is the full weight halved this often (1/64).
const FLOOR_HALVINGS: u64 = 6;
/// Slices every worker may spend on a group at its full priority, and again for each halving after that.
const SLICES_PER_HALVING: u64 = 10;

/// Converts measured time to ticks of virtual time.
#[derive(Debug)]
pub(super) struct Stride {
    /// CPU time a group has at full priority, and after that per halving.
    halving_nanos: u64,
}

impl Stride {
    /// Decay scales with the number of workers: a query that spreads over 64 of them has not become a long one
    /// within a single slice.
    pub(super) fn new(threads: usize, slice: Duration) -> Self {
        let budget = nanos(slice).saturating_mul(SLICES_PER_HALVING).saturating_mul(threads as u64);
        Self { halving_nanos: budget.max(1) }
    }

    /// What `slice_nanos` costs a group of `weight` that had consumed `consumed_nanos` before it.
    pub(super) fn ticks(&self, slice_nanos: u64, weight: u64, consumed_nanos: u64) -> u64 {
        let cost = u128::from(slice_nanos) * u128::from(Priority::DEFAULT.weight()) * u128::from(ONE);
        let effective = u128::from(weight.max(1)) * u128::from(self.fraction(consumed_nanos));
        let ticks = cost.div_ceil(effective * u128::from(NANOS_PER_TICK));
        u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
    }

    /// The fraction of its weight a group still has: whole for the first `halving_nanos`, halved over each further
    /// one (linear in between, so that it has no steps), floored.
    fn fraction(&self, consumed_nanos: u64) -> u64 {
        let late = consumed_nanos.saturating_sub(self.halving_nanos);
        let halvings = late / self.halving_nanos;
        if halvings >= FLOOR_HALVINGS {
            return ONE >> FLOOR_HALVINGS;
        }
        let from = ONE >> halvings;
        let within = u128::from(late % self.halving_nanos);
        from - (u128::from(from / 2) * within / u128::from(self.halving_nanos)) as u64
    }
}

/// A duration as nanoseconds; 584 years are enough.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The pass of the group picked last: where a newcomer or a sleeper joins the race.
///
/// Relaxed throughout: it orders nothing but itself, and a stale value costs somebody a slice at most.
#[derive(Debug)]
pub(super) struct VirtualClock(AtomicU64);

impl VirtualClock {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves to `pass` unless already past it.
    pub(super) fn advance(&self, pass: u64) {
        raise(&self.0, pass);
    }
}

/// `fetch_max` that leaves the cache line shared when there is nothing to raise.
pub(super) fn raise(value: &AtomicU64, least: u64) {
    if value.load(Ordering::Relaxed) < least {
        value.fetch_max(least, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const SLICE: u64 = 2_000_000;

    fn stride() -> Stride {
        Stride::new(1, Duration::from_nanos(SLICE))
    }

    #[test]
    fn a_fresh_default_group_pays_a_tick_per_microsecond() {
        assert_eq!(stride().ticks(SLICE, 100, 0), 2_000);
    }

    #[test]
    fn twice_the_weight_pays_half() {
        assert_eq!(stride().ticks(SLICE, 200, 0), 1_000);
        assert_eq!(stride().ticks(SLICE, 1, 0), 200_000);
    }

    #[test]
    fn even_an_empty_slice_costs_something() {
        assert_eq!(stride().ticks(0, 100, 0), 1);
        assert_eq!(stride().ticks(1, u64::from(u32::MAX), 0), 1);
    }

    #[test]
    fn priority_decays_without_steps_to_the_floor() {
        let s = stride();
        let costs: Vec<u64> = (0..100).map(|i| s.ticks(SLICE, 100, i * SLICE)).collect();
        assert!(costs[..=10].iter().all(|&c| c == 2_000), "ten slices of grace");
        assert_eq!(costs[20], 4_000, "half the priority after ten more");
        assert_eq!(costs[30], 8_000);
        assert!(costs.windows(2).all(|w| w[0] <= w[1] && w[1] <= w[0] * 112 / 100), "{costs:?}");
        assert_eq!(costs[99], 64 * 2_000);
        assert_eq!(s.ticks(SLICE, 100, u64::MAX), 64 * 2_000);
    }

    #[test]
    fn more_workers_decay_later() {
        let s = Stride::new(8, Duration::from_nanos(SLICE));
        assert_eq!(s.ticks(SLICE, 100, 80 * SLICE), 2_000);
        assert_eq!(s.ticks(SLICE, 100, 160 * SLICE), 4_000);
    }

    #[test]
    fn extreme_inputs_do_not_overflow() {
        let s = Stride::new(usize::MAX, Duration::MAX);
        assert_eq!(s.ticks(u64::MAX, 1, u64::MAX), u64::MAX.div_ceil(10));
        assert!(Stride::new(1, Duration::ZERO).ticks(u64::MAX, 1, u64::MAX) > 0);
    }

    #[test]
    fn a_zero_weight_is_no_priority() {
        assert_eq!(Priority::new(0), None);
        assert_eq!(Priority::default().weight(), 100);
    }
}
