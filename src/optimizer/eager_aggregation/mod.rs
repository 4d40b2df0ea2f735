//! An aggregation over a join is begun below it, where it makes few rows of many before they are joined: rows of the side
//! that is aggregated are grouped by what the join and the aggregation ask of them, and the groups of groups that come out
//! of the join are put together (Yan and Larson, "Eager Aggregation and Lazy Aggregation", VLDB 1995).
//!
//! It pays where group keys are wide and of a table that is joined at last, as in sums of orders by all that is known of
//! their customers; and it lets the join hold the groups and go past the other side. Which side is which is found by trying:
//! every connected part of the joined relations that has all that is summed may be the one, and the rest must neither drop
//! many of its rows nor be asked for sums itself. Estimates decide, and without them nothing is done.

mod region;
#[cfg(test)]
mod tests;

use super::Rule;
use super::cardinality::rows;
use super::functional_dependencies::is_exact;
use super::partial_aggregates::{has_parts, ignores_repetition, put_together, with_outputs};
use super::substitute::{Definitions, is_deterministic};
use crate::data::{Field, PhysicalType};
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKey, Plan};
use region::Region;
use std::sync::Arc;

/// Of the rows that are aggregated, the most that may be left as groups below the join, where strings of the other side are
/// grouped by: to put them into groups costs more than anything else.
const MOST_GROUPS_LEFT: f64 = 0.75;
/// The same where there are none, so that what is saved are lookups of the join.
const MOST_NARROW_GROUPS_LEFT: f64 = 0.25;
/// How many rows there may be below the join for each that is left by it: others would be grouped in vain.
const MOST_ROWS_IN_VAIN: f64 = 1.2;
/// More relations are not tried in all their parts.
const MOST_RELATIONS: usize = 8;

/// See the module.
pub(super) struct EagerAggregation;

impl Rule for EagerAggregation {
    fn name(&self) -> &'static str {
        "eager_aggregation"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        if let Plan::Aggregate { input, groups, aggregates } = &node
            && let Some(lazy) = Aggregation::over_join(input, groups, aggregates)
            && let Some(eager) = lazy.begun_below(ids)?
        {
            // What was grouped below may be begun further below: of fewer relations each time.
            return self.apply(&eager, ids);
        }
        Ok(Arc::new(node))
    }
}

/// An aggregation over joined relations.
struct Aggregation {
    region: Region,
    groups: Vec<(Column, Expr)>,
    aggregates: Vec<(Column, AggregateCall)>,
    /// Rows that are aggregated.
    input_rows: f64,
}

/// What is asked of a part of the relations.
struct Part {
    /// Which relations, as bits.
    relations: u32,
    /// The relations joined.
    plan: Arc<Plan>,
    /// What its rows are grouped by.
    keys: Vec<Expr>,
}

impl Aggregation {
    /// That of these groups over `input`, if it may be begun below a join.
    fn over_join(
        input: &Arc<Plan>,
        groups: &[(Column, Expr)],
        aggregates: &[(Column, AggregateCall)],
    ) -> Option<Self> {
        if groups.is_empty() || aggregates.iter().any(|(_, call)| call.distinct || !has_parts(call)) {
            return None;
        }
        let (mut groups, mut aggregates) = (groups.to_vec(), aggregates.to_vec());
        let mut joined = input;
        if let Plan::Project { input, columns } = input.as_ref() {
            let definitions = Definitions::of(columns);
            let mut is_small = true;
            let mut defined = |expr: Expr| {
                is_small &= definitions.may_expand(&expr);
                definitions.apply(expr)
            };
            for (_, expr) in &mut groups {
                *expr = defined(expr.clone());
            }
            for (_, call) in &mut aggregates {
                call.arguments = call.arguments.iter().cloned().map(&mut defined).collect();
                call.filter = call.filter.take().map(&mut defined);
            }
            if !is_small {
                return None;
            }
            joined = input;
        }
        let region = Region::of(joined);
        let inputs = aggregates.iter().flat_map(|(_, call)| inputs_of(call));
        let mut exprs = groups.iter().map(|(_, expr)| expr).chain(inputs).chain(&region.conjuncts);
        if !(2..=MOST_RELATIONS).contains(&region.relations.len()) || !exprs.all(is_deterministic) {
            return None;
        }
        drop(exprs);
        Some(Self { input_rows: rows(joined)?, region, groups, aggregates })
    }

