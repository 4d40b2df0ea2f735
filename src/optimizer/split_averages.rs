//! `avg(x)` becomes `sum(x) / count(x)`, so that averages share their sums and counts with each other and with the sums
//! and counts the query asks for. `count(x)` of what is never null counts rows.

use super::Rule;
use crate::data::{DataType, Field};
use crate::error::{Error, Result};
use crate::expr::{ArithmeticOp, Expr, arithmetic, cast_to};
use crate::functions::AggregateCall;
use crate::functions::aggregate::built_in;
use crate::logical::{Column, ColumnIds, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct SplitAverages;

impl Rule for SplitAverages {
    fn name(&self) -> &'static str {
        "split_averages"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        match node {
            Plan::Aggregate { input, groups, aggregates } => split(input, groups, aggregates, ids),
            other => Ok(Arc::new(other)),
        }
    }
}

/// What a result column of the aggregation becomes.
enum Output {
    /// A call that stays.
    Call(usize),
    /// The quotient of two calls.
    Quotient { sum: usize, count: usize },
}

fn split(
    input: Arc<Plan>,
    groups: Vec<(Column, Expr)>,
    aggregates: Vec<(Column, AggregateCall)>,
    ids: &mut ColumnIds,
) -> Result<Arc<Plan>> {
    let mut outputs: Vec<(Column, Output)> = Vec::with_capacity(aggregates.len());
    let mut calls: Vec<(Column, AggregateCall)> = Vec::with_capacity(aggregates.len());
    for (column, call) in aggregates {
        let call = count_rows(call);
        let output = match parts(&call)? {
            Some((sum, count)) => {
                let named = |part: &str| name_of_part(part, &column.field.name);
                let sum = share(&mut calls, sum, |call| new_column(call, named("sum"), ids));
                let count = share(&mut calls, count, |call| new_column(call, named("count"), ids));
                Output::Quotient { sum, count }
            }
            None => Output::Call(share(&mut calls, call, |_| column.clone())),
        };
        outputs.push((column, output));
    }
    let unchanged = outputs.iter().enumerate().all(|(i, (column, output))| match output {
        Output::Call(at) => *at == i && calls[i].0.id == column.id,
        Output::Quotient { .. } => false,
    });
    if unchanged {
        return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls }));
    }
    let mut columns: Vec<(Column, Expr)> =
        groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
    for (column, output) in outputs {
        let expr = match output {
            Output::Call(at) => calls[at].0.to_expr(),
            Output::Quotient { sum, count } => {
                let double = |at: usize| cast_to(calls[at].0.to_expr(), &DataType::Float64);
                // No rows: the sum is null, and so is the quotient.
                arithmetic(ArithmeticOp::Divide, double(sum)?, double(count)?)?
            }
        };
        columns.push((column, expr));
    }
    let aggregate = Plan::Aggregate { input, groups, aggregates: calls };
    Ok(Arc::new(Plan::Project { input: Arc::new(aggregate), columns }))
}

/// `count(x)` of what is never null as `count(*)`.
fn count_rows(mut call: AggregateCall) -> AggregateCall {
    if call.function.name() == "count"
        && !call.distinct
        && call.arguments.iter().all(|argument| !argument.is_nullable())
    {
        call.arguments.clear();
    }
    call
}

/// The sum and the count an average is made of; `None` for any other aggregate.
fn parts(call: &AggregateCall) -> Result<Option<(AggregateCall, AggregateCall)>> {
    if call.function.name() != "avg" {
        return Ok(None);
    }
    let [argument] = call.arguments.as_slice() else { return Ok(None) };
    if !argument.data_type().is_numeric() {
        return Ok(None);
    }
    let make = |name: &str| {
        let function = built_in(name)?;
        let (types, data_type) = function.signature(&[argument.data_type()])?;
        let arguments = match types.as_slice() {
            [to] => vec![cast_to(argument.clone(), to)?],
            _ => return Err(Error::internal(format!("{name} of one argument takes {}", types.len()))),
        };
        let (distinct, filter) = (call.distinct, call.filter.clone());
        Ok(AggregateCall { function, arguments, distinct, filter, data_type })
    };
    Ok(Some((make("sum")?, count_rows(make("count")?))))
}

/// The position of a call among `calls`, where it is added under the column `name` gives it if it is new.
fn share(
    calls: &mut Vec<(Column, AggregateCall)>,
    call: AggregateCall,
    name: impl FnOnce(&AggregateCall) -> Column,
) -> usize {
    if let Some(at) = calls.iter().position(|(_, known)| *known == call) {
        return at;
    }
    calls.push((name(&call), call));
    calls.len() - 1
}

/// What the sum or count of `avg(x)` is called.
fn name_of_part(part: &str, average: &str) -> String {
    let arguments = average.find('(').map_or("()", |at| &average[at..]);
    format!("{part}{arguments}")
}

fn new_column(call: &AggregateCall, name: String, ids: &mut ColumnIds) -> Column {
    let name = if call.arguments.is_empty() { format!("{}(*)", call.function.name()) } else { name };
    let nullable = call.function.name() != "count";
    Column { id: ids.fresh(), field: Field { name, data_type: call.data_type.clone(), nullable } }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn averages_share_sums_and_counts() {
        assert_rewrites(
            &SplitAverages,
            "select sum(a), avg(a), avg(b), count(*), count(a) from t",
            "Project: sum(a), avg(a), avg(b), count_star(), count(a)#8
  Project: sum(a), (CAST(sum(a) AS DOUBLE) / CAST(count(a)#9 AS DOUBLE)) AS avg(a), \
(CAST(sum(b) AS DOUBLE) / CAST(count(*) AS DOUBLE)) AS avg(b), count(*) AS count_star(), \
count(a)#9 AS count(a)#8
    Aggregate: groups=[] aggregates=[sum(a), count(a) AS count(a)#9, sum(b), count(*)]
      Scan t: [a, b, c, d]
",
        );
    }

    #[test]
    fn other_aggregates_stay() {
        assert_rewrites(
            &SplitAverages,
            "select min(a) from t group by b",
            "Project: min(a)\n  Aggregate: groups=[b] aggregates=[min(a)]\n    Scan t: [a, b, c, d]\n",
        );
    }
}
