//! What each node of a plan did, found in the figures of the operators that did it.
//!
//! Owns: [`Profiler`].
//!
//! Invariants:
//! 1. Nodes are known by their address: a node that occurs twice in a plan runs once and has one set of figures.
//!
//! Must not know: what the operators do.

use super::explain::titles;
use super::plan::{Node, PhysicalPlan};
use crate::metrics::{OperatorMetrics, OperatorProfile};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A node of the plan a [`Profiler`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId(usize);

impl NodeId {
    pub(super) fn of(plan: &PhysicalPlan) -> Self {
        Self(std::ptr::from_ref(plan).addr())
    }
}

/// Where a node's work is measured.
#[derive(Debug, Default)]
struct Place {
    /// A pipeline, and which of its operators emit the node's rows.
    emitters: Option<(usize, Vec<usize>)>,
    /// The pipelines that end in sinks of the node's, if it is a breaker; of a join the build side's first.
    sinks: Vec<usize>,
}

/// Knows which operators of which pipelines do the work of each node of a plan.
pub(crate) struct Profiler {
    plan: Arc<PhysicalPlan>,
    places: HashMap<NodeId, Place>,
}

impl Profiler {
    pub(super) fn new(plan: Arc<PhysicalPlan>) -> Self {
        Self { plan, places: HashMap::new() }
    }

    /// The rows of `node` come out of `operators` of `pipeline`.
    pub(super) fn emits(&mut self, node: NodeId, pipeline: usize, operators: Vec<usize>) {
        self.places.entry(node).or_default().emitters = Some((pipeline, operators));
    }

    /// `pipeline` ends in a sink of `node`.
    pub(super) fn ends(&mut self, node: NodeId, pipeline: usize) {
        self.places.entry(node).or_default().sinks.push(pipeline);
    }

    /// The figures of all nodes, parents first; `pipelines` are those of the operators, sources before transforms
    /// before the sink.
    pub(crate) fn profile(&self, pipelines: &[Vec<Arc<OperatorMetrics>>]) -> Vec<OperatorProfile> {
        let figures = |(depth, node, title): (usize, &PhysicalPlan, String)| {
            let place = self.places.get(&NodeId::of(node));
            let emitters = place.and_then(|place| {
                let (pipeline, operators) = place.emitters.as_ref()?;
                let metrics = pipelines.get(*pipeline)?;
                Some(operators.iter().filter_map(|&at| metrics.get(at)).collect::<Vec<_>>())
            });
            let sinks = place.map_or(&[][..], |place| &place.sinks);
            let sinks = || sinks.iter().filter_map(|&sink| pipelines.get(sink)?.last());
            let emitters = emitters.unwrap_or_default();
            let mut counters: Vec<(&'static str, u64)> = Vec::new();
            for (name, count) in emitters.iter().copied().chain(sinks()).flat_map(|m| m.counters()) {
                match counters.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += count,
                    None => counters.push((name, count)),
                }
            }
            OperatorProfile {
                depth,
                title,
                estimated_rows: node.estimated_rows,
                rows: emitters.iter().map(|m| m.rows_out.load(Relaxed)).sum(),
                build_rows: match node.node {
                    Node::HashJoin { .. } | Node::SortMergeJoin { .. } => {
                        sinks().next().map(|m| m.rows_in.load(Relaxed))
                    }
                    Node::Scan { .. }
                    | Node::Values { .. }
                    | Node::Filter { .. }
                    | Node::Project { .. }
                    | Node::HashAggregate { .. }
                    | Node::OrderedAggregate { .. }
                    | Node::Sort { .. }
                    | Node::UnionAll { .. }
                    | Node::LimitPer { .. }
                    | Node::Shared { .. }
                    | Node::Repeat { .. }
                    | Node::Limit { .. } => None,
                },
                busy: emitters.into_iter().chain(sinks()).map(|m| m.busy()).sum::<Duration>(),
                counters,
            }
        };
        titles(&self.plan).into_iter().map(figures).collect()
    }
}
