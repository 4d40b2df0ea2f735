//! Whole files, written by the `parquet` crate, read back column by column and by scans.

mod columns;
mod damage;
mod encodings;
mod files;
mod reading;
mod scans;
