//! Copies of plans, under ids of their own.

use crate::expr::{ColumnId, Expr};
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

/// What the columns of the original are called in the copy.
pub(in crate::optimizer) type Renamed = HashMap<ColumnId, Column>;

/// `plan` again, all columns it defines under new ids.
pub(in crate::optimizer) fn copy(plan: &Arc<Plan>, ids: &mut ColumnIds) -> (Arc<Plan>, Renamed) {
    let mut renamed = Renamed::new();
    plan.for_each_node(&mut |node| {
        for column in node.defined_columns() {
            let new = || Column { id: ids.fresh(), field: column.field.clone() };
            renamed.entry(column.id).or_insert_with(new);
        }
    });
    (renamed_plan(plan, &renamed), renamed)
}

fn renamed_plan(plan: &Arc<Plan>, renamed: &Renamed) -> Arc<Plan> {
    let rename = |column: &mut Column| {
        if let Some(new) = renamed.get(&column.id) {
            column.id = new.id;
        }
    };
    let inputs: Result<_, Infallible> = plan.try_map_inputs(&mut |input| Ok(renamed_plan(input, renamed)));
    let exprs = inputs.and_then(|node| node.try_map_exprs(&mut |e| Ok(with_new_ids(e, renamed))));
    let Ok(mut node) = exprs;
    match &mut node {
        Plan::Scan { columns, filter_columns, .. } => {
            columns.iter_mut().chain(filter_columns).for_each(|(column, _)| rename(column));
        }
        Plan::Values { columns, .. } | Plan::UnionAll { columns, .. } | Plan::Shared { columns, .. } => {
            columns.iter_mut().for_each(rename);
        }
        Plan::Project { columns, .. } => columns.iter_mut().for_each(|(column, _)| rename(column)),
        Plan::Aggregate { groups, aggregates, .. } => {
            groups.iter_mut().for_each(|(column, _)| rename(column));
            aggregates.iter_mut().for_each(|(column, _)| rename(column));
        }
        Plan::Join { kind: JoinKind::Mark { column, .. }, .. } => rename(column),
        Plan::Filter { .. }
        | Plan::Sort { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. }
        | Plan::Join { .. } => {}
    }
    Arc::new(node)
}

/// `expr` in terms of the copy.
pub(super) fn with_new_ids(expr: Expr, renamed: &Renamed) -> Expr {
    match expr {
        Expr::Column { id, data_type, nullable } => {
            let id = renamed.get(&id).map_or(id, |column| column.id);
            Expr::Column { id, data_type, nullable }
        }
        other => other.map_children(&mut |child| with_new_ids(child, renamed)),
    }
}
