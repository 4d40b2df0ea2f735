//! Parquet files as tables.
//!
//! Owns: footers in compact form, the walk along column chunks, decompression, the decoders, pruning by statistics, page
//! indexes and Bloom filters, and the scan with its late materialisation. The `parquet` crate decodes footers and, for
//! nested columns and rare types, pages that are read and charged here.
//!
//! Invariants:
//! 1. A size in a file is checked before anything is allocated for it, and what is allocated comes from the account of
//!    the lane that reads, or from the pool the table was opened with.
//! 2. A damaged file is an error that names file, row group and column; it is never a panic and never foreign bytes.
//! 3. In a steady state a lane maps no memory: page buffers and vectors are recycled slabs.
//!
//! Must not know: plans, SQL text, the other operators.

mod bloom;
mod clusters;
mod codec;
mod column;
mod decode;
mod distinct;
mod edge;
mod fallback;
mod file;
mod filter;
mod flat;
mod flat_differences;
mod footer;
mod lane;
mod nested_types;
mod output;
mod page;
mod page_index;
mod page_places;
mod page_sizes;
mod page_values;
#[cfg(any(test, fuzzing))]
pub(crate) mod probe;
mod prune;
mod sample;
mod scan;
mod snappy;
mod table;
mod table_file;
mod thrift;

#[cfg(test)]
mod tests;

pub(crate) use table::ParquetTable;
