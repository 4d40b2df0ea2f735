//! What a session can be told by name: `SET name = value`, `RESET name`, [`super::Session::set`].
//!
//! Owns: [`SETTINGS`], the list of all settings; [`Settings`], their values in one session.
//!
//! Invariants:
//! 1. Adding a setting is one file and one line in [`SETTINGS`].
//! 2. Names are DuckDB's where it has the setting; case does not matter.
//! 3. A value is checked before anything changes.
//!
//! Must not know: SQL text, execution.

pub(super) mod batch_size;
mod disabled_optimizers;
mod enable_sort_merge_join;
mod enable_stats_pruning;
mod engine_wide;
mod memory_limit;
mod priority;
pub(super) mod spill_partitions;
mod timeout;
pub(super) mod units;

use super::engine::EngineInner;
use crate::error::{Error, Result};
use crate::sched::Priority;
use crate::sql::Assignment;
use std::collections::HashSet;
use std::time::Duration;

/// All of them, in alphabetical order.
static SETTINGS: &[&dyn Setting] = &[
    &batch_size::BatchSize,
    &disabled_optimizers::DisabledOptimizers,
    &enable_sort_merge_join::EnableSortMergeJoin,
    &enable_stats_pruning::EnableStatsPruning,
    &engine_wide::MaxConcurrentQueries,
    &engine_wide::MaxTempDirectorySize,
    &memory_limit::MemoryLimit,
    &priority::QueryPriority,
    &spill_partitions::SpillPartitions,
    &engine_wide::TempDirectory,
    &engine_wide::Threads,
    &timeout::Timeout,
];

/// What the settings of a session are; `None` where it leaves the matter to the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) memory_limit: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) priority: Priority,
    pub(super) disabled_optimizers: Option<HashSet<String>>,
    pub(super) enable_sort_merge_join: Option<bool>,
    pub(super) enable_stats_pruning: Option<bool>,
    pub(super) batch_rows: Option<usize>,
    pub(super) spill_partitions: Option<usize>,
}

/// One setting.
trait Setting: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Another name it goes by.
    fn alias(&self) -> Option<&'static str> {
        None
    }
    /// What it does, in a few words.
    fn description(&self) -> &'static str;
    /// Changes it; `None` is its default.
    ///
    /// # Errors
    /// What is wrong with the value and what would be right, to follow the name and the value.
    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String>;
    /// Its value, as it could be written.
    fn value(&self, settings: &Settings, engine: &EngineInner) -> String;
}

/// A setting of a session: see [`Session::settings`](crate::Session::settings).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingInfo {
    /// Its name.
    pub name: &'static str,
    /// Its value, as it could be written; empty if it has none.
    pub value: String,
    /// What it does.
    pub description: &'static str,
}

impl Settings {
    /// Makes the change.
    ///
    /// # Errors
    /// [`Error::Plan`] names the setting, and those there are or what its value should be.
    pub(super) fn apply(&mut self, change: &Assignment) -> Result<()> {
        let Some(name) = &change.name else {
            *self = Self::default();
            return Ok(());
        };
        let Some(setting) = find(name) else {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name()).collect();
            let message = format!("there is no setting '{name}'; there are: {}", known.join(", "));
            return Err(Error::plan(message, change.location));
        };
        setting.set(self, change.value.as_deref()).map_err(|why| {
            let name = setting.name();
            let what = match &change.value {
                Some(value) => format!("cannot set '{name}' to '{value}': {why}"),
                None => format!("cannot reset '{name}': {why}"),
            };
            Error::plan(what, change.location)
        })
    }

    /// All settings as they are.
    pub(super) fn all(&self, engine: &EngineInner) -> Vec<SettingInfo> {
        let info = |setting: &&dyn Setting| SettingInfo {
            name: setting.name(),
            value: setting.value(self, engine),
            description: setting.description(),
        };
        SETTINGS.iter().map(info).collect()
    }
}

fn find(name: &str) -> Option<&'static dyn Setting> {
    let is_named = |setting: &&&dyn Setting| {
        let names = [Some(setting.name()), setting.alias()];
        names.into_iter().flatten().any(|known| known.eq_ignore_ascii_case(name))
    };
    SETTINGS.iter().find(is_named).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, value: Option<&str>) -> Assignment {
        Assignment { name: Some(name.to_owned()), value: value.map(str::to_owned), location: None }
    }

    #[test]
    fn names_are_unique_and_sorted() {
        let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }

    #[test]
    fn values_change_and_return_to_their_defaults() {
        let mut settings = Settings::default();
        for (name, value) in [("MEMORY_LIMIT", "64MiB"), ("timeout", "1.5s"), ("priority", "200")] {
            settings.apply(&change(name, Some(value))).expect("a good value");
        }
        assert_eq!(settings.memory_limit, Some(64 << 20));
        assert_eq!(settings.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(settings.priority.weight(), 200);
        settings.apply(&change("max_memory", None)).expect("an alias");
        assert_eq!(settings.memory_limit, None);
        settings.apply(&Assignment { name: None, value: None, location: None }).expect("everything");
        assert_eq!((settings.timeout, settings.priority), (None, Priority::DEFAULT));
    }

    #[test]
    fn a_refused_value_changes_nothing_and_says_what_would_do() {
        let mut settings = Settings::default();
        for (name, value, expected) in [
            ("memory_limit", "64 potatoes", "'256MB'"),
            ("timeout", "soon", "'30s'"),
            ("priority", "0", "1"),
            ("threads", "3", "EngineBuilder::threads"),
            ("enable_sort_merge_join", "maybe", "true or false"),
            ("enable_stats_pruning", "2", "true or false"),
            ("batch_size", "0", "65536"),
            ("spill_partitions", "24", "power of two"),
            ("spill_partitions", "128", "4 to 64"),
            ("disabled_optimizers", "no_such_rule", "filter_pushdown"),
            ("memory_limt", "1GB", "memory_limit, priority"),
        ] {
            let error = settings.apply(&change(name, Some(value))).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
        assert_eq!((settings.memory_limit, settings.timeout), (None, None));
    }
}
