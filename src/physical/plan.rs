//! Physical plan nodes.

use super::merge_joins::MergeReason;
use crate::data::{DataType, Field, Scalar};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use crate::logical::SortKey;
use crate::operators::{HashJoinKey, HashJoinKind, KeyOrder};
use crate::scan::{RuntimeFilterSpec, ScanProvider, ScanRequest};
use std::sync::Arc;

/// A node with the columns of the batches it emits.
#[derive(Clone)]
pub(crate) struct PhysicalPlan {
    /// What it does.
    pub(crate) node: Node,
    /// Columns of its batches, by position.
    pub(crate) layout: Vec<ColumnId>,
    /// Their names, types and nullability.
    pub(crate) fields: Vec<Field>,
    /// Rows the planner expects, if it has an idea.
    pub(crate) estimated_rows: Option<u64>,
}

/// The operators.
#[derive(Clone)]
pub(crate) enum Node {
    /// Reads a table, filters applied.
    Scan {
        provider: Arc<dyn ScanProvider>,
        /// Without runtime filters: those belong to a run.
        request: ScanRequest,
        /// Columns and what may be known of them by then.
        runtime_filters: Vec<(ColumnId, Arc<RuntimeFilterSpec>)>,
    },
    /// Literal rows.
    Values { rows: Vec<Vec<Scalar>> },
    /// Drops rows.
    Filter { input: Arc<PhysicalPlan>, conjuncts: Vec<Expr> },
    /// Computes columns.
    Project { input: Arc<PhysicalPlan>, expressions: Vec<Expr> },
    /// Groups in a hash table, or into one row if there are no keys.
    HashAggregate {
        input: Arc<PhysicalPlan>,
        groups: Vec<Expr>,
        aggregates: Vec<AggregateCall>,
        /// Whether each key that is a string is expected to have few values.
        has_few_strings: bool,
        /// The group key of whose values the input comes in clusters, so that groups go on when theirs is over.
        clustered_by: Option<usize>,
    },
    /// Aggregates that take of a group's values in order; its input is in the order of `groups`, then `value`.
    OrderedAggregate {
        input: Arc<PhysicalPlan>,
        groups: Vec<Expr>,
        value: Expr,
        /// How often a value counts, if not once.
        count: Option<Expr>,
        /// What they are called with, before it was put in order.
        aggregates: Vec<AggregateCall>,
    },
    /// Puts rows of two inputs together: the build side is held in a hash table, the probe side streams past it.
    HashJoin {
        kind: HashJoinKind,
        build: Arc<PhysicalPlan>,
        probe: Arc<PhysicalPlan>,
        keys: Vec<HashJoinKey>,
        residual: Vec<Expr>,
        /// What scans below the probe side are told of the build side.
        publishes: Vec<PublishedFilter>,
    },
    /// The same of two inputs in the order of their keys: both are sorted, and gone through in step.
    SortMergeJoin {
        kind: HashJoinKind,
        build: Arc<PhysicalPlan>,
        probe: Arc<PhysicalPlan>,
        keys: Vec<HashJoinKey>,
        /// For each key.
        orders: Vec<KeyOrder>,
        /// Whether the rows of build and probe come in that order, so that they are not sorted.
        in_order: [bool; 2],
        residual: Vec<Expr>,
        /// As for a hash join: the build side is sorted first.
        publishes: Vec<PublishedFilter>,
        reason: MergeReason,
    },
    /// All rows of all inputs, whose columns agree by position.
    UnionAll { inputs: Vec<Arc<PhysicalPlan>> },
    /// Limits each run of rows that agree in `groups`; its input is in an order that makes each group one run.
    LimitPer { input: Arc<PhysicalPlan>, groups: Vec<Expr>, skip: u64, fetch: Option<u64> },
    /// Rows that are kept and read by all nodes of that number; each has the same plan below it.
    Shared { number: usize, input: Arc<PhysicalPlan> },
    /// Each row as often as a column says.
    Repeat { input: Arc<PhysicalPlan>, times: Expr },
    /// Orders; with a fetch keeps only the first rows.
    Sort { input: Arc<PhysicalPlan>, keys: Vec<SortKey>, fetch: Option<u64> },
    /// Skips and stops.
    Limit { input: Arc<PhysicalPlan>, skip: u64, fetch: Option<u64> },
}

/// A filter of the values a key has on the build side of a join.
#[derive(Clone, Debug)]
pub(crate) struct PublishedFilter {
    /// Which key.
    pub(crate) key: usize,
    /// The probe side's column that is equal to it.
    pub(crate) column: ColumnId,
    /// The filter.
    pub(crate) filter: Arc<RuntimeFilterSpec>,
}

impl PhysicalPlan {
    /// Types of the columns of its batches.
    pub(crate) fn types(&self) -> Vec<DataType> {
        self.fields.iter().map(|f| f.data_type.clone()).collect()
    }

    /// Its inputs.
    pub(crate) fn inputs(&self) -> Vec<&Arc<Self>> {
        match &self.node {
            Node::Scan { .. } | Node::Values { .. } => vec![],
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::HashAggregate { input, .. }
            | Node::OrderedAggregate { input, .. }
            | Node::Sort { input, .. }
            | Node::Repeat { input, .. }
            | Node::LimitPer { input, .. }
            | Node::Shared { input, .. }
            | Node::Limit { input, .. } => vec![input],
            Node::UnionAll { inputs } => inputs.iter().collect(),
            Node::HashJoin { build, probe, .. } | Node::SortMergeJoin { build, probe, .. } => {
                vec![build, probe]
            }
        }
    }
}
