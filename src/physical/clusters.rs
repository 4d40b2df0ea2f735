//! Which aggregations can let go of groups while rows are still coming: those of a table by a column it is clustered by.
//!
//! Owns: [`clustered`].
//!
//! Invariants:
//! 1. Between the scan that is asked for clusters and the aggregation there are only operators that pass batches on one by
//!    one, each of the cluster it came from.

use super::plan::{Node, PhysicalPlan};
use crate::data::{DataType, PhysicalType};
use crate::expr::{ColumnId, Expr};
use crate::scan::ScanRequest;
use std::sync::Arc;

/// With fewer groups it does not matter when they go.
const MANY_GROUPS: u64 = 64 << 10;

/// The plan `input` with batches in clusters of one of the `groups`, and which of them; `None` if that is not possible, or
/// not worth it for `estimated_groups` groups.
pub(super) fn clustered(
    input: &Arc<PhysicalPlan>,
    groups: &[Expr],
    estimated_groups: Option<u64>,
) -> Option<(Arc<PhysicalPlan>, usize)> {
    if estimated_groups.is_some_and(|groups| groups < MANY_GROUPS) {
        return None;
    }
    groups.iter().enumerate().find_map(|(at, group)| match group {
        Expr::Column { id, data_type, .. } if is_possible(data_type) => Some((clustered_by(input, *id)?, at)),
        _ => None,
    })
}

/// Whether a type's values are integers in their order.
fn is_possible(data_type: &DataType) -> bool {
    use PhysicalType as P;
    let is_narrow =
        matches!(data_type.physical(), P::I8 | P::I16 | P::I32 | P::I64 | P::U8 | P::U16 | P::U32);
    is_narrow && !matches!(data_type, DataType::Decimal { .. })
}

/// `plan` with batches in clusters of column `id`.
fn clustered_by(plan: &Arc<PhysicalPlan>, id: ColumnId) -> Option<Arc<PhysicalPlan>> {
    let node = match &plan.node {
        Node::Scan { provider, request, runtime_filters } => {
            let (_, column) = request.columns.iter().find(|(column, _)| *column == id)?;
            if !request.prunes || !provider.is_clustered_by(*column) {
                return None;
            }
            let request = ScanRequest { clustered_by: Some(id), ..request.clone() };
            Node::Scan { provider: Arc::clone(provider), request, runtime_filters: runtime_filters.clone() }
        }
        Node::Filter { input, conjuncts } => {
            Node::Filter { input: clustered_by(input, id)?, conjuncts: conjuncts.clone() }
        }
        Node::Project { input, expressions } => {
            let at = plan.layout.iter().position(|column| *column == id)?;
            let Expr::Column { id, .. } = &expressions[at] else { return None };
            Node::Project { input: clustered_by(input, *id)?, expressions: expressions.clone() }
        }
        Node::Values { .. }
        | Node::HashAggregate { .. }
        | Node::OrderedAggregate { .. }
        | Node::HashJoin { .. }
        | Node::SortMergeJoin { .. }
        | Node::UnionAll { .. }
        | Node::LimitPer { .. }
        | Node::Shared { .. }
        | Node::Repeat { .. }
        | Node::Sort { .. }
        | Node::Limit { .. } => return None,
    };
    Some(Arc::new(PhysicalPlan { node, ..PhysicalPlan::clone(plan) }))
}
