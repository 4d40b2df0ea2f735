//! An aggregation of rows that are joined with it is computed from the joined rows: these are made once, kept, and read by
//! both.
//!
//! `part ⋈ partsupp ⋈ (select ps_partkey, min(ps_supplycost) from partsupp group by ps_partkey)`, which is what is left
//! of a correlated subquery, asks for groups of `partsupp` that only its rows with a part belong to. If whatever the
//! aggregation reads is joined around it, too, and under the same conditions, then the joined rows of a group are all its
//! rows, each as often as there are rows of the other tables that go with the group. No aggregate is different for that
//! which does not count or add up repetitions (Zuzarte et al., "WinMagic: Subquery Elimination Using Window
//! Aggregation", SIGMOD 2003, where a window takes the place of the second reader).
//!
//! The rule runs while tables have no conditions of their own yet, so that all conditions can be compared, and before
//! averages are taken apart. Rules that run later leave what is shared as it is: it is given them here. It pays where keeping the joined rows does (see [`super::shared_subplans`]).

use super::copy::{Renamed, with_new_ids};
use super::inner_joins::InnerJoins;
use super::shared_subplans::{first_free_number, may_be_shared};
use super::substitute::{is_deterministic, produced_by, reads};
use super::{RULES, Rule};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::collections::HashSet;
use std::sync::Arc;

/// Joins of more inputs are not looked through.
const MOST_INPUTS: usize = 32;
/// Tables an aggregation reads, of which each may stand for several of the same name.
const MOST_TABLES: usize = 8;

/// See the module.
pub(super) struct JoinedAggregates;

impl Rule for JoinedAggregates {
    fn name(&self) -> &'static str {
        "joined_aggregates"
    }

    fn shares(&self) -> bool {
        true
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        if first_free_number(plan) > 0 {
            return Ok(Arc::clone(plan));
        }
        let wanted = plan.columns().into_iter().map(|column| column.id).collect();
        Rewriter { number: 0, ids }.rewrite(plan, &wanted)
    }
}

struct Rewriter<'a> {
    /// Of the next shared plan.
    number: usize,
    ids: &'a mut ColumnIds,
}

impl Rewriter<'_> {
    /// `plan`, of whose columns those `wanted` are read above it.
    fn rewrite(&mut self, plan: &Arc<Plan>, wanted: &HashSet<ColumnId>) -> Result<Arc<Plan>> {
        let is_region =
            matches!(plan.as_ref(), Plan::Join { kind: JoinKind::Inner, .. } | Plan::Filter { .. });
        if is_region {
            let region = InnerJoins::of(plan);
            if (2..=MOST_INPUTS).contains(&region.inputs.len())
                && region.conjuncts.iter().all(is_deterministic)
            {
                for at in 0..region.inputs.len() {
                    if let Some(rewritten) = self.share(&region, at, wanted)? {
                        return Ok(rewritten);
                    }
                }
            }
        }
        let mut wanted = wanted.clone();
        plan.for_each_expr(&mut |e| add_columns(e, &mut wanted));
        Ok(Arc::new(plan.try_map_inputs(&mut |input| self.rewrite(input, &wanted))?))
    }

    /// The region with the aggregation at `at` computed from what it is joined with, if it can be.
    fn share(
        &mut self,
        region: &InnerJoins,
        at: usize,
        wanted: &HashSet<ColumnId>,
    ) -> Result<Option<Arc<Plan>>> {
        let Some(asked) = Asked::of(&region.inputs[at]) else { return Ok(None) };
        let is_own = produced_by(&region.inputs[at]);
        let (about, around): (Vec<Expr>, Vec<Expr>) =
            region.conjuncts.iter().cloned().partition(|e| reads(e, &is_own));
        let others: Vec<Arc<Plan>> = region
            .inputs
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .map(|(_, p)| Arc::clone(p))
            .collect();
        let Some(mapping) = asked.mapping(&others, &around, &about) else { return Ok(None) };

        // What is read of the joined rows, by whom they are for and by the aggregation.
        let mut read = wanted.clone();
        about.iter().for_each(|e| add_columns(e, &mut read));
        asked.for_each_expr(&mut |e| add_columns(&with_new_ids(e.clone(), &mapping), &mut read));
        let joined = InnerJoins { inputs: others, conjuncts: around }.into_plan();
        let Some(joined) = joined else { return Ok(None) };
        let kept = joined.output_columns().into_iter().filter(|column| read.contains(&column.id));
        let columns = kept.map(|column| (column.clone(), column.to_expr())).collect();
        let mut joined = Arc::new(Plan::Project { input: joined, columns });
        let later = RULES.iter().skip_while(|rule| rule.name() != JoinedAggregates.name()).skip(1);
        for rule in later.filter(|rule| !rule.shares()) {
            joined = rule.apply(&joined, self.ids)?;
        }
        let mut work = &joined;
        while let Plan::Project { input, .. } = work.as_ref() {
            work = input;
        }
        if !may_be_shared(work) {
            return Ok(None);
        }
        let columns = joined.output_columns();
        let mut again = Renamed::new();
        let copies = columns.iter().map(|column| {
            let copy = Column { id: self.ids.fresh(), ..column.clone() };
            again.insert(column.id, copy.clone());
            copy
        });
        let copies = copies.collect();
        let number = self.number;
        self.number += 1;
        let shared = |columns| Arc::new(Plan::Shared { number, plan: Arc::clone(&joined), columns });
        let aggregation = asked.over(shared(copies), &|e| with_new_ids(with_new_ids(e, &mapping), &again));
        let inputs = vec![shared(columns), aggregation];
        Ok(InnerJoins { inputs, conjuncts: about }.into_plan())
    }
}

