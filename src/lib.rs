//! Gristmill: a SQL execution engine that runs any query inside the memory you give it.
//!
//! An [`Engine`] has the memory, the worker threads and the spill directory. A [`Session`] has tables, views and
//! settings, and plans queries. A [`Query`] runs as a [`ResultStream`] of record batches, or is collected; a
//! [`QueryHandle`] cancels and watches it from another thread. All calls block, none needs a runtime, and any thread may
//! make them.
//!
//! ```
//! use gristmill::arrow::array::{ArrayRef, Int64Array, RecordBatch};
//! use gristmill::{Engine, Error};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder().memory_limit(64 << 20).threads(2).build()?;
//! let session = engine.session();
//! let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
//! session.register_batches("t", vec![RecordBatch::try_from_iter([("n", numbers)])?])?;
//!
//! let rows = session.query("select sum(n)::bigint from t where n % 2 = 0")?.collect()?;
//! assert_eq!(rows[0].column(0).as_ref(), &Int64Array::from(vec![249_500]));
//!
//! // Rows come as they are made; what is not read is not made.
//! let mut stream = session.query("select a.n from t a, t b, t c")?.with_timeout(Duration::from_secs(60)).stream()?;
//! assert!(stream.next().is_some_and(|batch| batch.is_ok()));
//! stream.handle().cancel();
//! assert!(matches!(stream.last(), Some(Err(Error::Cancelled))));
//! # Ok(())
//! # }
//! ```

mod batches;
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
mod operators;
mod optimizer;
mod parquet;
mod physical;
mod provider;
mod scan;
mod sched;
mod session;
mod spill;
mod sql;
mod sync;

pub use arrow;
pub use data::{DataType, Field, Scalar, TimeUnit, Value, civil_from_days};
pub use error::{Consumer, DataError, Error, Located, Location, MemoryError, Origin, Result};
pub use metrics::{OperatorMetrics, OperatorProfile, QueryMetrics, SpillMetrics, WaitMetrics};
pub use provider::TableProvider;
pub use sched::Priority;
#[doc(hidden)]
pub use session::TestKnobs;
pub use session::{
    Engine, EngineBuilder, Query, QueryHandle, ResultStream, Session, SettingInfo, UnitError,
    is_parquet_file, parse_bytes, parse_duration,
};
pub use sql::SqlStatement;

/// The examples of the README, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
