//! The rows of a running query.

use super::engine::EngineInner;
use super::handle::QueryHandle;
use crate::data::arrow_schema;
use crate::error::{Error, Result};
use crate::exec::QueryRun;
use crate::metrics::{OperatorProfile, QueryMetrics};
use crate::operators::ResultQueue;
use crate::physical;
use crate::spill::SpillDirectory;
use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn text_schema() -> SchemaRef {
    let field = arrow::datatypes::Field::new("plan", arrow::datatypes::DataType::Utf8View, false);
    Arc::new(arrow::datatypes::Schema::new(vec![field]))
}

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
    pub(super) profiler: Option<physical::Profiler>,
    pub(super) spill: Option<Arc<SpillDirectory>>,
    pub(super) planning: Duration,
    pub(super) rows: u64,
    pub(super) started: Instant,
    pub(super) end: Arc<Mutex<Option<Duration>>>,
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
        Self {
            schema,
            source: Rows::Ready(batch),
            run: None,
            profiler: None,
            spill: None,
            planning: Duration::ZERO,
            rows: 0,
            started: Instant::now(),
            end: Arc::default(),
            _engine: None,
        }
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// A handle that cancels the query from anywhere.
    pub fn cancel_handle(&self) -> QueryHandle {
        QueryHandle { run: self.run.as_ref().map(QueryRun::downgrade) }
    }

    /// Figures of each operator of the plan so far, parents first; final once the stream has ended. Empty for EXPLAIN.
    pub fn profile(&self) -> Vec<OperatorProfile> {
        let run = self.profiler.as_ref().zip(self.run.as_ref());
        run.map_or_else(Vec::new, |(profiler, run)| profiler.profile(&run.operators()))
    }

    /// Figures so far; final once the stream has ended.
    pub fn metrics(&self) -> QueryMetrics {
        let mut metrics = QueryMetrics {
            planning: self.planning,
            execution: self.end.lock().unwrap_or_else(|| self.started.elapsed()),
            rows: self.rows,
            ..QueryMetrics::default()
        };
        if let Some(run) = &self.run {
            let cx = run.cx();
            metrics.peak_granted_bytes = cx.pool.peak_bytes();
            metrics.lanes = cx.knobs.lanes;
            metrics.batch_rows = cx.knobs.batch_rows;
        }
        metrics.spilled_bytes = self.spill.as_ref().map_or(0, |s| s.written_bytes());
        metrics
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
        match &next {
            Some(Ok(batch)) => self.rows += batch.num_rows() as u64,
            Some(Err(_)) | None => self.source = Rows::Over,
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
