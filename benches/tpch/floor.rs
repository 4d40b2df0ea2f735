//! What it takes merely to decode the columns a query names: the stock Arrow reader of the `parquet` crate, row group by
//! row group on all threads, its batches dropped. A yardstick, not an engine: it answers nothing.
//!
//! A column counts if the query's text has its name and its table's, so the columns of all TPC-H queries are exact, for
//! no two tables share a column name.

use crate::support::Run;
use gristmill::arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

const BATCH_ROWS: usize = 8192;

/// A file of a table, with its footer read.
struct TableFile {
    table: String,
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

/// Decodes what a query names.
pub struct Floor {
    files: Vec<TableFile>,
    threads: usize,
}

impl Floor {
    /// Reads the footers of `tables` in `folder`: every engine keeps them between runs.
    pub fn open(folder: &Path, tables: &[String], threads: usize) -> Result<Self, String> {
        let mut files = Vec::new();
        for table in tables {
            for path in files_of(folder, table)? {
                let wrong = |e: String| format!("cannot read '{}': {e}", path.display());
                let file = File::open(&path).map_err(|e| wrong(e.to_string()))?;
                let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                    .map_err(|e| wrong(e.to_string()))?;
                files.push(TableFile { table: table.clone(), path, metadata });
            }
        }
        Ok(Self { files, threads })
    }

    /// Decodes the columns of `sql` once; its rows are those of all tables together.
    pub fn run(&self, sql: &str) -> Result<Run, String> {
        let started = Instant::now();
        let words = words(sql);
        let mut work = Vec::new();
        for file in self.files.iter().filter(|file| words.contains(file.table.as_str())) {
            let schema = file.metadata.parquet_schema();
            let named = |column: &usize| words.contains(schema.column(*column).path().parts()[0].as_str());
            let mask = ProjectionMask::leaves(schema, (0..schema.num_columns()).filter(named));
            work.extend(
                (0..file.metadata.metadata().num_row_groups()).map(|group| (file, group, mask.clone())),
            );
        }
        let next = AtomicUsize::new(0);
        let decode = || -> Result<u64, String> {
            let mut rows = 0;
            while let Some((file, group, mask)) = work.get(next.fetch_add(1, Relaxed)) {
                let wrong = |e: String| format!("cannot read '{}': {e}", file.path.display());
                let opened = File::open(&file.path).map_err(|e| wrong(e.to_string()))?;
                let reader =
                    ParquetRecordBatchReaderBuilder::new_with_metadata(opened, file.metadata.clone())
                        .with_projection(mask.clone())
                        .with_row_groups(vec![*group])
                        .with_batch_size(BATCH_ROWS)
                        .build()
                        .map_err(|e| wrong(e.to_string()))?;
                for batch in reader {
                    rows += batch.map_err(|e: ArrowError| wrong(e.to_string()))?.num_rows() as u64;
                }
            }
            Ok(rows)
        };
        let rows = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(decode)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|_| Err(String::from("the reader panicked")))
            };
            workers.into_iter().map(join).sum::<Result<u64, String>>()
        })?;
        Ok(Run { seconds: started.elapsed().as_secs_f64(), rows, peak_granted_bytes: 0, spilled_bytes: 0 })
    }
}

/// `NAME.parquet`, or the files of the folder `NAME`.
fn files_of(folder: &Path, table: &str) -> Result<Vec<PathBuf>, String> {
    let one_file = folder.join(format!("{table}.parquet"));
    if one_file.exists() {
        return Ok(vec![one_file]);
    }
    let parts = folder.join(table);
    let listed = fs::read_dir(&parts).map_err(|e| format!("cannot list '{}': {e}", parts.display()))?;
    let paths = listed.map(|entry| entry.map(|e| e.path()));
    let mut paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|e| format!("cannot list '{}': {e}", parts.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    paths.sort();
    Ok(paths)
}

/// What may be a name in `sql`.
fn words(sql: &str) -> HashSet<&str> {
    let is_apart = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    sql.split(is_apart).filter(|word| !word.is_empty()).collect()
}
