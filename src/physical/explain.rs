//! EXPLAIN and EXPLAIN ANALYZE as text.

use super::plan::{Node, PhysicalPlan};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use crate::metrics::{OperatorMetrics, OperatorProfile, QueryMetrics, WaitMetrics};
use crate::scan::RuntimeFilterSpec;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The plan as an indented tree, a node a line, columns by their names.
pub(crate) fn explain(plan: &PhysicalPlan) -> String {
    let mut out = String::new();
    for (depth, node, title) in titles(plan) {
        let _ = write!(out, "{:indent$}{title}", "", indent = depth * 2);
        if let Some(rows) = node.estimated_rows {
            let _ = write!(out, " (about {rows} rows)");
        }
        out.push('\n');
    }
    out
}

/// The plan with what each of its operators was expected to do and did, then the operators pipeline by pipeline.
pub(crate) fn explain_analyze(
    profile: &[OperatorProfile],
    pipelines: &[Vec<Arc<OperatorMetrics>>],
    query: &QueryMetrics,
    rules: &[(&'static str, Duration)],
) -> String {
    let mut out = String::new();
    for operator in profile {
        let _ = write!(out, "{:indent$}{}", "", operator.title, indent = operator.depth * 2);
        let _ = write!(out, " (rows {}", operator.rows);
        if let Some(rows) = operator.estimated_rows {
            let _ = write!(out, " of about {rows}");
        }
        if let Some(rows) = operator.build_rows {
            let _ = write!(out, ", build rows {rows}");
        }
        let _ = writeln!(out, ", busy {:.3} ms)", operator.busy.as_secs_f64() * 1e3);
    }
    for (index, operators) in pipelines.iter().enumerate() {
        let _ = writeln!(out, "pipeline {index}");
        for m in operators {
            let _ = write!(
                out,
                "  {}: rows in {}, rows out {}, batches {}, busy {:.3} ms, waits {}",
                m.name,
                m.rows_in.load(Relaxed),
                m.rows_out.load(Relaxed),
                m.batches_out.load(Relaxed),
                m.busy().as_secs_f64() * 1e3,
                m.waits.load(Relaxed),
            );
            for (name, value) in m.counters() {
                let _ = write!(out, ", {name} {value}");
            }
            out.push('\n');
        }
    }
    let _ = writeln!(
        out,
        "planning {:.3} ms, execution {:.3} ms, lanes {}, batch rows {}, floors {} bytes, peak granted {} bytes, \
         peak resident {} bytes, spilled {} bytes",
        query.planning.as_secs_f64() * 1e3,
        query.execution.as_secs_f64() * 1e3,
        query.lanes,
        query.batch_rows,
        query.floor_bytes,
        query.peak_granted_bytes,
        query.peak_rss_bytes,
        query.spilled_bytes,
    );
    write_pressure(query, &mut out);
    let _ = write!(out, "rules");
    for (at, (rule, elapsed)) in rules.iter().enumerate() {
        let separator = if at == 0 { "" } else { "," };
        let _ = write!(out, "{separator} {rule} {:.3} ms", elapsed.as_secs_f64() * 1e3);
    }
    out.push('\n');
    out
}

/// What memory being short came to, if it came to anything.
fn write_pressure(query: &QueryMetrics, out: &mut String) {
    let (spill, waits) = (&query.spill, &query.waits);
    if spill.blocks_written > 0 {
        let _ = writeln!(
            out,
            "spill: partitions {}, depth {}, files {}, blocks written {} ({} bytes, {:.3} ms), read {} ({} bytes, \
             {:.3} ms), merged in {:.3} ms",
            spill.partitions,
            spill.depth,
            spill.files,
            spill.blocks_written,
            spill.bytes_written,
            spill.write_time.as_secs_f64() * 1e3,
            spill.blocks_read,
            spill.bytes_read,
            spill.read_time.as_secs_f64() * 1e3,
            spill.merge_time.as_secs_f64() * 1e3,
        );
    }
    if *waits != WaitMetrics::default() {
        let _ = writeln!(out, "waits: memory {}, queue {}, other {}", waits.memory, waits.queue, waits.other);
    }
}

/// Each node with its depth and its line, parents first.
pub(super) fn titles(plan: &PhysicalPlan) -> Vec<(usize, &PhysicalPlan, String)> {
    fn collect<'a>(
        plan: &'a PhysicalPlan,
        depth: usize,
        names: &BTreeMap<ColumnId, String>,
        out: &mut Vec<(usize, &'a PhysicalPlan, String)>,
    ) {
        let mut title = String::new();
        write_node(plan, names, &mut title);
        out.push((depth, plan, title));
        for input in plan.inputs() {
            collect(input, depth + 1, names, out);
        }
    }
    let mut names = BTreeMap::new();
    collect_names(plan, &mut names);
    let mut out = Vec::new();
    collect(plan, 0, &names, &mut out);
    out
}

fn collect_names(plan: &PhysicalPlan, names: &mut BTreeMap<ColumnId, String>) {
    for (id, field) in plan.layout.iter().zip(&plan.fields) {
        names.entry(*id).or_insert_with(|| field.name.clone());
    }
    if let Node::Scan { provider, request, .. } = &plan.node {
        let schema = crate::catalog::TableProvider::schema(&**provider);
        for (id, at) in &request.columns {
            names.insert(*id, schema[*at].name.clone());
        }
    }
    for input in plan.inputs() {
        collect_names(input, names);
    }
}

/// An expression with column names in place of ids.
fn text(expr: &Expr, names: &BTreeMap<ColumnId, String>) -> String {
    let mut text = expr.to_string();
    let mut ids = Vec::new();
    expr.for_each_column(&mut |id| ids.push(id));
    // Longest first, so that #12 is not taken for #1 and a 2.
    ids.sort_by_key(|id| std::cmp::Reverse(id.0));
    ids.dedup();
    for id in ids {
        if let Some(name) = names.get(&id) {
            text = text.replace(&format!("#{}", id.0), name);
        }
    }
    text
}

fn list<'a>(exprs: impl IntoIterator<Item = &'a Expr>, names: &BTreeMap<ColumnId, String>) -> String {
    exprs.into_iter().map(|e| text(e, names)).collect::<Vec<_>>().join(", ")
}

fn calls(aggregates: &[AggregateCall], names: &BTreeMap<ColumnId, String>) -> String {
    let call = |a: &AggregateCall| format!("{}({})", a.function.name(), list(&a.arguments, names));
    aggregates.iter().map(call).collect::<Vec<_>>().join(", ")
}

fn write_node(plan: &PhysicalPlan, names: &BTreeMap<ColumnId, String>, out: &mut String) {
    let _ = match &plan.node {
        Node::Scan { request, runtime_filters, .. } => {
            let columns: Vec<_> =
                request.outputs.iter().map(|id| names.get(id).map_or("?", String::as_str)).collect();
            let _ = write!(out, "Scan {} [{}]", request.table, columns.join(", "));
            if !request.filters.is_empty() {
                let _ = write!(out, " where {}", list(&request.filters, names));
            }
            let text = |(id, filter): &(ColumnId, Arc<RuntimeFilterSpec>)| {
                format!("{} by filter {}", names.get(id).map_or("?", String::as_str), filter.id)
            };
            let filtered: Vec<_> = runtime_filters.iter().map(text).collect();
            if filtered.is_empty() { Ok(()) } else { write!(out, " having {}", filtered.join(", ")) }
        }
        Node::Values { rows } => write!(out, "Values {} rows", rows.len()),
        Node::Filter { conjuncts, .. } => write!(out, "Filter {}", list(conjuncts, names)),
        Node::Project { expressions, .. } => write!(out, "Project {}", list(expressions, names)),
        Node::HashAggregate { groups, aggregates, clustered_by, .. } => {
            let name = match clustered_by {
                _ if groups.is_empty() => "Aggregate",
                Some(_) => "ClusteredAggregate",
                None => "HashAggregate",
            };
            write!(out, "{name} by [{}] compute [{}]", list(groups, names), calls(aggregates, names))
        }
        Node::OrderedAggregate { groups, aggregates, .. } => {
            write!(
                out,
                "OrderedAggregate by [{}] compute [{}]",
                list(groups, names),
                calls(aggregates, names)
            )
        }
        Node::HashJoin { kind, keys, residual, publishes, .. }
        | Node::SortMergeJoin { kind, keys, residual, publishes, .. } => {
            let conditions: Vec<_> = keys
                .iter()
                .map(|key| {
                    let operator = if key.null_safe { "<=>" } else { "=" };
                    format!("{} {operator} {}", text(&key.probe, names), text(&key.build, names))
                })
                .collect();
            let merge = if let Node::SortMergeJoin { reason, in_order, .. } = &plan.node {
                Some((reason, in_order))
            } else {
                None
            };
            let name = if merge.is_some() { "SortMergeJoin" } else { "HashJoin" };
            let _ = write!(out, "{name} {kind:?} on [{}]", conditions.join(", "));
            if !residual.is_empty() {
                let _ = write!(out, " where {}", list(residual, names));
            }
            if let Some((reason, in_order)) = merge {
                let _ = write!(out, " because {reason}");
                let _ = match in_order {
                    [true, true] | [false, false] => Ok(()),
                    [true, false] => write!(out, ", the build side being sorted"),
                    [false, true] => write!(out, ", the probe side being sorted"),
                };
            }
            publishes.iter().try_for_each(|published| {
                let key = text(&keys[published.key].build, names);
                write!(out, " publishing {key} as filter {}", published.filter.id)
            })
        }
        Node::Sort { keys, fetch, .. } => {
            let keys: Vec<_> = keys
                .iter()
                .map(|k| {
                    let order = if k.descending { "desc" } else { "asc" };
                    let nulls = if k.nulls_first { "nulls first" } else { "nulls last" };
                    format!("{} {order} {nulls}", text(&k.expr, names))
                })
                .collect();
            let _ = write!(out, "Sort {}", keys.join(", "));
            fetch.map_or(Ok(()), |f| write!(out, " first {f}"))
        }
        Node::UnionAll { inputs } => write!(out, "UnionAll of {}", inputs.len()),
        Node::Shared { number, .. } => write!(out, "Shared {number}"),
        Node::LimitPer { groups, skip, fetch, .. } => {
            let _ = write!(out, "LimitPer [{}]", list(groups, names));
            let _ = fetch.map_or(Ok(()), |f| write!(out, " {f}"));
            if *skip > 0 { write!(out, " skip {skip}") } else { Ok(()) }
        }
        Node::Repeat { times, .. } => write!(out, "Repeat {}", text(times, names)),
        Node::Limit { skip, fetch, .. } => {
            let _ = write!(out, "Limit");
            let _ = fetch.map_or(Ok(()), |f| write!(out, " {f}"));
            if *skip > 0 { write!(out, " skip {skip}") } else { Ok(()) }
        }
    };
}
