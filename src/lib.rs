//! Gristmill: a SQL execution engine that runs any query inside the memory you give it.

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
mod scan;
mod sched;
mod session;
mod spill;
mod sql;
mod sync;

pub use arrow;
pub use data::{DataType, Field, Scalar, TimeUnit, Value};
pub use error::{Consumer, DataError, Error, Located, Location, MemoryError, Origin, Result};
pub use metrics::{OperatorMetrics, OperatorProfile, QueryMetrics};
pub use sched::Priority;
#[doc(hidden)]
pub use session::TestKnobs;
pub use session::{Engine, EngineBuilder, Query, QueryHandle, ResultStream, Session, SettingInfo};

/// The examples of the README, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
