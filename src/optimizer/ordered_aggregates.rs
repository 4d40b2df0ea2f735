//! Aggregates that take of a group's values in order, each value with an aggregation of its own.
//!
//! An aggregation sorts by one value. Where there are several, or other aggregates beside them, each has its own, over the
//! same input, and their rows are joined by group. The input is executed once, unless it is no more than a table that is
//! scanned. The rule runs when inputs have been optimized: nothing moves into what is shared.

use super::Rule;
use super::copy::{copy, with_new_ids};
use super::distinct_aggregates::{DistinctAggregates, only_where};
use super::shared_subplans::first_free_number;
use super::substitute::is_deterministic;
use crate::data::Field;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::{AggregateCall, Evaluation};
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct OrderedAggregates;

impl Rule for OrderedAggregates {
    fn name(&self) -> &'static str {
        "ordered_aggregates"
    }

    fn is_needed(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        rewrite(plan, &mut first_free_number(plan), ids)
    }
}

/// Whether it takes of values in order.
pub(super) fn is_ordered(call: &AggregateCall) -> bool {
    matches!(call.function.evaluation(), Evaluation::Ordered(_))
}

/// Calls that one aggregation can answer.
struct Set {
    /// The value they order by, and whether each counts once; `None` for those that need no order.
    value: Option<(Expr, bool)>,
    calls: Vec<(Column, AggregateCall)>,
}

/// An input that several aggregations read.
enum Input {
    /// A table that is scanned by each.
    Scanned(Arc<Plan>),
    /// Rows that are made once.
    Shared(usize, Arc<Plan>),
}

type Groups = Vec<(Column, Expr)>;

fn rewrite(plan: &Arc<Plan>, next_number: &mut usize, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
    let node = plan.try_map_inputs(&mut |input| rewrite(input, next_number, ids))?;
    match node {
        Plan::Aggregate { input, groups, aggregates }
            if aggregates.iter().any(|(_, call)| is_ordered(call)) =>
        {
            split(input, groups, aggregates, next_number, ids)
        }
        other => Ok(Arc::new(other)),
    }
}

fn split(
    input: Arc<Plan>,
    groups: Groups,
    aggregates: Vec<(Column, AggregateCall)>,
    next_number: &mut usize,
    ids: &mut ColumnIds,
) -> Result<Arc<Plan>> {
    let columns: Vec<Column> =
        groups.iter().map(|(c, _)| c).chain(aggregates.iter().map(|(c, _)| c)).cloned().collect();
    let mut sets: Vec<Set> = vec![];
    for (column, mut call) in aggregates {
        let value = value_of(&mut call)?;
        let of_value = |set: &&mut Set| set.value == value;
        match sets.iter_mut().find(of_value) {
            Some(set) => set.calls.push((column, call)),
            None => sets.push(Set { value, calls: vec![(column, call)] }),
        }
    }
    let mut sets = sets.into_iter();
    let Some(first) = sets.next() else { return Err(Error::internal("an aggregation of nothing")) };
    if sets.len() == 0 {
        return first.aggregate(input, groups, ids);
    }
    let input = if is_scan(&input) {
        Input::Scanned(input)
    } else {
        *next_number += 1;
        Input::Shared(*next_number - 1, input)
    };
    let (own, renamed_groups, first) = input.read(&groups, first, ids);
    let mut joined = first.aggregate(own, renamed_groups, ids)?;
    for set in sets {
        let (own, renamed_groups, set) = input.read(&groups, set, ids);
        let renamed_groups: Groups =
            renamed_groups.into_iter().map(|(column, e)| (Column { id: ids.fresh(), ..column }, e)).collect();
        let key = |((left, _), (right, _)): (&(Column, Expr), &(Column, Expr))| JoinKey {
            left: left.to_expr(),
            right: right.to_expr(),
            null_safe: true,
        };
        let keys = groups.iter().zip(&renamed_groups).map(key).collect();
        let right = set.aggregate(own, renamed_groups, ids)?;
        joined = Arc::new(Plan::Join { kind: JoinKind::Inner, left: joined, right, keys, filters: vec![] });
    }
    let columns = columns.into_iter().map(|column| (column.clone(), column.to_expr())).collect();
    Ok(Arc::new(Plan::Project { input: joined, columns }))
}

/// What a call orders by, its filter made part of it, and whether its values count once each.
fn value_of(call: &mut AggregateCall) -> Result<Option<(Expr, bool)>> {
    if !is_ordered(call) {
        return Ok(None);
    }
    let filter = call.filter.take();
    let Some(value) = call.arguments.first_mut() else {
        return Err(Error::internal(format!("{} of nothing", call.function.name())));
    };
    if let Some(filter) = filter {
        *value = only_where(filter, value.clone());
    }
    Ok(Some((value.clone(), std::mem::take(&mut call.distinct))))
}

/// Whether reading it again gives the same rows and costs no more than reading a table.
fn is_scan(plan: &Plan) -> bool {
    let mut is_same = true;
    plan.for_each_expr(&mut |e| is_same &= is_deterministic(e));
    is_same
        && match plan {
            Plan::Scan { .. } | Plan::Values { .. } => true,
            Plan::Filter { input, .. } | Plan::Project { input, .. } => is_scan(input),
            Plan::Aggregate { .. }
            | Plan::Sort { .. }
            | Plan::Join { .. }
            | Plan::UnionAll { .. }
            | Plan::Repeat { .. }
            | Plan::LimitPer { .. }
            | Plan::Shared { .. }
            | Plan::Limit { .. } => false,
        }
}

