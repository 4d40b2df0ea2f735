//! The tables of data folders.
//!
//! Owns: which entries of a folder are tables, and what is said where names clash or nothing is found.
//!
//! Invariants:
//! 1. A file that is damaged is no concern of queries that do not name its table.
//! 2. Two tables of one name are an error that names both, within a folder and across folders.
//!
//! Must not know: how tables are read.

use anyhow::{Context, bail};
use gristmill::{Session, is_parquet_file};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The tables of `dir`: every `name.parquet`, and every folder `name/` that holds Parquet files, by name.
pub fn tables_in(dir: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut tables = Found::default();
    for path in entries(dir)? {
        // A folder's name is taken whole: `events.2024/` is the table "events.2024".
        let (is_table, name) = if path.is_dir() {
            (is_visible(&path) && holds_files(&path)?, path.file_name())
        } else {
            (is_parquet_file(&path), path.file_stem())
        };
        let Some(name) = name.filter(|_| is_table) else { continue };
        let Some(name) = name.to_str() else {
            bail!("'{}': a table's file name must be UTF-8", path.display());
        };
        tables.add(name, &path)?;
    }
    Ok(tables.0.into_values().collect())
}

/// Makes every table of the folders known to `session`, to be opened when a query names it.
pub fn register_folders<P: AsRef<Path>>(session: &Session, dirs: &[P]) -> anyhow::Result<()> {
    for (name, path) in tables_of(dirs)? {
        session.register_parquet_lazily(&name, path);
    }
    Ok(())
}

/// The same, but opens at once what can be opened, so that who times queries does not time that.
pub fn open_folders<P: AsRef<Path>>(session: &Session, dirs: &[P]) -> anyhow::Result<()> {
    for (name, path) in tables_of(dirs)? {
        if session.register_parquet(&name, &path).is_err() {
            // Queries that name it say why.
            session.register_parquet_lazily(&name, path);
        }
    }
    Ok(())
}

/// The tables of all the folders.
fn tables_of<P: AsRef<Path>>(dirs: &[P]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut all = Found::default();
    for dir in dirs {
        let dir = dir.as_ref();
        let tables = tables_in(dir)?;
        if tables.is_empty() {
            let nested = nested_in(dir)?;
            let hint = nested.first().map(|path| format!("; {}", not_a_table(path))).unwrap_or_default();
            bail!(
                "data folder '{}' holds no tables; a table is NAME.parquet or a folder NAME/ of Parquet files{hint}",
                dir.display()
            );
        }
        for (name, path) in tables {
            all.add(&name, &path)?;
        }
    }
    Ok(all.0.into_values().collect())
}

/// Says on standard error which folders look like tables and are none.
pub fn warn_of_nested<P: AsRef<Path>>(dirs: &[P]) -> anyhow::Result<()> {
    for dir in dirs {
        for path in nested_in(dir.as_ref())? {
            eprintln!("warning: {}", not_a_table(&path));
        }
    }
    Ok(())
}

fn not_a_table(path: &Path) -> String {
    format!(
        "folder '{}' is not a table: its Parquet files are in folders below it, which are not read; pass one of \
         these, or a folder of them, as a data folder",
        path.display()
    )
}

/// Tables so far, with the names they were found under, by those in lower case: SQL does not tell them apart.
#[derive(Default)]
struct Found(BTreeMap<String, (String, PathBuf)>);

impl Found {
    fn add(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let table = (name.to_owned(), path.to_owned());
        if let Some((_, other)) = self.0.insert(name.to_lowercase(), table) {
            bail!("'{}' and '{}' both make a table '{name}'; rename one", other.display(), path.display());
        }
        Ok(())
    }
}

/// Folders of `dir` that hold no Parquet files, but have folders that do: as Hive lays out partitions.
fn nested_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut nested = Vec::new();
    for path in entries(dir)? {
        let is_folder = path.is_dir() && is_visible(&path);
        if is_folder && !holds_files(&path)? && holds_files_below(&path, DEEPEST_PARTITION)? {
            nested.push(path);
        }
    }
    Ok(nested)
}

/// How many folders of partitions within each other are looked into.
const DEEPEST_PARTITION: usize = 8;

fn holds_files_below(dir: &Path, depth: usize) -> anyhow::Result<bool> {
    if depth == 0 {
        return Ok(false);
    }
    for path in entries(dir)? {
        let is_folder = !path.is_symlink() && path.is_dir() && is_visible(&path);
        if is_folder && (holds_files(&path)? || holds_files_below(&path, depth - 1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds_files(dir: &Path) -> anyhow::Result<bool> {
    Ok(entries(dir)?.iter().any(|path| is_parquet_file(path) && path.is_file()))
}

fn is_visible(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !matches!(name.as_encoded_bytes(), [b'.' | b'_', ..]))
}

/// What is in a folder, by name.
fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read folder '{}'", dir.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).with_context(cannot)? {
        paths.push(entry.with_context(cannot)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().expect("within a folder")).expect("folder");
        fs::write(path, b"").expect("file");
    }

    #[test]
    fn a_table_is_a_file_or_a_folder_of_files() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for name in
            ["a.parquet", "C.PARQUET", "notes.txt", ".hidden.parquet", "_part.parquet", "b/part-1.parquet"]
        {
            write(&dir.path().join(name));
        }
        for name in ["empty", ".hidden", "_delta_log", "year/y=1", "year/y=2/m=1"] {
            fs::create_dir_all(dir.path().join(name)).expect("folder");
        }
        for name in ["_delta_log/1.parquet", "year/y=2/m=1/a.parquet"] {
            write(&dir.path().join(name));
        }
        let tables = tables_in(dir.path()).expect("readable");
        assert_eq!(tables.keys().map(String::as_str).collect::<Vec<_>>(), ["C", "a", "b"]);
        assert_eq!(nested_in(dir.path()).expect("readable"), [dir.path().join("year")]);

        write(&dir.path().join("A/part-1.parquet"));
        let error = tables_in(dir.path()).expect_err("two tables of one name").to_string();
        assert!(error.contains("/A'") && error.contains("/a.parquet' both make a table"), "{error}");
    }
}
