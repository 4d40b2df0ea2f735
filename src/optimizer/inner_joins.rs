//! Inner joins as what is joined and what must be true of it. What rules share, not a rule.

use super::filter_pushdown::push;
use crate::expr::Expr;
use crate::logical::{JoinKey, JoinKind, Plan};
use std::sync::Arc;

/// Inner joins with nothing between them but filters.
#[derive(Default)]
pub(super) struct InnerJoins {
    pub(super) inputs: Vec<Arc<Plan>>,
    /// All their conditions.
    pub(super) conjuncts: Vec<Expr>,
}

impl InnerJoins {
    /// Those at the top of `plan`; of another plan, itself as the only input.
    pub(super) fn of(plan: &Arc<Plan>) -> Self {
        let mut joins = Self::default();
        joins.collect(plan);
        joins
    }

    fn collect(&mut self, plan: &Arc<Plan>) {
        match plan.as_ref() {
            Plan::Filter { input, conjuncts } => {
                self.collect(input);
                self.conjuncts.extend(conjuncts.iter().cloned());
            }
            Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } => {
                self.collect(left);
                self.collect(right);
                self.conjuncts.extend(keys.iter().cloned().map(JoinKey::into_conjunct));
                self.conjuncts.extend(filters.iter().cloned());
            }
            _ => self.inputs.push(Arc::clone(plan)),
        }
    }

    /// The inputs joined one after the other, and filtered; `None` without any.
    pub(super) fn into_plan(self) -> Option<Arc<Plan>> {
        let join = |left, right| {
            Arc::new(Plan::Join { kind: JoinKind::Inner, left, right, keys: vec![], filters: vec![] })
        };
        let input = self.inputs.into_iter().reduce(join)?;
        let conjuncts = self.conjuncts;
        Some(if conjuncts.is_empty() { input } else { Arc::new(Plan::Filter { input, conjuncts }) })
    }

    /// The same with conditions where they can be judged first, as keys where they are equalities.
    pub(super) fn into_pushed_plan(self) -> Option<Arc<Plan>> {
        Some(push(&self.into_plan()?, vec![]))
    }
}
