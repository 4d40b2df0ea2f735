//! Aggregates that take of a group's values in order, each value with an aggregation of its own.
//!
//! An aggregation sorts by one value. Where there are several, or other aggregates beside them, each has its own, over the
//! same input, and their rows are joined by group. The input is executed once, unless it is no more than a table that is
//! scanned. The rule runs when inputs have been optimized: nothing moves into what is shared, of which only the columns are
//! kept that are read. It reaches into what other rules share.
//!
//! Where values come often, each is sorted once, with how often it comes: an aggregation below counts them. After the rule
//! every call has the value, the fraction and, if values are counted, the count as its arguments.

use super::Rule;
use super::cardinality::rows;
use super::copy::{copy, with_new_ids};
use super::distinct_aggregates::{DistinctAggregates, only_where};
use super::projection_pushdown::{ProjectionPushdown, exactly};
use super::shared_subplans::{first_free_number, is_same};
use super::substitute::is_deterministic;
use crate::data::Field;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::functions::aggregate::built_in;
use crate::functions::{AggregateCall, Ordered, OrderedArguments};
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use std::collections::{HashMap, HashSet};
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
        let mut is_asked = false;
        plan.for_each_node(&mut |node| {
            if let Plan::Aggregate { aggregates, .. } = node {
                is_asked |= aggregates.iter().any(|(_, call)| call.is_ordered());
            }
        });
        if !is_asked {
            return Ok(Arc::clone(plan));
        }
        // What nobody reads would be an aggregation of its own.
        let plan = ProjectionPushdown.apply(plan, ids)?;
        let mut rewrite =
            Rewrite { next_number: first_free_number(&plan), shared: HashMap::new(), inputs: Vec::new() };
        let plan = rewrite.apply(&plan, ids)?;
        ProjectionPushdown.apply(&plan, ids)
    }
}

/// Values are counted where they come at least so often.
const WORTHWHILE_REPETITION: f64 = 2.0;

/// The rewriting of a plan.
struct Rewrite {
    /// Of the next shared input.
    next_number: usize,
    /// Shared plans by their numbers, rewritten.
    shared: HashMap<usize, Arc<Plan>>,
    /// Inputs that were shared, with columns numbered from 0, and their numbers.
    inputs: Vec<(Arc<Plan>, usize)>,
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

impl Rewrite {
    fn apply(&mut self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        if let Plan::Shared { number, plan, columns } = plan.as_ref() {
            let done = match self.shared.get(number) {
                Some(done) => Arc::clone(done),
                None => {
                    let done = self.apply(plan, ids)?;
                    self.shared.insert(*number, Arc::clone(&done));
                    done
                }
            };
            return Ok(Arc::new(Plan::Shared { number: *number, plan: done, columns: columns.clone() }));
        }
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        match node {
            Plan::Aggregate { input, groups, aggregates }
                if aggregates.iter().any(|(_, call)| call.is_ordered()) =>
            {
                split(input, groups, aggregates, self, ids)
            }
            other => Ok(Arc::new(other)),
        }
    }

