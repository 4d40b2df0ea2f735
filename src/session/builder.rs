//! Building an engine: its limits, and their defaults.

use super::engine::{Engine, EngineInner};
use super::settings::{batch_size, spill_partitions};
use super::tables::Holdings;
use crate::error::{Error, Result};
use crate::exec::Slots;
use crate::mem::Pool;
use crate::sched::{Scheduler, SchedulerConfig};
use crate::spill::SpillDirectory;
use crate::{optimizer, physical};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const DEFAULT_SPILL_QUOTA_BYTES: u64 = 100 << 30;
/// Threads beyond any machine's processors gain nothing, and a system that runs out of them may end the process.
const MOST_THREADS: usize = 1024;

/// Builds an [`Engine`].
///
/// ```
/// use gristmill::{Engine, Error};
///
/// # fn main() -> gristmill::Result<()> {
/// let engine = Engine::builder()
///     .memory_limit(64 << 20)
///     .threads(2)
///     .temp_directory(std::env::temp_dir())
///     .max_temp_directory_size(1 << 30)
///     .max_concurrent_queries(4)
///     .build()?;
/// assert_eq!(engine.memory_peak(), 0);
/// // What makes no sense is refused with what would.
/// assert!(matches!(Engine::builder().threads(0).build(), Err(Error::Plan(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct EngineBuilder {
    memory_limit: Option<usize>,
    threads: Option<usize>,
    temp_directories: Vec<PathBuf>,
    max_temp_directory_size: Option<u64>,
    max_concurrent_queries: Option<usize>,
    disabled_optimizers: HashSet<String>,
    enable_sort_merge_join: Option<bool>,
    enable_stats_pruning: Option<bool>,
    batch_size: Option<usize>,
    spill_partitions: Option<usize>,
    testing: TestKnobs,
}

/// What tests turn: sizes and seeded faults. Not part of the API.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TestKnobs {
    /// Chance that a call of an operator panics.
    pub panic: u16,
    /// Rows of a full batch.
    pub batch_rows: Option<usize>,
    /// Chance, in 1/65536, that a revocable grant is refused, so that breakers spill.
    pub refuse_grant: u16,
    /// Chance that any bytes beyond a floor are refused.
    pub refuse_charge: u16,
    /// Chance that an operator waits first.
    pub wait: u16,
    /// Chance that a spill read or write fails.
    pub spill_error: u16,
    /// Chance that a spill read or write changes a bit.
    pub spill_corruption: u16,
    /// Seed of all chances.
    pub seed: u64,
    /// Sources emit single rows.
    pub one_row_batches: bool,
    /// Joins are ordered at random from this seed, not by cost.
    pub join_order_seed: Option<u64>,
    /// Joins that can be are sort-merge joins.
    pub merge_joins: bool,
}

impl EngineBuilder {
    /// Bytes the engine may hold: the sum over all its queries. Default: 60 % of the machine's memory or of the
    /// control group's limit, whichever is smaller.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Worker threads, at most 1024. Default: one for each processor the process may use, within that.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Where breakers spill; made when first needed, and nothing stays in it.
    #[must_use]
    pub fn temp_directory(self, directory: impl Into<PathBuf>) -> Self {
        self.temp_directories([directory])
    }

    /// Several places to spill to, such as one on each disk: their files take turns, and one that is full or broken is
    /// passed over while another is not. None is the default: a temporary directory of the system that is not in memory.
    #[must_use]
    pub fn temp_directories(mut self, directories: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.temp_directories = directories.into_iter().map(Into::into).collect();
        self
    }

    /// Bytes all spill files together may take. Default: 100 GiB.
    #[must_use]
    pub fn max_temp_directory_size(mut self, bytes: u64) -> Self {
        self.max_temp_directory_size = Some(bytes);
        self
    }

    /// Queries that run at a time; others wait for their turn, first come first served. Default: as many as there is
    /// memory for.
    ///
    /// A query waits inside its [`ResultStream`](crate::ResultStream), which is there at once: it can be cancelled, and
    /// its timeout counts. It takes part until its last row is in the stream's queue, so a thread that holds a stream
    /// it does not read should not wait for another one.
    #[must_use]
    pub fn max_concurrent_queries(mut self, queries: usize) -> Self {
        self.max_concurrent_queries = Some(queries);
        self
    }

