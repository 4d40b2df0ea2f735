//! The façade: engines, sessions, queries, result streams.
//!
//! Owns: what an embedder sees, and the only place that joins the SQL front with the execution back.
//!
//! Invariants:
//! 1. Nothing is process-wide: two engines in one process share nothing.
//! 2. A query sees the tables and views as they were when it was made.
//! 3. Dropping a result stream cancels its query.

mod builder;
mod engine;
mod handle;
mod query;
mod report;
mod settings;
mod stream;
mod tables;

pub use builder::{EngineBuilder, TestKnobs};
pub use engine::Engine;
pub use handle::QueryHandle;
pub use query::Query;
pub use settings::SettingInfo;
pub use settings::units::{UnitError, parse_bytes, parse_duration};
pub use stream::ResultStream;
pub use tables::is_parquet_file;

use crate::batches::BatchesTable;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::logical::Column;
use crate::provider::{ProvidedTable, TableProvider};
use crate::sql::{Assignment, SqlStatement, Statement, TableResolver, View};
use crate::{optimizer, physical, sql};
use arrow::array::RecordBatch;
use engine::EngineInner;
use parking_lot::Mutex;
use query::{Effect, Kind};
use settings::Settings;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tables::{Table, Tables};

/// Tables by name, and queries over them.
pub struct Session {
    engine: Arc<EngineInner>,
    catalog: Mutex<Tables>,
    views: Views,
    settings: Arc<Mutex<Settings>>,
}

/// Shared with statements that change them once they run.
type Views = Arc<Mutex<Catalog<View>>>;

struct Resolver<'a> {
    tables: &'a Tables,
    views: &'a Catalog<View>,
}

impl TableResolver for Resolver<'_> {
    fn table(&self, name: &str) -> Result<Option<(String, Arc<dyn catalog::TableProvider>)>> {
        tables::table_of(self.tables, name)
    }

    fn has_table(&self, name: &str) -> bool {
        self.tables.get(name).is_some()
    }

    fn view(&self, name: &str) -> Option<Arc<View>> {
        self.views.get(name).map(|(_, view)| Arc::clone(view))
    }

    fn names(&self) -> Vec<String> {
        self.tables.names().chain(self.views.names()).map(str::to_owned).collect()
    }
}

impl Session {
    fn new(engine: Arc<EngineInner>) -> Self {
        Self { engine, catalog: Mutex::default(), views: Arc::default(), settings: Arc::default() }
    }

