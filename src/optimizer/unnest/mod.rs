//! Removes dependent joins: no right input reads columns of its left any more.
//!
//! First choice ([`pull`]): the conditions by which the right side depends on the left move up to the join; on their
//! way through an aggregation they add group keys. What a subquery computes of outer columns is computed above the
//! join, and so is the row an ungrouped aggregate has for no input.
//!
//! Otherwise ([`domain`]): the right side is evaluated for the distinct values of the outer columns it reads, all at
//! once, and joined on them (Neumann and Kemper, "Unnesting Arbitrary Queries", BTW 2015).
//!
//! Joins are treated innermost first; outer columns of joins further out are constants meanwhile.

mod domain;
mod pull;
#[cfg(test)]
mod tests;

use super::Rule;
use super::substitute::{inline, produced_by, reads};
use crate::data::{DataType, Field, Scalar};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use pull::{Pulled, Puller};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// See the module.
pub(super) struct UnnestSubqueries;

impl Rule for UnnestSubqueries {
    fn name(&self) -> &'static str {
        "unnest_subqueries"
    }

    fn is_needed(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        rewrite(plan, ids)
    }
}

fn rewrite(plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
    match plan.try_map_inputs(&mut |input| rewrite(input, ids))? {
        Plan::Join { kind, left, right, keys, filters } => {
            unnest_join(Join { kind, left, right, keys, filters }, ids)
        }
        other => Ok(Arc::new(other)),
    }
}

/// The parts of a join.
struct Join {
    kind: JoinKind,
    left: Arc<Plan>,
    right: Arc<Plan>,
    keys: Vec<JoinKey>,
    filters: Vec<Expr>,
}

impl Join {
    fn into_plan(self) -> Arc<Plan> {
        let Self { kind, left, right, keys, filters } = self;
        Arc::new(Plan::Join { kind, left, right, keys, filters })
    }
}

/// A join whose inputs have no dependent joins, with its right input made independent of its left.
fn unnest_join(mut join: Join, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
    if let JoinKind::Mark { .. } | JoinKind::Semi | JoinKind::Anti { .. } = join.kind {
        let asks_only_for_rows = join.keys.is_empty() && join.filters.is_empty();
        join.right = without_order(&join.right, asks_only_for_rows);
    }
    let left_ids: HashSet<ColumnId> = join.left.columns().into_iter().map(|column| column.id).collect();
    let outer: BTreeSet<ColumnId> =
        join.right.free_columns().into_iter().filter(|id| left_ids.contains(id)).collect();
    if outer.is_empty() {
        return Ok(join.into_plan());
    }
    let pulled = Puller { outer: &outer, ids }.pull(&join.right)?;
    let attached = match pulled {
        Some(pulled) => attach(&join, pulled, ids),
        None => None,
    };
    match attached {
        Some(plan) => Ok(plan),
        None => domain::join(join, &outer, ids),
    }
}

/// The plan without what cannot matter to a question about its rows: order, repetitions; and, if only their presence
/// matters, limits and results.
fn without_order(plan: &Arc<Plan>, asks_only_for_rows: bool) -> Arc<Plan> {
    match plan.as_ref() {
        Plan::Sort { input, keys: _, fetch: None } => without_order(input, asks_only_for_rows),
        Plan::Limit { input, skip: 0, fetch: None | Some(1..) } if asks_only_for_rows => {
            without_order(input, asks_only_for_rows)
        }
        Plan::Project { input, columns: _ } if asks_only_for_rows => without_order(input, asks_only_for_rows),
        Plan::Aggregate { input, groups, aggregates: _ } if asks_only_for_rows && !groups.is_empty() => {
            without_order(input, asks_only_for_rows)
        }
        Plan::Aggregate { input, groups, aggregates } if !groups.is_empty() && aggregates.is_empty() => {
            Arc::new(Plan::Project { input: Arc::clone(input), columns: groups.clone() })
        }
        Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Filter { .. }
        | Plan::Project { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Join { .. }
        | Plan::UnionAll { .. }
        | Plan::Shared { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. } => Arc::clone(plan),
    }
}

/// The join with the conditions pulled out of its right input; `None` where its kind cannot take them.
fn attach(join: &Join, pulled: Pulled, ids: &mut ColumnIds) -> Option<Arc<Plan>> {
    match &join.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Single => attach_emitting(join, pulled, ids),
        JoinKind::Mark { column, .. } if pulled.default.is_some() => {
            // There is exactly one row for each left row: its answer is the answer.
            let single = Join {
                kind: JoinKind::Single,
                left: Arc::clone(&join.left),
                right: Arc::clone(&join.right),
                keys: vec![],
                filters: vec![],
            };
            let input = attach_emitting(&single, pulled, ids)?;
            let mut columns = passed_through(&join.left);
            columns.push((column.clone(), conjunction(conjuncts_of(join))));
            Some(Arc::new(Plan::Project { input, columns }))
        }
        JoinKind::Mark { column, .. } => {
            let answers = conjuncts_of(join).into_iter().map(|e| inline(e, &pulled.computed)).collect();
            let kind = JoinKind::Mark { column: column.clone(), null_aware: false };
            Some(asking(kind, join, pulled, answers, ids))
        }
        JoinKind::Semi | JoinKind::Anti { null_aware: false } if pulled.default.is_none() => {
            let answers = conjuncts_of(join).into_iter().map(|e| inline(e, &pulled.computed)).collect();
            Some(asking(join.kind.clone(), join, pulled, answers, ids))
        }
        JoinKind::Semi | JoinKind::Anti { .. } | JoinKind::Full => None,
    }
}

