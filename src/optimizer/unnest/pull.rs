//! A dependent plan as an independent one and what is to be asked of its rows.

use super::{
    Join, has_at_most_one_row, of_no_rows, plan_reads_any, produced_by, reads, reads_any, unnest_join,
};
use crate::data::{Field, Scalar, Value};
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::functions::AggregateCall;
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use crate::optimizer::fold_constants::fold;
use crate::optimizer::substitute::{inline, inline_plan};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// For a row of the outer columns, the dependent plan has the rows of `plan` for which all conditions are true.
pub(super) struct Pulled {
    /// Reads no outer column. Besides the columns of the dependent plan, except `computed` ones, it produces what
    /// the conditions and `computed` read.
    pub(super) plan: Arc<Plan>,
    /// Over the columns of `plan` and outer ones.
    pub(super) conditions: Vec<Expr>,
    /// Columns that need outer ones to be computed.
    pub(super) computed: HashMap<ColumnId, Expr>,
    /// Where no row satisfies the conditions there is one row all the same, of these values: the dependent plan has
    /// exactly one row for each outer row.
    pub(super) default: Option<HashMap<ColumnId, Expr>>,
}

impl Pulled {
    fn independent(plan: Arc<Plan>) -> Self {
        Self { plan, conditions: vec![], computed: HashMap::new(), default: None }
    }
}

/// Pulls conditions on outer columns out of plans.
pub(super) struct Puller<'a> {
    pub(super) outer: &'a BTreeSet<ColumnId>,
    pub(super) ids: &'a mut ColumnIds,
}

