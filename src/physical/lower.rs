//! Logical plans to physical ones: one function per logical node, where its operator is chosen.

use super::clusters::clustered;
use super::merge_joins::{JoinPolicy, choose};
use super::ordered_aggregates::ordered_aggregate;
use super::plan::{Node, PhysicalPlan};
use crate::data::PhysicalType;
use crate::error::{Error, Result};
use crate::expr::{ColumnId, Expr};
use crate::logical::{Column, JoinKey, JoinKind, Plan, SortKey};
use crate::operators::{HashJoinKey, HashJoinKind};
use crate::scan::{ScanProvider, ScanRequest};
use std::sync::Arc;

/// Finds what a scan of a table name reads. The same snapshot the query was bound to.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str) -> Option<Arc<dyn ScanProvider>>;

/// About how many rows a plan produces, if anything is known of it.
pub(crate) type Estimate<'a> = &'a dyn Fn(&Plan) -> Option<u64>;

/// About how many values an expression takes in the rows of a plan, if anything is known of it.
pub(crate) type EstimateDistinct<'a> = &'a dyn Fn(&Expr, &Plan) -> Option<f64>;

/// Up to so many values strings among group keys are numbered: they and what finds them stay in the cache.
const FEW_STRINGS: f64 = 4096.0;

/// What lowering asks others for.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// Finds tables.
    pub(crate) resolve: Resolve<'a>,
    /// Knows their statistics.
    pub(crate) estimate: Estimate<'a>,
    /// And of their columns.
    pub(crate) distinct: EstimateDistinct<'a>,
    /// How joins may be done.
    pub(crate) joins: JoinPolicy,
    /// Whether scans may leave out what statistics rule out.
    pub(crate) prunes: bool,
}

/// Chooses operators for `plan`; its batches carry exactly `outputs`, in order.
pub(crate) fn lower(plan: &Plan, outputs: &[Column], sources: Sources<'_>) -> Result<Arc<PhysicalPlan>> {
    let physical = lower_node(plan, sources)?;
    let wanted: Vec<ColumnId> = outputs.iter().map(|c| c.id).collect();
    if physical.layout == wanted {
        // Names are the query's, not those of the columns below.
        let fields = outputs.iter().map(|c| c.field.clone()).collect();
        return Ok(Arc::new(PhysicalPlan { fields, ..Arc::unwrap_or_clone(physical) }));
    }
    Ok(Arc::new(PhysicalPlan {
        estimated_rows: physical.estimated_rows,
        layout: wanted,
        fields: outputs.iter().map(|c| c.field.clone()).collect(),
        node: Node::Project { expressions: outputs.iter().map(Column::to_expr).collect(), input: physical },
    }))
}

fn lower_node(plan: &Plan, sources: Sources<'_>) -> Result<Arc<PhysicalPlan>> {
    let columns = plan.output_columns();
    let node = match plan {
        Plan::Scan { table, columns, filter_columns, filters, .. } => {
            let provider = (sources.resolve)(table)
                .ok_or_else(|| Error::internal(format!("table '{table}' was bound but cannot be scanned")))?;
            let all = columns.iter().chain(filter_columns).map(|(c, at)| (c.id, *at)).collect();
            let outputs = columns.iter().map(|(c, _)| c.id).collect();
            let request = ScanRequest {
                table: table.clone(),
                columns: all,
                outputs,
                filters: filters.clone(),
                runtime_filters: Vec::new(),
                prunes: sources.prunes,
                clustered_by: None,
            };
            Node::Scan { provider, request, runtime_filters: Vec::new() }
        }
        Plan::Values { rows, .. } => Node::Values { rows: rows.clone() },
        Plan::Filter { input, conjuncts } => {
            Node::Filter { input: lower_node(input, sources)?, conjuncts: conjuncts.clone() }
        }
        Plan::Project { input, columns } => Node::Project {
            input: lower_node(input, sources)?,
            expressions: columns.iter().map(|(_, e)| e.clone()).collect(),
        },
        Plan::Aggregate { input, groups, aggregates } => {
            for (_, call) in aggregates {
                if call.distinct && !matches!(call.function.name(), "min" | "max") {
                    return Err(Error::unsupported(format!("{}(DISTINCT …)", call.function.name()), None));
                }
            }
            if aggregates.iter().any(|(_, call)| call.is_ordered()) {
                let node = ordered_aggregate(lower_node(input, sources)?, groups, aggregates)?;
                return Ok(node_over(node, &columns, (sources.estimate)(plan)));
            }
            let is_few = |e: &Expr| (sources.distinct)(e, input).is_some_and(|values| values <= FEW_STRINGS);
            let is_string = |e: &Expr| e.data_type().physical() == PhysicalType::View;
            let has_few_strings = groups.iter().all(|(_, e)| !is_string(e) || is_few(e));
            let groups: Vec<Expr> = groups.iter().map(|(_, e)| e.clone()).collect();
            let input = lower_node(input, sources)?;
            let (input, clustered_by) = match clustered(&input, &groups, (sources.estimate)(plan)) {
                Some((input, key)) => (input, Some(key)),
                None => (input, None),
            };
            Node::HashAggregate {
                input,
                groups,
                has_few_strings,
                clustered_by,
                aggregates: aggregates.iter().map(|(_, a)| a.clone()).collect(),
            }
        }
        Plan::Join { kind, left, right, keys, filters } => {
            lower_join(kind, [left, right], keys, filters, sources)?
        }
        Plan::Sort { input, keys, fetch } => {
            Node::Sort { input: lower_node(input, sources)?, keys: keys.clone(), fetch: *fetch }
        }
        Plan::UnionAll { columns, inputs, values } => {
            let inputs = inputs.iter().zip(values).map(|(input, values)| {
                let input = lower_node(input, sources)?;
                let read = |e: &Expr| if let Expr::Column { id, .. } = e { Some(*id) } else { None };
                if values.iter().map(read).eq(input.layout.iter().map(|id| Some(*id))) {
                    return Ok(input);
                }
                Ok(Arc::new(PhysicalPlan {
                    estimated_rows: input.estimated_rows,
                    layout: columns.iter().map(|c| c.id).collect(),
                    fields: columns.iter().map(|c| c.field.clone()).collect(),
                    node: Node::Project { input, expressions: values.clone() },
                }))
            });
            Node::UnionAll { inputs: inputs.collect::<Result<_>>()? }
        }
        Plan::LimitPer { input, groups, keys, skip, fetch } => {
            let input = lower_node(input, sources)?;
            let group = |expr: &Expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false };
            let keys = groups.iter().map(group).chain(keys.iter().cloned()).collect();
            let sorted = Arc::new(PhysicalPlan {
                layout: input.layout.clone(),
                fields: input.fields.clone(),
                estimated_rows: input.estimated_rows,
                node: Node::Sort { input, keys, fetch: None },
            });
            Node::LimitPer { input: sorted, groups: groups.clone(), skip: *skip, fetch: *fetch }
        }
        Plan::Shared { number, plan, .. } => {
            Node::Shared { number: *number, input: lower_node(plan, sources)? }
        }
        Plan::Repeat { input, times } => {
            Node::Repeat { input: lower_node(input, sources)?, times: times.clone() }
        }
        Plan::Limit { input, skip, fetch } => {
            Node::Limit { input: lower_node(input, sources)?, skip: *skip, fetch: *fetch }
        }
    };
    Ok(node_over(node, &columns, (sources.estimate)(plan)))
}

