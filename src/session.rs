//! The façade: engines, sessions, queries, result streams.
//!
//! Owns: what an embedder sees, and the only place that joins the SQL front with the execution back.
//!
//! Invariants:
//! 1. Nothing is process-wide: two engines in one process share nothing.
//! 2. A query sees the tables and views as they were when it was made.
//! 3. Dropping a result stream cancels its query.

use crate::batches::BatchesTable;
use crate::catalog::{Catalog, TableProvider};
use crate::data::{Field, arrow_schema};
use crate::error::{Error, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{QueryCx, QueryRun};
use crate::logical::Column;
use crate::mem::{Knobs, Pool};
use crate::metrics::{OperatorProfile, QueryMetrics};
use crate::operators::{ResultQueue, result_sink};
use crate::parquet::ParquetTable;
use crate::scan::ScanProvider;
use crate::sched::{Priority, Scheduler, SchedulerConfig};
use crate::spill::SpillDirectory;
use crate::sql::{Definition, Statement, TableResolver, View};
use crate::{optimizer, physical, sql};
use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batch rows when memory is ample: a batch's columns stay in the second-level cache.
const BATCH_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 256 << 10;
const FAN_OUT: usize = 16;
const DEFAULT_SPILL_QUOTA_BYTES: u64 = 100 << 30;

/// Builds an [`Engine`].
#[derive(Clone, Debug, Default)]
pub struct EngineBuilder {
    memory_limit: Option<usize>,
    threads: Option<usize>,
    temp_directory: Option<PathBuf>,
    max_temp_directory_size: Option<u64>,
    disabled_optimizers: HashSet<String>,
    enable_sort_merge_join: Option<bool>,
    testing: TestKnobs,
}

/// What tests turn: sizes and seeded faults. Not part of the API.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TestKnobs {
    /// Rows of a full batch.
    pub batch_rows: Option<usize>,
    /// Chance, in 1/65536, that a revocable grant is refused, so that breakers spill.
    pub refuse_grant: u16,
    /// Chance that an operator waits first.
    pub wait: u16,
    /// Chance that a spill read or write fails.
    pub spill_error: u16,
    /// Seed of all chances.
    pub seed: u64,
    /// Sources emit single rows.
    pub one_row_batches: bool,
    /// Joins are ordered at random from this seed, not by cost.
    pub join_order_seed: Option<u64>,
    /// Joins that can be are sort-merge joins.
    pub merge_joins: bool,
}

impl EngineBuilder {
    /// Bytes the engine may hold: the sum over all its queries. Default: 60 % of the machine's memory or of the
    /// control group's limit, whichever is smaller.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Worker threads. Default: one for each processor the process may use.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Where breakers spill; made when first needed, and nothing stays in it.
    #[must_use]
    pub fn temp_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.temp_directory = Some(directory.into());
        self
    }

    /// Bytes all spill files together may take. Default: 100 GiB.
    #[must_use]
    pub fn max_temp_directory_size(mut self, bytes: u64) -> Self {
        self.max_temp_directory_size = Some(bytes);
        self
    }

    /// Optimizer rules left out, some of [`Engine::optional_rules`]: to find the one behind a bad plan.
    #[must_use]
    pub fn disabled_optimizers(mut self, rules: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.disabled_optimizers = rules.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the planner may choose the sort-merge join. Default: yes. EXPLAIN says why one was chosen.
    #[must_use]
    pub fn enable_sort_merge_join(mut self, enabled: bool) -> Self {
        self.enable_sort_merge_join = Some(enabled);
        self
    }

    /// Sizes and faults for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn testing(mut self, knobs: TestKnobs) -> Self {
        self.testing = knobs;
        self
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// [`Error::Plan`] for settings that cannot be, [`Error::Io`] if a thread cannot be started.
    pub fn build(self) -> Result<Engine> {
        if let Some(rule) =
            self.disabled_optimizers.iter().find(|name| optional_rules().all(|known| known != *name))
        {
            let optional: Vec<_> = optional_rules().collect();
            let message = format!("'{rule}' is no rule to leave out; these are: {}", optional.join(", "));
            return Err(Error::plan(message, None));
        }
        let threads = self.threads.unwrap_or_else(|| SchedulerConfig::default().threads);
        let scheduler = Scheduler::new(SchedulerConfig { threads, ..SchedulerConfig::default() })?;
        let limit = self.memory_limit.unwrap_or_else(default_memory_limit);
        let quota = self.max_temp_directory_size.unwrap_or(DEFAULT_SPILL_QUOTA_BYTES);
        Ok(Engine {
            inner: Arc::new(EngineInner {
                scheduler,
                pool: Pool::new("engine", limit),
                spill: SpillDirectory::new(self.temp_directory, quota),
                threads,
                optimizer: optimizer::OptimizerSettings {
                    disabled: self.disabled_optimizers,
                    join_order_seed: self.testing.join_order_seed,
                },
                joins: physical::JoinPolicy {
                    allows_merge: self.enable_sort_merge_join.unwrap_or(true),
                    forces_merge: self.testing.merge_joins,
                    memory_bytes: limit,
                },
                testing: self.testing,
            }),
        })
    }
}

