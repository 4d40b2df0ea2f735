//! Aggregates of a SELECT: collected while its expressions are bound, then the expressions are rewritten to read group
//! keys and aggregate results.

use crate::data::Field;
use crate::error::{Error, Location, Result};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, Plan};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Aggregates found so far, and where columns were read outside of them.
#[derive(Default)]
pub(super) struct Aggregates {
    /// Each distinct call with the column its result is.
    pub(super) calls: Vec<(Column, AggregateCall)>,
    /// Name and place of the first use outside an aggregate, for the error about ungrouped columns.
    pub(super) reads: HashMap<ColumnId, (String, Option<Location>)>,
}

impl Aggregates {
    /// The result of a call; equal calls share one.
    pub(super) fn result_of(&mut self, call: AggregateCall, name: String, ids: &mut ColumnIds) -> Expr {
        if let Some((column, _)) = self.calls.iter().find(|(_, known)| *known == call) {
            return column.to_expr();
        }
        let nullable = !matches!(call.function.name(), "count" | "count_star");
        let field = Field { name, data_type: call.data_type.clone(), nullable };
        let column = Column { id: ids.fresh(), field };
        let expr = column.to_expr();
        self.calls.push((column, call));
        expr
    }

    /// Whether an expression reads the result of an aggregate.
    pub(super) fn are_read_by(&self, expr: &Expr) -> bool {
        let mut found = false;
        expr.for_each_column(&mut |id| found |= self.calls.iter().any(|(column, _)| column.id == id));
        found
    }
}

/// Group keys and aggregates of a SELECT.
pub(super) struct Grouping {
    groups: Vec<(Column, Expr)>,
    aggregates: Aggregates,
}

impl Grouping {
    /// Names the keys; a key given twice counts once.
    /// `taken` are the ids no key may have.
    pub(super) fn new(
        keys: Vec<(String, Expr)>,
        aggregates: Aggregates,
        mut taken: HashSet<ColumnId>,
        ids: &mut ColumnIds,
    ) -> Self {
        let mut groups: Vec<(Column, Expr)> = vec![];
        for (name, expr) in keys {
            if !groups.iter().any(|(_, known)| *known == expr) {
                groups.push((super::select::column_for(&expr, &name, &mut taken, ids), expr));
            }
        }
        Self { groups, aggregates }
    }

    /// The expression with group keys read from the groups.
    ///
    /// # Errors
    /// A plan error for a column that is neither grouped nor inside an aggregate.
    pub(super) fn over_groups(&self, expr: Expr) -> Result<Expr> {
        let mut error = None;
        let rewritten = self.rewrite(expr, &mut error);
        match error {
            Some(error) => Err(error),
            None => Ok(rewritten),
        }
    }

    fn rewrite(&self, expr: Expr, error: &mut Option<Error>) -> Expr {
        if let Some((column, _)) = self.groups.iter().find(|(_, key)| *key == expr) {
            return column.to_expr();
        }
        if let Expr::Column { id, .. } = &expr {
            // The rest are results: of aggregates, of subqueries over groups; and columns of the queries around.
            if self.aggregates.reads.contains_key(id) {
                error.get_or_insert_with(|| self.ungrouped(*id));
            }
            return expr;
        }
        expr.map_children(&mut |child| self.rewrite(child, error))
    }

    fn ungrouped(&self, id: ColumnId) -> Error {
        let (name, location) = self.aggregates.reads.get(&id).cloned().unwrap_or_default();
        Error::plan(
            format!(
                "column \"{name}\" must appear in GROUP BY or inside an aggregate; any_value({name}) takes the value \
                 of any row of the group"
            ),
            location,
        )
    }

    /// The columns the aggregation reads.
    pub(super) fn reads(&self) -> BTreeSet<ColumnId> {
        let mut reads = BTreeSet::new();
        let calls = self.aggregates.calls.iter().map(|(_, call)| call);
        let operands = calls.flat_map(|call| call.arguments.iter().chain(&call.filter));
        for expr in self.groups.iter().map(|(_, key)| key).chain(operands) {
            expr.for_each_column(&mut |id| {
                reads.insert(id);
            });
        }
        reads
    }

    /// The aggregation itself.
    pub(super) fn into_plan(self, input: Arc<Plan>) -> Arc<Plan> {
        Arc::new(Plan::Aggregate { input, groups: self.groups, aggregates: self.aggregates.calls })
    }
}
