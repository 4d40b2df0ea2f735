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
use super::cardinality::{distinct, rows};
use super::partial_aggregates::{has_parts, put_together};
use super::substitute::{Definitions, inline, is_deterministic};
use crate::data::{Field, PhysicalType};
use crate::error::Result;
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use region::{Condition, Region};
use std::collections::HashMap;
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
        let region = Region::of(joined)?;
        let is_stable = groups.iter().all(|(_, expr)| is_deterministic(expr))
            && aggregates.iter().flat_map(|(_, call)| inputs_of(call)).all(is_deterministic)
            && region.conditions.iter().flat_map(Condition::exprs).all(is_deterministic);
        let may_be_tried = (2..=MOST_RELATIONS).contains(&region.relations.len()) && is_stable;
        let input_rows = rows(joined)?;
        may_be_tried.then_some(Self { region, groups, aggregates, input_rows })
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
        if region.nulls_right && relations != region.right() {
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
        let mut keys: Vec<Expr> = Vec::new();
        let mut add = |expr: &Expr| {
            if !keys.contains(expr) {
                keys.push(expr.clone());
            }
        };
        // Zeros of both signs are one group; an expression above may tell them apart.
        let mut is_exact = true;
        let columns_of = |expr: &Expr, is_exact: &mut bool, add: &mut dyn FnMut(&Expr)| {
            let is_column = matches!(expr, Expr::Column { .. });
            region.columns_within(expr, relations, &mut |column| {
                *is_exact &= is_column || !column.data_type().is_float();
                add(column);
            });
        };
        let mut is_joined_by_key = false;
        for condition in &region.conditions {
            let of = region.relations_of(condition.exprs());
            if of & relations == 0 || of & !relations == 0 {
                // One of the missing side alone would be taken for a filter of what is grouped.
                if region.nulls_right && of & relations != 0 {
                    return None;
                }
                continue;
            }
            match condition {
                Condition::Key(JoinKey { left, right, .. }) => {
                    let sides = [left, right].map(|e| region.relations_of([e]));
                    let within = sides.iter().position(|side| *side != 0 && side & !relations == 0)?;
                    if sides[1 - within] & relations != 0 {
                        return None;
                    }
                    add([left, right][within]);
                    is_joined_by_key = true;
                }
                Condition::Filter(expr) => columns_of(expr, &mut is_exact, &mut add),
            }
        }
        for (_, expr) in &self.groups {
            match region.relations_of([expr]) {
                of if of & relations == 0 => {}
                // What an outer join makes of a missing row is for the expression above it.
                of if of & !relations == 0 && !region.nulls_right => add(expr),
                _ => columns_of(expr, &mut is_exact, &mut add),
            }
        }
        let plan = if is_joined_by_key && is_exact { region.join_within(relations) } else { None };
        Some(Part { relations, plan: plan?, keys })
    }

    /// How many groups come out of a part, if that is known and they are few enough.
    fn groups_left(&self, part: &Part) -> Option<f64> {
        let part_rows = rows(&part.plan)?;
        if !part.keys.iter().all(|key| distinct(key, &part.plan).is_some()) {
            return None;
        }
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
        // What of the part is asked for above it: keys by themselves or as parts of larger expressions.
        let columns = groups.iter().filter_map(|(column, expr)| match expr {
            Expr::Column { id, .. } => Some((*id, above(column).to_expr())),
            _ => None,
        });
        let columns: HashMap<ColumnId, Expr> = columns.collect();
        let lifted = |expr: &Expr| match groups.iter().find(|(_, key)| key == expr) {
            Some((column, _)) => above(column).to_expr(),
            None => inline(expr.clone(), &columns),
        };
        // With nulls for rows there are not, an expression is not the key that was made of it below.
        let regrouped = self.groups.iter().map(|(column, expr)| match region.nulls_right {
            true => (column.clone(), inline(expr.clone(), &columns)),
            false => (column.clone(), lifted(expr)),
        });
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
        let grouped = Arc::new(Plan::Aggregate { input, groups: groups.clone(), aggregates: parts });
        let Some(joined) = region.join_with(grouped, part.relations, &lifted) else { return Ok(None) };
        let aggregate = Arc::new(Plan::Aggregate { input: joined, groups: regrouped, aggregates: totals });
        let is_as_asked = outputs.iter().all(|(column, e)| *e == column.to_expr());
        Ok(Some(if is_as_asked {
            aggregate
        } else {
            Arc::new(Plan::Project { input: aggregate, columns: outputs })
        }))
    }
}

/// What a call reads.
fn inputs_of(call: &AggregateCall) -> impl Iterator<Item = &Expr> {
    call.arguments.iter().chain(&call.filter)
}

/// Whether rows that come several times change nothing.
fn ignores_repetition(call: &AggregateCall) -> bool {
    matches!(call.function.name(), "min" | "max" | "bool_and" | "bool_or" | "any_value")
}

/// A new column for the values of `expr` over `plan`.
fn named(expr: &Expr, plan: &Plan, ids: &mut ColumnIds) -> Column {
    let columns = plan.columns();
    let own = columns.iter().find(|column| matches!(expr, Expr::Column { id, .. } if *id == column.id));
    let name = own.map_or_else(|| "key".into(), |column| column.field.name.clone());
    let field = Field { name, data_type: expr.data_type(), nullable: expr.is_nullable() };
    Column { id: ids.fresh(), field }
}

/// The kind of join whose right side is aggregated, where nulls stand for rows there are not.
const OUTER: JoinKind = JoinKind::Left;
