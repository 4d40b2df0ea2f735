//! Whole files: written by the crate, read back by scans.
