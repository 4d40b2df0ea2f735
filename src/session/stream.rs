//! The rows of a running query.

use super::engine::EngineInner;
use super::handle::QueryHandle;
use super::report::Report;
use crate::data::arrow_schema;
use crate::error::{Error, Result};
use crate::exec::QueryRun;
use crate::metrics::{OperatorProfile, QueryMetrics};
use crate::operators::ResultQueue;
use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

pub(super) fn text_schema() -> SchemaRef {
    let field = arrow::datatypes::Field::new("plan", arrow::datatypes::DataType::Utf8View, false);
    Arc::new(arrow::datatypes::Schema::new(vec![field]))
}

/// Where rows come from.
pub(super) enum Rows {
    Queue(Arc<ResultQueue>),
    Ready(Option<RecordBatch>),
    Over,
}

/// The rows of a running query, as record batches. Dropping it cancels the query.
pub struct ResultStream {
    pub(super) schema: SchemaRef,
    pub(super) source: Rows,
    pub(super) run: Option<Arc<QueryRun>>,
    pub(super) report: Option<Arc<Report>>,
    /// Keeps the workers.
    pub(super) _engine: Option<Arc<EngineInner>>,
}

impl ResultStream {
    pub(super) fn text(text: &str) -> Self {
        let lines = StringViewArray::from_iter_values(text.lines());
        let batch = RecordBatch::try_new(text_schema(), vec![Arc::new(lines)]).ok();
        Self::ready(text_schema(), batch)
    }

    pub(super) fn nothing() -> Self {
        Self::ready(arrow_schema(&[]), None)
    }

    fn ready(schema: SchemaRef, batch: Option<RecordBatch>) -> Self {
        Self { schema, source: Rows::Ready(batch), run: None, report: None, _engine: None }
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// A handle that cancels and watches the query from anywhere.
    pub fn handle(&self) -> QueryHandle {
        let run = self.run.as_ref().map_or_else(Weak::new, QueryRun::downgrade);
        QueryHandle { run, report: self.report.clone() }
    }

    /// Figures of each operator of the plan so far, parents first; final once the stream has ended. Empty for EXPLAIN.
    pub fn profile(&self) -> Vec<OperatorProfile> {
        self.report.as_ref().map_or_else(Vec::new, |report| report.profile())
    }

    /// Figures so far; final once the stream has ended.
    pub fn metrics(&self) -> QueryMetrics {
        self.report.as_ref().map_or_else(QueryMetrics::default, |report| report.metrics())
    }
}

impl Iterator for ResultStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let next = match &mut self.source {
            Rows::Queue(queue) => {
                let run = self.run.as_deref();
                let expire = || {
                    if let Some(run) = run {
                        run.expire();
                    }
                };
                queue.next_blocking(run.and_then(QueryRun::deadline), expire)
            }
            Rows::Ready(batch) => batch.take().map(Ok),
            Rows::Over => None,
        };
        match (&next, &self.report) {
            (Some(Ok(batch)), Some(report)) => {
                report.rows.fetch_add(batch.num_rows() as u64, Relaxed);
            }
            (Some(Ok(_)), None) => {}
            (Some(Err(_)) | None, _) => self.source = Rows::Over,
        }
        next
    }
}

impl Drop for ResultStream {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.fail(Error::Cancelled);
        }
    }
}
