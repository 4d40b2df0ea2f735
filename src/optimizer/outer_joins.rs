//! Outer joins whose rows without a partner are dropped further up become inner ones; scalar subqueries that cannot
//! have a second row become left joins first.
//!
//! A condition drops such rows if it cannot be true with nulls for all columns of the side that lacks a partner.

use super::Rule;
use super::fold_constants::fold;
use super::substitute::Definitions;
use crate::data::{Scalar, Value};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{ColumnIds, JoinKey, JoinKind, Plan};
use std::collections::HashSet;
use std::sync::Arc;

/// See the module.
pub(super) struct OuterJoins;

impl Rule for OuterJoins {
    fn name(&self) -> &'static str {
        "outer_joins"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        Ok(rewrite(plan, vec![]))
    }
}

/// `plan`, of which only rows matter that satisfy `conditions`.
fn rewrite(plan: &Arc<Plan>, mut conditions: Vec<Expr>) -> Arc<Plan> {
    let node = match plan.as_ref() {
        Plan::Scan { .. } | Plan::Values { .. } | Plan::Shared { .. } => return Arc::clone(plan),
        Plan::Filter { input, conjuncts } => {
            conditions.extend(conjuncts.iter().cloned());
            Plan::Filter { input: rewrite(input, conditions), conjuncts: conjuncts.clone() }
        }
        Plan::Project { input, columns } => {
            let definitions = Definitions::of(columns);
            conditions.retain(|e| definitions.may_expand(e));
            let conditions = conditions.into_iter().map(|e| definitions.apply(e)).collect();
            Plan::Project { input: rewrite(input, conditions), columns: columns.clone() }
        }
        Plan::Aggregate { input, groups, aggregates } => {
            let definitions = Definitions::of(groups);
            conditions.retain(|e| !groups.is_empty() && definitions.cover(e) && definitions.may_expand(e));
            let conditions = conditions.into_iter().map(|e| definitions.apply(e)).collect();
            let (groups, aggregates) = (groups.clone(), aggregates.clone());
            Plan::Aggregate { input: rewrite(input, conditions), groups, aggregates }
        }
        Plan::Sort { input, keys, fetch } => {
            let conditions = if fetch.is_none() { conditions } else { vec![] };
            Plan::Sort { input: rewrite(input, conditions), keys: keys.clone(), fetch: *fetch }
        }
        Plan::LimitPer { input, groups, keys, skip, fetch } => {
            let (input, groups, keys) = (rewrite(input, vec![]), groups.clone(), keys.clone());
            Plan::LimitPer { input, groups, keys, skip: *skip, fetch: *fetch }
        }
        Plan::Repeat { input, times } => {
            Plan::Repeat { input: rewrite(input, conditions), times: times.clone() }
        }
        Plan::UnionAll { columns, inputs, values } => {
            let inputs = inputs.iter().zip(values).map(|(input, values)| {
                let defined: Vec<_> = columns.iter().cloned().zip(values.iter().cloned()).collect();
                let definitions = Definitions::of(&defined);
                let of_input = conditions.iter().filter(|e| definitions.may_expand(e));
                rewrite(input, of_input.map(|e| definitions.apply(e.clone())).collect())
            });
            let inputs = inputs.collect();
            Plan::UnionAll { columns: columns.clone(), inputs, values: values.clone() }
        }
        Plan::Limit { input, skip, fetch } => {
            Plan::Limit { input: rewrite(input, vec![]), skip: *skip, fetch: *fetch }
        }
        Plan::Join { kind, left, right, keys, filters } => {
            rewrite_join(kind, [left, right], keys.clone(), filters.clone(), conditions)
        }
    };
    Arc::new(node)
}