    /// The same with a part of it below the join; `None` if that does not pay.
    fn begun_below(&self, ids: &mut ColumnIds) -> Result<Option<Arc<Plan>>> {
        let mut best: Option<(f64, Part)> = None;
        let all = (1u32 << self.region.relations.len()) - 1;
        for relations in 1..all {
            let Some(part) = self.part(relations) else { continue };
            let Some(groups) = self.groups_left(&part) else { continue };
            if best.as_ref().is_none_or(|(least, _)| groups < *least) {
                best = Some((groups, part));
            }
        }
        match best {
            Some((_, part)) => self.with_part(&part, ids),
            None => Ok(None),
        }
    }

    /// The relations of a part, if all that is summed is of them, and none of what is not.
    fn part(&self, relations: u32) -> Option<Part> {
        let region = &self.region;
        if region.nulls_right && relations != region.missing() {
            return None;
        }
        let mut has_sums = false;
        for (_, call) in &self.aggregates {
            let of = region.relations_of(inputs_of(call));
            let (is_within, is_outside) = (of & !relations == 0, of & relations == 0);
            // What repetition does not change is computed on one side or the other.
            if !(is_within || is_outside && ignores_repetition(call)) {
                return None;
            }
            has_sums |= is_within && !ignores_repetition(call);
            // Of rows that an outer join adds only columns themselves are known to be null.
            let is_plain = |e: &Expr| matches!(e, Expr::Column { .. });
            let is_of_columns = of != 0 && call.filter.is_none() && call.arguments.iter().all(is_plain);
            if region.nulls_right && is_within && !is_of_columns && !(of == 0 && ignores_repetition(call)) {
                return None;
            }
        }
        if !has_sums {
            return None;
        }
        let mut keys = Keys { region, relations, exprs: Vec::new(), are_fit: true };
        let mut is_joined_by_key = false;
        for conjunct in &region.conjuncts {
            let of = region.relations_of([conjunct]);
            if of & relations == 0 || of & !relations == 0 {
                // One of the missing side alone would be taken for a filter of what is grouped.
                keys.are_fit &= of & relations & region.missing() == 0;
            } else if let Some(JoinKey { left, .. }) = region.key(conjunct, relations) {
                keys.add(&left);
                is_joined_by_key = true;
            } else {
                keys.add_columns(conjunct);
            }
        }
        for (_, expr) in &self.groups {
            match region.relations_of([expr]) {
                of if of & relations == 0 => {}
                // What an outer join makes of a missing row is for the expression above it.
                of if of & !relations == 0 && !region.nulls_right => keys.add(expr),
                _ => keys.add_columns(expr),
            }
        }
        if !is_joined_by_key || !keys.are_fit {
            return None;
        }
        Some(Part { relations, keys: keys.exprs, plan: region.join_within(relations)? })
    }

    /// How many groups come out of a part, if they are few enough.
    fn groups_left(&self, part: &Part) -> Option<f64> {
        let part_rows = rows(&part.plan)?;
        let mut ids = ColumnIds::default();
        let groups = part.keys.iter().map(|e| (named(e, &part.plan, &mut ids), e.clone())).collect();
        let grouped = Plan::Aggregate { input: Arc::clone(&part.plan), groups, aggregates: Vec::new() };
        let groups = rows(&grouped)?;
        let is_wide = self.groups.iter().any(|(_, group)| {
            let of = self.region.relations_of([group]);
            of & !part.relations != 0 && group.data_type().physical() == PhysicalType::View
        });
        let most_left = if is_wide { MOST_GROUPS_LEFT } else { MOST_NARROW_GROUPS_LEFT };
        let is_worth_it = part_rows <= MOST_ROWS_IN_VAIN * self.input_rows
            && groups <= most_left * part_rows.min(self.input_rows);
        is_worth_it.then_some(groups)
    }

