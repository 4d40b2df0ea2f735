//! Aggregates that take of a group's values in order, each value with an aggregation of its own.
//!
//! An aggregation sorts by one value. Where there are several, or other aggregates beside them, each has its own, over the
//! same input, and their rows are joined by group. The input is executed once, unless it is no more than a table that is
//! scanned. The rule runs when inputs have been optimized: nothing moves into what is shared.
//!
//! Where values come often, each is sorted once, with how often it comes: an aggregation below counts them. After the rule
//! every call has the value, the fraction and, if values are counted, the count as its arguments.

use super::Rule;
use super::cardinality::rows;
use super::copy::{copy, with_new_ids};
use super::distinct_aggregates::{DistinctAggregates, only_where};
use super::shared_subplans::first_free_number;
use super::substitute::is_deterministic;
use crate::data::{Field, Scalar};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::{self, AggregateCall, AggregateFunction, Evaluation, Ordered};
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

/// The fraction of a median; a mode has none, and any will do.
const MIDDLE: f64 = 0.5;
/// Values are counted where they come at least so often.
const WORTHWHILE_REPETITION: f64 = 2.0;

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
    let Evaluation::Ordered(kind) = call.function.evaluation() else { return Ok(None) };
    if call.distinct && kind == Ordered::Mode {
        // Every value comes once, and of several the least is taken.
        call.function = function("min")?;
        return Ok(None);
    }
    let filter = call.filter.take();
    let Some(value) = call.arguments.first_mut() else {
        return Err(Error::internal(format!("{} of nothing", call.function.name())));
    };
    if let Some(filter) = filter {
        *value = only_where(filter, value.clone());
    }
    let value = value.clone();
    if call.arguments.len() == 1 {
        call.arguments.push(Expr::Literal(Scalar::float(MIDDLE)));
    }
    Ok(Some((value, std::mem::take(&mut call.distinct))))
}

fn function(name: &str) -> Result<Arc<dyn AggregateFunction>> {
    functions::aggregate::find(name).ok_or_else(|| Error::internal(format!("the library has no {name}")))
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
            Some((value, is_distinct)) => {
                let are_counted = calls.iter().all(|(_, call)| call.arguments.len() > 2);
                if are_counted || !is_distinct && comes_once(&input, &groups, &value) {
                    return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls }));
                }
                let field = Field {
                    name: "value".into(),
                    data_type: value.data_type(),
                    nullable: value.is_nullable(),
                };
                let column = Column { id: ids.fresh(), field };
                let keys = groups.iter().cloned().chain([(column.clone(), value)]).collect();
                let counted = if is_distinct { None } else { Some(count(ids)?) };
                let aggregates = counted.iter().cloned().collect();
                let once = Arc::new(Plan::Aggregate { input: Arc::clone(&input), groups: keys, aggregates });
                let is_mode = |(_, call): &(Column, AggregateCall)| {
                    matches!(call.function.evaluation(), Evaluation::Ordered(Ordered::Mode))
                };
                let repeat_often = || match (rows(&input), rows(&once)) {
                    (Some(all), Some(once)) => once * WORTHWHILE_REPETITION <= all,
                    _ => false,
                };
                if !(is_distinct || calls.iter().any(is_mode) || repeat_often()) {
                    return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls }));
                }
                for (_, call) in &mut calls {
                    call.arguments[0] = column.to_expr();
                    call.arguments.extend(counted.iter().map(|(count, _)| count.to_expr()));
                }
                let over = groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
                Ok(Arc::new(Plan::Aggregate { input: once, groups: over, aggregates: calls }))
            }
        }
    }
}

/// Whether `value` is one of the columns that tell the rows of a group of `input` apart, and all of them but keys.
fn comes_once(input: &Plan, groups: &Groups, value: &Expr) -> bool {
    let Plan::Aggregate { groups: keys, .. } = input else { return false };
    let are_read = |(column, _): &(Column, Expr)| {
        let key = column.to_expr();
        key == *value || groups.iter().any(|(_, e)| *e == key)
    };
    keys.iter().all(are_read)
}

/// How many rows there are.
fn count(ids: &mut ColumnIds) -> Result<(Column, AggregateCall)> {
    let function = function("count")?;
    let (arguments, data_type) = function.signature(&[])?;
    debug_assert!(arguments.is_empty(), "of whole rows");
    let field = Field { name: "count".into(), data_type: data_type.clone(), nullable: false };
    let call = AggregateCall { function, arguments: vec![], distinct: false, filter: None, data_type };
    Ok((Column { id: ids.fresh(), field }, call))
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
  Aggregate: groups=[c] aggregates=[median(value, 0.5, count) AS median(a), quantile_disc(value, 0.9, count) AS quantile_disc(a, 0.9)]
    Aggregate: groups=[c, a AS value] aggregates=[count(*) AS count]
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
    InnerJoin: c#2 <=> c#30
      InnerJoin: c#2 <=> c#23
        InnerJoin: c#2 <=> c#18
          Aggregate: groups=[c#2] aggregates=[median(value#12, 0.5, count#13) AS median(a)]
            Aggregate: groups=[c#10 AS c#2, a#8 AS value#12] aggregates=[count(*) AS count#13]
              Scan t: [a#8, b#9, c#10, d#11]
          Aggregate: groups=[c#16 AS c#18] aggregates=[sum(b#15) AS sum(b)]
            Scan t: [a#14, b#15, c#16, d#17]
        Aggregate: groups=[c#23] aggregates=[mode(value#24, 0.5, count#25) AS "mode"(b) FILTER (WHERE (a > 1))]
          Aggregate: groups=[c#21 AS c#23, CASE WHEN (a#19 > 1) THEN b#20 END AS value#24] aggregates=[count(*) AS count#25]
            Scan t: [a#19, b#20, c#21, d#22]
      Aggregate: groups=[c#30] aggregates=[median(value#31, 0.5) AS median(DISTINCT a)]
        Aggregate: groups=[c#28 AS c#30, a#26 AS value#31] aggregates=[]
          Scan t: [a#26, b#27, c#28, d#29]
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
      Aggregate: groups=[] aggregates=[median(value, 0.5, count) AS median(a)]
        Aggregate: groups=[a#6 AS value] aggregates=[count(*) AS count]
          Shared 0: [a#6]
            Limit: 3
              Project: a#0
                Scan t: [a#0, b, c, d]
      Aggregate: groups=[] aggregates=[count(*) AS count_star()]
        Shared 0: [a#9]
          Limit: 3
            Project: a#0
              Scan t: [a#0, b, c, d]
",
        );
    }
}
