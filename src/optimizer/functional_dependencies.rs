//! Group keys that other group keys determine do not group: any value of theirs is the group's.
//!
//! Only what follows from the query is believed: equalities with constants and with other columns, what a projection
//! computes, and that an aggregation's keys determine its results. Statistics prove nothing.

use super::Rule;
use super::substitute::is_deterministic;
use crate::data::DataType;
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::functions::{self, AggregateCall};
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module.
pub(super) struct FunctionalDependencies;

impl Rule for FunctionalDependencies {
    fn name(&self) -> &'static str {
        "functional_dependencies"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        Ok(Arc::new(match node {
            Plan::Aggregate { input, groups, aggregates } => drop_keys(input, groups, aggregates),
            other => other,
        }))
    }
}

/// Rows that agree in all columns `of` agree in `column`. Columns may be ones that a node has dropped.
struct Dependency {
    of: BTreeSet<ColumnId>,
    column: ColumnId,
}

fn drop_keys(
    input: Arc<Plan>,
    mut groups: Vec<(Column, Expr)>,
    mut aggregates: Vec<(Column, AggregateCall)>,
) -> Plan {
    // Beside aggregates of values in order, keys that others take along would need an aggregation of their own.
    if groups.len() < 2 || aggregates.iter().any(|(_, call)| call.is_ordered()) {
        return Plan::Aggregate { input, groups, aggregates };
    }
    let mut known = vec![];
    dependencies(&input, &mut known);
    let outputs: Vec<(Column, Expr)> = groups
        .iter()
        .map(|(column, _)| column)
        .chain(aggregates.iter().map(|(column, _)| column))
        .map(|column| (column.clone(), column.to_expr()))
        .collect();
    // Keys that are costly to compare go first, then later ones.
    let mut candidates: Vec<(Column, Expr)> = groups.clone();
    candidates.reverse();
    candidates.sort_by_key(|(_, key)| !matches!(key.data_type(), DataType::Utf8 | DataType::Binary));
    let before = groups.len();
    for (column, key) in candidates {
        let Expr::Column { id, .. } = key else { continue };
        if groups.len() == 1 {
            break;
        }
        let others = groups.iter().filter(|(known, _)| known.id != column.id).filter_map(|(_, e)| match e {
            Expr::Column { id, .. } => Some(*id),
            _ => None,
        });
        if !closure(others.collect(), &known).contains(&id) {
            continue;
        }
        let Some(call) = any_value(key) else { continue };
        groups.retain(|(known, _)| known.id != column.id);
        aggregates.push((column, call));
    }
    let is_same = groups.len() == before;
    let aggregate = Plan::Aggregate { input, groups, aggregates };
    if is_same { aggregate } else { Plan::Project { input: Arc::new(aggregate), columns: outputs } }
}

/// `any_value(key)`, if there is one of its type.
fn any_value(key: Expr) -> Option<AggregateCall> {
    let data_type = key.data_type();
    let function = functions::aggregate::find("any_value")?;
    let (types, result) = function.signature(std::slice::from_ref(&data_type)).ok()?;
    (types == [data_type.clone()] && result == data_type).then(|| AggregateCall {
        function,
        arguments: vec![key],
        distinct: false,
        filter: None,
        data_type,
    })
}

/// All columns that `columns` determine, they included.
fn closure(mut columns: BTreeSet<ColumnId>, known: &[Dependency]) -> BTreeSet<ColumnId> {
    loop {
        let before = columns.len();
        for dependency in known {
            if dependency.of.is_subset(&columns) {
                columns.insert(dependency.column);
            }
        }
        if columns.len() == before {
            return columns;
        }
    }
}

/// What holds for the rows of `plan`. A column it has dropped counts as having the value it was computed from.
fn dependencies(plan: &Plan, out: &mut Vec<Dependency>) {
    match plan {
        Plan::Scan { filters, .. } => filters.iter().for_each(|e| equality(e, out)),
        Plan::Values { .. } => {}
        Plan::Filter { input, conjuncts } => {
            dependencies(input, out);
            conjuncts.iter().for_each(|e| equality(e, out));
        }
        Plan::Project { input, columns } => {
            dependencies(input, out);
            columns.iter().for_each(|(column, e)| definition(column.id, e, out));
        }
        Plan::Aggregate { input, groups, aggregates } => {
            dependencies(input, out);
            groups.iter().for_each(|(column, e)| definition(column.id, e, out));
            let keys: BTreeSet<ColumnId> = groups.iter().map(|(column, _)| column.id).collect();
            out.extend(
                aggregates.iter().map(|(column, _)| Dependency { of: keys.clone(), column: column.id }),
            );
        }
        Plan::Sort { input, .. }
        | Plan::Limit { input, .. }
        | Plan::LimitPer { input, .. }
        | Plan::Repeat { input, .. } => dependencies(input, out),
        // What holds in one input need not hold in another; a shared plan has other names.
        Plan::UnionAll { .. } | Plan::Shared { .. } => {}
        Plan::Join { kind, left, right, keys, filters } => match kind {
            JoinKind::Inner => {
                dependencies(left, out);
                dependencies(right, out);
                keys.iter().for_each(|key| equal(&key.left, &key.right, out));
                filters.iter().for_each(|e| equality(e, out));
            }
            // What holds on the right may not hold for rows without a partner.
            JoinKind::Left
            | JoinKind::Single
            | JoinKind::Semi
            | JoinKind::Anti { .. }
            | JoinKind::Mark { .. } => dependencies(left, out),
            JoinKind::Full => {}
        },
    }
}

