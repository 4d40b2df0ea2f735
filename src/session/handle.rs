//! A query as seen from other threads.

use super::report::Report;
use crate::error::Error;
use crate::exec::QueryRun;
use crate::metrics::{OperatorProfile, QueryMetrics};
use std::sync::{Arc, Weak};

/// Cancels and watches a query; may be cloned and sent anywhere. It does not keep the query running: that ends when its
/// [`ResultStream`](crate::ResultStream) is dropped. Figures stay available after the end.
///
/// ```
/// # fn main() -> gristmill::Result<()> {
/// let session = gristmill::Engine::builder().threads(1).build()?.session();
/// let stream = session.query("select count(*) from (values (1), (2)) t(x)")?.stream()?;
/// let handle = stream.handle();
/// let watcher = std::thread::spawn(move || {
///     while handle.progress() < 1.0 {
///         std::thread::sleep(std::time::Duration::from_millis(1));
///     }
///     handle.metrics().peak_granted_bytes
/// });
/// let rows = stream.collect::<gristmill::Result<Vec<_>>>()?;
/// assert!(watcher.join().expect("it does not panic") > 0 && rows.len() == 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct QueryHandle {
    pub(super) run: Weak<QueryRun>,
    /// `None` for what has no plan.
    pub(super) report: Option<Arc<Report>>,
}

impl QueryHandle {
    /// Ends the query with [`Error::Cancelled`], unless it has ended. Does not wait for the end: the stream brings it.
    pub fn cancel(&self) {
        if let Some(run) = self.run.upgrade() {
            run.fail(Error::Cancelled);
        }
    }

    /// The share of its tables' rows the query is past, from 0 to 1: read, pruned, or wanted by nobody. Never goes back.
    ///
    /// At 1 everything is read; sorting, merging and what was spilled may remain until the stream ends. A table that
    /// does not tell how many rows it has does not count, and a query without tables goes from 0 to 1 at its end.
    pub fn progress(&self) -> f64 {
        self.report.as_ref().map_or(1.0, |report| report.progress())
    }

    /// Figures of each operator of the plan so far, parents first. Empty for EXPLAIN.
    pub fn profile(&self) -> Vec<OperatorProfile> {
        self.report.as_ref().map_or_else(Vec::new, |report| report.profile())
    }

    /// Figures of the query so far.
    pub fn metrics(&self) -> QueryMetrics {
        self.report.as_ref().map_or_else(QueryMetrics::default, |report| report.metrics())
    }
}

impl std::fmt::Debug for QueryHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryHandle").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
