//! Aggregates that take of values in order, over a sort.

use super::lower::node_over;
use super::plan::{Node, PhysicalPlan};
use crate::data::Field;
use crate::error::{Error, Result};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, SortKey};
use std::sync::Arc;

/// Groups and the one value of all `aggregates` are sorted, with how often it counts if that is said, then gone through.
pub(super) fn ordered_aggregate(
    input: Arc<PhysicalPlan>,
    groups: &[(Column, Expr)],
    aggregates: &[(Column, AggregateCall)],
) -> Result<Node> {
    let (value, count) = value_and_count(aggregates)?;
    // Only what is needed is carried along. A value that is computed is known by the first result's id until there is one.
    let value_id = match (value, aggregates.first()) {
        (Expr::Column { id, .. }, _) if !groups.iter().any(|(column, _)| column.id == *id) => *id,
        (_, Some((result, _))) => result.id,
        (_, None) => return Err(not_taken_apart()),
    };
    let mut columns: Vec<Column> = groups.iter().map(|(column, _)| column.clone()).collect();
    let mut expressions: Vec<Expr> = groups.iter().map(|(_, e)| e.clone()).collect();
    columns.push(column(value_id, "value", value));
    expressions.push(value.clone());
    match count {
        None => {}
        Some(Expr::Column { id, .. }) => {
            columns.extend(count.map(|count| column(*id, "count", count)));
            expressions.extend(count.cloned());
        }
        Some(_) => return Err(not_taken_apart()),
    }
    let estimated_rows = input.estimated_rows;
    let projected = node_over(Node::Project { input, expressions }, &columns, estimated_rows);
    let mut read = columns.iter().map(Column::to_expr);
    let keys: Vec<Expr> = read.by_ref().take(groups.len()).collect();
    let value = read.next().ok_or_else(not_taken_apart)?;
    let order = |expr: &Expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false };
    let order = keys.iter().chain([&value]).map(order).collect();
    let sort = Node::Sort { input: projected, keys: order, fetch: None };
    Ok(Node::OrderedAggregate {
        input: node_over(sort, &columns, estimated_rows),
        groups: keys,
        value,
        count: read.next(),
        aggregates: aggregates.iter().map(|(_, call)| call.clone()).collect(),
    })
}

/// What all calls are about.
fn value_and_count(aggregates: &[(Column, AggregateCall)]) -> Result<(&Expr, Option<&Expr>)> {
    let plain = |(_, call): &'_ (Column, AggregateCall)| !call.distinct && call.filter.is_none();
    let mut about = aggregates.iter().map(|(_, call)| call.ordered().map(|of| (of.value, of.count)));
    match about.next() {
        Some(Some(first)) if about.all(|other| other == Some(first)) && aggregates.iter().all(plain) => {
            Ok(first)
        }
        _ => Err(not_taken_apart()),
    }
}

fn column(id: ColumnId, name: &str, e: &Expr) -> Column {
    Column { id, field: Field { name: name.into(), data_type: e.data_type(), nullable: e.is_nullable() } }
}

fn not_taken_apart() -> Error {
    Error::internal("aggregates of values in order were not taken apart")
}
