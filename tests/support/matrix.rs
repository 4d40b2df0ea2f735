//! The settings every SQL test runs under: {normal, one-row batches} × {ample, tiny budget} × {no faults, forced spill,
//! injected faults} × {1, many workers}, and merge joins wherever they can be in half of these. The default is a selection
//! that has every value and the pairs that have caught most; `GRISTMILL_TEST_MATRIX=full` runs all of them.

use gristmill::{Engine, Error, TestKnobs};
use std::path::Path;

/// The promise of the engine at its smallest.
const TINY_BUDGET_BYTES: usize = 10_000_000;
const AMPLE_BUDGET_BYTES: usize = 1 << 30;
const MANY_WORKERS: usize = 4;

/// Chances in 1/65536.
const ALWAYS: u16 = u16::MAX;
const HALF: u16 = 1 << 15;
const ONE_IN_TEN: u16 = 6_553;
const ONE_IN_A_HUNDRED: u16 = 655;

/// What is made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    None,
    /// Every revocable grant is refused: whatever can spill does. So is half of what is asked for beyond any floor.
    ForcedSpill,
    /// Some grants are refused, some calls wait, some spill reads and writes fail.
    Injected,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub one_row_batches: bool,
    pub tiny_budget: bool,
    pub faults: Faults,
    pub many_workers: bool,
    /// Joins sort and merge where they can.
    pub merge_joins: bool,
}

impl Setting {
    /// Plenty of everything.
    pub const PLAIN: Self = Self {
        one_row_batches: false,
        tiny_budget: false,
        faults: Faults::None,
        many_workers: true,
        merge_joins: false,
    };

    /// All 36 cells. Merge joins, whose batches end where keys do, are not tried with one-row batches as well.
    pub fn full() -> Vec<Self> {
        let mut cells = Vec::new();
        for one_row_batches in [false, true] {
            for tiny_budget in [false, true] {
                for faults in [Faults::None, Faults::ForcedSpill, Faults::Injected] {
                    for many_workers in [false, true] {
                        for merge_joins in [false, true] {
                            let cell =
                                Self { one_row_batches, tiny_budget, faults, many_workers, merge_joins };
                            if !(merge_joins && one_row_batches) {
                                cells.push(cell);
                            }
                        }
                    }
                }
            }
        }
        cells
    }

    /// The cells this run covers.
    pub fn selected() -> Vec<Self> {
        if std::env::var_os("GRISTMILL_TEST_MATRIX").is_some_and(|v| v == "full") {
            return Self::full();
        }
        let plain = Self::PLAIN;
        vec![
            plain,
            Self { many_workers: false, ..plain },
            Self { tiny_budget: true, ..plain },
            Self { faults: Faults::ForcedSpill, ..plain },
            Self { tiny_budget: true, faults: Faults::ForcedSpill, ..plain },
            Self { tiny_budget: true, faults: Faults::Injected, ..plain },
            Self { one_row_batches: true, ..plain },
            Self {
                one_row_batches: true,
                tiny_budget: true,
                faults: Faults::ForcedSpill,
                many_workers: false,
                ..plain
            },
            Self { merge_joins: true, ..plain },
            Self { merge_joins: true, tiny_budget: true, faults: Faults::ForcedSpill, ..plain },
            Self { faults: Faults::Injected, many_workers: false, ..plain },
        ]
    }

    /// Such as `tiny-spill-4`.
    pub fn name(self) -> String {
        let rows = if self.one_row_batches { "onerow-" } else { "" };
        let budget = if self.tiny_budget { "tiny" } else { "ample" };
        let faults = match self.faults {
            Faults::None => "plain",
            Faults::ForcedSpill => "spill",
            Faults::Injected => "faults",
        };
        let joins = if self.merge_joins { "merge-" } else { "" };
        format!("{joins}{rows}{budget}-{faults}-{}", self.workers())
    }

    fn workers(self) -> usize {
        if self.many_workers { MANY_WORKERS } else { 1 }
    }

    /// Bytes the engine may hold.
    pub fn budget_bytes(self) -> usize {
        if self.tiny_budget { TINY_BUDGET_BYTES } else { AMPLE_BUDGET_BYTES }
    }

    /// An engine of this setting; `attempt` seeds its faults and 0 to [`Setting::LAST_ATTEMPT`] may differ in luck.
    pub fn engine(self, spill: &Path, attempt: u64) -> Result<Engine, Error> {
        let knobs = match self.faults {
            Faults::None => TestKnobs::default(),
            Faults::ForcedSpill => {
                TestKnobs { refuse_grant: ALWAYS, refuse_charge: HALF, ..TestKnobs::default() }
            }
            Faults::Injected => TestKnobs {
                refuse_grant: ONE_IN_TEN,
                refuse_charge: ONE_IN_TEN,
                wait: ONE_IN_TEN,
                // The last attempt must succeed, so that rows are compared and not only errors survived.
                spill_error: if attempt < Self::LAST_ATTEMPT { ONE_IN_A_HUNDRED } else { 0 },
                ..TestKnobs::default()
            },
        };
        Engine::builder()
            .memory_limit(self.budget_bytes())
            .threads(self.workers())
            .temp_directory(spill)
            .testing(TestKnobs {
                seed: attempt + 1,
                one_row_batches: self.one_row_batches,
                merge_joins: self.merge_joins,
                ..knobs
            })
            .build()
    }

    /// Attempts before spill errors are switched off.
    pub const LAST_ATTEMPT: u64 = 5;

    /// Whether `error` may be one that was injected, so that the query may be tried again.
    pub fn may_retry(self, error: &Error, attempt: u64) -> bool {
        self.faults == Faults::Injected && attempt < Self::LAST_ATTEMPT && matches!(error, Error::Io { .. })
    }
}
