//! Cutting a physical plan into pipelines at its breakers.

use super::plan::{Node, PhysicalPlan};
use crate::error::Result;
use crate::exec::{PipelineSpec, QuerySpec, SinkBox, SourceBox, TransformBox};
use crate::expr::ColumnId;
use crate::operators;
use crate::scan::{RuntimeFilter, RuntimeFilterSpec, ScanRequest};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pipelines of `plan`, the last of which ends in `result`.
pub(crate) fn pipelines(plan: &PhysicalPlan, result: SinkBox) -> Result<QuerySpec> {
    let mut cut = Cut::default();
    let open = cut.build(plan)?;
    cut.done.push(open.close(result));
    Ok(QuerySpec { pipelines: cut.done })
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

/// What has been cut so far.
#[derive(Default)]
struct Cut {
    done: Vec<PipelineSpec>,
    /// Runtime filters by their ids, each with the pipeline that collects it.
    filters: BTreeMap<usize, (Arc<RuntimeFilter>, usize)>,
}

impl Cut {
    fn build(&mut self, plan: &PhysicalPlan) -> Result<Open> {
        Ok(match &plan.node {
            Node::Scan { provider, request, runtime_filters } => {
                let collected = |(column, spec): &(ColumnId, Arc<RuntimeFilterSpec>)| {
                    let (filter, pipeline) = self.filters.get(&spec.id)?;
                    Some(((*column, Arc::clone(filter)), *pipeline))
                };
                let (runtime_filters, depends_on) = runtime_filters.iter().filter_map(collected).unzip();
                let source = provider.scan(ScanRequest { runtime_filters, ..request.clone() })?;
                Open { depends_on, ..Open::from_source(source) }
            }
            Node::Values { rows } => Open::from_source(operators::values(plan.types(), rows.clone())),
            Node::Filter { input, conjuncts } => {
                let transform = operators::filter(input.layout.clone(), conjuncts.clone());
                self.build(input)?.through(transform)
            }
            Node::Project { input, expressions } => {
                let transform = operators::project(input.layout.clone(), expressions.clone());
                self.build(input)?.through(transform)
            }
            Node::HashAggregate { input, groups, aggregates } => {
                let spec = operators::AggregateSpec {
                    layout: input.layout.clone(),
                    groups: groups.clone(),
                    aggregates: aggregates.clone(),
                };
                let (sink, source) = operators::hash_aggregate(spec);
                self.build(input)?.broken(sink, source, &mut self.done)
            }
            Node::HashJoin { kind, build, probe, keys, residual, publishes } => {
                let spec = operators::HashJoinSpec {
                    kind: *kind,
                    build_layout: build.layout.clone(),
                    build_types: build.types(),
                    probe_layout: probe.layout.clone(),
                    probe_types: probe.types(),
                    keys: keys.clone(),
                    residual: residual.clone(),
                    output: plan.layout.clone(),
                };
                let (sink, transform) = operators::hash_join(spec);
                let mut open = self.build(build)?;
                let built = self.done.len();
                let mut collected = Vec::new();
                for published in publishes {
                    let filter = Arc::new(RuntimeFilter::new((*published.filter).clone()));
                    self.filters.insert(published.filter.id, (Arc::clone(&filter), built));
                    collected.push((keys[published.key].build.clone(), filter));
                }
                if !collected.is_empty() {
                    open = open.through(operators::collect_keys(build.layout.clone(), collected));
                }
                self.done.push(open.close(sink));
                let mut open = self.build(probe)?.through(transform);
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
                Open { max_lanes: 1, ..self.build(input)?.broken(sink, source, &mut self.done) }
            }
            Node::Limit { input, skip, fetch } => self.build(input)?.through(operators::limit(*skip, *fetch)),
        })
    }
}