fn rewrite_join(
    kind: &JoinKind,
    [mut left, mut right]: [&Arc<Plan>; 2],
    mut keys: Vec<JoinKey>,
    filters: Vec<Expr>,
    conditions: Vec<Expr>,
) -> Plan {
    let drops = |side: &Plan| {
        let columns: HashSet<ColumnId> = side.columns().into_iter().map(|column| column.id).collect();
        conditions.iter().any(|e| rejects_nulls(e, &columns))
    };
    let kind = match kind {
        JoinKind::Single if has_one_row_per_key(right, &keys) => &JoinKind::Left,
        other => other,
    };
    let kind = match kind {
        JoinKind::Left if drops(right) => JoinKind::Inner,
        JoinKind::Full => match (drops(left), drops(right)) {
            (true, true) => JoinKind::Inner,
            (true, false) => JoinKind::Left,
            (false, true) => {
                std::mem::swap(&mut left, &mut right);
                for key in &mut keys {
                    std::mem::swap(&mut key.left, &mut key.right);
                }
                JoinKind::Left
            }
            (false, false) => JoinKind::Full,
        },
        JoinKind::Inner
        | JoinKind::Left
        | JoinKind::Single
        | JoinKind::Semi
        | JoinKind::Anti { .. }
        | JoinKind::Mark { .. } => kind.clone(),
    };
    let met: Vec<Expr> = keys.iter().cloned().map(JoinKey::into_conjunct).collect();
    let both = || met.iter().chain(&filters).cloned().collect::<Vec<_>>();
    let (of_left, of_right) = match &kind {
        JoinKind::Inner => {
            let all: Vec<Expr> = conditions.into_iter().chain(both()).collect();
            (all.clone(), all)
        }
        JoinKind::Semi => (conditions.into_iter().chain(both()).collect(), both()),
        JoinKind::Left | JoinKind::Single | JoinKind::Anti { null_aware: false } => (conditions, both()),
        JoinKind::Mark { null_aware: false, .. } => (conditions, met),
        JoinKind::Anti { null_aware: true } | JoinKind::Mark { null_aware: true, .. } => (conditions, vec![]),
        JoinKind::Full => (vec![], vec![]),
    };
    Plan::Join { kind, left: rewrite(left, of_left), right: rewrite(right, of_right), keys, filters }
}

/// Whether no left row can meet two right rows: the right side has one row for each value of the keys.
fn has_one_row_per_key(right: &Plan, keys: &[JoinKey]) -> bool {
    let columns = keys.iter().filter_map(|key| match key.right {
        Expr::Column { id, .. } => Some(id),
        _ => None,
    });
    is_unique(right, &columns.collect())
}

/// Whether no two rows of `plan` agree in all of `columns`.
fn is_unique(plan: &Plan, columns: &HashSet<ColumnId>) -> bool {
    match plan {
        Plan::Aggregate { groups, .. } => groups.iter().all(|(column, _)| columns.contains(&column.id)),
        Plan::Project { input, columns: computed } => {
            let known = computed.iter().filter(|(column, _)| columns.contains(&column.id));
            let below = known.filter_map(|(_, e)| match e {
                Expr::Column { id, .. } => Some(*id),
                _ => None,
            });
            is_unique(input, &below.collect())
        }
        Plan::Filter { input, .. } | Plan::Sort { input, fetch: None, .. } => is_unique(input, columns),
        Plan::LimitPer { input, groups, fetch, .. } => {
            let is_known = |e: &Expr| matches!(e, Expr::Column { id, .. } if columns.contains(id));
            matches!(fetch, Some(0 | 1)) && groups.iter().all(is_known) || is_unique(input, columns)
        }
        Plan::Sort { input, fetch, .. } | Plan::Limit { input, fetch, .. } => {
            matches!(fetch, Some(0 | 1)) || is_unique(input, columns)
        }
        Plan::Values { rows, .. } => rows.len() <= 1,
        Plan::Join { kind, left, .. } => match kind {
            JoinKind::Semi | JoinKind::Anti { .. } | JoinKind::Mark { .. } | JoinKind::Single => {
                is_unique(left, columns)
            }
            JoinKind::Inner | JoinKind::Left | JoinKind::Full => false,
        },
        Plan::Scan { .. } | Plan::UnionAll { .. } | Plan::Shared { .. } | Plan::Repeat { .. } => false,
    }
}

/// Whether `condition` cannot be true where all of `columns` are null.
pub(super) fn rejects_nulls(condition: &Expr, columns: &HashSet<ColumnId>) -> bool {
    let mut reads = false;
    condition.for_each_column(&mut |id| reads |= columns.contains(&id));
    reads && is_never_true(&with_nulls(condition.clone(), columns))
}

fn is_never_true(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(Scalar { value: Value::Boolean(false) | Value::Null, .. }) => true,
        Expr::And(list) => list.iter().any(is_never_true),
        Expr::Or(list) => list.iter().all(is_never_true),
        _ => false,
    }
}

