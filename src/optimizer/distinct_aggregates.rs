//! Aggregates over distinct values as two aggregations: the lower one groups by the values too, and so leaves each
//! once.
//!
//! Plain aggregates beside them are computed in part below and put together above. With several distinct arguments
//! every input row goes into the lower aggregation once per argument, tagged with its number, and once more for plain
//! aggregates; the other arguments are null in it.

use super::Rule;
use super::partial_aggregates::{has_parts, ignores_repetition, put_together, with_outputs};
use crate::data::{DataType, Field, Scalar};
use crate::error::{Error, Result};
use crate::expr::{CompareOp, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct DistinctAggregates;

impl Rule for DistinctAggregates {
    fn name(&self) -> &'static str {
        "distinct_aggregates"
    }

    fn is_needed(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        match node {
            Plan::Aggregate { input, groups, mut aggregates } => {
                for (_, call) in &mut aggregates {
                    call.distinct &= !ignores_repetition(call);
                }
                // Those that take of values in order are told apart from the others by a rule of their own.
                if aggregates.iter().all(|(_, call)| !call.distinct)
                    || aggregates.iter().any(|(_, call)| call.is_ordered())
                    || aggregates.iter().any(|(_, call)| !is_splittable(call))
                {
                    return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates }));
                }
                split(input, &groups, &aggregates, ids).map(Arc::new)
            }
            other => Ok(Arc::new(other)),
        }
    }
}

/// Whether it can be computed in two steps.
fn is_splittable(call: &AggregateCall) -> bool {
    if call.distinct {
        // Nulls stand for rows that do not count.
        return call.arguments.len() == 1 && call.function.name() != "first";
    }
    has_parts(call)
}

/// The argument where the filter lets it count, else null.
fn counted(call: &AggregateCall) -> Result<Expr> {
    let [argument] = call.arguments.as_slice() else {
        return Err(Error::internal("a distinct aggregate of several arguments"));
    };
    Ok(match &call.filter {
        None => argument.clone(),
        Some(filter) => only_where(filter.clone(), argument.clone()),
    })
}

/// `value` where `condition` is true, else null.
pub(super) fn only_where(condition: Expr, value: Expr) -> Expr {
    let data_type = value.data_type();
    Expr::Case { branches: vec![(condition, value)], otherwise: None, data_type }
}

fn split(
    input: Arc<Plan>,
    groups: &[(Column, Expr)],
    aggregates: &[(Column, AggregateCall)],
    ids: &mut ColumnIds,
) -> Result<Plan> {
    let mut arguments: Vec<Expr> = vec![];
    for (_, call) in aggregates.iter().filter(|(_, call)| call.distinct) {
        let argument = counted(call)?;
        if !arguments.contains(&argument) {
            arguments.push(argument);
        }
    }
    let has_plain = aggregates.iter().any(|(_, call)| !call.distinct);
    let tags = (arguments.len() > 1).then(|| Tags::new(arguments.len(), has_plain, ids));
    let input = match &tags {
        Some(tags) => tags.join(input),
        None => input,
    };

    // The lower aggregation.
    let mut keys: Vec<(Column, Expr)> = groups.to_vec();
    keys.extend(tags.as_ref().map(|tags| (tags.grouped.clone(), tags.column.to_expr())));
    let mut values: Vec<(Expr, Column)> = vec![];
    for (number, argument) in (1..).zip(arguments) {
        let value = match &tags {
            Some(tags) => only_where(tags.is(number), argument.clone()),
            None => argument.clone(),
        };
        let field =
            Field { name: "value".into(), data_type: value.data_type(), nullable: value.is_nullable() };
        let column = Column { id: ids.fresh(), field };
        keys.push((column.clone(), value));
        values.push((argument, column));
    }
    let mut parts = vec![];
    let mut calls = vec![];
    let mut outputs: Vec<(Column, Expr)> =
        groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();

    // The upper one, and what makes its results the ones asked for.
    for (column, call) in aggregates {
        if call.distinct {
            let argument = counted(call)?;
            let value = values.iter().find(|(known, _)| *known == argument).map(|(_, column)| column);
            let value = value.ok_or_else(|| Error::internal("a distinct argument is not grouped by"))?;
            let call = AggregateCall {
                arguments: vec![value.to_expr()],
                distinct: false,
                filter: None,
                ..call.clone()
            };
            outputs.push((column.clone(), column.to_expr()));
            calls.push((column.clone(), call));
            continue;
        }
        let mut part = call.clone();
        if let Some(tags) = &tags {
            part.filter = Some(match part.filter {
                None => tags.is(0),
                Some(filter) => Expr::And(vec![tags.is(0), filter]),
            });
        }
        let part_column = Column { id: ids.fresh(), field: column.field.clone() };
        let part_column =
            if call.function.name() == "count" { part_column } else { part_column.into_nullable() };
        let (total, value) = put_together(call, column, &part_column, groups.is_empty(), ids)?;
        parts.push((part_column, part));
        calls.push(total);
        outputs.push((column.clone(), value));
    }
    let lower = Arc::new(Plan::Aggregate { input, groups: keys, aggregates: parts });
    let over = groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
    let upper = Plan::Aggregate { input: lower, groups: over, aggregates: calls };
    Ok(with_outputs(upper, outputs))
}

