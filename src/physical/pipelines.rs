//! Cutting a physical plan into pipelines at its breakers.

use super::key_range::build_key_range;
use super::plan::{Node, PhysicalPlan, PublishedFilter};
use super::profile::{NodeId, Profiler};
use crate::error::{Error, Result};
use crate::exec::{Feed, PipelineSpec, QuerySpec, Shape, SinkBox, SourceBox, TransformBox};
use crate::expr::{ColumnId, Expr};
use crate::functions::{AggregateCall, OrderedArguments};
use crate::operators::{self, HashJoinKey, HashJoinKind, MergeInput, MergeJoin, OrderedCall};
use crate::scan::{RuntimeFilter, RuntimeFilterSpec, ScanProvider, ScanRequest};
use std::collections::HashMap;
use std::sync::Arc;

/// The pipelines of `plan`, the last of which ends in `result`, and what finds each node's figures in them.
pub(crate) fn pipelines(plan: &Arc<PhysicalPlan>, result: SinkBox) -> Result<(QuerySpec, Profiler)> {
    let mut done = Done {
        specs: Vec::new(),
        profiler: Profiler::new(Arc::clone(plan)),
        filters: HashMap::new(),
        shared: HashMap::new(),
    };
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
    /// By the number of a shared plan, what reads its rows and the pipeline that makes them.
    shared: HashMap<usize, (operators::Reader, usize)>,
}

impl Done {
    /// Adds a pipeline; its place.
    fn push(&mut self, closed: Closed) -> usize {
        for (node, operators) in closed.nodes {
            self.profiler.emits(node, self.specs.len(), operators);
        }
        self.specs.push(closed.spec);
        self.specs.len() - 1
    }

    /// The place of the next pipeline.
    fn len(&self) -> usize {
        self.specs.len()
    }
}

/// A pipeline with its sink, and the operators, sources first, that emit the rows of each of its nodes.
struct Closed {
    spec: PipelineSpec,
    nodes: Vec<(NodeId, Vec<usize>)>,
}

/// An operator of an open pipeline.
#[derive(Clone, Copy)]
enum Place {
    Source(usize),
    Transform(usize),
}

/// A pipeline that has no sink yet: a tree of operators, the number of whose root will be the next one.
struct Open {
    sources: Vec<(SourceBox, Feed)>,
    transforms: Vec<(TransformBox, usize)>,
    depends_on: Vec<usize>,
    /// What hands its rows to the operator that comes next.
    ends: Vec<Place>,
    /// What emits the rows of each node.
    nodes: Vec<(NodeId, Vec<Place>)>,
}

impl Open {
    fn from_source(source: SourceBox, max_lanes: usize) -> Self {
        Self {
            sources: vec![(source, Feed { next: 0, max_lanes })],
            transforms: Vec::new(),
            depends_on: Vec::new(),
            ends: vec![Place::Source(0)],
            nodes: Vec::new(),
        }
    }

    fn through(mut self, transform: TransformBox) -> Self {
        self.ends = vec![Place::Transform(self.transforms.len())];
        self.transforms.push((transform, self.transforms.len() + 1));
        self
    }

    /// Notes that what it emits as it is now are the rows of `node`.
    fn emits(&mut self, node: NodeId) {
        self.nodes.push((node, self.ends.clone()));
    }

    fn close(self, sink: SinkBox) -> Closed {
        let Self { sources, transforms, depends_on, ends: _, nodes } = self;
        let number = |place| match place {
            Place::Source(at) => at,
            Place::Transform(at) => sources.len() + at,
        };
        let numbers = |places: Vec<Place>| places.into_iter().map(number).collect();
        let nodes = nodes.into_iter().map(|(node, places)| (node, numbers(places))).collect();
        let (sources, feeds) = sources.into_iter().unzip();
        let (transforms, next) = transforms.into_iter().unzip();
        let shape = Shape { feeds, next };
        let spec = PipelineSpec { sources, transforms, shape, sink, max_lanes: usize::MAX, depends_on };
        Closed { spec, nodes }
    }

