//! `gristmill generate-parquet`: the TPC-H tables as Parquet files.
//!
//! Owns: the command's flags, the folder that appears whole, which files are written.
//!
//! Invariants:
//! 1. Files are written into a temporary folder beside the target and moved when all are complete: an interrupted
//!    generation leaves no file of the target's names behind.
//! 2. Existing tables are only replaced when asked.
//!
//! Must not know: queries, answers.

mod tables;
mod writer;

pub use tables::Table;

use crate::engine::parse_count;
use crate::interrupt::Interrupt;
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use gristmill::parse_bytes;
use indicatif::{ProgressBar, ProgressStyle};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use std::fs::{self, Permissions};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use writer::FilePlan;

/// Row groups of tpchgen-cli.
const DEFAULT_ROW_GROUP_BYTES: u64 = 7 << 20;

/// Flags of `gristmill generate-parquet`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gristmill generate-parquet --sf 10 --output data/tpch-sf10")]
pub struct GenerateArgs {
    /// Scale factor: 1 is about 1 GB of text, 0.3 GB of Parquet
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_scale)]
    sf: f64,
    /// Folder to write NAME.parquet files into; made if missing
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Compression of the pages
    #[arg(long, value_enum, default_value_t = Codec::Snappy)]
    codec: Codec,
    /// Encoded size to aim at for a row group
    #[arg(long, value_name = "SIZE", default_value = "7MiB", value_parser = parse_row_group)]
    row_group_bytes: u64,
    /// Files per table; more than one makes a folder NAME/ of part files
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN, value_parser = parse_parts)]
    parts: NonZeroUsize,
    /// Tables to write, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TABLES", hide_possible_values = false)]
    tables: Vec<Table>,
    /// Threads that generate and encode [default: one per core]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    threads: Option<NonZeroUsize>,
    /// Replace tables that are already there
    #[arg(long)]
    overwrite: bool,
}

/// Compression codecs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// No compression
    None,
    /// Fast, the usual choice
    Snappy,
    /// Smaller
    Zstd,
    /// Old and slow, for compatibility
    Gzip,
    /// Smallest and slowest
    Brotli,
    /// LZ4 blocks without frames
    Lz4,
}

impl Codec {
    fn compression(self) -> Compression {
        match self {
            Self::None => Compression::UNCOMPRESSED,
            Self::Snappy => Compression::SNAPPY,
            Self::Zstd => Compression::ZSTD(ZstdLevel::default()),
            Self::Gzip => Compression::GZIP(GzipLevel::default()),
            Self::Brotli => Compression::BROTLI(BrotliLevel::default()),
            Self::Lz4 => Compression::LZ4_RAW,
        }
    }
}

/// Parses a scale factor: a positive number.
pub fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale.is_finite() && scale > 0.0 && scale <= 100_000.0 => Ok(scale),
        _ => Err(String::from("a scale factor is a number above 0 and at most 100000")),
    }
}