/// Names of what may be left out of planning, in the order it happens.
fn optional_rules() -> impl Iterator<Item = &'static str> {
    optimizer::optional_rules().chain([physical::RUNTIME_FILTERS])
}

/// 60 % of the smaller of the machine's memory and the control group's limit; 1 GiB where neither is known.
fn default_memory_limit() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib << 10)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| read(path)?.trim().parse::<usize>().ok());
    match (total, group) {
        (Some(total), Some(group)) => total.min(group) / 10 * 6,
        (Some(known), None) | (None, Some(known)) => known / 10 * 6,
        (None, None) => 1 << 30,
    }
}

/// The file itself, or the Parquet files directly in a directory, by name.
fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot = |e| Error::io("cannot list", path, e);
    let entries = std::fs::read_dir(path).map_err(cannot)?;
    let paths =
        entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(cannot)?;
    let mut files: Vec<PathBuf> =
        paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "parquet") && p.is_file()).collect();
    if files.is_empty() {
        return Err(Error::plan(format!("directory '{}' holds no .parquet file", path.display()), None));
    }
    files.sort();
    Ok(files)
}

struct EngineInner {
    scheduler: Scheduler,
    pool: Pool,
    spill: SpillDirectory,
    threads: usize,
    optimizer: optimizer::OptimizerSettings,
    joins: physical::JoinPolicy,
    testing: TestKnobs,
}

/// Workers, memory and a spill directory that all its sessions share.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("threads", &self.inner.threads)
            .field("memory_limit", &self.memory_limit())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Settings to build one from.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Names of the optimizer rules that may be left out ([`EngineBuilder::disabled_optimizers`]), in the order they run.
    pub fn optional_rules() -> impl Iterator<Item = &'static str> {
        optional_rules()
    }

    /// A session without tables.
    pub fn session(&self) -> Session {
        Session { engine: Arc::clone(&self.inner), catalog: Mutex::default(), views: Arc::default() }
    }

    /// The most bytes it may hold.
    pub fn memory_limit(&self) -> usize {
        self.inner.pool.limit_bytes()
    }

    /// Bytes granted at this moment, to running queries, their results and table metadata.
    pub fn memory_used(&self) -> usize {
        self.inner.pool.granted_bytes()
    }

    /// The most bytes that were ever granted at a time.
    pub fn memory_peak(&self) -> usize {
        self.inner.pool.peak_bytes()
    }
}

/// Tables by name, and queries over them.
pub struct Session {
    engine: Arc<EngineInner>,
    catalog: Mutex<Catalog<dyn ScanProvider>>,
    views: Views,
}

