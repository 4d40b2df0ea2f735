//! A dependent plan evaluated for all the values of the outer columns it may be asked for.
//!
//! The domain is the set of distinct values of the outer columns. It goes down to where the dependence begins; the
//! nodes above keep its columns, so that every row says which values it belongs to.

use super::super::copy::copy;
use super::{Join, has_at_most_one_row, of_no_rows, passed_through, plan_reads_any, reads_any};
use crate::data::Scalar;
use crate::error::{Error, Result};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan, SortKey};
use crate::optimizer::substitute::inline;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How many nodes the plan may have that a domain is taken from. Domains multiply from one nested query to the next.
const MAX_SOURCE_NODES: usize = 1024;

/// What outer columns are called in a plan that carries their values.
type Values = BTreeMap<ColumnId, Column>;

/// A dependent join as one on the values of the outer columns.
pub(super) fn join(join: Join, outer: &BTreeSet<ColumnId>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
    let left_columns: Vec<Column> = join.left.output_columns();
    let left_columns: Vec<Column> = left_columns.into_iter().filter(|c| outer.contains(&c.id)).collect();
    let source = source_of(&join.left, outer);
    let mut nodes = 0;
    source.for_each_node(&mut |_| nodes += 1);
    if nodes > MAX_SOURCE_NODES {
        let message =
            "the subqueries depend on too large a part of the query; simplify their conditions to equalities";
        return Err(Error::plan(message, None));
    }
    let (right, values) = {
        let mut domain = Domain { source, columns: &left_columns, outer, ids };
        domain.push(&join.right)?
    };
    let (kind, mut keys, filters) = plain_keys(join.kind, join.keys, join.filters);
    for column in &left_columns {
        keys.push(JoinKey {
            left: column.to_expr(),
            right: read(&values, column.id)?,
            null_safe: column.field.nullable,
        });
    }
    Ok(Join { kind, left: join.left, right, keys, filters }.into_plan())
}

/// The smallest plan that has all values of the outer columns: joins that keep every left row are left out.
fn source_of<'p>(left: &'p Arc<Plan>, outer: &BTreeSet<ColumnId>) -> &'p Arc<Plan> {
    let mut source = left;
    loop {
        source = match source.as_ref() {
            Plan::Join { kind: JoinKind::Left | JoinKind::Single | JoinKind::Mark { .. }, left, .. }
                if outer.iter().all(|id| left.columns().iter().any(|column| column.id == *id)) =>
            {
                left
            }
            Plan::Project { input, columns }
                if outer.iter().all(|id| columns.iter().any(|(c, e)| c.id == *id && is_column(e, *id))) =>
            {
                input
            }
            Plan::Scan { .. }
            | Plan::Values { .. }
            | Plan::Filter { .. }
            | Plan::Project { .. }
            | Plan::Aggregate { .. }
            | Plan::Sort { .. }
            | Plan::Limit { .. }
            | Plan::UnionAll { .. }
            | Plan::Shared { .. }
            | Plan::Repeat { .. }
            | Plan::LimitPer { .. }
            | Plan::Join { .. } => return source,
        };
    }
}

/// A null-aware join has a single key: to select by others, what it asks becomes a filter.
fn plain_keys(
    kind: JoinKind,
    keys: Vec<JoinKey>,
    mut filters: Vec<Expr>,
) -> (JoinKind, Vec<JoinKey>, Vec<Expr>) {
    let kind = match kind {
        JoinKind::Mark { column, null_aware: true } => {
            filters.extend(keys.into_iter().map(JoinKey::into_conjunct));
            return (JoinKind::Mark { column, null_aware: false }, vec![], filters);
        }
        JoinKind::Anti { null_aware: true } => {
            // An unknown answer drops the row as well.
            filters.extend(keys.into_iter().map(|key| Expr::Compare {
                op: CompareOp::IsDistinct,
                left: Box::new(key.into_conjunct()),
                right: Box::new(Expr::Literal(Scalar::boolean(false))),
            }));
            return (JoinKind::Anti { null_aware: false }, vec![], filters);
        }
        other => other,
    };
    (kind, keys, filters)
}

fn read(values: &Values, id: ColumnId) -> Result<Expr> {
    let column = values.get(&id).ok_or_else(|| Error::internal("a column is missing in its domain"))?;
    Ok(column.to_expr())
}