fn parse_row_group(text: &str) -> Result<u64, String> {
    match parse_bytes(text) {
        Ok(bytes) if (1 << 10..=1 << 32).contains(&bytes) => Ok(bytes),
        Ok(_) => Err(String::from("a row group has between 1KiB and 4GiB")),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_parts(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(parts) if parts.get() <= 10_000 => Ok(parts),
        _ => Err(String::from("a table has between 1 and 10000 files")),
    }
}

/// Runs the command.
pub fn run(args: &GenerateArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let tables = if args.tables.is_empty() { Table::value_variants().to_vec() } else { args.tables.clone() };
    let request = Request {
        scale: args.sf,
        codec: args.codec,
        row_group_bytes: args.row_group_bytes,
        parts: args.parts.get(),
        threads: args.threads.map_or(0, NonZeroUsize::get),
        overwrite: args.overwrite,
    };
    request.generate(&tables, &args.output, interrupt)
}

/// What to write.
#[derive(Debug, Clone)]
pub struct Request {
    /// Scale factor.
    pub scale: f64,
    /// Compression of the pages.
    pub codec: Codec,
    /// Encoded size to aim at for a row group.
    pub row_group_bytes: u64,
    /// Files per table.
    pub parts: usize,
    /// Threads; 0 is one per core.
    pub threads: usize,
    /// Replace tables that are there.
    pub overwrite: bool,
}

impl Request {
    /// One snappy file per table, laid out as tpchgen-cli does.
    pub fn standard(scale: f64) -> Self {
        Self {
            scale,
            codec: Codec::Snappy,
            row_group_bytes: DEFAULT_ROW_GROUP_BYTES,
            parts: 1,
            threads: 0,
            overwrite: false,
        }
    }

    /// Writes `tables` into `folder`, which then holds all of them or, on an error, none of them.
    pub fn generate(&self, tables: &[Table], folder: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
        let failed = || format!("cannot write to '{}'", folder.display());
        let made = MadeFolders::make(folder).with_context(failed)?;
        for table in tables {
            for existing in [table.file_in(folder), folder.join(table.name())] {
                ensure!(
                    self.overwrite || !existing.exists(),
                    "'{}' is there already; pass --overwrite to replace it",
                    existing.display()
                );
            }
        }
        let temporary = tempfile::Builder::new()
            .prefix(".generating-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(folder)
            .with_context(failed)?;
        let _removed_on_signal = interrupt.temporary(temporary.path());
        let plans: Vec<FilePlan> = tables.iter().flat_map(|&table| self.plan(table)).collect();
        self.write_all(&plans, temporary.path(), interrupt)?;
        for &table in tables {
            self.publish(table, temporary.path(), folder).with_context(failed)?;
        }
        made.keep();
        Ok(())
    }

    fn plan(&self, table: Table) -> Vec<FilePlan> {
        let files = if table.is_divisible() { self.parts } else { 1 };
        let groups = table.row_groups(self.scale / files as f64, self.row_group_bytes);
        (0..files)
            .map(|file| FilePlan {
                table,
                path: if self.parts == 1 {
                    table.file_in(Path::new(""))
                } else {
                    Path::new(table.name()).join(format!("part-{:05}.parquet", file + 1))
                },
                first_group: file * groups + 1,
                groups,
                groups_of_table: files * groups,
            })
            .collect()
    }

    fn write_all(&self, plans: &[FilePlan], folder: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("generate-{i}"))
            .build()
            .context("cannot start threads")?;
        // Hidden by itself where stderr is no terminal.
        let progress = ProgressBar::new(plans.iter().map(|p| p.groups as u64).sum());
        progress.set_style(
            ProgressStyle::with_template("{msg:10} {wide_bar} {percent}% eta {eta}")
                .context("invariant: the progress bar's template is well-formed")?,
        );
        for plan in plans {
            progress.set_message(plan.table.name());
            let path = folder.join(&plan.path);
            plan.write(&path, self.scale, self.codec.compression(), &pool, &|| {
                progress.inc(1);
                interrupt.check()
            })
            .with_context(|| format!("cannot write table {}", plan.table.name()))?;
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn publish(&self, table: Table, from: &Path, to: &Path) -> anyhow::Result<()> {
        for old in [table.file_in(to), to.join(table.name())] {
            if old.is_dir() {
                fs::remove_dir_all(&old)?;
            } else if old.exists() {
                fs::remove_file(&old)?;
            }
        }
        let name = if self.parts == 1 { table.file_in(Path::new("")) } else { PathBuf::from(table.name()) };
        Ok(fs::rename(from.join(&name), to.join(&name))?)
    }
}

/// Folders that were not there before, outermost last. Those left empty go when it is dropped.
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    /// Makes `folder` and those it lies in.
    fn make(folder: &Path) -> std::io::Result<Self> {
        let missing = folder.ancestors().filter(|path| !path.as_os_str().is_empty());
        let made = Self(missing.take_while(|path| !path.exists()).map(Path::to_owned).collect());
        fs::create_dir_all(folder)?;
        Ok(made)
    }

    /// They stay.
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that is not empty is somebody's.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The tables of `all` that `folder` does not hold.
pub fn missing_tables(folder: &Path, all: &[Table]) -> anyhow::Result<Vec<Table>> {
    if !folder.exists() {
        return Ok(all.to_vec());
    }
    if !folder.is_dir() {
        bail!("'{}' is not a folder", folder.display());
    }
    let present = crate::folder::tables_in(folder)?;
    Ok(all.iter().copied().filter(|t| !present.contains_key(t.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use std::fs::File;

    fn rows(path: &Path) -> i64 {
        let reader = SerializedFileReader::new(File::open(path).expect("opens")).expect("a Parquet file");
        reader.metadata().file_metadata().num_rows()
    }

    #[test]
    fn parts_hold_the_same_rows_as_one_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let tables = [Table::Supplier, Table::Nation, Table::Orders];
        let mut request = Request { row_group_bytes: 256 << 10, threads: 1, ..Request::standard(0.01) };
        request.generate(&tables, &dir.path().join("one"), &Interrupt::default()).expect("generates");
        request.parts = 3;
        request.codec = Codec::Zstd;
        request.generate(&tables, &dir.path().join("three"), &Interrupt::default()).expect("generates");
        assert_eq!(rows(&dir.path().join("one/orders.parquet")), 15_000);
        assert_eq!(rows(&dir.path().join("one/supplier.parquet")), 100);
        let parts: Vec<i64> =
            (1..=3).map(|i| rows(&dir.path().join(format!("three/orders/part-{i:05}.parquet")))).collect();
        assert_eq!(parts.iter().sum::<i64>(), 15_000, "{parts:?}");
        assert_eq!(rows(&dir.path().join("three/nation/part-00001.parquet")), 25);
        let missing = missing_tables(&dir.path().join("three"), Table::value_variants()).expect("readable");
        assert_eq!(missing.len(), 8 - tables.len());
    }

    #[test]
    fn tables_that_are_there_stay_unless_asked() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join("region.parquet"), "mine").expect("writable");
        let mut request = Request { threads: 1, ..Request::standard(0.01) };
        let tables = [Table::Region, Table::Nation];
        let error = request.generate(&tables, dir.path(), &Interrupt::default()).expect_err("refused");
        assert!(error.to_string().contains("--overwrite"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing was written");
        request.overwrite = true;
        request.generate(&tables, dir.path(), &Interrupt::default()).expect("replaces");
        assert_eq!(rows(&dir.path().join("region.parquet")), 5);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2, "no temporary folder stays");
    }
}