    /// The plan with `part` grouped below the join.
    fn with_part(&self, part: &Part, ids: &mut ColumnIds) -> Result<Option<Arc<Plan>>> {
        let region = &self.region;
        let groups: Vec<(Column, Expr)> =
            part.keys.iter().map(|e| (named(e, &part.plan, ids), e.clone())).collect();
        let mut parts = Vec::new();
        let (mut totals, mut outputs) = (Vec::new(), Vec::new());
        let above = |column: &Column| match region.nulls_right {
            true => column.clone().into_nullable(),
            false => column.clone(),
        };
        let keys: Vec<(Expr, Expr)> =
            groups.iter().map(|(column, key)| (key.clone(), above(column).to_expr())).collect();
        // With nulls for rows there are not, an expression is not the key that was made of it below.
        let is_plain = |(key, _): &&(Expr, Expr)| matches!(key, Expr::Column { .. });
        let plain: Vec<(Expr, Expr)> = keys.iter().filter(is_plain).cloned().collect();
        let of_groups = if region.nulls_right { &plain } else { &keys };
        let regrouped = self.groups.iter().map(|(column, expr)| (column.clone(), lifted(expr, of_groups)));
        let regrouped: Vec<(Column, Expr)> = regrouped.collect();
        outputs.extend(regrouped.iter().map(|(column, _)| (column.clone(), column.to_expr())));
        for (column, call) in &self.aggregates {
            let of = region.relations_of(inputs_of(call));
            if of & part.relations == 0 && ignores_repetition(call) {
                totals.push((column.clone(), call.clone()));
                outputs.push((column.clone(), column.to_expr()));
                continue;
            }
            let field = Field { nullable: true, ..column.field.clone() };
            let partial = Column { id: ids.fresh(), field };
            let (total, value) = put_together(call, column, &above(&partial), region.nulls_right, ids)?;
            parts.push((partial, call.clone()));
            totals.push(total);
            outputs.push((column.clone(), value));
        }
        let input = Arc::clone(&part.plan);
        let grouped = Arc::new(Plan::Aggregate { input, groups, aggregates: parts });
        let joined = region.join_with(grouped, part.relations, &|expr| lifted(expr, &keys));
        let Some(joined) = joined else { return Ok(None) };
        let aggregate = Plan::Aggregate { input: joined, groups: regrouped, aggregates: totals };
        Ok(Some(Arc::new(with_outputs(aggregate, outputs))))
    }
}

/// What the rows of a part are grouped by, as it is found out.
struct Keys<'a> {
    region: &'a Region,
    relations: u32,
    exprs: Vec<Expr>,
    /// Whether it is known how many values each has, and none is asked for otherwise than it can be.
    are_fit: bool,
}

impl Keys<'_> {
    fn add(&mut self, expr: &Expr) {
        if !self.exprs.contains(expr) {
            self.are_fit &= self.region.is_counted(expr);
            self.exprs.push(expr.clone());
        }
    }

    /// The columns of the part that an expression above the join reads. Of values that are equal there is one for each
    /// group, and only a column by itself does not tell them apart, as text does zeros of both signs.
    fn add_columns(&mut self, expr: &Expr) {
        let (region, relations) = (self.region, self.relations);
        let is_column = matches!(expr, Expr::Column { .. });
        region.for_each_column_within(expr, relations, &mut |column| {
            self.are_fit &= is_column || is_exact(&column.data_type());
            self.add(column);
        });
    }
}

/// What a call reads.
fn inputs_of(call: &AggregateCall) -> impl Iterator<Item = &Expr> {
    call.arguments.iter().chain(&call.filter)
}

/// `expr` with each of the keys in it replaced by what it is called above.
fn lifted(expr: &Expr, keys: &[(Expr, Expr)]) -> Expr {
    match keys.iter().find(|(key, _)| key == expr) {
        Some((_, above)) => above.clone(),
        None => expr.clone().map_children(&mut |child| lifted(&child, keys)),
    }
}

/// A new column for the values of `expr` over `plan`.
fn named(expr: &Expr, plan: &Plan, ids: &mut ColumnIds) -> Column {
    let columns = plan.columns();
    let own = columns.iter().find(|column| matches!(expr, Expr::Column { id, .. } if *id == column.id));
    let name = own.map_or_else(|| "key".into(), |column| column.field.name.clone());
    let field = Field { name, data_type: expr.data_type(), nullable: expr.is_nullable() };
    Column { id: ids.fresh(), field }
}