impl Puller<'_> {
    /// `None` if the plan depends on outer columns by more than conditions.
    pub(super) fn pull(&mut self, plan: &Arc<Plan>) -> Result<Option<Pulled>> {
        if !plan_reads_any(plan, self.outer) {
            return Ok(Some(Pulled::independent(Arc::clone(plan))));
        }
        match plan.as_ref() {
            Plan::Scan { table, provider, columns, filter_columns, filters } => {
                let scan = Plan::Scan {
                    table: table.clone(),
                    provider: Arc::clone(provider),
                    columns: columns.iter().chain(filter_columns).cloned().collect(),
                    filter_columns: vec![],
                    filters: vec![],
                };
                Ok(self.filter(Pulled::independent(Arc::new(scan)), filters))
            }
            Plan::Values { .. } => Ok(None),
            Plan::Filter { input, conjuncts } => {
                Ok(self.pull(input)?.and_then(|pulled| self.filter(pulled, conjuncts)))
            }
            Plan::Project { input, columns } => {
                Ok(self.pull(input)?.map(|pulled| self.project(pulled, columns)))
            }
            Plan::Aggregate { input, groups, aggregates } => {
                Ok(self.pull(input)?.and_then(|pulled| self.aggregate(pulled, groups, aggregates)))
            }
            // The order of a subquery's rows means nothing outside of it.
            Plan::Sort { input, keys: _, fetch: None } => self.pull(input),
            Plan::Limit { input, skip: 0, fetch: None | Some(1..) } if has_at_most_one_row(input) => {
                self.pull(input)
            }
            // Each input of a union would have conditions of its own.
            Plan::Sort { .. }
            | Plan::Limit { .. }
            | Plan::UnionAll { .. }
            | Plan::Shared { .. }
            | Plan::LimitPer { .. }
            | Plan::Repeat { .. } => Ok(None),
            Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } => {
                let (Some(left), Some(right)) = (self.pull(left)?, self.pull(right)?) else {
                    return Ok(None);
                };
                Ok(self.inner_join(left, right, keys, filters))
            }
            Plan::Join { kind: JoinKind::Full, .. } => Ok(None),
            Plan::Join { kind, left, right, keys, filters } => {
                let Some(left) = self.pull(left)? else { return Ok(None) };
                self.other_join(kind.clone(), left, right, keys, filters)
            }
        }
    }

    fn reads_outer(&self, expr: &Expr) -> bool {
        reads_any(expr, self.outer)
    }

    fn filter(&self, mut pulled: Pulled, conjuncts: &[Expr]) -> Option<Pulled> {
        if let Some(default) = pulled.default.take() {
            // Whether rows were dropped or never there, there must be none then.
            let drops = |e: &Expr| is_not_true(&fold(inline(e.clone(), &default)));
            if !conjuncts.iter().any(drops) {
                return None;
            }
        }
        let mut own = vec![];
        let inlined = conjuncts.iter().map(|conjunct| inline(conjunct.clone(), &pulled.computed));
        for conjunct in inlined.flat_map(parts) {
            if self.reads_outer(&conjunct) { pulled.conditions.push(conjunct) } else { own.push(conjunct) }
        }
        if !own.is_empty() {
            pulled.plan = Arc::new(Plan::Filter { input: pulled.plan, conjuncts: own });
        }
        Some(pulled)
    }

    fn project(&self, pulled: Pulled, columns: &[(Column, Expr)]) -> Pulled {
        let Pulled { plan, conditions, computed: below, default } = pulled;
        let equal = self.equalities(&conditions);
        let mut computed = HashMap::new();
        let mut produced: Vec<(Column, Expr)> = vec![];
        for (column, expr) in columns {
            let expr = inline(expr.clone(), &below);
            let replaced = inline(expr.clone(), &equal);
            if self.reads_outer(&replaced) {
                computed.insert(column.id, expr);
            } else {
                let nullable = replaced.is_nullable();
                let column = if nullable { column.clone().into_nullable() } else { column.clone() };
                produced.push((column, replaced));
            }
        }
        let default = default.map(|default| {
            let values = columns.iter().map(|(c, e)| (c.id, fold(inline(e.clone(), &default))));
            values.collect()
        });
        let mut read = BTreeSet::new();
        for expr in conditions.iter().chain(computed.values()) {
            expr.for_each_column(&mut |id| {
                read.insert(id);
            });
        }
        for column in plan.output_columns() {
            if read.contains(&column.id) && !produced.iter().any(|(known, _)| known.id == column.id) {
                let expr = column.to_expr();
                produced.push((column, expr));
            }
        }
        let plan = Arc::new(Plan::Project { input: plan, columns: produced });
        Pulled { plan, conditions, computed, default }
    }

    fn aggregate(
        &mut self,
        pulled: Pulled,
        groups: &[(Column, Expr)],
        aggregates: &[(Column, AggregateCall)],
    ) -> Option<Pulled> {
        let Pulled { mut plan, conditions, computed, default: None } = pulled else { return None };
        let equal = self.equalities(&conditions);
        let outer = self.outer;
        let independent = |e: &Expr| {
            let replaced = inline(inline(e.clone(), &computed), &equal);
            (!reads_any(&replaced, outer)).then_some(replaced)
        };
        let mut keys: Vec<(Column, Expr)> = vec![];
        for (column, key) in groups {
            keys.push((column.clone(), independent(key)?));
        }
        let mut calls = vec![];
        for (column, call) in aggregates {
            let mut call = call.clone();
            call.arguments = call.arguments.iter().map(independent).collect::<Option<_>>()?;
            call.filter = match &call.filter {
                Some(filter) => Some(independent(filter)?),
                None => None,
            };
            calls.push((column.clone(), call));
        }
        let is_inner = produced_by(&plan);
        let mut own = vec![];
        let mut above = vec![];
        for condition in conditions {
            match JoinKey::from_conjunct(condition, &|id| !is_inner(id), &is_inner) {
                Ok(mut key) => {
                    key.right = group_key(&plan, key.right, &mut keys, self.ids).to_expr();
                    above.push(key.into_conjunct());
                }
                Err(condition) => {
                    if reads(&condition, &is_inner) {
                        own.push(independent(&condition)?);
                    } else {
                        above.push(condition);
                    }
                }
            }
        }
        if !own.is_empty() {
            plan = Arc::new(Plan::Filter { input: plan, conjuncts: own });
        }
        let default = groups.is_empty().then(|| {
            let values = aggregates.iter().map(|(c, call)| (c.id, Expr::Literal(of_no_rows(call))));
            values.collect()
        });
        let plan = Arc::new(Plan::Aggregate { input: plan, groups: keys, aggregates: calls });
        Some(Pulled { plan, conditions: above, computed: HashMap::new(), default })
    }

    fn inner_join(&self, left: Pulled, right: Pulled, keys: &[JoinKey], filters: &[Expr]) -> Option<Pulled> {
        if left.default.is_some() || right.default.is_some() {
            return None;
        }
        let mut computed = left.computed;
        computed.extend(right.computed);
        let mut conditions = left.conditions;
        conditions.extend(right.conditions);
        let (mut own_keys, mut own_filters) = (vec![], vec![]);
        for key in keys {
            let left = inline(key.left.clone(), &computed);
            let right = inline(key.right.clone(), &computed);
            let key = JoinKey { left, right, null_safe: key.null_safe };
            if self.reads_outer(&key.left) || self.reads_outer(&key.right) {
                conditions.push(key.into_conjunct());
            } else {
                own_keys.push(key);
            }
        }
        for filter in filters {
            let filter = inline(filter.clone(), &computed);
            if self.reads_outer(&filter) { conditions.push(filter) } else { own_filters.push(filter) }
        }
        let join = Join {
            kind: JoinKind::Inner,
            left: left.plan,
            right: right.plan,
            keys: own_keys,
            filters: own_filters,
        };
        Some(Pulled { plan: join.into_plan(), conditions, computed, default: None })
    }

    /// Joins that keep left rows apart. What else depends on outer columns must know them from the left side.
    fn other_join(
        &mut self,
        kind: JoinKind,
        left: Pulled,
        right: &Arc<Plan>,
        keys: &[JoinKey],
        filters: &[Expr],
    ) -> Result<Option<Pulled>> {
        if left.default.is_some() {
            return Ok(None);
        }
        let equal = self.equalities(&left.conditions);
        let right = inline_plan(right, &equal);
        let independent = |e: &Expr| {
            let replaced = inline(inline(e.clone(), &left.computed), &equal);
            (!self.reads_outer(&replaced)).then_some(replaced)
        };
        let keys: Option<Vec<JoinKey>> = keys
            .iter()
            .map(|key| {
                let (left, right) = (independent(&key.left)?, independent(&key.right)?);
                Some(JoinKey { left, right, null_safe: key.null_safe })
            })
            .collect();
        let filters: Option<Vec<Expr>> = filters.iter().map(independent).collect();
        let (Some(keys), Some(filters)) = (keys, filters) else { return Ok(None) };
        if plan_reads_any(&right, self.outer) {
            return Ok(None);
        }
        let Pulled { plan, conditions, computed, default } = left;
        // The right side may now read the left.
        let plan = unnest_join(Join { kind, left: plan, right, keys, filters }, self.ids)?;
        Ok(Some(Pulled { plan, conditions, computed, default }))
    }

    /// Outer columns that the conditions equate with something the plan knows.
    fn equalities(&self, conditions: &[Expr]) -> HashMap<ColumnId, Expr> {
        let mut equal = HashMap::new();
        for condition in conditions {
            let Expr::Compare { op: CompareOp::Eq | CompareOp::IsNotDistinct, left, right } = condition
            else {
                continue;
            };
            for (a, b) in [(left, right), (right, left)] {
                if let Expr::Column { id, .. } = a.as_ref()
                    && self.outer.contains(id)
                    && !self.reads_outer(b)
                {
                    equal.entry(*id).or_insert_with(|| b.as_ref().clone());
                }
            }
        }
        equal
    }
}

