//! The rows of a running query.

use super::engine::EngineInner;
use super::handle::QueryHandle;
use super::report::Report;
use crate::data::arrow_schema;
use crate::error::{Error, Result};
use crate::exec::QueryRun;
use crate::metrics::{OperatorProfile, QueryMetrics};
use crate::operators::ResultQueue;
use crate::physical;
use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(super) fn text_schema() -> SchemaRef {
    let field = arrow::datatypes::Field::new("plan", arrow::datatypes::DataType::Utf8View, false);
    Arc::new(arrow::datatypes::Schema::new(vec![field]))
}

/// A row for each line.
fn text_batch(text: &str) -> Option<RecordBatch> {
    let lines = StringViewArray::from_iter_values(text.lines());
    RecordBatch::try_new(text_schema(), vec![Arc::new(lines)]).ok()
}

/// Where rows come from.
pub(super) enum Rows {
    Queue(Arc<ResultQueue>),
    /// The query's rows are counted; what it took, with the optimizer's rules, is the one batch.
    Analyzed(Arc<ResultQueue>, Vec<(&'static str, Duration)>),
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
        Self::ready(text_schema(), text_batch(text))
    }

    /// What the query takes, in place of its rows. It runs, and can be cancelled and watched, as it would otherwise.
    pub(super) fn analyzed(mut self, rules: Vec<(&'static str, Duration)>) -> Self {
        self.schema = text_schema();
        self.source = match std::mem::replace(&mut self.source, Rows::Over) {
            Rows::Queue(queue) => Rows::Analyzed(queue, rules),
            other @ (Rows::Analyzed(..) | Rows::Ready(_) | Rows::Over) => other,
        };
        self
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

impl ResultStream {
    /// The next batch of the run; waits for it.
    fn next_of(&self, queue: &ResultQueue) -> Option<Result<RecordBatch>> {
        let run = self.run.as_deref();
        let expire = || {
            if let Some(run) = run {
                run.expire();
            }
        };
        let next = queue.next_blocking(run.and_then(QueryRun::deadline), expire);
        if let (Some(Ok(batch)), Some(report)) = (&next, &self.report) {
            report.rows.fetch_add(batch.num_rows() as u64, Relaxed);
        }
        next
    }

    /// Runs the query to its end; what it took.
    fn analyze(&self, queue: &ResultQueue, rules: &[(&'static str, Duration)]) -> Result<RecordBatch> {
        while let Some(batch) = self.next_of(queue) {
            batch?;
        }
        let operators = self.report.as_ref().map(|report| report.operators.as_slice()).unwrap_or_default();
        let text = physical::explain_analyze(&self.profile(), operators, &self.metrics(), rules);
        text_batch(&text).ok_or_else(|| Error::internal("a plan's text is not a batch"))
    }
}

impl Iterator for ResultStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let source = std::mem::replace(&mut self.source, Rows::Over);
        match source {
            Rows::Queue(queue) => {
                let next = self.next_of(&queue);
                if matches!(next, Some(Ok(_))) {
                    self.source = Rows::Queue(queue);
                }
                next
            }
            Rows::Analyzed(queue, rules) => Some(self.analyze(&queue, &rules)),
            Rows::Ready(batch) => batch.map(Ok),
            Rows::Over => None,
        }
    }
}

impl Drop for ResultStream {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.fail(Error::Cancelled);
        }
    }
}
