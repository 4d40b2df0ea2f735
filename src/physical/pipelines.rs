//! Cutting a physical plan into pipelines at its breakers.

use super::plan::{Node, PhysicalPlan};
use super::profile::{NodeId, Profiler};
use crate::error::Result;
use crate::exec::{PipelineSpec, QuerySpec, SinkBox, SourceBox, TransformBox};
use crate::expr::ColumnId;
use crate::operators;
use crate::scan::{RuntimeFilter, RuntimeFilterSpec, ScanRequest};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The pipelines of `plan`, the last of which ends in `result`, and what finds each node's figures in them.
pub(crate) fn pipelines(plan: &Arc<PhysicalPlan>, result: SinkBox) -> Result<(QuerySpec, Profiler)> {
    let mut done =
        Done { specs: Vec::new(), profiler: Profiler::new(Arc::clone(plan)), filters: HashMap::new() };
    let open = build(plan, &mut done)?;
    done.push(open.close(result));
    Ok((QuerySpec { pipelines: done.specs }, done.profiler))
}

/// Pipelines that have their sinks.
struct Done {
    specs: Vec<PipelineSpec>,
    profiler: Profiler,
    /// Runtime filters by their ids, each with the pipeline that collects it.
    filters: HashMap<usize, (Arc<RuntimeFilter>, usize)>,
}

impl Done {
    fn push(&mut self, closed: Closed) {
        for (node, operators) in closed.nodes {
            self.profiler.emits(node, self.specs.len(), operators);
        }
        self.specs.push(closed.spec);
    }

    fn len(&self) -> usize {
        self.specs.len()
    }
}

/// A pipeline with its sink, and the operators, sources first, that emit the rows of each of its nodes.
struct Closed {
    spec: PipelineSpec,
    nodes: Vec<(NodeId, Range<usize>)>,
}

/// What emits a node's rows.
enum Emitter {
    /// All sources.
    Sources,
    /// The transform of that index.
    Transform(usize),
}

/// A pipeline that has no sink yet.
struct Open {
    sources: Vec<SourceBox>,
    transforms: Vec<TransformBox>,
    max_lanes: usize,
    depends_on: Vec<usize>,
    nodes: Vec<(NodeId, Emitter)>,
}

impl Open {
    fn from_source(source: SourceBox) -> Self {
        Self {
            sources: vec![source],
            transforms: Vec::new(),
            max_lanes: usize::MAX,
            depends_on: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn through(mut self, transform: TransformBox) -> Self {
        self.transforms.push(transform);
        self
    }

    /// Notes that what it emits as it is now are the rows of `node`.
    fn emits(&mut self, node: NodeId) {
        let last = self.transforms.len().checked_sub(1);
        self.nodes.push((node, last.map_or(Emitter::Sources, Emitter::Transform)));
    }

    fn close(self, sink: SinkBox) -> Closed {
        let Self { sources, transforms, max_lanes, depends_on, nodes } = self;
        let operators = |emitter| match emitter {
            Emitter::Sources => 0..sources.len(),
            Emitter::Transform(at) => sources.len() + at..sources.len() + at + 1,
        };
        let nodes = nodes.into_iter().map(|(node, emitter)| (node, operators(emitter))).collect();
        Closed { spec: PipelineSpec { sources, transforms, sink, max_lanes, depends_on }, nodes }
    }

    /// Ends the pipeline in a breaker's sink and begins the next at its source.
    fn broken(self, sink: SinkBox, source: SourceBox, done: &mut Done) -> Self {
        done.push(self.close(sink));
        Self { depends_on: vec![done.len() - 1], ..Self::from_source(source) }
    }
}

/// The open pipeline that emits the rows of `plan`.
fn build(plan: &PhysicalPlan, done: &mut Done) -> Result<Open> {
    let mut open = build_node(plan, done)?;
    open.emits(NodeId::of(plan));
    match &plan.node {
        // The pipeline that ends in its own sink is what it waited for last.
        Node::HashAggregate { .. } | Node::HashJoin { .. } | Node::Sort { .. } => {
            if let Some(pipeline) = open.depends_on.last() {
                done.profiler.ends(NodeId::of(plan), *pipeline);
            }
        }
        Node::Scan { .. }
        | Node::Values { .. }
        | Node::Filter { .. }
        | Node::Project { .. }
        | Node::Limit { .. } => {}
    }
    Ok(open)
}

fn build_node(plan: &PhysicalPlan, done: &mut Done) -> Result<Open> {
    Ok(match &plan.node {
        Node::Scan { provider, request, runtime_filters } => {
            let collected = |(column, spec): &(ColumnId, Arc<RuntimeFilterSpec>)| {
                let (filter, pipeline) = done.filters.get(&spec.id)?;
                Some(((*column, Arc::clone(filter)), *pipeline))
            };
            let (runtime_filters, depends_on) = runtime_filters.iter().filter_map(collected).unzip();
            let source = provider.scan(ScanRequest { runtime_filters, ..request.clone() })?;
            Open { depends_on, ..Open::from_source(source) }
        }
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
        Node::HashJoin { kind, build: build_side, probe, keys, residual, publishes } => {
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
            let mut open = build(build_side, done)?;
            let built = done.len();
            let mut collected = Vec::new();
            for published in publishes {
                let filter = Arc::new(RuntimeFilter::new((*published.filter).clone()));
                done.filters.insert(published.filter.id, (Arc::clone(&filter), built));
                collected.push((keys[published.key].build.clone(), filter));
            }
            if !collected.is_empty() {
                open = open.through(operators::collect_keys(build_side.layout.clone(), collected));
            }
            done.push(open.close(sink));
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
