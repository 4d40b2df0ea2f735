//! Reading bytes of files by position.
//!
//! Owns: [`ReadAt`], the seam every source reads through, and [`ReadFile`], its local implementation.
//!
//! Invariants:
//! 1. Reads name their position; nothing shares a file cursor, so lanes read one file in parallel.
//! 2. A read fills the whole buffer or fails; a file that ends early is an I/O error that names the file.
//!
//! Must not know: what the bytes mean, batches, operators.

mod file;

pub(crate) use file::{ReadAt, ReadFile};
