//! The tables of a session: those that are there, and Parquet files that are opened when a query first names them.
//!
//! Owns: [`Tables`], which files of a folder are a table's ([`is_parquet_file`]).
//!
//! Invariants:
//! 1. A file that no query names is not opened, unless its table was registered to be opened at once.
//! 2. What could not be opened is tried again by the next query that names it: its owner may have mended it.
//!
//! Must not know: SQL text, what files contain.

use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::io::OpenFiles;
use crate::mem::Pool;
use crate::parquet::ParquetTable;
use crate::scan::ScanProvider;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether a file of a folder is part of the folder's table: its name ends in `.parquet`, in any case, and starts with
/// neither `.` nor `_`, which is how writers name what is not data or not complete.
pub fn is_parquet_file(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let is_hidden = path.file_name().is_none_or(|name| matches!(name.as_encoded_bytes(), [b'.' | b'_', ..]));
    !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// The file itself, or the Parquet files directly in a directory, by name.
fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot = |e| Error::io("cannot list", path, e);
    let entries = std::fs::read_dir(path).map_err(cannot)?;
    let paths =
        entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(cannot)?;
    let mut files: Vec<PathBuf> = paths.into_iter().filter(|p| is_parquet_file(p) && p.is_file()).collect();
    if files.is_empty() {
        let message = format!(
            "directory '{}' holds no table: no file NAME.parquet whose name does not start with '.' or '_'",
            path.display()
        );
        return Err(Error::plan(message, None));
    }
    files.sort();
    Ok(files)
}

/// Files of an engine's tables that stay open. A process may often have no more than 1024 in all.
const MOST_OPEN_FILES: usize = 256;

/// What the tables of an engine hold as long as they are.
#[derive(Clone)]
pub(super) struct Holdings {
    /// Of footers.
    pub(super) pool: Pool,
    open_files: Arc<OpenFiles>,
}

impl Holdings {
    /// Nothing yet; footers will be charged to `pool`.
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, open_files: OpenFiles::new(MOST_OPEN_FILES) }
    }
}

/// Opens a Parquet file, or those of a directory.
pub(super) fn open_parquet(path: &Path, holdings: &Holdings) -> Result<Arc<dyn ScanProvider>> {
    let table = ParquetTable::open(&parquet_files(path)?, &holdings.open_files, &holdings.pool)?;
    Ok(Arc::new(table))
}

/// A table that need not be open.
pub(super) enum Table {
    /// It is.
    Open(Arc<dyn ScanProvider>),
    /// It is opened when it is first asked for.
    Closed { path: PathBuf, holdings: Holdings, opened: Mutex<Option<Arc<dyn ScanProvider>>> },
}

impl Table {
    /// A Parquet file or directory that is not looked at yet.
    pub(super) fn closed(path: &Path, holdings: &Holdings) -> Self {
        Self::Closed { path: path.to_owned(), holdings: holdings.clone(), opened: Mutex::default() }
    }

    fn open(&self) -> Result<Arc<dyn ScanProvider>> {
        match self {
            Self::Open(table) => Ok(Arc::clone(table)),
            // Under the lock, so that two queries do not both read the files.
            Self::Closed { path, holdings, opened } => {
                let mut opened = opened.lock();
                let table = match &*opened {
                    Some(table) => Arc::clone(table),
                    None => open_parquet(path, holdings)?,
                };
                *opened = Some(Arc::clone(&table));
                Ok(table)
            }
        }
    }

    /// The table if it is open.
    fn opened(&self) -> Option<Arc<dyn ScanProvider>> {
        match self {
            Self::Open(table) => Some(Arc::clone(table)),
            Self::Closed { opened, .. } => opened.lock().clone(),
        }
    }
}

/// Tables by name.
pub(super) type Tables = Catalog<Table>;

/// The table of that name for a plan, opened if it is not; with the name as registered.
pub(super) fn table_of(
    tables: &Tables,
    name: &str,
) -> Result<Option<(String, Arc<dyn catalog::TableProvider>)>> {
    let Some((name, table)) = tables.get(name) else { return Ok(None) };
    Ok(Some((name.to_owned(), table.open()? as Arc<dyn catalog::TableProvider>)))
}

/// The table of that name for a scan, which a plan has had opened.
pub(super) fn source_of(tables: &Tables, name: &str) -> Option<Arc<dyn ScanProvider>> {
    tables.get(name).and_then(|(_, table)| table.opened())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_data_from_what_is_not() {
        for name in ["a.parquet", "A.PARQUET", "part-0.snappy.Parquet", "dir/b.parquet"] {
            assert!(is_parquet_file(name), "{name}");
        }
        for name in
            [".a.parquet", "_a.parquet", "_SUCCESS", "a.parquet.crc", "a.csv", ".parquet", "parquet", "/"]
        {
            assert!(!is_parquet_file(name), "{name}");
        }
    }
}
