//! Relations that are joined, and the conditions between them.
//!
//! Invariants:
//! 1. All conditions are of inner joins, or, with `nulls_right`, of one left join of two relations.

use super::OUTER;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{JoinKey, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// What must be true of joined rows.
#[derive(Clone)]
pub(super) enum Condition {
    Key(JoinKey),
    Filter(Expr),
}

impl Condition {
    /// What it compares.
    pub(super) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let (first, second) = match self {
            Self::Key(key) => (&key.left, Some(&key.right)),
            Self::Filter(expr) => (expr, None),
        };
        std::iter::once(first).chain(second)
    }

    fn map(&self, map: &dyn Fn(&Expr) -> Expr) -> Self {
        match self {
            Self::Key(key) => {
                Self::Key(JoinKey { left: map(&key.left), right: map(&key.right), null_safe: key.null_safe })
            }
            Self::Filter(expr) => Self::Filter(map(expr)),
        }
    }
}

/// See the module.
pub(super) struct Region {
    pub(super) relations: Vec<Arc<Plan>>,
    pub(super) conditions: Vec<Condition>,
    /// The second of two relations has nulls where the first has no partner.
    pub(super) nulls_right: bool,
    /// Which relation a column is of.
    owner: HashMap<ColumnId, usize>,
}

impl Region {
    /// The relations joined in `plan`, if it is a join.
    pub(super) fn of(plan: &Arc<Plan>) -> Option<Self> {
        let mut region =
            Self { relations: Vec::new(), conditions: Vec::new(), nulls_right: false, owner: HashMap::new() };
        match plan.as_ref() {
            Plan::Join { kind: JoinKind::Inner, .. } | Plan::Filter { .. } => region.collect(plan),
            Plan::Join { kind, left, right, keys, filters } if *kind == OUTER => {
                region.nulls_right = true;
                region.relations = vec![Arc::clone(left), Arc::clone(right)];
                region.add_conditions(keys, filters);
            }
            _ => return None,
        }
        for (at, relation) in region.relations.iter().enumerate() {
            region.owner.extend(relation.columns().into_iter().map(|column| (column.id, at)));
        }
        Some(region)
    }

    fn collect(&mut self, plan: &Arc<Plan>) {
        match plan.as_ref() {
            Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } => {
                self.collect(left);
                self.collect(right);
                self.add_conditions(keys, filters);
            }
            Plan::Filter { input, conjuncts }
                if matches!(**input, Plan::Join { kind: JoinKind::Inner, .. }) =>
            {
                self.collect(input);
                self.add_conditions(&[], conjuncts);
            }
            _ => self.relations.push(Arc::clone(plan)),
        }
    }

    fn add_conditions(&mut self, keys: &[JoinKey], filters: &[Expr]) {
        self.conditions.extend(keys.iter().cloned().map(Condition::Key));
        self.conditions.extend(filters.iter().cloned().map(Condition::Filter));
    }

    /// The relation that an outer join has nulls for, as a bit.
    pub(super) fn right(&self) -> u32 {
        1 << 1
    }

    /// The relations whose columns expressions read, as bits.
    pub(super) fn relations_of<'a>(&self, exprs: impl IntoIterator<Item = &'a Expr>) -> u32 {
        let mut relations = 0;
        for expr in exprs {
            expr.for_each_column(&mut |id| relations |= self.owner.get(&id).map_or(0, |at| 1 << at));
        }
        relations
    }

    /// Calls `add` with each column of `expr` that is of the `relations`.
    pub(super) fn columns_within(&self, expr: &Expr, relations: u32, add: &mut dyn FnMut(&Expr)) {
        if let Expr::Column { .. } = expr {
            if self.relations_of([expr]) & relations != 0 {
                add(expr);
            }
            return;
        }
        expr.for_each_child(&mut |child| self.columns_within(child, relations, add));
    }

    /// Some of the relations, joined; `None` if no keys lead from each to all others.
    pub(super) fn join_within(&self, relations: u32) -> Option<Arc<Plan>> {
        let within = |at: &usize| relations >> at & 1 == 1;
        let chosen = (0..self.relations.len()).filter(within).map(|at| Arc::clone(&self.relations[at]));
        let conditions = self.conditions.iter().filter(|condition| {
            let of = self.relations_of(condition.exprs());
            of != 0 && of & !relations == 0
        });
        join(chosen.collect(), conditions.cloned().collect())
    }

    /// The other relations joined with `grouped`, which takes the place of `relations`, and has what `lifted` makes of
    /// expressions over them.
    pub(super) fn join_with(
        &self,
        grouped: Arc<Plan>,
        relations: u32,
        lifted: &dyn Fn(&Expr) -> Expr,
    ) -> Option<Arc<Plan>> {
        if self.nulls_right {
            let conditions = self.conditions.iter().map(|condition| condition.map(lifted));
            let (mut keys, mut filters) = (Vec::new(), Vec::new());
            for condition in conditions {
                match condition {
                    Condition::Key(key) => keys.push(key),
                    Condition::Filter(expr) => filters.push(expr),
                }
            }
            let left = Arc::clone(self.relations.first()?);
            return Some(Arc::new(Plan::Join { kind: OUTER, left, right: grouped, keys, filters }));
        }
        let others = (0..self.relations.len()).filter(|at| relations >> at & 1 == 0);
        let others = others.map(|at| Arc::clone(&self.relations[at]));
        let outside = self.conditions.iter().filter(|condition| {
            let of = self.relations_of(condition.exprs());
            of == 0 || of & !relations != 0
        });
        let conditions = outside.map(|condition| condition.map(lifted)).collect();
        join(std::iter::once(grouped).chain(others).collect(), conditions)
    }
}

