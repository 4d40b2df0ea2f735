//! A planned query, and how it starts.

use super::Views;
use super::engine::EngineInner;
use super::stream::{ResultStream, Rows, text_schema};
use crate::catalog::Catalog;
use crate::data::{Field, arrow_schema};
use crate::error::Result;
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{QueryCx, QueryRun};
use crate::mem::Knobs;
use crate::operators::{ResultQueue, result_sink};
use crate::physical;
use crate::sched::Priority;
use crate::sql::{Definition, View};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batch rows when memory is ample: a batch's columns stay in the second-level cache.
const BATCH_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 256 << 10;
const FAN_OUT: usize = 16;

/// What running it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rows,
    Explain,
    ExplainAnalyze,
    Define,
}

/// A planned query, ready to run.
pub struct Query {
    pub(super) engine: Arc<EngineInner>,
    pub(super) plan: Arc<physical::PhysicalPlan>,
    pub(super) rules: Vec<(&'static str, Duration)>,
    pub(super) kind: Kind,
    pub(super) fields: Vec<Field>,
    pub(super) planning: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) memory_limit: Option<usize>,
    pub(super) definition: Option<(Definition, Views)>,
}

impl Query {
    /// Fails the query with [`Error::Timeout`] if it runs longer.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Bytes this query may hold, within the engine's limit.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The columns it returns.
    pub fn schema(&self) -> SchemaRef {
        match self.kind {
            Kind::Rows | Kind::Define => arrow_schema(&self.fields),
            Kind::Explain | Kind::ExplainAnalyze => text_schema(),
        }
    }

    /// The physical plan as text.
    pub fn explain(&self) -> String {
        physical::explain(&self.plan)
    }

    /// Runs it and collects all rows.
    ///
    /// # Errors
    /// Whatever the query fails with.
    pub fn collect(self) -> Result<Vec<RecordBatch>> {
        self.stream()?.collect()
    }

    /// Starts it. Batches come as they are made; the query waits while a few are not taken.
    ///
    /// # Errors
    /// A memory error if its smallest plan does not fit the budget.
    pub fn stream(self) -> Result<ResultStream> {
        match self.kind {
            Kind::Rows => self.start(),
            Kind::Define => {
                if let Some((definition, views)) = self.definition {
                    apply(definition, &mut views.lock());
                }
                Ok(ResultStream::nothing())
            }
            Kind::Explain => Ok(ResultStream::text(&self.explain())),
            Kind::ExplainAnalyze => {
                let rules = self.rules.clone();
                let mut stream = self.start()?;
                for batch in stream.by_ref() {
                    batch?;
                }
                let operators = stream.run.as_ref().map(|r| r.operators()).unwrap_or_default();
                let (profile, metrics) = (stream.profile(), stream.metrics());
                Ok(ResultStream::text(&physical::explain_analyze(&profile, &operators, &metrics, &rules)))
            }
        }
    }

    fn start(self) -> Result<ResultStream> {
        let engine = self.engine;
        let limit = self.memory_limit.unwrap_or(usize::MAX).min(engine.pool.limit_bytes());
        let pool = engine.pool.child("query", limit);
        let schema = arrow_schema(&self.fields);
        let queue = ResultQueue::new();
        let sink = result_sink(self.fields.clone(), Arc::clone(&schema), Arc::clone(&queue));
        let (spec, profiler) = physical::pipelines(&self.plan, sink)?;
        let testing = &engine.testing;
        let most = Knobs {
            lanes: engine.threads,
            batch_rows: testing.batch_rows.unwrap_or(BATCH_ROWS),
            block_bytes: BLOCK_BYTES,
            fan_out: FAN_OUT,
        };
        let knobs = spec.admit(most, &pool)?;
        let faults = FaultConfig {
            refuse_grant: testing.refuse_grant,
            wait: testing.wait,
            spill_error: testing.spill_error,
            one_row_batches: testing.one_row_batches,
            seed: testing.seed,
        };
        let faults = (faults != FaultConfig { seed: faults.seed, ..FaultConfig::default() })
            .then(|| Arc::new(Faults::new(faults)));
        let spill = Arc::new(engine.spill.for_query(faults.as_ref().map(|f| {
            let f = Arc::clone(f);
            Arc::new(move || f.fails_spill()) as Arc<dyn Fn() -> bool + Send + Sync>
        })));
        let cx = Arc::new(QueryCx::new(pool, knobs, Arc::clone(&spill), self.timeout, faults));
        let started = Instant::now();
        let end = Arc::new(Mutex::new(None));
        let (queue_at_end, time_at_end) = (Arc::clone(&queue), Arc::clone(&end));
        let group = engine.scheduler.group(Priority::DEFAULT);
        let run = QueryRun::start(spec, cx, group, move |outcome| {
            *time_at_end.lock() = Some(started.elapsed());
            queue_at_end.close(outcome);
        })?;
        Ok(ResultStream {
            schema,
            source: Rows::Queue(queue),
            run: Some(run),
            profiler: Some(profiler),
            spill: Some(spill),
            planning: self.planning,
            rows: 0,
            started,
            end,
            _engine: Some(engine),
        })
    }
}

/// Changes the views.
fn apply(definition: Definition, views: &mut Catalog<View>) {
    match definition {
        Definition::Create(view) => {
            let name = view.name().to_owned();
            views.insert(&name, view);
        }
        Definition::Drop(names) => {
            for name in names {
                views.remove(&name);
            }
        }
    }
}