    /// A session of its own with the same tables, views and settings, which neither session changes for the other from now
    /// on. Cheap: tables that are open stay open for both.
    ///
    /// ```
    /// # fn main() -> gristmill::Result<()> {
    /// let session = gristmill::Engine::builder().threads(1).build()?.session();
    /// session.query("create view numbers as select * from (values (1), (2)) as t(n)")?.collect()?;
    /// let fork = session.fork();
    /// fork.query("drop view numbers")?.collect()?;
    /// assert!(fork.query("select * from numbers").is_err());
    /// assert!(session.query("select * from numbers").is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        let catalog = self.catalog.lock().clone();
        let views = self.views.lock().clone();
        let settings = self.settings.lock().clone();
        Self {
            engine: Arc::clone(&self.engine),
            catalog: Mutex::new(catalog),
            views: Arc::new(Mutex::new(views)),
            settings: Arc::new(Mutex::new(settings)),
        }
    }

    /// Makes a Parquet file, or all Parquet files of a directory together, a table. Replaces one of that name.
    ///
    /// ```
    /// # use gristmill::{Engine, Error};
    /// # fn main() -> gristmill::Result<()> {
    /// let session = Engine::builder().threads(1).build()?.session();
    /// match session.register_parquet("events", "no/such/folder") {
    ///     Err(Error::Io { path, .. }) => assert!(path.ends_with("no/such/folder")),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Columns of several files belong together by name. Where types differ the table has the one that holds the values
    /// of all exactly; where a file lacks a column, it is null. [`is_parquet_file`] tells which files of a directory count.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`] name the file; [`Error::Memory`] if its metadata does not fit the budget.
    pub fn register_parquet(&self, name: &str, path: impl AsRef<Path>) -> Result<()> {
        let table = tables::open_parquet(path.as_ref(), &self.engine.holdings)?;
        self.insert(name, Table::Open(table));
        Ok(())
    }

    /// Like [`Session::register_parquet`], but the files are opened when a query first names the table, and what is wrong
    /// with them is that query's error: for folders of many tables, of which few are asked for.
    pub fn register_parquet_lazily(&self, name: &str, path: impl AsRef<Path>) {
        self.insert(name, Table::closed(path.as_ref(), &self.engine.holdings));
    }

    /// Makes record batches a table. Replaces one of that name. Their memory stays the caller's.
    ///
    /// ```
    /// # use gristmill::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    /// # use std::sync::Arc;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let session = gristmill::Engine::builder().threads(1).build()?.session();
    /// let n: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
    /// session.register_batches("numbers", vec![RecordBatch::try_from_iter([("n", n)])?])?;
    /// let rows = session.query("select sum(n * n) as total from numbers")?.collect()?;
    /// assert_eq!(rows[0].num_rows(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no batch or schemas differ.
    pub fn register_batches(&self, name: &str, batches: Vec<RecordBatch>) -> Result<()> {
        let table = BatchesTable::new(batches)?;
        self.insert(name, Table::Open(Arc::new(table)));
        Ok(())
    }

    /// Makes whatever `provider` reads a table. Replaces one of that name. [`TableProvider`] has an example.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for columns of types the engine does not have, and for nested ones.
    pub fn register_table(&self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        let table = ProvidedTable::new(provider)?;
        self.insert(name, Table::Open(Arc::new(table)));
        Ok(())
    }

    fn insert(&self, name: &str, table: Table) {
        self.catalog.lock().insert(name, Arc::new(table));
    }

    /// Names of the tables.
    pub fn tables(&self) -> Vec<String> {
        self.catalog.lock().names().map(str::to_owned).collect()
    }

    /// Changes a setting for the queries made from now on, as `SET name = 'value'` does: `memory_limit`, `timeout`,
    /// `priority`, `batch_size`, `spill_partitions`, `disabled_optimizers`, `enable_sort_merge_join`,
    /// `enable_stats_pruning`.
    /// [`Session::settings`] lists all.
    ///
    /// ```
    /// # fn main() -> gristmill::Result<()> {
    /// let session = gristmill::Engine::builder().threads(1).build()?.session();
    /// session.set("memory_limit", "64MiB")?;
    /// session.query("set timeout = '30s'")?.collect()?;
    /// let error = session.set("threads", "8").unwrap_err();
    /// assert!(error.to_string().contains("EngineBuilder::threads"));
    /// session.reset("memory_limit")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Plan`] names the setting, and those there are or what its value should be.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.change(name, Some(value.to_owned()))
    }

    /// Gives a setting its default again, as `RESET name` does.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no such setting, or it is the engine's.
    pub fn reset(&self, name: &str) -> Result<()> {
        self.change(name, None)
    }

    /// All settings, in alphabetical order.
    pub fn settings(&self) -> Vec<SettingInfo> {
        self.settings.lock().all(&self.engine)
    }

    fn change(&self, name: &str, value: Option<String>) -> Result<()> {
        self.settings.lock().apply(&Assignment { name: Some(name.to_owned()), value, location: None })
    }

    /// Splits a text into its statements, for [`Session::query_statement`].
    ///
    /// ```
    /// # fn main() -> gristmill::Result<()> {
    /// let session = gristmill::Engine::builder().threads(1).build()?.session();
    /// let mut errors = vec![];
    /// for statement in session.statements("select 1;\nselect\n  x;")? {
    ///     errors.extend(session.query_statement(&statement).err());
    /// }
    /// assert_eq!(errors[0].location().map(|place| place.line), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Parse`] with line and column.
    pub fn statements<'a>(&self, sql: &'a str) -> Result<Vec<SqlStatement<'a>>> {
        sql::split(sql)
    }

    /// Plans one statement of a text; lines and columns of errors count in the whole text.
    ///
    /// # Errors
    /// Those of [`Session::query`].
    pub fn query_statement(&self, statement: &SqlStatement<'_>) -> Result<Query> {
        self.query(&statement.sql()).map_err(|error| statement.locate(error))
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
        let settings = self.settings.lock().clone();
        let (kind, bound) = match statement {
            Statement::Query(bound) => (Kind::Rows, bound),
            Statement::Explain { analyze, query } => {
                (if analyze { Kind::ExplainAnalyze } else { Kind::Explain }, query)
            }
            Statement::Define(definition) => {
                let effect = Effect::Views(definition, Arc::clone(&self.views));
                return Ok(self.effect(effect, &settings, started));
            }
            Statement::Set(change) => {
                settings.clone().apply(&change).map_err(|e| e.with_excerpt(sql))?;
                let effect = Effect::Settings(change, Arc::clone(&self.settings));
                return Ok(self.effect(effect, &settings, started));
            }
        };
        let mut rules = Cow::Borrowed(&self.engine.optimizer);
        if let Some(disabled) = &settings.disabled_optimizers {
            rules.to_mut().disabled.clone_from(disabled);
        }
        let optimizer::Optimized { plan, timings } =
            optimizer::optimize(bound.plan, &rules).map_err(|e| e.with_excerpt(sql))?;
        let resolve = |name: &str| tables::source_of(&catalog, name);
        let joins = self.engine.joins;
        let joins = physical::JoinPolicy {
            allows_merge: settings.enable_sort_merge_join.unwrap_or(joins.allows_merge),
            memory_bytes: settings.memory_limit.unwrap_or(usize::MAX).min(joins.memory_bytes),
            ..joins
        };
        let prunes = settings.enable_stats_pruning.unwrap_or(self.engine.prunes);
        let sources = physical::Sources {
            resolve: &resolve,
            estimate: &optimizer::estimate_rows,
            distinct: &optimizer::estimate_distinct,
            joins,
            prunes,
        };
        let mut plan = physical::lower(&plan, &bound.outputs, sources).map_err(|e| e.with_excerpt(sql))?;
        if !rules.disabled.contains(physical::RUNTIME_FILTERS) {
            plan = physical::add_runtime_filters(&plan);
        }
        Ok(Query {
            engine: Arc::clone(&self.engine),
            plan,
            rules: timings.iter().map(|t| (t.rule, t.elapsed)).collect(),
            kind,
            fields: bound.outputs.iter().map(|c: &Column| c.field.clone()).collect(),
            planning: started.elapsed(),
            timeout: settings.timeout,
            memory_limit: settings.memory_limit,
            priority: settings.priority,
            batch_rows: settings.batch_rows,
            spill_partitions: settings.spill_partitions,
        })
    }

    /// A statement that changes the session once it runs.
    fn effect(&self, effect: Effect, settings: &Settings, started: Instant) -> Query {
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
            kind: Kind::Effect(effect),
            fields: vec![],
            planning: started.elapsed(),
            timeout: settings.timeout,
            memory_limit: settings.memory_limit,
            priority: settings.priority,
            batch_rows: settings.batch_rows,
            spill_partitions: settings.spill_partitions,
        }
    }
}