/// An aggregation that is joined, and what is done with its rows before.
struct Asked<'a> {
    /// From the outermost to the aggregation.
    above: Vec<&'a Plan>,
    input: InnerJoins,
    groups: &'a [(Column, Expr)],
    aggregates: &'a [(Column, AggregateCall)],
}

impl<'a> Asked<'a> {
    fn of(mut plan: &'a Arc<Plan>) -> Option<Self> {
        let mut above = Vec::new();
        loop {
            match plan.as_ref() {
                Plan::Project { input, columns } if columns.iter().all(|(_, e)| is_deterministic(e)) => {
                    above.push(plan.as_ref());
                    plan = input;
                }
                Plan::Aggregate { input, groups, aggregates } if !groups.is_empty() => {
                    let input = InnerJoins::of(input);
                    return (input.inputs.len() <= MOST_TABLES
                        && input.conjuncts.iter().all(is_deterministic)
                        && aggregates.iter().all(|(_, call)| call.arguments.iter().all(is_deterministic)))
                    .then_some(Self { above, input, groups, aggregates });
                }
                _ => return None,
            }
        }
    }

    fn for_each_expr(&self, f: &mut dyn FnMut(&Expr)) {
        self.groups.iter().for_each(|(_, e)| f(e));
        for (_, call) in self.aggregates {
            call.arguments.iter().chain(&call.filter).for_each(&mut *f);
        }
    }

    /// What the aggregation's columns are called in the tables `others`, joined where `around` is true, so that it can
    /// be computed from their rows; `about` are the conditions of the join with the aggregation.
    fn mapping(&self, others: &[Arc<Plan>], around: &[Expr], about: &[Expr]) -> Option<Renamed> {
        let mut taken = vec![false; others.len()];
        let mut mapping = Renamed::new();
        self.map_from(0, others, &mut taken, &mut mapping, &|mapping, taken| {
            self.is_all_of_groups(mapping, around, about)
                && (taken.iter().all(|taken| *taken)
                    || self.aggregates.iter().all(|(_, call)| ignores_repetition(call)))
        })
        .then_some(mapping)
    }

    /// Maps the tables from `next` on to some of `others` such that the result `is_right`.
    fn map_from(
        &self,
        next: usize,
        others: &[Arc<Plan>],
        taken: &mut [bool],
        mapping: &mut Renamed,
        is_right: &dyn Fn(&Renamed, &[bool]) -> bool,
    ) -> bool {
        let Some(table) = self.input.inputs.get(next) else { return is_right(mapping, taken) };
        for (at, other) in others.iter().enumerate() {
            let Some(columns) = (!taken[at]).then(|| same_table(table, other)).flatten() else { continue };
            let added: Vec<ColumnId> = columns.iter().map(|(id, _)| *id).collect();
            mapping.extend(columns);
            taken[at] = true;
            if self.map_from(next + 1, others, taken, mapping, is_right) {
                return true;
            }
            taken[at] = false;
            mapping.retain(|id, _| !added.contains(id));
        }
        false
    }

