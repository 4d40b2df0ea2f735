//! A planned query, and how it starts.

use super::Views;
use super::engine::EngineInner;
use super::report::{Ending, Report};
use super::settings::Settings;
use super::stream::{ResultStream, Rows, text_schema};
use crate::data::{Field, arrow_schema};
use crate::error::{Error, MemoryError, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{QueryCx, QueryRun};
use crate::mem::Knobs;
use crate::operators::{ResultQueue, result_sink};
use crate::physical;
use crate::sched::Priority;
use crate::sql::{Assignment, Definition};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Batch rows when memory is ample: a batch's columns stay in the second-level cache.
pub(super) const BATCH_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 256 << 10;
/// Partitions that are spilled to at a time. What many of them take is little beside what it costs to write rows again,
/// because one partition of few does not fit.
pub(super) const FAN_OUT: usize = 64;

/// What running it comes to.
pub(super) enum Kind {
    Rows,
    Explain,
    ExplainAnalyze,
    Effect(Effect),
}

/// What a statement without rows changes.
pub(super) enum Effect {
    Views(Definition, Views),
    Settings(Assignment, Arc<Mutex<Settings>>),
}

impl Effect {
    fn apply(self) -> Result<()> {
        match self {
            Self::Views(Definition::Create(view), views) => {
                let name = view.name().to_owned();
                views.lock().insert(&name, view);
            }
            Self::Views(Definition::Drop(names), views) => {
                let mut views = views.lock();
                for name in names {
                    views.remove(&name);
                }
            }
            Self::Settings(change, settings) => settings.lock().apply(&change)?,
        }
        Ok(())
    }
}

/// A planned query, ready to run.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> gristmill::Result<()> {
/// let session = gristmill::Engine::builder().threads(2).build()?.session();
/// let sql = "select a.n + b.n as total from (values (1), (2)) a(n), (values (10), (20)) b(n)";
/// let query = session.query(sql)?.with_timeout(Duration::from_secs(30)).with_memory_limit(64 << 20);
/// assert_eq!(query.schema().field(0).name(), "total");
/// let mut stream = query.stream()?;
/// let mut rows = 0;
/// for batch in stream.by_ref() {
///     rows += batch?.num_rows();
/// }
/// assert_eq!((rows, stream.metrics().spilled_bytes), (4, 0));
/// # Ok(())
/// # }
/// ```
pub struct Query {
    pub(super) engine: Arc<EngineInner>,
    pub(super) plan: Arc<physical::PhysicalPlan>,
    pub(super) rules: Vec<(&'static str, Duration)>,
    pub(super) kind: Kind,
    pub(super) fields: Vec<Field>,
    pub(super) planning: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) memory_limit: Option<usize>,
    pub(super) priority: Priority,
    pub(super) batch_rows: Option<usize>,
    pub(super) spill_partitions: Option<usize>,
}

impl Query {
    /// Fails the query with [`Error::Timeout`] if it takes longer from its start on; waiting for
    /// its turn counts.
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

    /// Its share of the workers beside other queries. Shares decay with the time a query consumes, so that short ones
    /// are not stuck behind long ones whatever their priorities.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The columns it returns.
    pub fn schema(&self) -> SchemaRef {
        match &self.kind {
            Kind::Rows | Kind::Effect(_) => arrow_schema(&self.fields),
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
    pub fn stream(mut self) -> Result<ResultStream> {
        match std::mem::replace(&mut self.kind, Kind::Rows) {
            Kind::Rows => self.start(),
            Kind::Effect(effect) => {
                effect.apply()?;
                Ok(ResultStream::nothing())
            }
            Kind::Explain => Ok(ResultStream::text(&self.explain())),
            Kind::ExplainAnalyze => {
                let rules = std::mem::take(&mut self.rules);
                Ok(self.start()?.analyzed(rules))
            }
        }
    }

    fn start(self) -> Result<ResultStream> {
        let engine = self.engine;
        // What the tables hold stays with them.
        let tables_bytes = engine.holdings.pool.granted_bytes();
        let left = engine.pool.limit_bytes().saturating_sub(tables_bytes);
        let limit = self.memory_limit.unwrap_or(usize::MAX).min(left);
        let pool = engine.pool.child("query", limit);
        let schema = arrow_schema(&self.fields);
        let queue = ResultQueue::new();
        let pipelines = |plan| {
            let sink = result_sink(self.fields.clone(), Arc::clone(&schema), Arc::clone(&queue));
            physical::pipelines(plan, sink)
        };
        let (mut spec, mut profiler) = pipelines(&self.plan)?;
        let testing = &engine.testing;
        let most_partitions = self.spill_partitions.or(engine.spill_partitions).unwrap_or(FAN_OUT);
        let most = Knobs {
            lanes: engine.threads,
            batch_rows: testing.batch_rows.or(self.batch_rows).or(engine.batch_rows).unwrap_or(BATCH_ROWS),
            block_bytes: BLOCK_BYTES,
            fan_out: FAN_OUT.min(most_partitions),
        };
        let mut admitted = spec.admit(most, &pool);
        if admitted.is_err()
            && let Some(plan) = physical::with_hash_joins(&self.plan)
        {
            (spec, profiler) = pipelines(&plan)?;
            admitted = spec.admit(most, &pool);
        }
        let knobs = admitted.map_err(|error| match self.memory_limit {
            Some(own) if own <= left => error,
            Some(_) | None => beside(error, tables_bytes),
        })?;
        let faults = FaultConfig {
            refuse_grant: testing.refuse_grant,
            refuse_charge: testing.refuse_charge,
            wait: testing.wait,
            spill_error: testing.spill_error,
            spill_corruption: testing.spill_corruption,
            panic: testing.panic,
            one_row_batches: testing.one_row_batches,
            seed: testing.seed.wrapping_add(engine.started_queries.fetch_add(1, Relaxed) << 32),
        };
        let faults = (faults != FaultConfig { seed: faults.seed, ..FaultConfig::default() })
            .then(|| Arc::new(Faults::new(faults)));
        if let Some(refuses) = faults.as_ref().and_then(Faults::charge_hook) {
            pool.inject(refuses);
        }
        let spill = Arc::new(engine.spill.for_query(faults.as_ref().and_then(Faults::disk_hook)));
        let ending = Arc::new(Ending::new());
        let cx = Arc::new(QueryCx::new(pool.clone(), knobs, Arc::clone(&spill), self.timeout, faults));
        let resident = Arc::clone(&cx.resident);
        let group = engine.scheduler.group(self.priority);
        let (queue_at_end, ending_at_end) = (Arc::clone(&queue), Arc::clone(&ending));
        let run = QueryRun::start_in(&engine.slots, spec, cx, group, move |outcome| {
            ending_at_end.note(outcome.is_ok());
            queue_at_end.close(outcome);
        })?;
        let report = Arc::new(Report {
            profiler,
            operators: run.operators(),
            pool,
            knobs,
            floor_bytes: run.floors_bytes(),
            resident,
            spill,
            planning: self.planning,
            rows: AtomicU64::new(0),
            ending,
        });
        Ok(ResultStream {
            schema,
            source: Rows::Queue(queue),
            run: Some(run),
            report: Some(report),
            _engine: Some(engine),
        })
    }
}

/// The error of a query that has not enough beside what tables hold, in terms of the engine's limit.
fn beside(mut error: Error, tables_bytes: usize) -> Error {
    if let Error::Memory(memory) = &mut error
        && let MemoryError::BudgetTooSmall { required_bytes, limit_bytes, .. } = &mut **memory
    {
        *required_bytes = required_bytes.saturating_add(tables_bytes);
        *limit_bytes = limit_bytes.saturating_add(tables_bytes);
    }
    error
}
