//! What pairs with equal keys must satisfy besides.

use super::super::hash_join::HashJoinKind;
use super::pairs::Pairs;
use super::plan::Plan;
use crate::data::{Batch, BitmapMut, BufMut};
use crate::error::Result;
use crate::exec::LaneCx;
use crate::expr::kernels::boolean::true_bits;
use crate::expr::{EvalCx, Evaluator, Expr, Predicate};

/// A condition over columns of both sides.
pub(super) enum Residual {
    /// None.
    Nothing,
    /// A conjunction that is true.
    Filter(Predicate),
    /// A conjunction of which it counts whether it is null, too.
    Answer(Evaluator),
}

impl Residual {
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        Ok(match (&plan.residual[..], plan.kind) {
            ([], _) => Self::Nothing,
            (conjuncts, HashJoinKind::ProbeMark { .. }) => {
                let all = match conjuncts {
                    [one] => one.clone(),
                    several => Expr::And(several.to_vec()),
                };
                Self::Answer(Evaluator::new(&[all], &plan.residual_layout)?)
            }
            (conjuncts, _) => Self::Filter(Predicate::new(conjuncts, &plan.residual_layout)?),
        })
    }

    /// Whether every pair satisfies it.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Keeps the pairs for which it is true; `batch` are their rows. Notes in `unknown` for which probe rows it is null.
    pub(super) fn apply(
        &mut self,
        batch: &Batch,
        pairs: &mut Pairs,
        unknown: &mut Option<BitmapMut>,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        match self {
            Self::Nothing => {}
            Self::Filter(predicate) => {
                if let Some(selection) = predicate.select(batch, &mut eval)? {
                    pairs.keep(selection.indices());
                }
            }
            Self::Answer(evaluator) => {
                let answers = evaluator.evaluate(batch, &mut eval)?;
                let is_true = true_bits(&answers[0], pairs.len(), cx.account)?;
                if let Some(unknown) = unknown {
                    for (at, &position) in pairs.positions().iter().enumerate() {
                        if answers[0].is_null(at) {
                            unknown.set(position as usize, true);
                        }
                    }
                }
                let mut places = BufMut::with_capacity(cx.account, is_true.count_ones())?;
                is_true.ones().for_each(|at| places.push(at as u32));
                pairs.keep(&places);
            }
        }
        Ok(())
    }
}
