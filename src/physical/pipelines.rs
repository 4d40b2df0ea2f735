//! Cutting a physical plan into pipelines at its breakers.

use super::plan::{Node, PhysicalPlan};
use crate::error::Result;
use crate::exec::{PipelineSpec, QuerySpec, SinkBox, SourceBox, TransformBox};
use crate::operators;

/// The pipelines of `plan`, the last of which ends in `result`.
pub(crate) fn pipelines(plan: &PhysicalPlan, result: SinkBox) -> Result<QuerySpec> {
    let mut done = Vec::new();
    let open = build(plan, &mut done)?;
    done.push(open.close(result));
    Ok(QuerySpec { pipelines: done })
}

/// A pipeline that has no sink yet.
struct Open {
    sources: Vec<SourceBox>,
    transforms: Vec<TransformBox>,
    max_lanes: usize,
    depends_on: Vec<usize>,
}

impl Open {
    fn from_source(source: SourceBox) -> Self {
        Self { sources: vec![source], transforms: Vec::new(), max_lanes: usize::MAX, depends_on: Vec::new() }
    }

    fn through(mut self, transform: TransformBox) -> Self {
        self.transforms.push(transform);
        self
    }

    fn close(self, sink: SinkBox) -> PipelineSpec {
        let Self { sources, transforms, max_lanes, depends_on } = self;
        PipelineSpec { sources, transforms, sink, max_lanes, depends_on }
    }

    /// Ends the pipeline in a breaker's sink and begins the next at its source.
    fn broken(self, sink: SinkBox, source: SourceBox, done: &mut Vec<PipelineSpec>) -> Self {
        done.push(self.close(sink));
        Self { depends_on: vec![done.len() - 1], ..Self::from_source(source) }
    }
}

fn build(plan: &PhysicalPlan, done: &mut Vec<PipelineSpec>) -> Result<Open> {
    Ok(match &plan.node {
        Node::Scan { provider, request } => Open::from_source(provider.scan(request.clone())?),
        Node::Values { rows } => Open::from_source(operators::values(plan.types(), rows.clone())),
        Node::Filter { input, conjuncts } => {
            let transform = operators::filter(input.layout.clone(), conjuncts.clone());
            build(input, done)?.through(transform)
        }
        Node::Project { input, expressions } => {
            let transform = operators::project(input.layout.clone(), expressions.clone());
            build(input, done)?.through(transform)
        }
        Node::HashAggregate { input, groups, aggregates } => {
            let spec = operators::AggregateSpec {
                layout: input.layout.clone(),
                groups: groups.clone(),
                aggregates: aggregates.clone(),
            };
            let (sink, source) = operators::hash_aggregate(spec);
            build(input, done)?.broken(sink, source, done)
        }
        Node::HashJoin { kind, build: build_side, probe, keys, residual } => {
            let spec = operators::HashJoinSpec {
                kind: *kind,
                build_layout: build_side.layout.clone(),
                build_types: build_side.types(),
                probe_layout: probe.layout.clone(),
                probe_types: probe.types(),
                keys: keys.clone(),
                residual: residual.clone(),
                output: plan.layout.clone(),
            };
            let (sink, transform) = operators::hash_join(spec);
            let build_side = build(build_side, done)?;
            done.push(build_side.close(sink));
            let built = done.len() - 1;
            let mut open = build(probe, done)?.through(transform);
            open.depends_on.push(built);
            open
        }
        Node::Sort { input, keys, fetch } => {
            let key = |k: &crate::logical::SortKey| operators::SortKey {
                expr: k.expr.clone(),
                descending: k.descending,
                nulls_first: k.nulls_first,
            };
            let spec = operators::SortSpec {
                layout: input.layout.clone(),
                types: input.types(),
                keys: keys.iter().map(key).collect(),
                fetch: *fetch,
            };
            let (sink, source) = operators::sort(spec);
            // One lane carries the order on.
            Open { max_lanes: 1, ..build(input, done)?.broken(sink, source, done) }
        }
        Node::Limit { input, skip, fetch } => build(input, done)?.through(operators::limit(*skip, *fetch)),
    })
}
