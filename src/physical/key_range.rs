//! Between which values the keys of a join lie, as far as statistics of tables tell.

use super::plan::{Node, PhysicalPlan};
use crate::catalog::TableProvider;
use crate::expr::{ColumnId, Expr};
use crate::operators::HashJoinKey;
use std::ops::RangeInclusive;

/// Least and greatest value of a join's only key on its `build` side, if it is an integer column of a table.
pub(super) fn build_key_range(build: &PhysicalPlan, keys: &[HashJoinKey]) -> Option<RangeInclusive<i64>> {
    match keys {
        [HashJoinKey { build: Expr::Column { id, .. }, .. }] => range_of(build, *id),
        _ => None,
    }
}

/// Of the table's column that column `id` of `plan` is.
fn range_of(plan: &PhysicalPlan, id: ColumnId) -> Option<RangeInclusive<i64>> {
    let computed = |expressions: &[Expr], input: &PhysicalPlan| {
        let at = plan.layout.iter().position(|column| *column == id)?;
        match expressions.get(at)? {
            Expr::Column { id, .. } => range_of(input, *id),
            _ => None,
        }
    };
    match &plan.node {
        Node::Scan { provider, request, .. } => {
            let (_, at) = request.columns.iter().find(|(column, _)| *column == id)?;
            TableProvider::statistics(&**provider).columns.get(*at)?.int_range()
        }
        Node::Project { input, expressions } => computed(expressions, input),
        Node::HashAggregate { input, groups, .. } | Node::OrderedAggregate { input, groups, .. } => {
            computed(groups, input)
        }
        Node::Filter { .. }
        | Node::HashJoin { .. }
        | Node::SortMergeJoin { .. }
        | Node::LimitPer { .. }
        | Node::Repeat { .. }
        | Node::Sort { .. }
        | Node::Limit { .. } => {
            let input = plan.inputs().into_iter().find(|input| input.layout.contains(&id))?;
            range_of(input, id)
        }
        Node::Values { .. } | Node::UnionAll { .. } | Node::Shared { .. } => None,
    }
}