struct Domain<'a> {
    /// Where the values come from.
    source: &'a Arc<Plan>,
    /// Their columns there.
    columns: &'a [Column],
    /// Their ids.
    outer: &'a BTreeSet<ColumnId>,
    ids: &'a mut ColumnIds,
}

impl Domain<'_> {
    /// The distinct values, as a plan of its own.
    fn fresh(&mut self) -> Result<(Arc<Plan>, Values)> {
        let (input, renamed) = copy(self.source, self.ids);
        let mut groups = vec![];
        let mut values = Values::new();
        for column in self.columns {
            let new = renamed.get(&column.id).ok_or_else(|| Error::internal("a copy lacks a column"))?;
            let new = Column { id: new.id, field: column.field.clone() };
            groups.push((new.clone(), new.to_expr()));
            values.insert(column.id, new);
        }
        Ok((Arc::new(Plan::Aggregate { input, groups, aggregates: vec![] }), values))
    }

    /// For each value of the domain, the rows `plan` has for it, with the value.
    fn push(&mut self, plan: &Arc<Plan>) -> Result<(Arc<Plan>, Values)> {
        if !plan_reads_any(plan, self.outer) {
            let (left, values) = self.fresh()?;
            let (right, keys) = (Arc::clone(plan), vec![]);
            let join = Join { kind: JoinKind::Inner, left, right, keys, filters: vec![] };
            return Ok((join.into_plan(), values));
        }
        match plan.as_ref() {
            Plan::Scan { table, provider, columns, filter_columns, filters } => {
                let scan = Arc::new(Plan::Scan {
                    table: table.clone(),
                    provider: Arc::clone(provider),
                    columns: columns.iter().chain(filter_columns).cloned().collect(),
                    filter_columns: vec![],
                    filters: vec![],
                });
                let (input, values) = self.push(&scan)?;
                Ok((filter(input, filters, &values), values))
            }
            Plan::Values { .. } | Plan::Shared { .. } => {
                Err(Error::internal("literal or shared rows read a column"))
            }
            Plan::Filter { input, conjuncts } => {
                let (input, values) = self.push(input)?;
                Ok((filter(input, conjuncts, &values), values))
            }
            Plan::Project { input, columns } => {
                let (input, values) = self.push(input)?;
                let names = names(&values);
                let mut columns: Vec<(Column, Expr)> =
                    columns.iter().map(|(c, e)| (c.clone(), inline(e.clone(), &names))).collect();
                columns.extend(values.values().map(|value| (value.clone(), value.to_expr())));
                Ok((Arc::new(Plan::Project { input, columns }), values))
            }
            Plan::Aggregate { input, groups, aggregates } => {
                let (input, values) = self.push(input)?;
                self.aggregate(input, values, groups, aggregates)
            }
            // The order of a subquery's rows means nothing outside of it.
            Plan::Sort { input, keys: _, fetch: None } => self.push(input),
            Plan::Limit { input, skip: 0, fetch: None | Some(1..) } if has_at_most_one_row(input) => {
                self.push(input)
            }
            Plan::Limit { input, skip, fetch } => self.limit(input, *skip, *fetch),
            Plan::Sort { input, keys, fetch } => {
                let sorted = Plan::Sort { input: Arc::clone(input), keys: keys.clone(), fetch: None };
                self.limit(&Arc::new(sorted), 0, *fetch)
            }
            Plan::LimitPer { input, groups, keys, skip, fetch } => {
                let (input, values) = self.push(input)?;
                let limited = limited_per(input, &values, groups, keys, (*skip, *fetch));
                Ok((limited, values))
            }
            Plan::Repeat { input, times } => {
                let (input, values) = self.push(input)?;
                let times = inline(times.clone(), &names(&values));
                Ok((Arc::new(Plan::Repeat { input, times }), values))
            }
            Plan::UnionAll { columns, inputs, values } => self.union(columns, inputs, values),
            Plan::Join { kind, left, right, keys, filters } => {
                self.join(kind.clone(), [left, right], keys, filters)
            }
        }
    }

    fn aggregate(
        &mut self,
        input: Arc<Plan>,
        values: Values,
        groups: &[(Column, Expr)],
        aggregates: &[(Column, AggregateCall)],
    ) -> Result<(Arc<Plan>, Values)> {
        let names_below = names(&values);
        let over = |e: &Expr| inline(e.clone(), &names_below);
        let mut keys: Vec<(Column, Expr)> = groups.iter().map(|(c, e)| (c.clone(), over(e))).collect();
        keys.extend(values.values().map(|value| (value.clone(), value.to_expr())));
        let mut calls: Vec<(Column, AggregateCall)> = aggregates
            .iter()
            .map(|(column, call)| {
                let mut call = call.clone();
                call.arguments = call.arguments.iter().map(over).collect();
                call.filter = call.filter.as_ref().map(over);
                (column.clone(), call)
            })
            .collect();
        if !groups.is_empty() {
            return Ok((Arc::new(Plan::Aggregate { input, groups: keys, aggregates: calls }), values));
        }
        // Values without input rows have a row as well.
        let mut on_top = vec![];
        for (column, call) in &mut calls {
            let none = of_no_rows(call);
            if none.is_null() {
                continue;
            }
            let counted = Column { id: self.ids.fresh(), field: column.field.clone() };
            let read = counted.clone().into_nullable().to_expr();
            let value = Expr::Case {
                branches: vec![(Expr::Not(Box::new(Expr::IsNull(Box::new(read.clone())))), read)],
                otherwise: Some(Box::new(Expr::Literal(none))),
                data_type: column.field.data_type.clone(),
            };
            on_top.push((std::mem::replace(column, counted), value));
        }
        let right = Arc::new(Plan::Aggregate { input, groups: keys, aggregates: calls });
        let (left, all) = self.fresh()?;
        let join_keys = self.same(&all, &values)?;
        let join = Join { kind: JoinKind::Left, left, right, keys: join_keys, filters: vec![] };
        let plan = join.into_plan();
        if on_top.is_empty() {
            return Ok((plan, all));
        }
        let mut columns = passed_through(&plan);
        columns.extend(on_top);
        Ok((Arc::new(Plan::Project { input: plan, columns }), all))
    }

    fn join(
        &mut self,
        kind: JoinKind,
        [left, right]: [&Arc<Plan>; 2],
        keys: &[JoinKey],
        filters: &[Expr],
    ) -> Result<(Arc<Plan>, Values)> {
        let is_full = kind == JoinKind::Full;
        let conditions_depend = keys.iter().flat_map(|key| [&key.left, &key.right]).chain(filters);
        let conditions_depend = conditions_depend.into_iter().any(|e| reads_any(e, self.outer));
        let left_depends = plan_reads_any(left, self.outer);
        let right_depends = plan_reads_any(right, self.outer);
        // Rows of the left side must be told apart by value, unless an inner join's right side does so.
        let push_left = kind != JoinKind::Inner || left_depends || !right_depends && conditions_depend;
        let (left, left_values) = match push_left {
            true => self.push(left).map(|(plan, values)| (plan, Some(values)))?,
            false => (Arc::clone(left), None),
        };
        let (right, right_values) = match right_depends || is_full {
            true => self.push(right).map(|(plan, values)| (plan, Some(values)))?,
            false => (Arc::clone(right), None),
        };
        let (mut kind, mut keys, mut filters) = (kind, keys.to_vec(), filters.to_vec());
        if let (Some(ours), Some(theirs)) = (&left_values, &right_values) {
            (kind, keys, filters) = plain_keys(kind, keys, filters);
            keys.extend(self.same(ours, theirs)?);
        }
        let (ours, theirs) = (left_values, right_values);
        let known = match (&ours, &theirs) {
            (Some(values), _) | (None, Some(values)) => names(values),
            (None, None) => HashMap::new(),
        };
        let over = |e: &Expr| inline(e.clone(), &known);
        let keys = keys
            .iter()
            .map(|key| JoinKey { left: over(&key.left), right: over(&key.right), null_safe: key.null_safe })
            .collect();
        let filters = filters.iter().map(over).collect();
        let plan = Join { kind, left, right, keys, filters }.into_plan();
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if is_full => self.either(plan, &ours, &theirs),
            (Some(values), _) | (None, Some(values)) => Ok((plan, values)),
            (None, None) => Err(Error::internal("a dependent join without a dependent part")),
        }
    }

    /// For each value the first of its rows.
    fn limit(&mut self, input: &Arc<Plan>, skip: u64, fetch: Option<u64>) -> Result<(Arc<Plan>, Values)> {
        let (input, keys) = match input.as_ref() {
            Plan::Project { input, columns } => {
                let input = Arc::new(Plan::Limit { input: Arc::clone(input), skip, fetch });
                return self.push(&Arc::new(Plan::Project { input, columns: columns.clone() }));
            }
            Plan::Sort { input, keys, fetch: None } => (input, keys.as_slice()),
            _ => (input, &[][..]),
        };
        let (input, values) = self.push(input)?;
        Ok((limited_per(input, &values, &[], keys, (skip, fetch)), values))
    }

    /// Every input for all values.
    fn union(
        &mut self,
        columns: &[Column],
        inputs: &[Arc<Plan>],
        values: &[Vec<Expr>],
    ) -> Result<(Arc<Plan>, Values)> {
        let known: Values = (self.columns.iter())
            .map(|column| (column.id, Column { id: self.ids.fresh(), field: column.field.clone() }))
            .collect();
        let (mut pushed, mut pushed_values) = (vec![], vec![]);
        for (input, values) in inputs.iter().zip(values) {
            let (input, of_input) = self.push(input)?;
            let names = names(&of_input);
            let mut values: Vec<Expr> = values.iter().map(|e| inline(e.clone(), &names)).collect();
            for id in known.keys() {
                values.push(read(&of_input, *id)?);
            }
            pushed.push(input);
            pushed_values.push(values);
        }
        let columns = columns.iter().chain(known.values()).cloned().collect();
        Ok((Arc::new(Plan::UnionAll { columns, inputs: pushed, values: pushed_values }), known))
    }

    /// The values of a full join, whichever side a row has.
    fn either(&mut self, plan: Arc<Plan>, ours: &Values, theirs: &Values) -> Result<(Arc<Plan>, Values)> {
        let mut columns = passed_through(&plan);
        let mut values = Values::new();
        for column in self.columns {
            let nullable = |e: Expr| match e {
                Expr::Column { id, data_type, .. } => Expr::Column { id, data_type, nullable: true },
                other => other,
            };
            let (left, right) = (nullable(read(ours, column.id)?), nullable(read(theirs, column.id)?));
            let known = Expr::Not(Box::new(Expr::IsNull(Box::new(left.clone()))));
            let expr = Expr::Case {
                branches: vec![(known, left)],
                otherwise: Some(Box::new(right)),
                data_type: column.field.data_type.clone(),
            };
            let value = Column { id: self.ids.fresh(), field: column.field.clone() }.into_nullable();
            columns.push((value.clone(), expr));
            values.insert(column.id, value);
        }
        Ok((Arc::new(Plan::Project { input: plan, columns }), values))
    }

    /// Keys for equal values.
    fn same(&self, left: &Values, right: &Values) -> Result<Vec<JoinKey>> {
        let keys = self.columns.iter().map(|column| {
            let (left, right) = (read(left, column.id)?, read(right, column.id)?);
            Ok(JoinKey { left, right, null_safe: column.field.nullable })
        });
        keys.collect()
    }
}