    /// Whether the rows of a group are, repetitions aside, the joined rows with its keys.
    fn is_all_of_groups(&self, mapping: &Renamed, around: &[Expr], about: &[Expr]) -> bool {
        let mapped: HashSet<ColumnId> = mapping.values().map(|column| column.id).collect();
        let conditions: Vec<Expr> =
            self.input.conjuncts.iter().map(|e| with_new_ids(e.clone(), mapping)).collect();
        let key = |expr: &Expr| match with_new_ids(expr.clone(), mapping) {
            Expr::Column { id, .. } => Some(id),
            _ => None,
        };
        let Some(keys) = self.groups.iter().map(|(_, e)| key(e)).collect::<Option<Vec<ColumnId>>>() else {
            return false;
        };
        // The same conditions on the mapped tables; to the others only the keys are tied.
        let are_conditions_met = conditions.iter().all(|e| around.iter().any(|other| is_equal(e, other)));
        let are_no_others = around.iter().all(|e| {
            let (mut inside, mut outside, mut only_keys) = (false, false, true);
            e.for_each_column(&mut |id| {
                let is_inside = mapped.contains(&id);
                inside |= is_inside;
                outside |= !is_inside;
                only_keys &= !is_inside || keys.contains(&id);
            });
            !inside
                || (outside && only_keys)
                || (!outside && conditions.iter().any(|known| is_equal(e, known)))
        });
        // Joined rows meet the group whose keys they have.
        let is_asked_for = |(group, key): (&(Column, Expr), &ColumnId)| {
            about.iter().filter_map(equality).any(|(left, right)| {
                let outer = match (left == group.0.id, right == group.0.id) {
                    (true, _) => right,
                    (_, true) => left,
                    (false, false) => return false,
                };
                are_equal(outer, *key, around)
            })
        };
        are_conditions_met && are_no_others && self.groups.iter().zip(&keys).all(is_asked_for)
    }

    /// The aggregation over `input`, in whose terms `map` puts its expressions.
    fn over(&self, input: Arc<Plan>, map: &dyn Fn(Expr) -> Expr) -> Arc<Plan> {
        let groups = self.groups.iter().map(|(column, e)| (column.clone(), map(e.clone()))).collect();
        let call = |call: &AggregateCall| AggregateCall {
            arguments: call.arguments.iter().cloned().map(map).collect(),
            filter: call.filter.clone().map(map),
            ..call.clone()
        };
        let aggregates =
            self.aggregates.iter().map(|(column, asked)| (column.clone(), call(asked))).collect();
        let mut plan = Arc::new(Plan::Aggregate { input, groups, aggregates });
        for node in self.above.iter().rev() {
            let Ok(mapped) = node.try_map_inputs::<std::convert::Infallible>(&mut |_| Ok(Arc::clone(&plan)));
            plan = Arc::new(mapped);
        }
        plan
    }
}

/// Whether an aggregate of rows is the same if each of them comes equally often more. A mean of floats may be off in its
/// last digits.
fn ignores_repetition(call: &AggregateCall) -> bool {
    match call.function.name() {
        "min" | "max" | "bool_and" | "bool_or" => true,
        "avg" => call.distinct || call.arguments.iter().all(|e| !e.data_type().is_float()),
        _ => call.distinct,
    }
}

/// What the columns of a scan are called in another of the same table, both of all rows.
fn same_table(table: &Plan, other: &Plan) -> Option<Vec<(ColumnId, Column)>> {
    match (table, other) {
        (
            Plan::Scan { provider, columns, filters, .. },
            Plan::Scan { provider: other, columns: other_columns, filters: other_filters, .. },
        ) if Arc::ptr_eq(provider, other) && filters.is_empty() && other_filters.is_empty() => {
            let same = |(column, index): &(Column, usize)| {
                let same = other_columns.iter().find(|(_, other)| other == index);
                same.map(|(other, _)| (column.id, other.clone()))
            };
            columns.iter().map(same).collect()
        }
        _ => None,
    }
}

fn add_columns(expr: &Expr, columns: &mut HashSet<ColumnId>) {
    expr.for_each_column(&mut |id| {
        columns.insert(id);
    });
}

