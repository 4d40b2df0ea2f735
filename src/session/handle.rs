//! A query as seen from other threads.

use crate::error::Error;
use crate::exec::QueryRun;

/// Cancels a query; may be cloned and sent anywhere, and does not keep the query alive.
#[derive(Clone)]
pub struct QueryHandle {
    pub(super) run: Option<std::sync::Weak<QueryRun>>,
}

impl QueryHandle {
    /// Ends the query with [`Error::Cancelled`], unless it has ended.
    pub fn cancel(&self) {
        if let Some(run) = self.run.as_ref().and_then(std::sync::Weak::upgrade) {
            run.fail(Error::Cancelled);
        }
    }
}
