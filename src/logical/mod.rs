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

mod join;
#[cfg(test)]
mod print;

pub(crate) use join::{JoinKey, JoinKind};
#[cfg(test)]
pub(crate) use print::explain;

use crate::catalog::TableProvider;
use crate::data::{Field, Scalar};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use std::collections::{BTreeSet, HashSet};
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

    /// The column where nulls have joined its values.
    #[must_use]
    pub(crate) fn into_nullable(mut self) -> Self {
        self.field.nullable = true;
        self
    }
}

/// Hands out column ids that are new to a query.
#[derive(Debug, Default)]
pub(crate) struct ColumnIds {
    next: u32,
}

impl ColumnIds {
    /// Ids greater than any in `plan`.
    pub(crate) fn after(plan: &Plan) -> Self {
        let mut next = 0;
        plan.for_each_node(&mut |node| {
            for id in node.defined_columns().into_iter().map(|c| c.id.0) {
                next = next.max(id + 1);
            }
        });
        Self { next }
    }

    /// An id nobody has.
    pub(crate) fn fresh(&mut self) -> ColumnId {
        let id = ColumnId(self.next);
        self.next += 1;
        id
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

/// What maps the inputs of a node.
type MapInput<'a, E> = &'a mut dyn FnMut(&Arc<Plan>) -> Result<Arc<Plan>, E>;

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
    /// Rows of two inputs that meet. Until subqueries are unnested, expressions within `right` may read columns of
    /// `left` (a dependent join): for each left row the right input is what it is with that row's values.
    Join { kind: JoinKind, left: Arc<Plan>, right: Arc<Plan>, keys: Vec<JoinKey>, filters: Vec<Expr> },
    /// All rows of all inputs. `values` has for each input what the columns are in its rows.
    UnionAll { columns: Vec<Column>, inputs: Vec<Arc<Plan>>, values: Vec<Vec<Expr>> },
    /// Each row of the input as often as the integer `times` says; not at all if that is null or less than one.
    Repeat { input: Arc<Plan>, times: Expr },
    /// Of the rows that agree in `groups` (nulls are equal to each other), in the order of `keys`, those after the first
    /// `skip`, at most `fetch` of them.
    LimitPer { input: Arc<Plan>, groups: Vec<Expr>, keys: Vec<SortKey>, skip: u64, fetch: Option<u64> },
    /// The rows of `plan`, which nodes of the same number share: it is executed once. Its columns in order, under
    /// names of this node's own. Rules leave the plan as it is, for all who share it.
    Shared { number: usize, plan: Arc<Plan>, columns: Vec<Column> },
    /// Rows after the first `skip`, at most `fetch` of them.
    Limit { input: Arc<Plan>, skip: u64, fetch: Option<u64> },
}

impl Plan {
    /// The columns it produces, in order.
    pub(crate) fn columns(&self) -> Vec<&Column> {
        match self {
            Self::Scan { columns, .. } => columns.iter().map(|(c, _)| c).collect(),
            Self::Values { columns, .. } | Self::UnionAll { columns, .. } | Self::Shared { columns, .. } => {
                columns.iter().collect()
            }
            Self::Filter { input, .. }
            | Self::Sort { input, .. }
            | Self::Repeat { input, .. }
            | Self::LimitPer { input, .. }
            | Self::Limit { input, .. } => input.columns(),
            Self::Project { columns, .. } => columns.iter().map(|(c, _)| c).collect(),
            Self::Aggregate { groups, aggregates, .. } => {
                groups.iter().map(|(c, _)| c).chain(aggregates.iter().map(|(c, _)| c)).collect()
            }
            Self::Join { kind, left, right, .. } => {
                let mut columns = left.columns();
                if kind.emits_right() {
                    columns.extend(right.columns());
                }
                if let JoinKind::Mark { column, .. } = kind {
                    columns.push(column);
                }
                columns
            }
        }
    }

    /// The columns it produces, nullable where an outer join below puts nulls.
    pub(crate) fn output_columns(&self) -> Vec<Column> {
        match self {
            Self::Filter { input, .. }
            | Self::Sort { input, .. }
            | Self::Repeat { input, .. }
            | Self::LimitPer { input, .. }
            | Self::Limit { input, .. } => input.output_columns(),
            Self::Join { kind, left, right, .. } => {
                let side = |input: &Self, gets_nulls: bool| {
                    let columns = input.output_columns().into_iter();
                    columns.map(move |column| if gets_nulls { column.into_nullable() } else { column })
                };
                let mut columns: Vec<Column> = side(left, kind.nulls_left()).collect();
                if kind.emits_right() {
                    columns.extend(side(right, kind.nulls_right()));
                }
                if let JoinKind::Mark { column, .. } = kind {
                    columns.push(column.clone());
                }
                columns
            }
            Self::Scan { .. }
            | Self::Values { .. }
            | Self::Project { .. }
            | Self::Aggregate { .. }
            | Self::Shared { .. }
            | Self::UnionAll { .. } => self.columns().into_iter().cloned().collect(),
        }
    }

