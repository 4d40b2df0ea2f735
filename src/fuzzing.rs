//! Entry points for `cargo fuzz`; compiled only under `--cfg fuzzing`.

/// Reads `bytes` as a Parquet file, footer first.
pub fn parquet_file(bytes: &[u8]) {
    crate::parquet::probe::entry::file(bytes);
}

/// Reads `bytes` as the pages of one Parquet column chunk.
pub fn parquet_pages(bytes: &[u8]) {
    crate::parquet::probe::entry::pages(bytes);
}