fn names(values: &Values) -> HashMap<ColumnId, Expr> {
    values.iter().map(|(id, column)| (*id, column.to_expr())).collect()
}

/// Limits the rows of each of the values, and of `groups` within.
fn limited_per(
    input: Arc<Plan>,
    values: &Values,
    groups: &[Expr],
    keys: &[SortKey],
    (skip, fetch): (u64, Option<u64>),
) -> Arc<Plan> {
    let names = names(values);
    let own = groups.iter().map(|e| inline(e.clone(), &names));
    let groups = values.values().map(Column::to_expr).chain(own).collect();
    let keys = keys.iter().map(|key| SortKey { expr: inline(key.expr.clone(), &names), ..key.clone() });
    Arc::new(Plan::LimitPer { input, groups, keys: keys.collect(), skip, fetch })
}

fn filter(input: Arc<Plan>, conjuncts: &[Expr], values: &Values) -> Arc<Plan> {
    let names = names(values);
    let conjuncts: Vec<Expr> = conjuncts.iter().map(|e| inline(e.clone(), &names)).collect();
    if conjuncts.is_empty() { input } else { Arc::new(Plan::Filter { input, conjuncts }) }
}

fn is_column(expr: &Expr, id: ColumnId) -> bool {
    matches!(expr, Expr::Column { id: read, .. } if *read == id)
}
