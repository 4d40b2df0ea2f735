//! A batch on its way into a lane's table.
//!
//! Invariants:
//! 1. A batch is counted wholly before the next; where a row of it is refused memory, the lane waits with the rows from
//!    that one on.

use super::groups::Kind;
use super::intake::Intake;
use super::spec::Plan;
use crate::data::{Batch, Vector};
use crate::error::Result;
use crate::exec::{LaneCx, Retry, Wait};
use crate::expr::{EvalCx, Evaluator};
use crate::functions::Rows;

/// Evaluates keys and arguments and counts rows in.
pub(super) struct Counter {
    evaluator: Evaluator,
    pending: Option<Pending>,
    /// Tries to get memory for the pending rows.
    waiting: Retry,
}

/// A batch that has not been counted wholly.
struct Pending {
    batch: Batch,
    /// Its keys and arguments, once evaluated.
    columns: Option<Vec<Vector>>,
    /// How many of its rows have been counted.
    counted: usize,
}

impl Counter {
    /// Without a batch.
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        let evaluator = Evaluator::new(&plan.expressions, &plan.layout)?;
        Ok(Self { evaluator, pending: None, waiting: Retry::default() })
    }

    /// Takes a batch, the one before having been counted.
    pub(super) fn take(&mut self, batch: Batch) {
        debug_assert!(self.pending.is_none(), "one batch at a time");
        self.pending = Some(Pending { batch, columns: None, counted: 0 });
    }

    /// Counts what is pending into `intake`, or waits for the memory that one of the rows needs.
    pub(super) fn go_on(&mut self, intake: &mut Intake, cx: &LaneCx<'_>) -> Result<Option<Wait>> {
        let Self { evaluator, pending, waiting } = self;
        intake.heed_requests(cx)?;
        let Some(Pending { batch, columns, counted }) = pending else { return Ok(None) };
        let columns = loop {
            if let Some(columns) = columns {
                break &*columns;
            }
            let mut eval_cx = EvalCx { account: cx.account, ids: &cx.query.ids };
            match evaluator.evaluate(batch, &mut eval_cx) {
                Ok(evaluated) => *columns = Some(evaluated),
                Err(error) if error.is_refusal() => {
                    if !intake.make_room(cx)? {
                        return waiting.wait(error.refused_bytes(), cx).map(Some).ok_or(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let rows = match batch.selection() {
            None => Rows::All(batch.physical_rows()),
            Some(selection) => Rows::At(selection.indices()),
        };
        if let Err(denied) = intake.add(Kind::Rows, columns, rows, counted, cx)? {
            return waiting.wait(denied.bytes, cx).map(Some).ok_or_else(|| intake.too_small(denied));
        }
        *pending = None;
        waiting.end();
        Ok(None)
    }
}
