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
mod stream;

pub use builder::{EngineBuilder, TestKnobs};
pub use engine::Engine;
pub use handle::QueryHandle;
pub use query::Query;
pub use stream::ResultStream;

use crate::batches::BatchesTable;
use crate::catalog::{Catalog, TableProvider};
use crate::error::{Error, Result};
use crate::logical::Column;
use crate::parquet::ParquetTable;
use crate::scan::ScanProvider;
use crate::sql::{Definition, Statement, TableResolver, View};
use crate::{optimizer, physical, sql};
use arrow::array::RecordBatch;
use engine::EngineInner;
use parking_lot::Mutex;
use query::Kind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

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
    fn new(engine: Arc<EngineInner>) -> Self {
        Self { engine, catalog: Mutex::default(), views: Arc::default() }
    }

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
        let sources = physical::Sources { resolve: &resolve, estimate: &optimizer::estimate_rows };
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