    /// The columns it reads but nothing in it produces: those of the left sides of joins around it.
    pub(crate) fn free_columns(&self) -> BTreeSet<ColumnId> {
        let (mut read, mut defined) = (BTreeSet::new(), HashSet::new());
        self.for_each_node(&mut |node| {
            defined.extend(node.defined_columns().into_iter().map(|column| column.id));
            node.for_each_expr(&mut |e| {
                e.for_each_column(&mut |id| {
                    read.insert(id);
                });
            });
        });
        read.retain(|id| !defined.contains(id));
        read
    }

    /// Its inputs.
    pub(crate) fn inputs(&self) -> Vec<&Arc<Plan>> {
        match self {
            Self::Scan { .. } | Self::Values { .. } => vec![],
            Self::Filter { input, .. }
            | Self::Project { input, .. }
            | Self::Aggregate { input, .. }
            | Self::Sort { input, .. }
            | Self::Repeat { input, .. }
            | Self::LimitPer { input, .. }
            | Self::Limit { input, .. } => vec![input],
            Self::UnionAll { inputs, .. } => inputs.iter().collect(),
            Self::Shared { plan, .. } => vec![plan],
            Self::Join { left, right, .. } => vec![left, right],
        }
    }

    /// The same node with `f` applied to each input, shared plans excepted.
    ///
    /// # Errors
    /// The first error of `f`.
    pub(crate) fn try_map_inputs<E>(&self, f: MapInput<'_, E>) -> Result<Self, E> {
        Ok(match self.clone() {
            leaf @ (Self::Scan { .. } | Self::Values { .. } | Self::Shared { .. }) => leaf,
            Self::Filter { input, conjuncts } => Self::Filter { input: f(&input)?, conjuncts },
            Self::Project { input, columns } => Self::Project { input: f(&input)?, columns },
            Self::Aggregate { input, groups, aggregates } => {
                Self::Aggregate { input: f(&input)?, groups, aggregates }
            }
            Self::Sort { input, keys, fetch } => Self::Sort { input: f(&input)?, keys, fetch },
            Self::Limit { input, skip, fetch } => Self::Limit { input: f(&input)?, skip, fetch },
            Self::LimitPer { input, groups, keys, skip, fetch } => {
                Self::LimitPer { input: f(&input)?, groups, keys, skip, fetch }
            }
            Self::Repeat { input, times } => Self::Repeat { input: f(&input)?, times },
            Self::UnionAll { columns, inputs, values } => {
                Self::UnionAll { columns, inputs: inputs.iter().map(f).collect::<Result<_, E>>()?, values }
            }
            Self::Join { kind, left, right, keys, filters } => {
                Self::Join { kind, left: f(&left)?, right: f(&right)?, keys, filters }
            }
        })
    }

