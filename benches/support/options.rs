//! The flags all benchmarks have, and the way to add one's own.

use gristmill::Engine;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;
use std::vec::IntoIter;

/// What every benchmark's `--help` ends with.
const USAGE: &str =
    "  --only NAMES          statements whose name contains one of these texts, separated by commas
  --threads N           worker threads [default: one per core]
  --memory-limit SIZE   memory of the engine, such as 256MB, 64MiB or bytes [default: the engine's]
  --spill-dir DIR       where it spills [default: the system's temporary folder]
  --json FILE           write the figures
  --baseline FILE       compare with figures written before
  --help                print this";

/// What the command line asks for.
pub struct Options {
    /// Measured runs of a statement, after one that is not measured.
    pub runs: u32,
    only: Vec<String>,
    pub threads: usize,
    pub memory_limit: Option<usize>,
    pub spill_dir: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub baseline: Option<PathBuf>,
}

/// Arguments not yet read.
pub struct Arguments(IntoIter<String>);

impl Arguments {
    /// Those of this process, without the one `cargo bench` adds.
    pub fn of_process() -> Self {
        Self::of(std::env::args().skip(1).filter(|argument| argument != "--bench"))
    }

    /// These.
    pub fn of(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(arguments.into_iter().map(Into::into).collect::<Vec<_>>().into_iter())
    }

    /// The value of `flag`.
    pub fn value(&mut self, flag: &str) -> Result<String, String> {
        self.optional_value().ok_or_else(|| format!("{flag} lacks a value; --help lists the flags"))
    }

    /// The value of a flag that may have none.
    pub fn optional_value(&mut self) -> Option<String> {
        let is_value = self.0.as_slice().first().is_some_and(|next| !next.starts_with("--"));
        if is_value { self.0.next() } else { None }
    }

    /// The value of `flag`, a number of something, so not zero.
    pub fn number<T: FromStr + Copy + Default + PartialEq>(&mut self, flag: &str) -> Result<T, String> {
        let value = self.value(flag)?;
        let number = value.parse().ok().filter(|number| *number != T::default());
        number.ok_or_else(|| format!("{flag}: '{value}' is no positive number"))
    }
}

impl Options {
    /// Reads the command line. `own` takes the flags a benchmark has for itself, which `own_usage` describes, and
    /// answers whether it knows the one. `None` if only help was asked for.
    pub fn parse(
        mut arguments: Arguments,
        runs: u32,
        own_usage: &str,
        mut own: impl FnMut(&str, &mut Arguments) -> Result<bool, String>,
    ) -> Result<Option<Self>, String> {
        let mut options = Self {
            runs,
            only: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_limit: None,
            spill_dir: None,
            json: None,
            baseline: None,
        };
        while let Some(flag) = arguments.0.next() {
            match flag.as_str() {
                "--help" | "-h" => {
                    println!("{own_usage}\n{USAGE}");
                    return Ok(None);
                }
                "--runs" => options.runs = arguments.number(&flag)?,
                "--only" => options.only = arguments.value(&flag)?.split(',').map(str::to_owned).collect(),
                "--threads" => options.threads = arguments.number(&flag)?,
                "--memory-limit" => {
                    let value = arguments.value(&flag)?;
                    let bytes = gristmill::parse_bytes(&value)
                        .map_err(|why| format!("{flag}: '{value}' is no size; {why}"))?;
                    let bytes = usize::try_from(bytes)
                        .map_err(|_| format!("{flag}: '{value}' exceeds the address space"))?;
                    options.memory_limit = Some(bytes);
                }
                "--spill-dir" => options.spill_dir = Some(arguments.value(&flag)?.into()),
                "--json" => options.json = Some(arguments.value(&flag)?.into()),
                "--baseline" => options.baseline = Some(arguments.value(&flag)?.into()),
                other if own(other, &mut arguments)? => {}
                other => return Err(format!("unknown flag '{other}'; --help lists those there are")),
            }
        }
        Ok(Some(options))
    }

    /// Whether a statement is to be measured.
    pub fn selects(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }

    /// An engine as asked for.
    pub fn engine(&self) -> Result<Engine, String> {
        let mut builder = Engine::builder().threads(self.threads);
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        if let Some(folder) = &self.spill_dir {
            builder = builder.temp_directory(folder.clone());
        }
        builder.build().map_err(|e| e.to_string())
    }
}