    /// The rows of all branches, which meet at the operator that comes next.
    fn union(branches: Vec<Self>) -> Self {
        let root = branches.iter().map(|branch| branch.transforms.len()).sum();
        let mut all = Self {
            sources: Vec::new(),
            transforms: Vec::new(),
            depends_on: Vec::new(),
            ends: Vec::new(),
            nodes: Vec::new(),
        };
        for branch in branches {
            let (offset, own_root) = (all.transforms.len(), branch.transforms.len());
            let before = all.sources.len();
            let moved = |next: usize| if next == own_root { root } else { offset + next };
            let moved_place = |place: &Place| match *place {
                Place::Source(at) => Place::Source(before + at),
                Place::Transform(at) => Place::Transform(offset + at),
            };
            let moved_places = |places: &[Place]| places.iter().map(moved_place).collect::<Vec<_>>();
            all.ends.extend(moved_places(&branch.ends));
            all.nodes.extend(branch.nodes.iter().map(|(node, places)| (*node, moved_places(places))));
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

/// The open pipeline that emits the rows of `plan`.
fn build(plan: &PhysicalPlan, done: &mut Done) -> Result<Open> {
    let mut open = build_node(plan, done)?;
    open.emits(NodeId::of(plan));
    match &plan.node {
        Node::SortMergeJoin { in_order, .. } => {
            // Those of its two sides, the build side's first; one read in order has none.
            let sinks = open.depends_on.iter().take(if in_order[0] { 0 } else { usize::MAX });
            for pipeline in sinks {
                done.profiler.ends(NodeId::of(plan), *pipeline);
            }
        }
        // The pipeline that ends in its own sink is what it waited for last.
        Node::HashAggregate { clustered_by: None, .. }
        | Node::HashJoin { .. }
        | Node::Sort { .. }
        | Node::Shared { .. } => {
            if let Some(pipeline) = open.depends_on.last() {
                done.profiler.ends(NodeId::of(plan), *pipeline);
            }
        }
        Node::Scan { .. }
        | Node::Values { .. }
        | Node::Filter { .. }
        | Node::Project { .. }
        | Node::HashAggregate { clustered_by: Some(_), .. }
        | Node::OrderedAggregate { .. }
        | Node::UnionAll { .. }
        | Node::LimitPer { .. }
        | Node::Repeat { .. }
        | Node::Limit { .. } => {}
    }
    Ok(open)
}

fn build_node(plan: &PhysicalPlan, done: &mut Done) -> Result<Open> {
    Ok(match &plan.node {
        Node::Scan { provider, request, runtime_filters } => {
            let (source, depends_on) = scan(provider, request, runtime_filters, done)?;
            Open { depends_on, ..Open::from_source(source, usize::MAX) }
        }
        Node::Values { rows } => Open::from_source(operators::values(plan.types(), rows.clone()), usize::MAX),
        Node::Filter { input, conjuncts } => {
            let transform = operators::filter(input.layout.clone(), conjuncts.clone());
            build(input, done)?.through(transform)
        }
        Node::Project { input, expressions } => {
            let transform = operators::project(input.layout.clone(), expressions.clone());
            build(input, done)?.through(transform)
        }
        Node::HashAggregate { input, groups, aggregates, has_few_strings, clustered_by } => {
            let spec = operators::AggregateSpec {
                layout: input.layout.clone(),
                groups: groups.clone(),
                aggregates: aggregates.clone(),
                has_few_strings: *has_few_strings,
            };
            let open = build(input, done)?;
            match clustered_by {
                Some(key) => open.through(operators::clustered_aggregate(spec, *key)),
                None => {
                    let (sink, source) = operators::hash_aggregate(spec);
                    open.broken(sink, source, usize::MAX, done)
                }
            }
        }
        Node::OrderedAggregate { input, groups, value, count, aggregates } => {
            let spec = operators::OrderedAggregateSpec {
                layout: input.layout.clone(),
                groups: groups.clone(),
                value: value.clone(),
                count: count.clone(),
                calls: aggregates.iter().map(ordered_call).collect::<Result<_>>()?,
            };
            build(input, done)?.through(operators::ordered_aggregate(spec))
        }
        Node::HashJoin { kind, build: build_side, probe, keys, residual, publishes } => {
            let spec = join_spec(plan, *kind, [build_side, probe], keys, residual);
            let (sink, transform) = operators::hash_join(spec);
            let built = build_sink(build_side, sink, keys, publishes, done)?;
            let mut open = build(probe, done)?.through(transform);
            open.depends_on.push(built);
            open
        }
        Node::SortMergeJoin {
            kind,
            build: build_side,
            probe,
            keys,
            orders,
            in_order,
            residual,
            publishes,
            ..
        } => {
            let spec = join_spec(plan, *kind, [build_side, probe], keys, residual);
            let join = MergeJoin::new(spec, orders);
            // The build side first: what it publishes is for scans of the probe side.
            let (build_side, built) = if in_order[0] {
                let (source, depends_on) = source_in_order(build_side, done)?;
                (join.build(MergeInput::InOrder(source)).1, depends_on)
            } else {
                let (sink, side) = join.build(MergeInput::Unsorted);
                (side, vec![build_sink(build_side, sink_of(sink)?, keys, publishes, done)?])
            };
            let (probe_side, probed) = if in_order[1] {
                let (source, depends_on) = source_in_order(probe, done)?;
                (join.probe(MergeInput::InOrder(source)).1, depends_on)
            } else {
                let (sink, side) = join.probe(MergeInput::Unsorted);
                let open = build(probe, done)?;
                (side, vec![done.push(open.close(sink_of(sink)?))])
            };
            let depends_on = built.into_iter().chain(probed).collect();
            Open { depends_on, ..Open::from_source(join.source(build_side, probe_side), 1) }
        }
        Node::Sort { input, keys, fetch } => {
            let (sink, source) = sort(input, keys, *fetch);
            // One lane carries the order on, whatever others do for it.
            build(input, done)?.broken(sink, source, usize::MAX, done)
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

/// What an operator is told of the join `plan` of `[build, probe]`.
fn join_spec(
    plan: &PhysicalPlan,
    kind: HashJoinKind,
    [build, probe]: [&PhysicalPlan; 2],
    keys: &[HashJoinKey],
    residual: &[Expr],
) -> operators::HashJoinSpec {
    operators::HashJoinSpec {
        kind,
        build_layout: build.layout.clone(),
        build_types: build.types(),
        probe_layout: probe.layout.clone(),
        probe_types: probe.types(),
        keys: keys.to_vec(),
        residual: residual.to_vec(),
        output: plan.layout.clone(),
        expected_build_rows: build.estimated_rows,
        expected_key_range: build_key_range(build, keys),
    }
}

/// Ends the pipeline of a join's build side, which collects what the join `publishes`; its place.
fn build_sink(
    build_side: &PhysicalPlan,
    sink: SinkBox,
    keys: &[HashJoinKey],
    publishes: &[PublishedFilter],
    done: &mut Done,
) -> Result<usize> {
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
    Ok(done.push(open.close(sink)))
}

/// A scan, and the pipelines that collect its filters.
fn scan(
    provider: &Arc<dyn ScanProvider>,
    request: &ScanRequest,
    runtime_filters: &[(ColumnId, Arc<RuntimeFilterSpec>)],
    done: &Done,
) -> Result<(SourceBox, Vec<usize>)> {
    let collected = |(column, spec): &(ColumnId, Arc<RuntimeFilterSpec>)| {
        let (filter, pipeline) = done.filters.get(&spec.id)?;
        Some(((*column, Arc::clone(filter)), *pipeline))
    };
    let (runtime_filters, depends_on) = runtime_filters.iter().filter_map(collected).unzip();
    let source = provider.scan(ScanRequest { runtime_filters, ..request.clone() })?;
    Ok((source, depends_on))
}

fn sort(input: &PhysicalPlan, keys: &[crate::logical::SortKey], fetch: Option<u64>) -> (SinkBox, SourceBox) {
    let key = |k: &crate::logical::SortKey| operators::SortKey {
        expr: k.expr.clone(),
        nullable: k.expr.is_nullable(),
        descending: k.descending,
        nulls_first: k.nulls_first,
    };
    operators::sort(operators::SortSpec {
        layout: input.layout.clone(),
        types: input.types(),
        keys: keys.iter().map(key).collect(),
        fetch,
    })
}

/// What an aggregate takes of values in order.
fn ordered_call(call: &AggregateCall) -> Result<OrderedCall> {
    let Some(arguments) = call.ordered() else {
        return Err(Error::internal(format!("{} takes rows in any order", call.function.name())));
    };
    let OrderedArguments { kind, fraction, .. } = arguments;
    Ok(OrderedCall { kind, fraction, data_type: call.data_type.clone() })
}

/// The source of a plan whose rows come in an order that is known, for an operator that reads it itself; and the
/// pipelines that must have finished before.
fn source_in_order(plan: &PhysicalPlan, done: &mut Done) -> Result<(SourceBox, Vec<usize>)> {
    match &plan.node {
        Node::Scan { provider, request, runtime_filters } => scan(provider, request, runtime_filters, done),
        Node::Sort { input, keys, fetch } => {
            let (sink, source) = sort(input, keys, *fetch);
            let open = build(input, done)?;
            Ok((source, vec![done.push(open.close(sink))]))
        }
        Node::Values { .. }
        | Node::Filter { .. }
        | Node::Project { .. }
        | Node::HashAggregate { .. }
        | Node::OrderedAggregate { .. }
        | Node::HashJoin { .. }
        | Node::SortMergeJoin { .. }
        | Node::UnionAll { .. }
        | Node::LimitPer { .. }
        | Node::Shared { .. }
        | Node::Repeat { .. }
        | Node::Limit { .. } => Err(Error::internal("a merge join reads a plan whose order is not known")),
    }
}

fn sink_of(sink: Option<SinkBox>) -> Result<SinkBox> {
    sink.ok_or_else(|| Error::internal("a side to be sorted has no sink"))
}
