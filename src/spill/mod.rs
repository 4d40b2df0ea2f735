//! Where breakers put what does not fit.
//!
//! Owns: [`SpillDirectory`].

/// The spill directory of a query.
#[derive(Debug)]
pub(crate) struct SpillDirectory;