impl Input {
    /// The input once more, with what is computed over it in its terms.
    fn read(&self, groups: &Groups, set: Set, ids: &mut ColumnIds) -> (Arc<Plan>, Groups, Set) {
        let (plan, renamed) = match self {
            Self::Scanned(plan) => copy(plan, ids),
            Self::Shared(number, plan) => {
                let columns: Vec<Column> = plan.output_columns();
                let fresh = |column: &Column| Column { id: ids.fresh(), ..column.clone() };
                let new: Vec<Column> = columns.iter().map(fresh).collect();
                let renamed = columns.iter().map(|column| column.id).zip(new.iter().cloned()).collect();
                let (number, plan) = (*number, Arc::clone(plan));
                (Arc::new(Plan::Shared { number, plan, columns: new }), renamed)
            }
        };
        let rename = |e: Expr| with_new_ids(e, &renamed);
        let groups = groups.iter().map(|(column, e)| (column.clone(), rename(e.clone()))).collect();
        let Set { value, calls } = set;
        let value = value.map(|(value, is_distinct)| (rename(value), is_distinct));
        let call = |(column, call): (Column, AggregateCall)| {
            let arguments = call.arguments.into_iter().map(rename).collect();
            (column, AggregateCall { arguments, filter: call.filter.map(rename), ..call })
        };
        (plan, groups, Set { value, calls: calls.into_iter().map(call).collect() })
    }
}

impl Set {
    /// The aggregation of the set.
    fn aggregate(self, input: Arc<Plan>, groups: Groups, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let Self { value, mut calls } = self;
        match value {
            None => {
                let plain = Plan::Aggregate { input, groups, aggregates: calls };
                DistinctAggregates.apply(&Arc::new(plain), ids)
            }
            Some((_, false)) => Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls })),
            Some((value, true)) => {
                let field = Field {
                    name: "value".into(),
                    data_type: value.data_type(),
                    nullable: value.is_nullable(),
                };
                let column = Column { id: ids.fresh(), field };
                for (_, call) in &mut calls {
                    call.arguments[0] = column.to_expr();
                }
                let over = groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
                let keys = groups.into_iter().chain([(column, value)]).collect();
                let once = Arc::new(Plan::Aggregate { input, groups: keys, aggregates: vec![] });
                Ok(Arc::new(Plan::Aggregate { input: once, groups: over, aggregates: calls }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn one_value_takes_one_aggregation() {
        assert_rewrites(
            &OrderedAggregates,
            "select median(a), quantile_disc(a, 0.9) from t group by c",
            "Project: median(a), quantile_disc(a, 0.9)
  Aggregate: groups=[c] aggregates=[median(a), quantile_disc(a, 0.9)]
    Scan t: [a, b, c, d]
",
        );
    }

    #[test]
    fn several_values_and_plain_aggregates_are_joined_by_group() {
        assert_rewrites(
            &OrderedAggregates,
            "select median(a), sum(b), mode(b) filter (where a > 1), median(distinct a) from t group by c",
            r#"Project: median(a), sum(b), "mode"(b) FILTER (WHERE (a > 1)), median(DISTINCT a)
  Project: c#2, median(a), sum(b), "mode"(b) FILTER (WHERE (a > 1)), median(DISTINCT a)
    InnerJoin: c#2 <=> c#26
      InnerJoin: c#2 <=> c#21
        InnerJoin: c#2 <=> c#16
          Aggregate: groups=[c#10 AS c#2] aggregates=[median(a#8) AS median(a)]
            Scan t: [a#8, b#9, c#10, d#11]
          Aggregate: groups=[c#14 AS c#16] aggregates=[sum(b#13) AS sum(b)]
            Scan t: [a#12, b#13, c#14, d#15]
        Aggregate: groups=[c#19 AS c#21] aggregates=[mode(CASE WHEN (a#17 > 1) THEN b#18 END) AS "mode"(b) FILTER (WHERE (a > 1))]
          Scan t: [a#17, b#18, c#19, d#20]
      Aggregate: groups=[c#26] aggregates=[median(value) AS median(DISTINCT a)]
        Aggregate: groups=[c#24 AS c#26, a#22 AS value] aggregates=[]
          Scan t: [a#22, b#23, c#24, d#25]
"#,
        );
    }

    #[test]
    fn what_is_no_scan_is_shared() {
        assert_rewrites(
            &OrderedAggregates,
            "select median(a), count(*) from (select a from t limit 3) s",
            "Project: median(a), count_star()
  Project: median(a), count_star()
    InnerJoin
      Aggregate: groups=[] aggregates=[median(a#6) AS median(a)]
        Shared 0: [a#6]
          Limit: 3
            Project: a#0
              Scan t: [a#0, b, c, d]
      Aggregate: groups=[] aggregates=[count(*) AS count_star()]
        Shared 0: [a#7]
          Limit: 3
            Project: a#0
              Scan t: [a#0, b, c, d]
",
        );
    }
}