/// A join that emits no right columns, on `answers` and the pulled conditions. Conditions that read no right column ask
/// the left row alone: where that can be, they are left outside, where joins further out can take them along.
fn asking(
    mut kind: JoinKind,
    join: &Join,
    pulled: Pulled,
    answers: Vec<Expr>,
    ids: &mut ColumnIds,
) -> Arc<Plan> {
    let (is_left, is_right) = (produced_by(&join.left), produced_by(&pulled.plan));
    let can_leave = matches!(kind, JoinKind::Semi | JoinKind::Mark { null_aware: false, .. });
    let (mut keys, mut filters, mut outside) = (vec![], answers, vec![]);
    for condition in pulled.conditions {
        match JoinKey::from_conjunct(condition, &is_left, &is_right) {
            Ok(key) => keys.push(key),
            Err(condition) if can_leave && !reads(&condition, &is_right) => outside.push(surely(condition)),
            // A condition only selects the rows asked about: where it is unknown the row is not asked about.
            Err(condition) => filters.push(surely(condition)),
        }
    }
    let mark = match &mut kind {
        JoinKind::Mark { column, .. } if !outside.is_empty() => {
            let inner = Column { id: ids.fresh(), field: column.field.clone() };
            Some((std::mem::replace(column, inner.clone()), inner.to_expr()))
        }
        _ => None,
    };
    let plan = Join { kind, left: Arc::clone(&join.left), right: pulled.plan, keys, filters }.into_plan();
    match mark {
        _ if outside.is_empty() => plan,
        None => Arc::new(Plan::Filter { input: plan, conjuncts: outside }),
        Some((column, inner)) => {
            // Of no row asked about the answer is no.
            outside.push(inner);
            let mut columns = passed_through(&join.left);
            columns.push((column, Expr::And(outside)));
            Arc::new(Plan::Project { input: plan, columns })
        }
    }
}

