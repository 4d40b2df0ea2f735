//! Faults on demand: refused grants, waits, I/O errors, one-row batches, from a seed.
//!
//! Owns: [`Faults`]. The probabilities are per call, in 1/65536.

use crate::mem::RefusalHook;
use crate::spill::{DiskFault, FaultHook};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What to inject, and a seeded source of chance. Shared by all lanes of a query.
#[derive(Debug)]
pub(crate) struct Faults {
    config: FaultConfig,
    state: AtomicU64,
}

/// Probabilities in 1/65536 per opportunity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultConfig {
    /// Refuse a revocable grant, so that breakers spill.
    pub(crate) refuse_grant: u16,
    /// Refuse any bytes beyond an account's floor.
    pub(crate) refuse_charge: u16,
    /// Answer with a wait first.
    pub(crate) wait: u16,
    /// Fail a spill read or write.
    pub(crate) spill_error: u16,
    /// Spill other bytes than given, or read others than spilled.
    pub(crate) spill_corruption: u16,
    /// Panic in a call of an operator.
    pub(crate) panic: u16,
    /// Split batches into single rows.
    pub(crate) one_row_batches: bool,
    /// Seed of the chance.
    pub(crate) seed: u64,
}

impl FaultConfig {
    /// Nothing goes wrong.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        refuse_grant: 0,
        refuse_charge: 0,
        wait: 0,
        spill_error: 0,
        spill_corruption: 0,
        panic: 0,
        one_row_batches: false,
        seed: 0,
    };
}

impl Faults {
    /// Faults as configured.
    pub(crate) fn new(config: FaultConfig) -> Self {
        Self { config, state: AtomicU64::new(config.seed) }
    }

    /// What is injected.
    pub(crate) fn config(&self) -> FaultConfig {
        self.config
    }

    /// Whether to refuse a revocable grant.
    pub(crate) fn refuses_grant(&self) -> bool {
        self.chance(self.config.refuse_grant)
    }

    /// What asks before every grant beyond a floor whether to refuse it; `None` if none ever is.
    pub(crate) fn charge_hook(self: &Arc<Self>) -> Option<RefusalHook> {
        let faults = Arc::clone(self);
        (self.config.refuse_charge > 0)
            .then(|| Box::new(move || faults.chance(faults.config.refuse_charge)) as RefusalHook)
    }

    /// Whether to answer with a wait.
    pub(crate) fn waits(&self) -> bool {
        self.chance(self.config.wait)
    }

    /// Whether to panic.
    pub(crate) fn panics(&self) -> bool {
        self.chance(self.config.panic)
    }

    /// What asks before every spill read and write whether to fail it; `None` if none ever is.
    pub(crate) fn disk_hook(self: &Arc<Self>) -> Option<FaultHook> {
        let has_any = self.config.spill_error > 0 || self.config.spill_corruption > 0;
        let faults = Arc::clone(self);
        has_any.then(|| Arc::new(move || faults.disk_fault()) as FaultHook)
    }

    fn disk_fault(&self) -> Option<DiskFault> {
        if self.chance(self.config.spill_corruption) {
            return Some(DiskFault::Corrupt);
        }
        const THIRD: u16 = u16::MAX / 3;
        self.chance(self.config.spill_error).then(|| match () {
            () if self.chance(THIRD) => DiskFault::Full,
            () if self.chance(u16::MAX / 2) => DiskFault::Broken,
            () => DiskFault::Short,
        })
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) over a shared counter.
    fn chance(&self, of_65536: u16) -> bool {
        if of_65536 == 0 {
            return false;
        }
        let mut z = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) as u16) < of_65536
    }
}
