//! Arbitrary bytes read as Parquet must be an error or rows, never a panic or memory beyond the pool.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill::fuzzing::parquet_pages(bytes));
