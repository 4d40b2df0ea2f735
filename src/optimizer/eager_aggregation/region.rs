//! Relations that are joined, and the conditions between them.
//!
//! Invariants:
//! 1. All conditions are of inner joins, or, with `nulls_right`, of one left join of two relations.
//! 2. A set of relations is a number with a bit for each.

use super::super::cardinality::distinct;
use super::super::filter_pushdown::push;
use super::super::inner_joins::InnerJoins;
use crate::expr::{ColumnId, Expr};
use crate::logical::{JoinKey, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// See the module.
pub(super) struct Region {
    pub(super) relations: Vec<Arc<Plan>>,
    pub(super) conjuncts: Vec<Expr>,
    /// The second of two relations has nulls where the first has no partner.
    pub(super) nulls_right: bool,
    /// Which relation a column is of.
    owner: HashMap<ColumnId, usize>,
}

impl Region {
    /// The relations joined in `plan`.
    pub(super) fn of(plan: &Arc<Plan>) -> Self {
        let (joins, nulls_right) = match plan.as_ref() {
            Plan::Join { kind: JoinKind::Left, left, right, keys, filters } => {
                let keys = keys.iter().cloned().map(JoinKey::into_conjunct);
                let conjuncts = keys.chain(filters.iter().cloned()).collect();
                (InnerJoins { inputs: vec![Arc::clone(left), Arc::clone(right)], conjuncts }, true)
            }
            _ => (InnerJoins::of(plan), false),
        };
        let InnerJoins { inputs: relations, conjuncts } = joins;
        let columns_of = |(at, relation): (usize, &Arc<Plan>)| {
            relation.columns().into_iter().map(move |column| (column.id, at)).collect::<Vec<_>>()
        };
        let owner = relations.iter().enumerate().flat_map(columns_of).collect();
        Self { relations, conjuncts, nulls_right, owner }
    }

    /// The relations that may be missing: the right one of a left join.
    pub(super) fn missing(&self) -> u32 {
        if self.nulls_right { 0b10 } else { 0 }
    }

    /// The relations whose columns expressions read.
    pub(super) fn relations_of<'a>(&self, exprs: impl IntoIterator<Item = &'a Expr>) -> u32 {
        let mut relations = 0;
        for expr in exprs {
            expr.for_each_column(&mut |id| relations |= self.owner.get(&id).map_or(0, |at| 1 << at));
        }
        relations
    }

    /// A condition as an equality of an expression over `relations` with one over the others, that side first.
    pub(super) fn key(&self, conjunct: &Expr, relations: u32) -> Option<JoinKey> {
        let is_within = |id| self.owner.get(&id).is_some_and(|at| relations >> at & 1 == 1);
        JoinKey::from_conjunct(conjunct.clone(), &is_within, &|id| !is_within(id)).ok()
    }

    /// Calls `add` with each column of `expr` that is of the `relations`.
    pub(super) fn for_each_column_within(&self, expr: &Expr, relations: u32, add: &mut dyn FnMut(&Expr)) {
        if matches!(expr, Expr::Column { .. }) && self.relations_of([expr]) & relations != 0 {
            add(expr);
        }
        expr.for_each_child(&mut |child| self.for_each_column_within(child, relations, add));
    }

    /// Whether it is known how many values an expression takes in its relation.
    pub(super) fn is_counted(&self, expr: &Expr) -> bool {
        let of = self.relations_of([expr]).trailing_zeros() as usize;
        self.relations.get(of).is_some_and(|relation| distinct(expr, relation).is_some())
    }

    /// Whether conditions lead from each of the `relations` to all others of them.
    fn are_connected(&self, relations: u32) -> bool {
        let mut reached = relations & relations.wrapping_neg();
        loop {
            let before = reached;
            for conjunct in &self.conjuncts {
                let of = self.relations_of([conjunct]);
                if of & !relations == 0 && of & reached != 0 {
                    reached |= of;
                }
            }
            if reached == before {
                return reached == relations;
            }
        }
    }

    /// The `relations`, joined; `None` if some have nothing to do with the others.
    pub(super) fn join_within(&self, relations: u32) -> Option<Arc<Plan>> {
        let is_within = |conjunct: &&Expr| {
            let of = self.relations_of([*conjunct]);
            of != 0 && of & !relations == 0
        };
        let joins = InnerJoins {
            inputs: self.chosen(relations).collect(),
            conjuncts: self.conjuncts.iter().filter(is_within).cloned().collect(),
        };
        if self.are_connected(relations) { joins.into_pushed_plan() } else { None }
    }

    /// The other relations joined with `grouped`, which takes the place of `relations`, and has what `lifted` makes of
    /// expressions over them.
    pub(super) fn join_with(
        &self,
        grouped: Arc<Plan>,
        relations: u32,
        lifted: &dyn Fn(&Expr) -> Expr,
    ) -> Option<Arc<Plan>> {
        let is_outside = |conjunct: &&Expr| {
            let of = self.relations_of([*conjunct]);
            of == 0 || of & !relations != 0
        };
        let outside = self.conjuncts.iter().filter(is_outside);
        if !self.nulls_right {
            let conjuncts = outside.map(lifted).collect();
            let inputs = std::iter::once(grouped).chain(self.chosen(!relations)).collect();
            return InnerJoins { inputs, conjuncts }.into_pushed_plan();
        }
        let left = self.chosen(!relations).next()?;
        let filters = outside.map(lifted).collect();
        let join = Plan::Join { kind: JoinKind::Left, left, right: grouped, keys: vec![], filters };
        Some(push(&Arc::new(join), vec![]))
    }

    fn chosen(&self, relations: u32) -> impl Iterator<Item = Arc<Plan>> {
        let is_chosen = move |at: &usize| relations >> at & 1 == 1;
        (0..self.relations.len()).filter(is_chosen).map(|at| Arc::clone(&self.relations[at]))
    }
}