/// What a column that is computed so depends on.
fn definition(column: ColumnId, expr: &Expr, out: &mut Vec<Dependency>) {
    if let Expr::Column { id, .. } = expr {
        out.push(Dependency { of: BTreeSet::from([column]), column: *id });
    }
    let mut of = BTreeSet::new();
    expr.for_each_column(&mut |id| {
        of.insert(id);
    });
    // Equal inputs that can be told apart, as 0.0 and -0.0, may give different results.
    let copies = matches!(expr, Expr::Column { .. });
    if copies || is_deterministic(expr) && reads_exact(expr) {
        out.push(Dependency { of, column });
    }
}

fn equality(conjunct: &Expr, out: &mut Vec<Dependency>) {
    if let Expr::Compare { op: CompareOp::Eq | CompareOp::IsNotDistinct, left, right } = conjunct {
        equal(left, right, out);
    }
}

fn equal(left: &Expr, right: &Expr, out: &mut Vec<Dependency>) {
    if left.data_type() != right.data_type() || !is_exact(&left.data_type()) {
        return;
    }
    let mut dependency = |of: &[ColumnId], column: ColumnId| {
        out.push(Dependency { of: of.iter().copied().collect(), column });
    };
    match (left, right) {
        (Expr::Column { id: a, .. }, Expr::Column { id: b, .. }) => {
            dependency(&[*a], *b);
            dependency(&[*b], *a);
        }
        (Expr::Column { id, .. }, Expr::Literal(_)) | (Expr::Literal(_), Expr::Column { id, .. }) => {
            dependency(&[], *id);
        }
        _ => {}
    }
}

/// Whether all columns it reads are of types whose equal values are the same.
fn reads_exact(expr: &Expr) -> bool {
    let mut exact = !matches!(expr, Expr::Column { .. }) || is_exact(&expr.data_type());
    expr.for_each_child(&mut |child| exact &= reads_exact(child));
    exact
}

/// Whether equal values are the same value.
pub(super) fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Boolean | DataType::Decimal { .. } | DataType::Utf8 | DataType::Binary | DataType::Date
        )
}

#[cfg(test)]
mod tests {
    use super::super::filter_pushdown::FilterPushdown;
    use super::super::testing::{assert_rewrites_after, bind, text};
    use super::*;

    fn rewritten(sql: &str) -> String {
        let mut plan = bind(sql);
        let mut ids = ColumnIds::after(&plan);
        for rule in [&FilterPushdown as &dyn Rule, &FunctionalDependencies] {
            plan = rule.apply(&plan, &mut ids).expect("applies");
        }
        text(&plan)
    }

    #[test]
    fn equal_keys_and_constant_ones_leave_the_key() {
        assert_rewrites_after(
            &[&FilterPushdown],
            &FunctionalDependencies,
            "select a, k, count(*) as n from t join u on a = k group by a, k",
            "Project: a, k, count_star()\n  Project: a, k, count_star()\n    \
             Aggregate: groups=[a] aggregates=[count(*) AS count_star(), any_value(k) AS k]\n      \
             InnerJoin: a = k\n        Scan t: [a, b, c, d]\n        Scan u: [k, x, y]\n",
        );
        let plan = rewritten("select a, c, count(*) from t where c = 'x' group by a, c");
        assert!(plan.contains("Aggregate: groups=[a] "), "{plan}");
        let plan = rewritten("select a, c, count(*) from t where c = 'x' and a = 1 group by a, c");
        assert!(plan.contains("Aggregate: groups=[a] "), "{plan}");
    }

    #[test]
    fn results_of_an_aggregation_depend_on_its_keys() {
        let sums = "(select a, b, sum(b) as s, min(c) as m from t group by a, b)";
        let plan = rewritten(&format!(
            "select a, b, s, m, count(*) from {sums} join u on x = s group by a, b, s, m"
        ));
        assert!(
            plan.contains("Aggregate: groups=[a, b] aggregates=[count(*) AS count_star(), any_value("),
            "{plan}"
        );
        let plan = rewritten(&format!("select a, s, count(*) from {sums} join u on x = s group by a, s"));
        assert!(
            plan.contains("Aggregate: groups=[a, sum(b)] aggregates=[count(*) AS count_star()]"),
            "{plan}"
        );
    }

    #[test]
    fn what_is_not_proven_stays() {
        for sql in [
            "select a, b, count(*) from t group by a, b",
            "select a, k, count(*) from t left join u on a = k group by a, k",
            "select a, k, count(*) from t join u on a < k group by a, k",
            "select a, c, count(*) from t where c = 'x' or a = 1 group by a, c",
        ] {
            let plan = rewritten(sql);
            assert!(!plan.contains("any_value"), "{sql}\n{plan}");
        }
    }
}