pub(super) fn node_over(node: Node, columns: &[Column], estimated_rows: Option<u64>) -> Arc<PhysicalPlan> {
    Arc::new(PhysicalPlan {
        node,
        layout: columns.iter().map(|c| c.id).collect(),
        fields: columns.iter().map(|c| c.field.clone()).collect(),
        estimated_rows,
    })
}

/// Chooses the build side: the smaller one, where the kind leaves a choice; then how it is joined.
fn lower_join(
    kind: &JoinKind,
    [left, right]: [&Arc<Plan>; 2],
    keys: &[JoinKey],
    filters: &[Expr],
    sources: Sources<'_>,
) -> Result<Node> {
    let rows = |plan: &Plan| (sources.estimate)(plan);
    let left_is_smaller = matches!((rows(left), rows(right)), (Some(l), Some(r)) if l < r);
    let kind = match (kind, left_is_smaller) {
        (JoinKind::Inner, _) => HashJoinKind::Inner,
        (JoinKind::Full, _) => HashJoinKind::FullOuter,
        (JoinKind::Left, false) => HashJoinKind::ProbeOuter,
        (JoinKind::Left, true) => HashJoinKind::BuildOuter,
        (JoinKind::Semi, false) => HashJoinKind::ProbeSemi,
        (JoinKind::Semi, true) => HashJoinKind::BuildSemi,
        (JoinKind::Anti { null_aware: false }, true) => HashJoinKind::BuildAnti,
        (JoinKind::Anti { null_aware }, _) => HashJoinKind::ProbeAnti { null_aware: *null_aware },
        (JoinKind::Mark { null_aware, .. }, _) => HashJoinKind::ProbeMark { null_aware: *null_aware },
        (JoinKind::Single, _) => HashJoinKind::ProbeSingle,
    };
    let builds_left = match kind {
        HashJoinKind::Inner | HashJoinKind::FullOuter => left_is_smaller,
        HashJoinKind::BuildOuter | HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => true,
        HashJoinKind::ProbeOuter
        | HashJoinKind::ProbeSemi
        | HashJoinKind::ProbeAnti { .. }
        | HashJoinKind::ProbeMark { .. }
        | HashJoinKind::ProbeSingle => false,
    };
    let (build, probe) = if builds_left { (left, right) } else { (right, left) };
    let key = |key: &JoinKey| {
        let (left, right) = (key.left.clone(), key.right.clone());
        let (build, probe) = if builds_left { (left, right) } else { (right, left) };
        HashJoinKey { build, probe, null_safe: key.null_safe }
    };
    let hash_join = Node::HashJoin {
        kind,
        build: lower_node(build, sources)?,
        probe: lower_node(probe, sources)?,
        keys: keys.iter().map(key).collect(),
        residual: filters.to_vec(),
        publishes: Vec::new(),
    };
    Ok(choose(hash_join, sources.joins))
}