    /// Optimizer rules left out, some of [`Engine::optional_rules`]: to find the one behind a bad plan.
    #[must_use]
    pub fn disabled_optimizers(mut self, rules: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.disabled_optimizers = rules.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the planner may choose the sort-merge join. Default: yes. EXPLAIN says why one was chosen.
    #[must_use]
    pub fn enable_sort_merge_join(mut self, enabled: bool) -> Self {
        self.enable_sort_merge_join = Some(enabled);
        self
    }

    /// Whether scans may leave out files' row groups and pages that statistics, page indexes and Bloom filters prove to
    /// have no row asked for. Default: yes. Turn it off for files whose statistics are wrong.
    #[must_use]
    pub fn enable_stats_pruning(mut self, enabled: bool) -> Self {
        self.enable_stats_pruning = Some(enabled);
        self
    }

    /// The most rows of a batch, 1 to 65536; with little memory there are fewer. Default: 8192. A session may set its
    /// own.
    #[must_use]
    pub fn batch_size(mut self, rows: usize) -> Self {
        self.batch_size = Some(rows);
        self
    }

    /// The most partitions that a join or an aggregation spills to at a time, a power of two from 4 to 64. Default: as
    /// many as there is memory for. A session may set its own.
    #[must_use]
    pub fn spill_partitions(mut self, partitions: usize) -> Self {
        self.spill_partitions = Some(partitions);
        self
    }

    /// Sizes and faults for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn testing(mut self, knobs: TestKnobs) -> Self {
        self.testing = knobs;
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// [`Error::Plan`] for settings that cannot be, [`Error::Io`] if a thread cannot be started.
    pub fn build(self) -> Result<Engine> {
        check_optional(&self.disabled_optimizers).map_err(|why| Error::plan(why, None))?;
        if self.max_concurrent_queries == Some(0) {
            let message = "max_concurrent_queries is 0, but the engine needs at least 1 to run a query";
            return Err(Error::plan(message, None));
        }
        let wrong = |name: &'static str| move |why: String| Error::plan(format!("{name}: {why}"), None);
        let batch_rows = self.batch_size.map(batch_size::check).transpose().map_err(wrong("batch_size"))?;
        let spill_partitions = self.spill_partitions.map(spill_partitions::check);
        let spill_partitions = spill_partitions.transpose().map_err(wrong("spill_partitions"))?;
        let max_concurrent_queries = self.max_concurrent_queries.unwrap_or(usize::MAX);
        let threads = self.threads.unwrap_or_else(|| SchedulerConfig::default().threads.min(MOST_THREADS));
        if threads > MOST_THREADS {
            let message =
                format!("threads is {threads}, but an engine has at most {MOST_THREADS}; ask for fewer");
            return Err(Error::plan(message, None));
        }
        let scheduler = Scheduler::new(SchedulerConfig { threads, ..SchedulerConfig::default() })?;
        let limit = self.memory_limit.unwrap_or_else(default_memory_limit);
        let quota = self.max_temp_directory_size.unwrap_or(DEFAULT_SPILL_QUOTA_BYTES);
        let pool = Pool::new("engine", limit);
        Ok(Engine {
            inner: Arc::new(EngineInner {
                scheduler,
                holdings: Holdings::new(pool.child("tables", limit)),
                pool,
                spill: SpillDirectory::new(self.temp_directories, quota),
                slots: Slots::new(max_concurrent_queries),
                threads,
                max_concurrent_queries,
                optimizer: optimizer::OptimizerSettings {
                    disabled: self.disabled_optimizers,
                    join_order_seed: self.testing.join_order_seed,
                },
                joins: physical::JoinPolicy {
                    allows_merge: self.enable_sort_merge_join.unwrap_or(true),
                    forces_merge: self.testing.merge_joins,
                    memory_bytes: limit,
                },
                batch_rows,
                spill_partitions,
                prunes: self.enable_stats_pruning.unwrap_or(true),
                testing: self.testing,
                started_queries: AtomicU64::new(0),
            }),
        })
    }
}

/// Refuses what is no rule to leave out.
pub(super) fn check_optional(rules: &HashSet<String>) -> Result<(), String> {
    match rules.iter().find(|name| optional_rules().all(|known| known != *name)) {
        None => Ok(()),
        Some(rule) => {
            let optional: Vec<_> = optional_rules().collect();
            Err(format!("'{rule}' is no rule to leave out; these are: {}", optional.join(", ")))
        }
    }
}

/// Names of what may be left out of planning, in the order it happens.
pub(super) fn optional_rules() -> impl Iterator<Item = &'static str> {
    optimizer::optional_rules().chain([physical::RUNTIME_FILTERS])
}

/// 60 % of the smaller of the machine's memory and the control group's limit; 1 GiB where neither is known.
fn default_memory_limit() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib << 10)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| read(path)?.trim().parse::<usize>().ok());
    match (total, group) {
        (Some(total), Some(group)) => total.min(group) / 10 * 6,
        (Some(known), None) | (None, Some(known)) => known / 10 * 6,
        (None, None) => 1 << 30,
    }
}