/// The group key that `expr` is, added if it is none yet.
fn group_key(input: &Plan, expr: Expr, keys: &mut Vec<(Column, Expr)>, ids: &mut ColumnIds) -> Column {
    if let Some((column, _)) = keys.iter().find(|(_, known)| *known == expr) {
        return column.clone();
    }
    let known = match &expr {
        Expr::Column { id, .. } if !keys.iter().any(|(column, _)| column.id == *id) => {
            input.output_columns().into_iter().find(|column| column.id == *id)
        }
        _ => None,
    };
    let column = known.unwrap_or_else(|| {
        let field = Field { name: "key".into(), data_type: expr.data_type(), nullable: expr.is_nullable() };
        Column { id: ids.fresh(), field }
    });
    keys.push((column.clone(), expr));
    column
}

/// The conjuncts of a condition that only selects rows, for which it does not matter whether it is false or unknown.
fn parts(condition: Expr) -> Vec<Expr> {
    match condition {
        Expr::And(parts) => parts.into_iter().flat_map(self::parts).collect(),
        Expr::Compare { op: CompareOp::IsNotDistinct, left, right } if is_true(&right) => parts(*left),
        other => vec![other],
    }
}

fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(Scalar { value: Value::Boolean(true), .. }))
}

/// Whether a condition is known to be false or unknown.
fn is_not_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(Scalar { value: Value::Boolean(false) | Value::Null, .. }))
}
