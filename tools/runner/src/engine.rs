//! The flags every command that runs queries shares, and the tables of a data folder.
//!
//! Owns: [`EngineArgs`], table discovery. Must not know: how results are printed.

use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use gristmill::{Engine, EngineBuilder, Session, TestKnobs};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Limits of the engine.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Memory the engine may use, such as 256MB or 64MiB [default: 60 % of the machine or its cgroup]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<ByteSize>,
    /// Folder for spill files; given several times, they take turns [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Vec<PathBuf>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Optimizer rules to leave out, by the names --explain-analyze lists: to find the one behind a bad plan
    #[arg(long, value_name = "RULES", value_delimiter = ',')]
    pub disabled_optimizers: Vec<String>,
    /// Which joins sort and merge instead of hashing
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub merge_joins: MergeJoins,
}

/// When a join is a sort-merge join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MergeJoins {
    /// Never
    Never,
    /// Where the planner thinks it better
    Auto,
    /// Wherever it is possible: to compare the two
    Always,
}

impl EngineArgs {
    /// An engine within these limits.
    pub fn build(&self) -> anyhow::Result<Engine> {
        Ok(self.builder()?.build()?)
    }

    /// What builds one.
    pub fn builder(&self) -> anyhow::Result<EngineBuilder> {
        let mut builder = Engine::builder().disabled_optimizers(self.disabled_optimizers.iter().cloned());
        builder = match self.merge_joins {
            MergeJoins::Never => builder.enable_sort_merge_join(false),
            MergeJoins::Auto => builder,
            MergeJoins::Always => builder.testing(TestKnobs { merge_joins: true, ..TestKnobs::default() }),
        };
        if let Some(limit) = self.memory_limit {
            let bytes =
                usize::try_from(limit.as_u64()).context("--memory-limit exceeds the address space")?;
            builder = builder.memory_limit(bytes);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads.get());
        }
        Ok(builder.temp_directories(self.spill_dir.iter().cloned()))
    }

    /// Worker threads the engine will have.
    pub fn thread_count(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            NonZeroUsize::get,
        )
    }
}

/// The tables of `dir`: every `name.parquet`, and every folder `name/` that holds Parquet files, by name.
pub fn tables_in(dir: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut tables = BTreeMap::new();
    let entries =
        fs::read_dir(dir).with_context(|| format!("cannot read data folder '{}'", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read data folder '{}'", dir.display()))?.path();
        let is_table = if path.is_dir() { holds_parquet(&path)? } else { is_parquet(&path) };
        let Some(name) = path.file_stem().filter(|_| is_table) else { continue };
        // A folder's name is taken whole: `events.2024/` is the table "events.2024".
        let name = if path.is_dir() { path.file_name().unwrap_or(name) } else { name };
        let Some(name) = name.to_str() else {
            bail!("'{}': a table's file name must be UTF-8", path.display());
        };
        if let Some(other) = tables.insert(name.to_owned(), path.clone()) {
            bail!("'{}' and '{}' both make a table '{name}'; rename one", other.display(), path.display());
        }
    }
    Ok(tables)
}

/// Makes every table of `dir` known to `session`.
pub fn register_folder(session: &Session, dir: &Path) -> anyhow::Result<()> {
    let tables = tables_in(dir)?;
    if tables.is_empty() {
        bail!(
            "data folder '{}' holds no tables; a table is NAME.parquet or a folder NAME/ of Parquet files",
            dir.display()
        );
    }
    for (name, path) in tables {
        session.register_parquet(&name, &path)?;
    }
    Ok(())
}

fn is_parquet(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

fn holds_parquet(dir: &Path) -> anyhow::Result<bool> {
    if dir.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")) {
        return Ok(false);
    }
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read folder '{}'", dir.display()))?;
    for entry in entries {
        if is_parquet(&entry.with_context(|| format!("cannot read folder '{}'", dir.display()))?.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Parses a time such as `500ms`, `30s`, `1.5m` or `2h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit '{other}': write 500ms, 30s, 5m or 1h")),
    };
    digits
        .trim()
        .parse::<f64>()
        .ok()
        .and_then(|n| Duration::try_from_secs_f64(n * unit_seconds).ok())
        .ok_or_else(|| format!("'{text}' is not a time: write 500ms, 30s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("5 weeks").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("s").is_err());
    }

    #[test]
    fn sizes_tell_powers_of_ten_from_powers_of_two() {
        assert_eq!("256MB".parse::<ByteSize>().map(|b| b.as_u64()), Ok(256_000_000));
        assert_eq!("256mb".parse::<ByteSize>().map(|b| b.as_u64()), Ok(256_000_000));
        assert_eq!("64MiB".parse::<ByteSize>().map(|b| b.as_u64()), Ok(64 << 20));
        assert!("12 parsecs".parse::<ByteSize>().is_err());
    }

    #[test]
    fn a_table_is_a_file_or_a_folder_of_files() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join("a.parquet"), b"").expect("file");
        fs::write(dir.path().join("notes.txt"), b"").expect("file");
        fs::write(dir.path().join(".hidden.parquet"), b"").expect("file");
        fs::create_dir(dir.path().join("b")).expect("folder");
        fs::create_dir(dir.path().join("empty")).expect("folder");
        fs::write(dir.path().join("b/part-1.parquet"), b"").expect("file");
        let tables = tables_in(dir.path()).expect("readable");
        assert_eq!(tables.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);

        fs::create_dir(dir.path().join("a")).expect("folder");
        fs::write(dir.path().join("a/part-1.parquet"), b"").expect("file");
        let error = tables_in(dir.path()).expect_err("two tables of one name").to_string();
        assert!(error.contains("both make a table 'a'"), "{error}");
    }
}
