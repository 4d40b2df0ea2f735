//! The flags every command that runs queries shares.
//!
//! Owns: [`EngineArgs`], how the values of flags are read. Must not know: tables, how results are printed.

use crate::usage::UsageError;
use clap::{Args, ValueEnum};
use gristmill::{Engine, EngineBuilder, Error, TestKnobs, parse_bytes};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Limits of the engine.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Memory the engine may use, such as 256MB or 64MiB [default: 60 % of the machine or its cgroup]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, allow_negative_numbers = true)]
    pub memory_limit: Option<usize>,
    /// Folder for spill files; given several times, they take turns [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Vec<PathBuf>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
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
        self.builder().build().map_err(|error| match error {
            // The engine refuses what the flags say.
            Error::Plan(why) => UsageError::new(why.message).into(),
            other => other.into(),
        })
    }

    /// What builds one.
    pub fn builder(&self) -> EngineBuilder {
        let mut builder = Engine::builder().disabled_optimizers(self.disabled_optimizers.iter().cloned());
        builder = match self.merge_joins {
            MergeJoins::Never => builder.enable_sort_merge_join(false),
            MergeJoins::Auto => builder,
            MergeJoins::Always => builder.testing(TestKnobs { merge_joins: true, ..TestKnobs::default() }),
        };
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads.get());
        }
        builder.temp_directories(self.spill_dir.iter().cloned())
    }

    /// The flags that say the same, for another process of this program.
    pub fn to_flags(&self) -> Vec<OsString> {
        // By name and all of them, so that a new flag is not forgotten.
        let Self { memory_limit, spill_dir, threads, disabled_optimizers, merge_joins } = self;
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(bytes) = memory_limit {
            flags.extend(["--memory-limit".into(), bytes.to_string().into()]);
        }
        for folder in spill_dir {
            flags.extend(["--spill-dir".into(), folder.into()]);
        }
        if let Some(threads) = threads {
            flags.extend(["--threads".into(), threads.to_string().into()]);
        }
        if !disabled_optimizers.is_empty() {
            flags.extend(["--disabled-optimizers".into(), disabled_optimizers.join(",").into()]);
        }
        if let Some(when) = merge_joins.to_possible_value() {
            flags.extend(["--merge-joins".into(), when.get_name().into()]);
        }
        flags
    }

    /// Worker threads the engine will have.
    pub fn thread_count(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            NonZeroUsize::get,
        )
    }
}

/// Parses a size of memory.
fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).map_err(|e| e.to_string())?;
    usize::try_from(bytes).map_err(|_| format!("{bytes} bytes exceed the address space"))
}

/// Parses a number of things of which there must be one.
pub fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| String::from("write a whole number of at least 1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        engine: EngineArgs,
    }

    fn parse(flags: &[&str]) -> Result<EngineArgs, String> {
        Command::try_parse_from([&["command"], flags].concat())
            .map(|command| command.engine)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn wrong_values_are_answered_with_right_ones() {
        for (flags, allowed) in [
            (["--memory-limit", "abc"], "'256MB' (10^6) or '64MiB'"),
            (["--memory-limit", "-1"], "--memory-limit"),
            (["--threads", "0"], "at least 1"),
            (["--threads", "two"], "at least 1"),
            (["--merge-joins", "perhaps"], "never, auto, always"),
        ] {
            let error = parse(&flags).expect_err("refused");
            assert!(error.contains(allowed), "{flags:?}: {error}");
        }
        assert_eq!(parse(&["--memory-limit", "1.5GB"]).expect("legal").memory_limit, Some(1_500_000_000));
        for flags in [["--threads", "100000"], ["--disabled-optimizers", "nothing"]] {
            let error = parse(&flags).expect("parses").build().expect_err("the engine refuses it");
            assert!(error.is::<UsageError>(), "{error}");
        }
    }

    #[test]
    fn flags_say_the_same_to_another_process() {
        let all = "--memory-limit 64MiB --spill-dir a --spill-dir b --threads 3 --disabled-optimizers x,y \
                   --merge-joins always";
        let first = parse(&all.split_whitespace().collect::<Vec<_>>()).expect("legal");
        let flags = first.to_flags();
        let flags: Vec<_> = flags.iter().map(|flag| flag.to_str().expect("UTF-8")).collect();
        assert_eq!(format!("{:?}", parse(&flags).expect("legal")), format!("{first:?}"));
    }
}
