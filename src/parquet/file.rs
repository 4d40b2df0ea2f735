//! An open Parquet file, and one column chunk of it.

use super::footer::{ChunkMeta, FileFooter, Leaf};
use super::page_sizes::PageSizes;
use crate::error::{Error, Origin, Result};
use crate::io::{OpenFiles, ReadAt, ReadFile};
use crate::mem::Pool;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// An open file with its footer.
pub(crate) struct ParquetFile {
    /// Its place in its table; read windows are told apart by it.
    pub(crate) index: usize,
    pub(crate) read: Box<dyn ReadAt>,
    pub(crate) footer: FileFooter,
    /// Of each leaf, once somebody wanted to know.
    page_sizes: Box<[OnceLock<Option<PageSizes>>]>,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParquetFile('{}')", self.read.path().display())
    }
}

impl ParquetFile {
    /// Opens `path`, as one of the files `among`, and reads its footer, charged to `pool`.
    ///
    /// # Errors
    /// Io and memory errors; [`Error::Data`] if it is no Parquet file or its footer is damaged.
    pub(crate) fn open(index: usize, path: &Path, among: &Arc<OpenFiles>, pool: &Pool) -> Result<Self> {
        Self::new(index, Box::new(ReadFile::open(path, among)?), pool)
    }

    /// As [`open`](Self::open), of bytes that are already open.
    pub(crate) fn new(index: usize, read: Box<dyn ReadAt>, pool: &Pool) -> Result<Self> {
        let footer = FileFooter::read(read.as_ref(), pool)?;
        Ok(Self::with_footer(index, read, footer))
    }

    /// As [`new`](Self::new), with the footer at hand.
    pub(super) fn with_footer(index: usize, read: Box<dyn ReadAt>, footer: FileFooter) -> Self {
        let page_sizes = footer.leaves.iter().map(|_| OnceLock::new()).collect();
        Self { index, read, footer, page_sizes }
    }

    /// How large the pages of leaf column `leaf` are; `None` if they cannot be looked at.
    pub(super) fn page_sizes(&self, leaf: usize) -> Option<PageSizes> {
        let look = || {
            let first = (0..self.footer.row_groups()).find(|&group| self.footer.row_group_rows[group] > 0)?;
            PageSizes::read(self.read.as_ref(), self.footer.chunk(first, leaf))
        };
        *self.page_sizes[leaf].get_or_init(look)
    }

    /// The chunk of leaf column `leaf` in `row_group`.
    pub(crate) fn chunk(&self, row_group: usize, leaf: usize) -> Chunk<'_> {
        Chunk { file: self, row_group, leaf }
    }
}

/// A column chunk; cheap to make, names itself in errors.
#[derive(Clone, Copy)]
pub(crate) struct Chunk<'a> {
    file: &'a ParquetFile,
    row_group: usize,
    leaf: usize,
}

impl<'a> Chunk<'a> {
    /// The file it lies in.
    pub(crate) fn file(&self) -> &'a ParquetFile {
        self.file
    }

    /// What the footer says of it.
    pub(crate) fn meta(&self) -> &'a ChunkMeta {
        self.file.footer.chunk(self.row_group, self.leaf)
    }

    /// Its column.
    pub(crate) fn leaf(&self) -> &'a Leaf {
        &self.file.footer.leaves[self.leaf]
    }

    /// Rows of its row group.
    pub(crate) fn rows(&self) -> u64 {
        self.file.footer.row_group_rows[self.row_group]
    }

    /// Its place, for errors.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            file: self.file.read.path().to_owned(),
            row_group: Some(self.row_group),
            column: Some(self.leaf().path.to_string()),
        }
    }

    /// The error that says it is damaged, and how.
    #[cold]
    pub(crate) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::data(what, self.origin())
    }
}