/// Numbers that tell the copies of a row apart.
struct Tags {
    /// What carries the number below the aggregation.
    column: Column,
    /// And above.
    grouped: Column,
    numbers: Vec<i128>,
}

impl Tags {
    fn new(arguments: usize, has_plain: bool, ids: &mut ColumnIds) -> Self {
        let field = Field { name: "tag".into(), data_type: DataType::Int32, nullable: false };
        let column = Column { id: ids.fresh(), field: field.clone() };
        let grouped = Column { id: ids.fresh(), field };
        let numbers = (i128::from(!has_plain)..=arguments as i128).collect();
        Self { column, grouped, numbers }
    }

    /// Every row once per number.
    fn join(&self, input: Arc<Plan>) -> Arc<Plan> {
        let rows = self.numbers.iter().map(|n| vec![Scalar::int(DataType::Int32, *n)]).collect();
        let right = Arc::new(Plan::Values { columns: vec![self.column.clone()], rows });
        let (keys, filters) = (vec![], vec![]);
        Arc::new(Plan::Join { kind: JoinKind::Inner, left: input, right, keys, filters })
    }

    /// Whether a row is the copy of that number.
    fn is(&self, number: i128) -> Expr {
        let number = Box::new(Expr::Literal(Scalar::int(DataType::Int32, number)));
        Expr::Compare { op: CompareOp::Eq, left: Box::new(self.column.to_expr()), right: number }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn one_distinct_argument_takes_two_aggregations() {
        assert_rewrites(
            &DistinctAggregates,
            "select count(distinct a), sum(distinct a) from t group by c",
            "Project: count(DISTINCT a), sum(DISTINCT a)
  Aggregate: groups=[c] aggregates=[count(value) AS count(DISTINCT a), sum(value) AS sum(DISTINCT a)]
    Aggregate: groups=[c, a AS value] aggregates=[]
      Scan t: [a, b, c, d]
",
        );
    }

    #[test]
    fn plain_aggregates_are_put_together_from_parts() {
        assert_rewrites(
            &DistinctAggregates,
            "select count(distinct a), count(*), max(b) from t",
            "Project: count(DISTINCT a), count_star()#5, max(b)#6
  Project: count(DISTINCT a), CASE WHEN (count_star()#9 IS NULL) THEN 0 ELSE CAST(count_star()#9 AS BIGINT) END AS count_star()#5, max(b)#6
    Aggregate: groups=[] aggregates=[count(value) AS count(DISTINCT a), sum(count_star()#8) AS count_star()#9, max(max(b)#10) AS max(b)#6]
      Aggregate: groups=[a AS value] aggregates=[count(*) AS count_star()#8, max(b) AS max(b)#10]
        Scan t: [a, b, c, d]
",
        );
    }

    #[test]
    fn several_distinct_arguments_are_tagged() {
        assert_rewrites(
            &DistinctAggregates,
            "select count(distinct a), count(distinct b) filter (where a > 1), min(distinct c) from t",
            "Project: count(DISTINCT a), count(DISTINCT b) FILTER (WHERE (a > 1)), min(DISTINCT c)#6
  Aggregate: groups=[] aggregates=[count(value#9) AS count(DISTINCT a), count(value#10) AS count(DISTINCT b) FILTER (WHERE (a > 1)), min(min(DISTINCT c)#11) AS min(DISTINCT c)#6]
    Aggregate: groups=[tag#7 AS tag#8, CASE WHEN (tag#7 = 1) THEN a END AS value#9, CASE WHEN (tag#7 = 2) THEN CASE WHEN (a > 1) THEN b END END AS value#10] aggregates=[min(c) FILTER ((tag#7 = 0)) AS min(DISTINCT c)#11]
      InnerJoin
        Scan t: [a, b, c, d]
        Values: [tag#7] rows=3
",
        );
    }

    #[test]
    fn repetition_does_not_matter_to_some() {
        assert_rewrites(
            &DistinctAggregates,
            "select min(distinct a) from t",
            "Project: min(DISTINCT a)\n  Aggregate: groups=[] aggregates=[min(a) AS min(DISTINCT a)]\n    \
             Scan t: [a, b, c, d]\n",
        );
    }
}