/// Shared with statements that change them once they run.
type Views = Arc<Mutex<Catalog<View>>>;

struct Resolver<'a> {
    tables: &'a Catalog<dyn ScanProvider>,
    views: &'a Catalog<View>,
}

impl TableResolver for Resolver<'_> {
    fn table(&self, name: &str) -> Option<(String, Arc<dyn TableProvider>)> {
        let (name, table) = self.tables.get(name)?;
        Some((name.to_owned(), Arc::clone(table) as Arc<dyn TableProvider>))
    }

    fn view(&self, name: &str) -> Option<Arc<View>> {
        self.views.get(name).map(|(_, view)| Arc::clone(view))
    }

    fn names(&self) -> Vec<String> {
        self.tables.names().chain(self.views.names()).map(str::to_owned).collect()
    }
}

impl Session {
    /// Makes a Parquet file, or all Parquet files of a directory together, a table. Replaces one of that name.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`] name the file; [`Error::Memory`] if its metadata does not fit the budget.
    pub fn register_parquet(&self, name: &str, path: impl AsRef<Path>) -> Result<()> {
        let table = ParquetTable::open(&parquet_files(path.as_ref())?, &self.engine.pool)?;
        self.catalog.lock().insert(name, Arc::new(table));
        Ok(())
    }

    /// Makes record batches a table. Replaces one of that name. Their memory stays the caller's.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no batch or schemas differ.
    pub fn register_batches(&self, name: &str, batches: Vec<RecordBatch>) -> Result<()> {
        let table = BatchesTable::new(batches)?;
        self.catalog.lock().insert(name, Arc::new(table));
        Ok(())
    }

    /// Names of the tables.
    pub fn tables(&self) -> Vec<String> {
        self.catalog.lock().names().map(str::to_owned).collect()
    }

    /// Splits a text into its statements.
    ///
    /// # Errors
    /// [`Error::Parse`] with line and column.
    pub fn statements(&self, sql: &str) -> Result<Vec<String>> {
        sql::split(sql)
    }

