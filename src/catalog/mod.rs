//! What a plan needs to know of tables: schemas and statistics. Scanning them is their source's business.
//!
//! Owns: [`TableProvider`], [`TableStatistics`], [`Sampled`], [`Catalog`].
//!
//! Invariants:
//! 1. Names match without regard to case and keep the case they were registered with.
//! 2. A query sees one snapshot: it holds the providers it was bound to.
//!
//! Must not know: how tables are stored or scanned.

use crate::data::{Scalar, Schema};
use crate::expr::{ColumnId, Expr};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What is known of a column without reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnStatistics {
    /// No value is less.
    pub(crate) min: Option<Scalar>,
    /// No value is greater.
    pub(crate) max: Option<Scalar>,
    /// Number of nulls.
    pub(crate) null_count: Option<u64>,
    /// About how many distinct values there are.
    pub(crate) distinct_count: Option<u64>,
}

impl ColumnStatistics {
    /// Least and greatest value of integers.
    pub(crate) fn int_range(&self) -> Option<RangeInclusive<i64>> {
        let int = |scalar: &Option<Scalar>| i64::try_from(scalar.as_ref()?.as_int()?).ok();
        Some(int(&self.min)?..=int(&self.max)?)
    }
}

/// What is known of a table without reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableStatistics {
    /// Number of rows.
    pub(crate) rows: Option<u64>,
    /// In the order of the schema; empty if nothing is known.
    pub(crate) columns: Vec<ColumnStatistics>,
}

/// What a sample of a table's rows says of a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampled {
    /// Rows looked at; not zero.
    pub(crate) rows: usize,
    /// Those that satisfy it.
    pub(crate) passing: usize,
}

/// A table as plans see it.
pub(crate) trait TableProvider: Send + Sync + 'static {
    /// Its columns.
    fn schema(&self) -> Schema;
    /// What is known of its content.
    fn statistics(&self) -> TableStatistics;
    /// How many of a few rows satisfy all `predicates`, each equal for equal rows; `columns` says where in the schema
    /// the columns are that they read. `None` if rows cannot be had while planning.
    fn sample(&self, _predicates: &[Expr], _columns: &[(ColumnId, usize)]) -> Option<Sampled> {
        None
    }
}

/// Tables by name. Generic in what is stored, so that the façade keeps scannable tables in it.
#[derive(Debug)]
pub(crate) struct Catalog<T: ?Sized> {
    tables: BTreeMap<String, (String, Arc<T>)>,
}

impl<T: ?Sized> Default for Catalog<T> {
    fn default() -> Self {
        Self { tables: BTreeMap::new() }
    }
}

impl<T: ?Sized> Clone for Catalog<T> {
    fn clone(&self) -> Self {
        Self { tables: self.tables.clone() }
    }
}

impl<T: ?Sized> Catalog<T> {
    /// Adds or replaces a table; returns the one replaced.
    pub(crate) fn insert(&mut self, name: &str, table: Arc<T>) -> Option<Arc<T>> {
        self.tables.insert(name.to_lowercase(), (name.to_owned(), table)).map(|(_, table)| table)
    }

    /// Removes a table; returns it.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<T>> {
        self.tables.remove(&name.to_lowercase()).map(|(_, table)| table)
    }

    /// The table of that name, with the name as registered.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, &Arc<T>)> {
        self.tables.get(&name.to_lowercase()).map(|(name, table)| (name.as_str(), table))
    }

    /// Names in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.values().map(|(name, _)| name.as_str())
    }
}