/// A join that emits right columns: those that the right input no longer produces, or whose value for no row is not
/// null, are computed above it.
fn attach_emitting(join: &Join, pulled: Pulled, ids: &mut ColumnIds) -> Option<Arc<Plan>> {
    let Pulled { plan: right, mut conditions, computed, default } = pulled;
    let own = conjuncts_of(join);
    let (kind, above) = match (&join.kind, &default) {
        // Every left row has a row, so that none is lost before the other conditions are asked.
        (JoinKind::Inner, Some(_)) => (JoinKind::Left, own),
        (JoinKind::Left, Some(_)) if !own.is_empty() => return None,
        (kind, _) => {
            conditions.extend(own.into_iter().map(|e| inline(e, &computed)));
            (kind.clone(), vec![])
        }
    };
    let produced = right.output_columns();
    let default = default.unwrap_or_default();
    let is_null = |e: &Expr| matches!(e, Expr::Literal(value) if value.is_null());
    let matched_field = Field { name: "matched".into(), data_type: DataType::Boolean, nullable: false };
    let matched = Column { id: ids.fresh(), field: matched_field };
    let mut needs_matched = false;
    let mut renamed: HashMap<ColumnId, Column> = HashMap::new();
    let mut on_top: Vec<(Column, Expr)> = vec![];
    for column in join.right.output_columns() {
        let value_of_none = default.get(&column.id).filter(|e| !is_null(e)).cloned();
        let known = computed.get(&column.id);
        if known.is_none() && value_of_none.is_none() {
            continue;
        }
        let may_be_null = column.field.nullable;
        let value = known.cloned().unwrap_or_else(|| {
            let inner = Column { id: ids.fresh(), field: column.field.clone() };
            renamed.insert(column.id, inner.clone());
            inner.into_nullable().to_expr()
        });
        let value = if kind == JoinKind::Inner {
            value
        } else {
            let condition = if known.is_some() || may_be_null {
                needs_matched = true;
                matched.clone().into_nullable().to_expr()
            } else {
                Expr::Not(Box::new(Expr::IsNull(Box::new(value.clone()))))
            };
            Expr::Case {
                branches: vec![(condition, value)],
                otherwise: value_of_none.map(Box::new),
                data_type: column.field.data_type.clone(),
            }
        };
        on_top.push((column.into_nullable(), value));
    }
    let names: HashMap<ColumnId, Expr> = renamed.iter().map(|(id, column)| (*id, column.to_expr())).collect();
    let right = if renamed.is_empty() && !needs_matched {
        right
    } else {
        let mut columns: Vec<(Column, Expr)> = produced
            .into_iter()
            .map(|column| {
                let expr = column.to_expr();
                (renamed.get(&column.id).cloned().unwrap_or(column), expr)
            })
            .collect();
        if needs_matched {
            columns.push((matched, Expr::Literal(Scalar::boolean(true))));
        }
        Arc::new(Plan::Project { input: right, columns })
    };
    let (is_left, is_right) = (produced_by(&join.left), produced_by(&right));
    let mut joined = Join { kind, left: Arc::clone(&join.left), right, keys: vec![], filters: vec![] };
    for condition in conditions {
        let condition = inline(condition, &names);
        match JoinKey::from_conjunct(condition, &is_left, &is_right) {
            Ok(key) => joined.keys.push(key),
            Err(condition) => joined.filters.push(condition),
        }
    }
    let mut plan = joined.into_plan();
    if !on_top.is_empty() {
        let mut columns = passed_through(&plan);
        columns.extend(on_top);
        plan = Arc::new(Plan::Project { input: plan, columns });
    }
    if !above.is_empty() {
        plan = Arc::new(Plan::Filter { input: plan, conjuncts: above });
    }
    Some(plan)
}

/// Keys and filters of a join as conjuncts.
fn conjuncts_of(join: &Join) -> Vec<Expr> {
    let keys = join.keys.iter().cloned().map(JoinKey::into_conjunct);
    keys.chain(join.filters.iter().cloned()).collect()
}

fn conjunction(mut conjuncts: Vec<Expr>) -> Expr {
    match conjuncts.len() {
        0 => Expr::Literal(Scalar::boolean(true)),
        1 => conjuncts.swap_remove(0),
        _ => Expr::And(conjuncts),
    }
}

/// Whether a condition is true, without a third answer.
fn surely(condition: Expr) -> Expr {
    if !condition.is_nullable() {
        return condition;
    }
    let yes = Box::new(Expr::Literal(Scalar::boolean(true)));
    Expr::Compare { op: CompareOp::IsNotDistinct, left: Box::new(condition), right: yes }
}

/// All columns of a plan as they are.
fn passed_through(plan: &Plan) -> Vec<(Column, Expr)> {
    let columns = plan.output_columns().into_iter();
    columns
        .map(|column| {
            let expr = column.to_expr();
            (column, expr)
        })
        .collect()
}

/// What an ungrouped aggregate is of no rows.
fn of_no_rows(call: &AggregateCall) -> Scalar {
    match call.function.name() {
        "count" => Scalar::int(call.data_type.clone(), 0),
        _ => Scalar::null(call.data_type.clone()),
    }
}

/// Whether a plan never has a second row.
fn has_at_most_one_row(plan: &Plan) -> bool {
    match plan {
        Plan::Aggregate { groups, .. } => groups.is_empty(),
        Plan::Values { rows, .. } => rows.len() <= 1,
        Plan::Filter { input, .. }
        | Plan::Project { input, .. }
        | Plan::Sort { input, .. }
        | Plan::Limit { input, .. } => has_at_most_one_row(input),
        Plan::Scan { .. }
        | Plan::Join { .. }
        | Plan::UnionAll { .. }
        | Plan::Shared { .. }
        | Plan::LimitPer { .. }
        | Plan::Repeat { .. } => false,
    }
}

/// Whether an expression reads any of `columns`.
fn reads_any(expr: &Expr, columns: &BTreeSet<ColumnId>) -> bool {
    reads(expr, &|id| columns.contains(&id))
}

/// Whether anything in a plan reads any of `columns`.
fn plan_reads_any(plan: &Plan, columns: &BTreeSet<ColumnId>) -> bool {
    let mut any = false;
    plan.for_each_node(&mut |node| node.for_each_expr(&mut |e| any |= reads_any(e, columns)));
    any
}