/// Inner joins of `relations` on `conditions`, in an order in which keys lead from each to those before; `None` if there is
/// none. Which order is best is for others to say.
fn join(mut relations: Vec<Arc<Plan>>, mut conditions: Vec<Condition>) -> Option<Arc<Plan>> {
    let mut joined = relations.remove(0);
    let alone: Vec<Expr> = take_filters(&mut conditions, &joined);
    if !alone.is_empty() {
        joined = Arc::new(Plan::Filter { input: joined, conjuncts: alone });
    }
    while !relations.is_empty() {
        let next = relations.iter().position(|relation| {
            conditions.iter().any(|condition| key_between(condition, &joined, relation).is_some())
        })?;
        let right = relations.remove(next);
        let mut keys = Vec::new();
        conditions.retain(|condition| match key_between(condition, &joined, &right) {
            Some(key) => {
                keys.push(key);
                false
            }
            None => true,
        });
        let left = joined;
        let bare = Plan::Join { kind: JoinKind::Inner, left, right, keys, filters: Vec::new() };
        let filters = take_filters(&mut conditions, &bare);
        joined = match bare {
            Plan::Join { kind, left, right, keys, .. } => {
                Arc::new(Plan::Join { kind, left, right, keys, filters })
            }
            other => Arc::new(other),
        };
    }
    conditions.is_empty().then_some(joined)
}

/// Takes the conditions out that speak of columns of `plan` only, as filters.
fn take_filters(conditions: &mut Vec<Condition>, plan: &Plan) -> Vec<Expr> {
    let mut filters = Vec::new();
    conditions.retain(|condition| {
        let is_over_plan = condition.exprs().all(|expr| is_over(expr, plan));
        if is_over_plan {
            filters.push(match condition {
                Condition::Filter(expr) => expr.clone(),
                Condition::Key(JoinKey { left, right, null_safe }) => Expr::Compare {
                    op: if *null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq },
                    left: Box::new(left.clone()),
                    right: Box::new(right.clone()),
                },
            });
        }
        !is_over_plan
    });
    filters
}

/// The key that a condition is between two plans, the left one's side first.
fn key_between(condition: &Condition, left: &Plan, right: &Plan) -> Option<JoinKey> {
    let Condition::Key(key) = condition else { return None };
    let is_between = |a: &Expr, b: &Expr| reads(a) && reads(b) && is_over(a, left) && is_over(b, right);
    if is_between(&key.left, &key.right) {
        Some(key.clone())
    } else if is_between(&key.right, &key.left) {
        Some(JoinKey { left: key.right.clone(), right: key.left.clone(), null_safe: key.null_safe })
    } else {
        None
    }
}

/// Whether an expression reads columns at all.
fn reads(expr: &Expr) -> bool {
    let mut any = false;
    expr.for_each_column(&mut |_| any = true);
    any
}

/// Whether all columns of `expr` are of `plan`.
fn is_over(expr: &Expr, plan: &Plan) -> bool {
    let columns = plan.columns();
    let mut all = true;
    expr.for_each_column(&mut |id| all &= columns.iter().any(|column| column.id == id));
    all
}
