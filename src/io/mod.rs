//! Reading bytes of files by position.
//!
//! Owns: [`ReadAt`], the seam every source reads through, and [`ReadFile`], its local implementation, of which only so
//! many are open at a time ([`OpenFiles`]).
//!
//! Invariants:
//! 1. Reads name their position; nothing shares a file cursor, so lanes read one file in parallel.
//! 2. A read fills the whole buffer or fails; a file that ends early is an I/O error that names the file.
//!
//! Must not know: what the bytes mean, batches, operators.

mod file;
mod open_files;

pub(crate) use file::{ReadAt, ReadFile};
pub(crate) use open_files::OpenFiles;
