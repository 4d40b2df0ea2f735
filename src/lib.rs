//! Gristmill: a SQL execution engine that runs any query inside the memory you give it.

#![allow(dead_code, unused_imports, reason = "rooms land one after the other")]
mod catalog;
mod data;
mod error;
mod exec;
mod expr;
mod functions;
#[cfg(fuzzing)]
pub mod fuzzing;
mod io;
mod logical;
mod mem;
mod metrics;
mod optimizer;
mod parquet;
mod scan;
mod sched;
mod spill;
mod sql;
mod sync;

pub use error::{Error, Result};