/// The columns that a condition says are equal, if that is what it says.
fn equality(expr: &Expr) -> Option<(ColumnId, ColumnId)> {
    let Expr::Compare { op: CompareOp::Eq | CompareOp::IsNotDistinct, left, right } = expr else {
        return None;
    };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column { id: left, .. }, Expr::Column { id: right, .. }) => Some((*left, *right)),
        _ => None,
    }
}

/// Whether two columns are equal wherever `conjuncts` are true.
fn are_equal(a: ColumnId, b: ColumnId, conjuncts: &[Expr]) -> bool {
    let mut equal = HashSet::from([a]);
    let equalities: Vec<_> = conjuncts.iter().filter_map(equality).collect();
    loop {
        let known = equal.len();
        for (left, right) in &equalities {
            if equal.contains(left) || equal.contains(right) {
                equal.extend([*left, *right]);
            }
        }
        if equal.contains(&b) || equal.len() == known {
            return equal.contains(&b);
        }
    }
}

/// Whether two conditions say the same, equalities either way round.
fn is_equal(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (
            Expr::Compare { op: CompareOp::Eq, left, right },
            Expr::Compare { op: CompareOp::Eq, left: b_left, right: b_right },
        ) => (left == b_left && right == b_right) || (left == b_right && right == b_left),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeCatalog, FakeTable, bind_over, field, optimized, text};
    use crate::catalog::{ColumnStatistics, TableStatistics};
    use crate::data::DataType::{Int32, Utf8};
    use std::sync::Arc;

    /// `t(a, b, c)` with 100 rows for each row of `u(k, x, y)`.
    fn catalog() -> FakeCatalog {
        let table = |fields: Vec<_>, rows: u64| {
            let column =
                || ColumnStatistics { distinct_count: Some(rows.min(1000)), ..ColumnStatistics::default() };
            let columns = fields.iter().map(|_| column()).collect();
            Arc::new(FakeTable { fields, statistics: TableStatistics { rows: Some(rows), columns } })
        };
        let t = vec![field("a", Int32, true), field("b", Int32, true), field("c", Utf8, true)];
        let u = vec![field("k", Int32, true), field("x", Int32, true), field("y", Int32, true)];
        FakeCatalog(vec![("t", table(t, 100_000)), ("u", table(u, 1000))])
    }

    /// Asserts that the plan of each query reads so many shared plans.
    fn assert_shared(count: usize, queries: &[&str]) {
        for sql in queries {
            let text = text(&optimized(bind_over(&catalog(), sql)).expect("optimizes"));
            assert_eq!(text.matches("Shared ").count(), count, "{sql}\n{text}");
        }
    }

    #[test]
    fn a_group_is_compared_with_rows_that_were_joined_already() {
        let queries = [
            // One row of the other table may go with each group, or several.
            "select * from t, u where b = k and x = 3 and a = (select min(a) from t where b = k)",
            "select * from t, u where k = b and x = 3 and a < (select 0.2 * avg(a) from t where b = k)",
            // With conditions in common.
            "select * from t, u where b = k and x = 3 and c = 'q' and a = (select max(a) from t where c = 'q' and k = b)",
            // Nothing else is joined: nothing is repeated.
            "select * from t as o, u as p where o.b = k and x = 3 and a > (select sum(a) from t, u where b = k and x = 3 and b = o.b)",
        ];
        assert_shared(2, &queries);
    }

    #[test]
    fn groups_of_other_rows_are_made_of_those() {
        let queries = [
            // Fewer rows, other rows, other groups.
            "select * from t, u where b = k and x = 3 and c = 'q' and a = (select min(a) from t where b = k)",
            "select * from t, u where b = k and x = 3 and a = (select min(a) from t where b = k and c = 'q')",
            "select * from t, u where b = k and x = 3 and a = (select min(a) from t where b = x)",
            "select * from t, u where b = k and x = 3 and a < y and a = (select min(a) from t where b = k)",
            // As often as it is joined.
            "select * from t, u where b = k and x = 3 and a = (select count(*) from t where b = k)",
            "select * from t, u where b = k and x = 3 and a = (select sum(a) from t where b = k)",
        ];
        assert_shared(0, &queries);
    }
}