/// `expr` simplified for null `columns`.
fn with_nulls(expr: Expr, columns: &HashSet<ColumnId>) -> Expr {
    if let Expr::Column { id, data_type, .. } = &expr {
        return if columns.contains(id) { Expr::Literal(Scalar::null(data_type.clone())) } else { expr };
    }
    let expr = expr.map_children(&mut |child| with_nulls(child, columns));
    let is_strict = match &expr {
        Expr::Compare { op, .. } => !matches!(op, CompareOp::IsDistinct | CompareOp::IsNotDistinct),
        Expr::Call { function, .. } => function.is_strict(),
        Expr::Arithmetic { .. }
        | Expr::Negate(_)
        | Expr::Not(_)
        | Expr::InList { .. }
        | Expr::Like { .. }
        | Expr::Cast { .. } => true,
        Expr::Column { .. }
        | Expr::Literal(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::IsNull(_)
        | Expr::Case { .. } => false,
    };
    let mut has_null = false;
    expr.for_each_child(&mut |child| has_null |= matches!(child, Expr::Literal(value) if value.is_null()));
    if is_strict && has_null { Expr::Literal(Scalar::null(expr.data_type())) } else { fold(expr) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_rewrites, assert_rewrites_after};
    use super::super::unnest::UnnestSubqueries;
    use super::*;

    fn assert_kind(sql: &str, line: &str) {
        let plan = super::super::testing::bind(sql);
        let once = OuterJoins.apply(&plan, &mut ColumnIds::after(&plan)).expect("applies");
        let text = super::super::testing::text(&once);
        assert!(text.lines().any(|l| l.trim() == line), "{sql}:\n{text}");
    }

    #[test]
    fn conditions_that_reject_nulls_make_inner_joins() {
        assert_rewrites(
            &OuterJoins,
            "select a from t left join u on a = k where x > 1",
            "Project: a\n  Filter: (x > 1)\n    InnerJoin: a = k\n      Scan t: [a, b, c, d]\n      Scan u: [k, x, y]\n",
        );
        for condition in
            ["x + b > 3", "x in (1, 2)", "x is not null", "x > 1 or y < 3", "not (x = 1)", "x > 1 and true"]
        {
            assert_kind(
                &format!("select a from t left join u on a = k where {condition}"),
                "InnerJoin: a = k",
            );
        }
        for condition in ["x is null", "x > 1 or a = 1", "coalesce(x, 1) = 1", "x is distinct from 3"] {
            assert_kind(
                &format!("select a from t left join u on a = k where {condition}"),
                "LeftJoin: a = k",
            );
        }
    }

    #[test]
    fn full_joins_lose_the_sides_that_are_dropped() {
        assert_kind("select a from t full join u on a = k where b > 1", "LeftJoin: a = k");
        assert_kind("select a from t full join u on a = k where x > 1", "LeftJoin: k = a");
        assert_kind("select a from t full join u on a = k where x > b", "InnerJoin: a = k");
        assert_kind("select a from t full join u on a = k where x > b or a is null", "FullJoin: a = k");
    }

    #[test]
    fn conditions_of_joins_above_count() {
        let sql = "select t.a from t left join u on t.a = u.k join t as v on v.a = u.x";
        assert_kind(sql, "InnerJoin: a#0 = k");
        let sql = "select t.a from t left join u on t.a = u.k left join t as v on v.a = u.x";
        assert_kind(sql, "LeftJoin: a#0 = k");
    }

    #[test]
    fn subqueries_of_one_row_per_key_become_joins() {
        assert_rewrites_after(
            &[&UnnestSubqueries],
            &OuterJoins,
            "select a from t where b < (select min(x) from u where k = a)",
            "Project: a\n  Filter: (b < min(x))\n    InnerJoin: a = k\n      Scan t: [a, b, c, d]\n      \
             Project: min(x), k\n        Aggregate: groups=[k] aggregates=[min(x)]\n          Scan u: [k, x, y]\n",
        );
        assert_rewrites_after(
            &[&UnnestSubqueries],
            &OuterJoins,
            "select a from t where b < (select x from u where k = a)",
            "Project: a\n  Filter: (b < x)\n    SingleJoin: a = k\n      Scan t: [a, b, c, d]\n      \
             Project: x, k\n        Scan u: [k, x, y]\n",
        );
    }
}
