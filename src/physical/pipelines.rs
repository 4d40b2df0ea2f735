//! Cutting a physical plan into pipelines at its breakers.

use super::plan::{Node, PhysicalPlan};
use crate::error::Result;
use crate::exec::{Feed, PipelineSpec, QuerySpec, Shape, SinkBox, SourceBox, TransformBox};
use crate::operators;
use std::collections::HashMap;

/// The pipelines of `plan`, the last of which ends in `result`.
pub(crate) fn pipelines(plan: &PhysicalPlan, result: SinkBox) -> Result<QuerySpec> {
    let mut done = Done::default();
    let open = build(plan, &mut done)?;
    done.push(open.close(result));
    Ok(QuerySpec { pipelines: done.pipelines })
}

/// What has been cut.
#[derive(Default)]
struct Done {
    pipelines: Vec<PipelineSpec>,
    /// By the number of a shared plan, what reads its rows and the pipeline that makes them.
    shared: HashMap<usize, (operators::Reader, usize)>,
}

impl Done {
    /// Adds a pipeline; its place.
    fn push(&mut self, pipeline: PipelineSpec) -> usize {
        self.pipelines.push(pipeline);
        self.pipelines.len() - 1
    }
}

/// A pipeline that has no sink yet: a tree of operators, the number of whose root will be the next one.
struct Open {
    sources: Vec<(SourceBox, Feed)>,
    transforms: Vec<(TransformBox, usize)>,
    depends_on: Vec<usize>,
}

impl Open {
    fn from_source(source: SourceBox, max_lanes: usize) -> Self {
        Self {
            sources: vec![(source, Feed { next: 0, max_lanes })],
            transforms: Vec::new(),
            depends_on: Vec::new(),
        }
    }

    fn through(mut self, transform: TransformBox) -> Self {
        self.transforms.push((transform, self.transforms.len() + 1));
        self
    }

    fn close(self, sink: SinkBox) -> PipelineSpec {
        let (sources, feeds) = self.sources.into_iter().unzip();
        let (transforms, next) = self.transforms.into_iter().unzip();
        let shape = Shape { feeds, next };
        PipelineSpec { sources, transforms, shape, sink, max_lanes: usize::MAX, depends_on: self.depends_on }
    }

    /// The rows of all branches, which meet at the operator that comes next.
    fn union(branches: Vec<Self>) -> Self {
        let root = branches.iter().map(|branch| branch.transforms.len()).sum();
        let mut all = Self { sources: Vec::new(), transforms: Vec::new(), depends_on: Vec::new() };
        for branch in branches {
            let (offset, own_root) = (all.transforms.len(), branch.transforms.len());
            let moved = |next: usize| if next == own_root { root } else { offset + next };
            let sources = branch.sources.into_iter();
            all.sources.extend(sources.map(|(s, feed)| (s, Feed { next: moved(feed.next), ..feed })));
            all.transforms.extend(branch.transforms.into_iter().map(|(t, next)| (t, moved(next))));
            all.depends_on.extend(branch.depends_on);
        }
        all
    }

    /// Ends the pipeline in a breaker's sink and begins the next at its source.
    fn broken(self, sink: SinkBox, source: SourceBox, max_lanes: usize, done: &mut Done) -> Self {
        let finished = done.push(self.close(sink));
        Self { depends_on: vec![finished], ..Self::from_source(source, max_lanes) }
    }
}

fn build(plan: &PhysicalPlan, done: &mut Done) -> Result<Open> {
    Ok(match &plan.node {
        Node::Scan { provider, request } => Open::from_source(provider.scan(request.clone())?, usize::MAX),
        Node::Values { rows } => Open::from_source(operators::values(plan.types(), rows.clone()), usize::MAX),
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
            build(input, done)?.broken(sink, source, usize::MAX, done)
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
            let built = done.push(build_side.close(sink));
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
            build(input, done)?.broken(sink, source, 1, done)
        }
        Node::UnionAll { inputs } => {
            let branches = inputs.iter().map(|input| build(input, done)).collect::<Result<_>>()?;
            Open::union(branches)
        }
        Node::LimitPer { input, groups, skip, fetch } => {
            let transform = operators::limit_per(input.layout.clone(), groups.clone(), *skip, *fetch);
            build(input, done)?.through(transform)
        }
        Node::Shared { number, input } => {
            let (reader, made) = match done.shared.get(number) {
                Some((reader, made)) => (reader.clone(), *made),
                None => {
                    let (sink, reader) = operators::materialize(input.types());
                    let open = build(input, done)?;
                    let made = done.push(open.close(sink));
                    done.shared.insert(*number, (reader.clone(), made));
                    (reader, made)
                }
            };
            Open { depends_on: vec![made], ..Open::from_source(reader.source(), usize::MAX) }
        }
        Node::Repeat { input, times } => {
            let transform = operators::repeat(input.layout.clone(), input.types(), times.clone());
            build(input, done)?.through(transform)
        }
        Node::Limit { input, skip, fetch } => build(input, done)?.through(operators::limit(*skip, *fetch)),
    })
}
