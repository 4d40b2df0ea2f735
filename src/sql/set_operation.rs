//! UNION, INTERSECT and EXCEPT.
//!
//! Columns agree by position; the first query names them. Nulls are equal to each other. UNION makes the rows of
//! UNION ALL distinct. INTERSECT and EXCEPT count, for each distinct row, how often either side has it.

use super::query::Surroundings;
use super::{Binder, BoundQuery, located, place};
use crate::data::{DataType, Field, Scalar};
use crate::error::{Error, Location, Result};
use crate::expr::{CompareOp, Expr, cast_to, common_type};
use crate::functions::AggregateCall;
use crate::logical::{Column, Plan};
use sqlparser::ast;
use std::sync::Arc;

/// Queries whose rows are put together, not yet made one plan: a union of unions is one union.
struct Pending {
    queries: Vec<BoundQuery>,
    is_distinct: bool,
}

impl Pending {
    fn one(query: BoundQuery) -> Self {
        Self { queries: vec![query], is_distinct: false }
    }
}

impl Binder<'_> {
    /// Binds a tree of set operations. It leans to the left, as far as the text is long: that side is no recursion.
    pub(super) fn bind_set_operations<'q>(
        &mut self,
        body: &'q ast::SetExpr,
        around: &Surroundings<'q>,
    ) -> Result<BoundQuery> {
        let mut operations = vec![];
        let mut first = body;
        while let ast::SetExpr::SetOperation { left, op, set_quantifier, right } = first {
            operations.push((*op, *set_quantifier, right.as_ref()));
            first = left;
        }
        let mut pending = Pending::one(self.bind_body(first, around)?);
        for (op, quantifier, right) in operations.into_iter().rev() {
            let location = place(right);
            self.count_join(location)?;
            let is_all = match quantifier {
                ast::SetQuantifier::All => true,
                ast::SetQuantifier::Distinct | ast::SetQuantifier::None => false,
                ast::SetQuantifier::ByName
                | ast::SetQuantifier::AllByName
                | ast::SetQuantifier::DistinctByName => {
                    let message = format!("{op} BY NAME; list the columns in one order");
                    return Err(Error::unsupported(message, location));
                }
            };
            let right = self.bind_body(right, around)?;
            pending = match op {
                ast::SetOperator::Union => {
                    // What was made distinct before is made so again, unless duplicates come back in.
                    if pending.is_distinct && is_all {
                        pending = Pending::one(self.union(pending, location)?);
                    }
                    pending.queries.push(right);
                    pending.is_distinct = !is_all;
                    pending
                }
                ast::SetOperator::Intersect => {
                    let left = self.union(pending, location)?;
                    Pending::one(self.counted(left, right, Counted::Intersect, is_all, location)?)
                }
                ast::SetOperator::Except | ast::SetOperator::Minus => {
                    let left = self.union(pending, location)?;
                    Pending::one(self.counted(left, right, Counted::Except, is_all, location)?)
                }
            };
        }
        self.union(pending, place(body))
    }

    /// The rows of all queries.
    fn union(&mut self, pending: Pending, location: Option<Location>) -> Result<BoundQuery> {
        let Pending { mut queries, is_distinct } = pending;
        if queries.len() == 1
            && let Some(only) = queries.pop()
        {
            return Ok(only);
        }
        let outputs = self.unified(&queries, location)?;
        let values = queries.iter().map(|query| values_of(query, &outputs, location));
        let values = values.collect::<Result<_>>()?;
        let inputs = queries.into_iter().map(|query| query.plan).collect();
        let mut plan = Arc::new(Plan::UnionAll { columns: outputs.clone(), inputs, values });
        if is_distinct {
            let groups = outputs.iter().map(|column| (column.clone(), column.to_expr())).collect();
            plan = Arc::new(Plan::Aggregate { input: plan, groups, aggregates: vec![] });
        }
        Ok(BoundQuery { plan, outputs })
    }

    /// Each distinct row with how often either side has it, and of those the ones asked for.
    fn counted(
        &mut self,
        left: BoundQuery,
        right: BoundQuery,
        kind: Counted,
        is_all: bool,
        location: Option<Location>,
    ) -> Result<BoundQuery> {
        let queries = [left, right];
        let outputs = self.unified(&queries, location)?;
        let mut values = vec![];
        for (query, is_right) in queries.iter().zip([false, true]) {
            let mut of_query = values_of(query, &outputs, location)?;
            of_query.push(Expr::Literal(Scalar::boolean(is_right)));
            values.push(of_query);
        }
        let is_right = self.internal("is_right", DataType::Boolean);
        let columns = outputs.iter().chain([&is_right]).cloned().collect();
        let inputs = queries.into_iter().map(|query| query.plan).collect();
        let both = Arc::new(Plan::UnionAll { columns, inputs, values });
        let mut calls = vec![];
        for (name, filter) in
            [("left_rows", Expr::Not(Box::new(is_right.to_expr()))), ("right_rows", is_right.to_expr())]
        {
            let call = AggregateCall { filter: Some(filter), ..AggregateCall::count_rows()? };
            calls.push((self.internal(name, DataType::Int64), call));
        }
        let (in_left, in_right) = (calls[0].0.to_expr(), calls[1].0.to_expr());
        let groups = outputs.iter().map(|column| (column.clone(), column.to_expr())).collect();
        let grouped = Plan::Aggregate { input: both, groups, aggregates: calls };
        let zero = || Expr::Literal(Scalar::int(DataType::Int64, 0));
        let compare = |op, left: &Expr, right: Expr| Expr::Compare {
            op,
            left: Box::new(left.clone()),
            right: Box::new(right),
        };
        let conjuncts = match (kind, is_all) {
            (Counted::Intersect, _) => {
                vec![compare(CompareOp::Gt, &in_left, zero()), compare(CompareOp::Gt, &in_right, zero())]
            }
            (Counted::Except, false) => {
                vec![compare(CompareOp::Gt, &in_left, zero()), compare(CompareOp::Eq, &in_right, zero())]
            }
            (Counted::Except, true) => vec![compare(CompareOp::Gt, &in_left, in_right.clone())],
        };
        let mut plan = Arc::new(Plan::Filter { input: Arc::new(grouped), conjuncts });
        if is_all {
            let times = match kind {
                Counted::Intersect => Expr::Case {
                    branches: vec![(compare(CompareOp::Lt, &in_left, in_right.clone()), in_left)],
                    otherwise: Some(Box::new(in_right)),
                    data_type: DataType::Int64,
                },
                Counted::Except => {
                    crate::expr::arithmetic(crate::expr::ArithmeticOp::Subtract, in_left, in_right)?
                }
            };
            plan = Arc::new(Plan::Repeat { input: plan, times });
        }
        let columns = outputs.iter().map(|column| (column.clone(), column.to_expr())).collect();
        Ok(BoundQuery { plan: Arc::new(Plan::Project { input: plan, columns }), outputs })
    }

    fn internal(&mut self, name: &str, data_type: DataType) -> Column {
        Column { id: self.ids.fresh(), field: Field { name: name.to_owned(), data_type, nullable: false } }
    }

    /// The columns of queries together: names of the first, types that fit all.
    fn unified(&mut self, queries: &[BoundQuery], location: Option<Location>) -> Result<Vec<Column>> {
        let Some((first, rest)) = queries.split_first() else { return Ok(vec![]) };
        let mut columns: Vec<Column> = (first.outputs.iter())
            .map(|column| Column { id: self.ids.fresh(), field: column.field.clone() })
            .collect();
        for query in rest {
            if query.outputs.len() != columns.len() {
                let message = format!(
                    "the queries of a set operation must have as many columns as each other, not {} and {}",
                    columns.len(),
                    query.outputs.len()
                );
                return Err(Error::plan(message, location));
            }
            for (at, (column, other)) in columns.iter_mut().zip(&query.outputs).enumerate() {
                let (ours, theirs) = (&column.field.data_type, &other.field.data_type);
                let Some(common) = set_type(ours, theirs) else {
                    let message = format!(
                        "column {} of the set operation is {ours} in one query and {theirs} in another; cast one",
                        at + 1
                    );
                    return Err(Error::plan(message, location));
                };
                column.field.data_type = common;
                column.field.nullable |= other.field.nullable;
            }
        }
        Ok(columns)
    }
}

#[derive(Clone, Copy)]
enum Counted {
    Intersect,
    Except,
}

/// The type of a column that has values of both types. Beside strings everything is a string, as in DuckDB.
fn set_type(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Utf8, _) | (_, DataType::Utf8) => Some(DataType::Utf8),
        (a, b) => common_type(a, b),
    }
}

/// What the columns are in the rows of a query.
fn values_of(query: &BoundQuery, columns: &[Column], location: Option<Location>) -> Result<Vec<Expr>> {
    let outputs = query.outputs.iter().zip(columns);
    let cast = |(own, column): (&Column, &Column)| cast_to(own.to_expr(), &column.field.data_type);
    outputs.map(cast).collect::<Result<_>>().map_err(|e| located(e, location))
}