    /// The same node with `f` applied to each of its own expressions (arguments and filters of aggregates too).
    ///
    /// # Errors
    /// The first error of `f`.
    pub(crate) fn try_map_exprs<E>(self, f: &mut dyn FnMut(Expr) -> Result<Expr, E>) -> Result<Self, E> {
        fn all<E>(list: Vec<Expr>, f: &mut dyn FnMut(Expr) -> Result<Expr, E>) -> Result<Vec<Expr>, E> {
            list.into_iter().map(f).collect()
        }
        fn named<E>(
            list: Vec<(Column, Expr)>,
            f: &mut dyn FnMut(Expr) -> Result<Expr, E>,
        ) -> Result<Vec<(Column, Expr)>, E> {
            list.into_iter().map(|(column, e)| Ok((column, f(e)?))).collect()
        }
        fn ordered<E>(
            list: Vec<SortKey>,
            f: &mut dyn FnMut(Expr) -> Result<Expr, E>,
        ) -> Result<Vec<SortKey>, E> {
            list.into_iter().map(|key| Ok(SortKey { expr: f(key.expr)?, ..key })).collect()
        }
        Ok(match self {
            Self::Scan { table, provider, columns, filter_columns, filters } => {
                Self::Scan { table, provider, columns, filter_columns, filters: all(filters, f)? }
            }
            Self::Values { .. } | Self::Limit { .. } | Self::Shared { .. } => self,
            Self::Join { kind, left, right, keys, filters } => {
                let keys = keys.into_iter().map(|key| {
                    Ok(JoinKey { left: f(key.left)?, right: f(key.right)?, null_safe: key.null_safe })
                });
                let keys = keys.collect::<Result<_, E>>()?;
                Self::Join { kind, left, right, keys, filters: all(filters, f)? }
            }
            Self::Repeat { input, times } => Self::Repeat { input, times: f(times)? },
            Self::LimitPer { input, groups, keys, skip, fetch } => {
                let groups = all(groups, f)?;
                Self::LimitPer { input, groups, keys: ordered(keys, f)?, skip, fetch }
            }
            Self::UnionAll { columns, inputs, values } => {
                let values = values.into_iter().map(|list| all(list, f)).collect::<Result<_, E>>()?;
                Self::UnionAll { columns, inputs, values }
            }
            Self::Filter { input, conjuncts } => Self::Filter { input, conjuncts: all(conjuncts, f)? },
            Self::Project { input, columns } => Self::Project { input, columns: named(columns, f)? },
            Self::Aggregate { input, groups, aggregates } => {
                let groups = named(groups, f)?;
                let aggregates = aggregates
                    .into_iter()
                    .map(|(column, mut call)| {
                        call.arguments = all(call.arguments, f)?;
                        call.filter = call.filter.map(&mut *f).transpose()?;
                        Ok((column, call))
                    })
                    .collect::<Result<_, E>>()?;
                Self::Aggregate { input, groups, aggregates }
            }
            Self::Sort { input, keys, fetch } => Self::Sort { input, keys: ordered(keys, f)?, fetch },
        })
    }

    /// Calls `f` on each of its own expressions.
    pub(crate) fn for_each_expr<'a>(&'a self, f: &mut dyn FnMut(&'a Expr)) {
        match self {
            Self::Scan { filters: list, .. } | Self::Filter { conjuncts: list, .. } => {
                list.iter().for_each(f);
            }
            Self::Values { .. } | Self::Limit { .. } | Self::Shared { .. } => {}
            Self::Join { keys, filters, .. } => {
                for key in keys {
                    f(&key.left);
                    f(&key.right);
                }
                filters.iter().for_each(f);
            }
            Self::Repeat { times, .. } => f(times),
            Self::LimitPer { groups, keys, .. } => {
                groups.iter().chain(keys.iter().map(|key| &key.expr)).for_each(f);
            }
            Self::UnionAll { values, .. } => values.iter().flatten().for_each(f),
            Self::Project { columns, .. } => columns.iter().for_each(|(_, e)| f(e)),
            Self::Aggregate { groups, aggregates, .. } => {
                groups.iter().for_each(|(_, e)| f(e));
                for (_, call) in aggregates {
                    call.arguments.iter().chain(&call.filter).for_each(&mut *f);
                }
            }
            Self::Sort { keys, .. } => keys.iter().for_each(|key| f(&key.expr)),
        }
    }

    /// Calls `f` on this node and all below it, parents first.
    pub(crate) fn for_each_node<'a>(&'a self, f: &mut dyn FnMut(&'a Self)) {
        f(self);
        for input in self.inputs() {
            input.for_each_node(f);
        }
    }

    /// The columns this node names itself: produced here rather than passed through, or read only by its filters.
    pub(crate) fn defined_columns(&self) -> Vec<&Column> {
        match self {
            Self::Scan { columns, filter_columns, .. } => {
                columns.iter().chain(filter_columns).map(|(c, _)| c).collect()
            }
            Self::Values { .. }
            | Self::Project { .. }
            | Self::Aggregate { .. }
            | Self::Shared { .. }
            | Self::UnionAll { .. } => self.columns(),
            Self::Join { kind: JoinKind::Mark { column, .. }, .. } => vec![column],
            Self::Filter { .. }
            | Self::Sort { .. }
            | Self::Repeat { .. }
            | Self::LimitPer { .. }
            | Self::Limit { .. }
            | Self::Join { .. } => vec![],
        }
    }

    /// No rows, of the same columns.
    #[must_use]
    pub(crate) fn emptied(&self) -> Self {
        Self::Values { columns: self.columns().into_iter().cloned().collect(), rows: vec![] }
    }
}