    /// How `sets` over `input` read it.
    fn input_of(&mut self, input: Arc<Plan>, groups: &Groups, sets: &[Set]) -> Input {
        if is_scan(&input) {
            return Input::Scanned(input);
        }
        let mut read = HashSet::new();
        let mut note = |e: &Expr| {
            e.for_each_column(&mut |id| {
                read.insert(id);
            });
        };
        groups.iter().for_each(|(_, e)| note(e));
        for (_, call) in sets.iter().flat_map(|set| &set.calls) {
            call.arguments.iter().chain(&call.filter).for_each(&mut note);
        }
        let columns: Vec<Column> =
            input.output_columns().into_iter().filter(|column| read.contains(&column.id)).collect();
        let input = exactly(input, &columns);
        let (canonical, _) = copy(&input, &mut ColumnIds::default());
        // Rows of another input are the same only if making them again would make the same ones.
        let known = self.inputs.iter().find(|(known, _)| is_same(known, &canonical));
        if let Some((_, number)) = known.filter(|_| always_gives_the_same(&input)) {
            return Input::Shared(*number, input);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.inputs.push((canonical, number));
        Input::Shared(number, input)
    }
}

/// Whether no expression of it is volatile.
fn always_gives_the_same(plan: &Plan) -> bool {
    let mut is_same = true;
    plan.for_each_node(&mut |node| node.for_each_expr(&mut |e| is_same &= is_deterministic(e)));
    is_same
}

fn split(
    input: Arc<Plan>,
    groups: Groups,
    aggregates: Vec<(Column, AggregateCall)>,
    rewrite: &mut Rewrite,
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
    if sets.len() == 1
        && let Some(only) = sets.pop()
    {
        return only.aggregate(input, groups, ids);
    }
    let input = rewrite.input_of(input, &groups, &sets);
    let mut sets = sets.into_iter();
    let Some(first) = sets.next() else { return Err(Error::internal("an aggregation of nothing")) };
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
    let Some(OrderedArguments { kind, value, .. }) = call.ordered() else { return Ok(None) };
    if call.distinct && kind == Ordered::Mode {
        // Every value comes once, and of several the least is taken.
        call.function = built_in("min")?;
        return Ok(None);
    }
    let value = value.clone();
    let value = match call.filter.take() {
        Some(filter) => only_where(filter, value),
        None => value,
    };
    call.arguments[0] = value.clone();
    Ok(Some((value, std::mem::take(&mut call.distinct))))
}

/// Whether reading it again gives the same rows and costs no more than reading a table.
fn is_scan(plan: &Plan) -> bool {
    let is_scan = match plan {
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
    };
    is_scan && always_gives_the_same(plan)
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
        let Self { value, calls } = self;
        match value {
            None => {
                let plain = Plan::Aggregate { input, groups, aggregates: calls };
                DistinctAggregates.apply(&Arc::new(plain), ids)
            }
            Some((value, is_distinct)) => in_order(input, groups, (value, is_distinct), calls, ids),
        }
    }
}

/// The aggregation of calls about one value, which are over its distinct values, or over all of them.
fn in_order(
    input: Arc<Plan>,
    groups: Groups,
    (value, is_distinct): (Expr, bool),
    calls: Vec<(Column, AggregateCall)>,
    ids: &mut ColumnIds,
) -> Result<Arc<Plan>> {
    let any = |is: &dyn Fn(&OrderedArguments<'_>) -> bool| {
        calls.iter().filter_map(|(_, call)| call.ordered()).any(|arguments| is(&arguments))
    };
    let is_counted = any(&|arguments| arguments.count.is_some());
    if is_counted || !is_distinct && comes_once(&input, &groups, &value) {
        return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls }));
    }
    let field = Field { name: "value".into(), data_type: value.data_type(), nullable: value.is_nullable() };
    let column = Column { id: ids.fresh(), field };
    let keys = groups.iter().cloned().chain([(column.clone(), value)]).collect();
    let counted = if is_distinct { None } else { Some(count(ids)?) };
    let aggregates = counted.iter().cloned().collect();
    let once = Arc::new(Plan::Aggregate { input: Arc::clone(&input), groups: keys, aggregates });
    let repeat_often = || match (rows(&input), rows(&once)) {
        (Some(all), Some(once)) => once * WORTHWHILE_REPETITION <= all,
        _ => false,
    };
    if !(is_distinct || any(&|arguments| arguments.kind == Ordered::Mode) || repeat_often()) {
        return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates: calls }));
    }
    let over_counted = |(result, call): (Column, AggregateCall)| {
        let count = counted.as_ref().map(|(count, _)| count.to_expr());
        (result, call.over_counted(column.to_expr(), count))
    };
    let calls = calls.into_iter().map(over_counted).collect();
    let over = groups.iter().map(|(column, _)| (column.clone(), column.to_expr())).collect();
    Ok(Arc::new(Plan::Aggregate { input: once, groups: over, aggregates: calls }))
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
    let call = AggregateCall::count_rows()?;
    let field = Field { name: "count".into(), data_type: call.data_type.clone(), nullable: false };
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
      Scan t: [a, c]
",
        );
    }

    #[test]
    fn several_values_and_plain_aggregates_are_joined_by_group() {
        assert_rewrites(
            &OrderedAggregates,
            "select median(a), sum(b), mode(b) filter (where a > 1), median(distinct a) from t group by c",
            r#"Project: median(a), sum(b), "mode"(b) FILTER (WHERE (a > 1)), median(DISTINCT a)
  InnerJoin: c#2 <=> c#26
    Project: c#2, median(a), sum(b), "mode"(b) FILTER (WHERE (a > 1))
      InnerJoin: c#2 <=> c#20
        Project: c#2, median(a), sum(b)
          InnerJoin: c#2 <=> c#16
            Aggregate: groups=[c#2] aggregates=[median(value#11, 0.5, count#12) AS median(a)]
              Aggregate: groups=[c#10 AS c#2, a#8 AS value#11] aggregates=[count(*) AS count#12]
                Scan t: [a#8, c#10]
            Aggregate: groups=[c#15 AS c#16] aggregates=[sum(b#14) AS sum(b)]
              Scan t: [b#14, c#15]
        Aggregate: groups=[c#20] aggregates=[mode(value#21, 0.5, count#22) AS "mode"(b) FILTER (WHERE (a > 1))]
          Aggregate: groups=[c#19 AS c#20, CASE WHEN (a#17 > 1) THEN b#18 END AS value#21] aggregates=[count(*) AS count#22]
            Scan t: [a#17, b#18, c#19]
    Aggregate: groups=[c#26] aggregates=[median(value#27, 0.5) AS median(DISTINCT a)]
      Aggregate: groups=[c#25 AS c#26, a#23 AS value#27] aggregates=[]
        Scan t: [a#23, c#25]
"#,
        );
    }

    #[test]
    fn what_is_no_scan_is_shared() {
        assert_rewrites(
            &OrderedAggregates,
            "select median(a), count(*) from (select a from t limit 3) s",
            "InnerJoin
  Aggregate: groups=[] aggregates=[median(value, 0.5, count) AS median(a)]
    Aggregate: groups=[a#6 AS value] aggregates=[count(*) AS count]
      Shared 0: [a#6]
        Limit: 3
          Scan t: [a#0]
  Aggregate: groups=[] aggregates=[count(*) AS count_star()]
    Shared 0: [a#9]
      Limit: 3
        Scan t: [a#0]
",
        );
    }
}
