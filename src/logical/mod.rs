//! Logical plans: what a query means, before how it is run is chosen.
//!
//! Owns: [`Plan`] and its nodes.
//!
//! Invariants:
//! 1. Plans are immutable; a rule builds a new one. Children are shared.
//! 2. Columns are named by [`ColumnId`]: a node's expressions speak only of columns its inputs produce, and no two
//!    nodes produce the same id.
//!
//! Must not know: SQL text, physical operators, execution.

use crate::catalog::TableProvider;
use crate::data::{Field, Scalar};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use std::sync::Arc;

/// A column a node produces: its name in the query and its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    /// The column's name within the query.
    pub(crate) id: ColumnId,
    /// Name (for people), type, nullability.
    pub(crate) field: Field,
}

impl Column {
    /// An expression that reads the column.
    pub(crate) fn to_expr(&self) -> Expr {
        Expr::Column { id: self.id, data_type: self.field.data_type.clone(), nullable: self.field.nullable }
    }
}

/// An ORDER BY key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    /// What to order by.
    pub(crate) expr: Expr,
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before values.
    pub(crate) nulls_first: bool,
}

/// A node of a logical plan.
#[derive(Clone)]
pub(crate) enum Plan {
    /// Rows of a table that satisfy all filters.
    Scan {
        /// The name as registered.
        table: String,
        /// What the table is.
        provider: Arc<dyn TableProvider>,
        /// Columns produced, each with its index in the table's schema.
        columns: Vec<(Column, usize)>,
        /// Columns only the filters read, likewise.
        filter_columns: Vec<(Column, usize)>,
        /// Conjuncts.
        filters: Vec<Expr>,
    },
    /// Literal rows. `SELECT 1` reads one row of no columns.
    Values {
        /// Columns produced.
        columns: Vec<Column>,
        /// Row by row.
        rows: Vec<Vec<Scalar>>,
    },
    /// Rows of the input for which all conjuncts are true.
    Filter { input: Arc<Plan>, conjuncts: Vec<Expr> },
    /// Computed columns; only these are produced. A plain column may keep its id: `(column, column.to_expr())`.
    Project { input: Arc<Plan>, columns: Vec<(Column, Expr)> },
    /// One row per distinct combination of `groups`, or exactly one row if there are none.
    Aggregate { input: Arc<Plan>, groups: Vec<(Column, Expr)>, aggregates: Vec<(Column, AggregateCall)> },
    /// The input in order; with a fetch, only its first rows.
    Sort { input: Arc<Plan>, keys: Vec<SortKey>, fetch: Option<u64> },
    /// Rows after the first `skip`, at most `fetch` of them.
    Limit { input: Arc<Plan>, skip: u64, fetch: Option<u64> },
}

impl Plan {
    /// The columns it produces, in order.
    pub(crate) fn columns(&self) -> Vec<&Column> {
        match self {
            Self::Scan { columns, .. } => columns.iter().map(|(c, _)| c).collect(),
            Self::Values { columns, .. } => columns.iter().collect(),
            Self::Filter { input, .. } | Self::Sort { input, .. } | Self::Limit { input, .. } => {
                input.columns()
            }
            Self::Project { columns, .. } => columns.iter().map(|(c, _)| c).collect(),
            Self::Aggregate { groups, aggregates, .. } => {
                groups.iter().map(|(c, _)| c).chain(aggregates.iter().map(|(c, _)| c)).collect()
            }
        }
    }

    /// Its inputs.
    pub(crate) fn inputs(&self) -> Vec<&Arc<Plan>> {
        match self {
            Self::Scan { .. } | Self::Values { .. } => vec![],
            Self::Filter { input, .. }
            | Self::Project { input, .. }
            | Self::Aggregate { input, .. }
            | Self::Sort { input, .. }
            | Self::Limit { input, .. } => vec![input],
        }
    }
}