    /// Plans one statement. Nothing runs until the query is streamed or collected.
    ///
    /// # Errors
    /// [`Error::Parse`], [`Error::Plan`] or [`Error::Unsupported`] with line, column and a caret.
    pub fn query(&self, sql: &str) -> Result<Query> {
        let started = Instant::now();
        let catalog = self.catalog.lock().clone();
        let views = self.views.lock().clone();
        let resolver = Resolver { tables: &catalog, views: &views };
        let mut statements = sql::bind(sql, &resolver).map_err(|e| e.with_excerpt(sql))?;
        let statement = match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => statement,
            (None, _) => return Err(Error::parse("there is no statement in the text", None)),
            (Some(_), false) => {
                return Err(Error::plan("one statement at a time; split the text with `statements`", None));
            }
        };
        let (kind, bound) = match statement {
            Statement::Query(bound) => (Kind::Rows, bound),
            Statement::Define(definition) => return Ok(self.define(definition, started)),
            Statement::Explain { analyze, query } => {
                (if analyze { Kind::ExplainAnalyze } else { Kind::Explain }, query)
            }
        };
        let optimizer::Optimized { plan, timings } =
            optimizer::optimize(bound.plan, &self.engine.optimizer).map_err(|e| e.with_excerpt(sql))?;
        let resolve = |name: &str| catalog.get(name).map(|(_, table)| Arc::clone(table));
        let sources = physical::Sources {
            resolve: &resolve,
            estimate: &optimizer::estimate_rows,
            joins: self.engine.joins,
        };
        let mut plan = physical::lower(&plan, &bound.outputs, sources).map_err(|e| e.with_excerpt(sql))?;
        if !self.engine.optimizer.disabled.contains(physical::RUNTIME_FILTERS) {
            plan = physical::add_runtime_filters(&plan);
        }
        Ok(Query {
            engine: Arc::clone(&self.engine),
            plan,
            rules: timings.iter().map(|t| (t.rule, t.elapsed)).collect(),
            kind,
            fields: bound.outputs.iter().map(|c: &Column| c.field.clone()).collect(),
            planning: started.elapsed(),
            timeout: None,
            memory_limit: None,
            definition: None,
        })
    }

    /// A statement that changes the views once it runs.
    fn define(&self, definition: Definition, started: Instant) -> Query {
        let nothing = physical::PhysicalPlan {
            node: physical::Node::Values { rows: vec![] },
            layout: vec![],
            fields: vec![],
            estimated_rows: None,
        };
        Query {
            engine: Arc::clone(&self.engine),
            plan: Arc::new(nothing),
            rules: vec![],
            kind: Kind::Define,
            fields: vec![],
            planning: started.elapsed(),
            timeout: None,
            memory_limit: None,
            definition: Some((definition, Arc::clone(&self.views))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rows,
    Explain,
    ExplainAnalyze,
    Define,
}

/// A planned query, ready to run.
pub struct Query {
    engine: Arc<EngineInner>,
    plan: Arc<physical::PhysicalPlan>,
    rules: Vec<(&'static str, Duration)>,
    kind: Kind,
    fields: Vec<Field>,
    planning: Duration,
    timeout: Option<Duration>,
    memory_limit: Option<usize>,
    definition: Option<(Definition, Views)>,
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
        let pipelines = |plan| {
            let sink = result_sink(self.fields.clone(), Arc::clone(&schema), Arc::clone(&queue));
            physical::pipelines(plan, sink)
        };
        let (mut spec, mut profiler) = pipelines(&self.plan)?;
        let testing = &engine.testing;
        let most = Knobs {
            lanes: engine.threads,
            batch_rows: testing.batch_rows.unwrap_or(BATCH_ROWS),
            block_bytes: BLOCK_BYTES,
            fan_out: FAN_OUT,
        };
        let knobs = match spec.admit(most, &pool) {
            Ok(knobs) => knobs,
            Err(error) => {
                let plan = physical::with_hash_joins(&self.plan).ok_or(error)?;
                (spec, profiler) = pipelines(&plan)?;
                spec.admit(most, &pool)?
            }
        };
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

fn text_schema() -> SchemaRef {
    let field = arrow::datatypes::Field::new("plan", arrow::datatypes::DataType::Utf8View, false);
    Arc::new(arrow::datatypes::Schema::new(vec![field]))
}

enum Rows {
    Queue(Arc<ResultQueue>),
    Ready(Option<RecordBatch>),
    Over,
}

/// The rows of a running query, as record batches. Dropping it cancels the query.
pub struct ResultStream {
    schema: SchemaRef,
    source: Rows,
    run: Option<Arc<QueryRun>>,
    profiler: Option<physical::Profiler>,
    spill: Option<Arc<SpillDirectory>>,
    planning: Duration,
    rows: u64,
    started: Instant,
    end: Arc<Mutex<Option<Duration>>>,
    _engine: Option<Arc<EngineInner>>,
}

impl ResultStream {
    fn text(text: &str) -> Self {
        let lines = StringViewArray::from_iter_values(text.lines());
        let batch = RecordBatch::try_new(text_schema(), vec![Arc::new(lines)]).ok();
        Self::ready(text_schema(), batch)
    }

    fn nothing() -> Self {
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

/// Cancels a query; may be cloned and sent anywhere, and does not keep the query alive.
#[derive(Clone)]
pub struct QueryHandle {
    run: Option<std::sync::Weak<QueryRun>>,
}

impl QueryHandle {
    /// Ends the query with [`Error::Cancelled`], unless it has ended.
    pub fn cancel(&self) {
        if let Some(run) = self.run.as_ref().and_then(std::sync::Weak::upgrade) {
            run.fail(Error::Cancelled);
        }
    }
}
