//! Drops the rows for which a conjunct is not true.

use crate::data::Batch;
use crate::error::Result;
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr, Predicate};
use crate::mem::Knobs;

/// Below one row alive in this many, copying the survivors costs less than what follows saves.
const SPARSE: usize = 4;
/// Below this many rows a copy per column costs more than it can save.
const SMALL_ROWS: usize = 256;

/// A filter over batches of `layout`.
pub(crate) fn filter(layout: Vec<ColumnId>, conjuncts: Vec<Expr>) -> TransformBox {
    TransformBox::new(Filter { layout, conjuncts })
}

struct Filter {
    layout: Vec<ColumnId>,
    conjuncts: Vec<Expr>,
}

impl Transform for Filter {
    type Shared = ();
    type Local = Predicate;

    fn name(&self) -> String {
        "Filter".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        // A selection, and a compacted batch no larger than a quarter of what came in.
        let output = knobs.batch_rows * (4 + 16 * self.layout.len() / SPARSE);
        let scratch = Evaluator::scratch_bytes(&self.conjuncts, knobs.batch_rows);
        Need { lane_bytes: scratch + output, shared_bytes: 0 }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Predicate> {
        Predicate::new(&self.conjuncts, &self.layout)
    }

    fn push(&self, _shared: &(), predicate: &mut Predicate, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let Some(selection) = predicate.select(&batch, &mut eval)? else { return Ok(Output::Emit(batch)) };
        let (alive, physical) = (selection.len(), batch.physical_rows());
        if alive == 0 {
            return Ok(Output::NeedInput);
        }
        let batch = batch.with_selection(Some(selection));
        let is_sparse = physical >= SMALL_ROWS && alive * SPARSE < physical;
        Ok(Output::Emit(if is_sparse { batch.compact(cx.account)? } else { batch }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, above, column, ints};
    use super::*;

    fn filtered(harness: &Harness, input: Batch, bound: i64) -> Option<Batch> {
        let transform = Filter { layout: vec![ColumnId(0)], conjuncts: vec![above(column(0), bound)] };
        let cx = harness.lane();
        let mut local = transform.local(&(), &cx).expect("valid");
        match transform.push(&(), &mut local, input, &cx).expect("no error") {
            Output::Emit(batch) => Some(batch),
            Output::NeedInput => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_survive_as_they_are_selected_or_compacted() {
        let harness = Harness::new(16 << 20);
        let input = || ints(&harness, (0..1000).map(Some));
        let most = filtered(&harness, input(), 299).expect("rows");
        assert_eq!((most.rows(), most.physical_rows()), (700, 1000));
        assert_eq!(harness.rows(&most)[0], [Some(300)]);
        let few = filtered(&harness, input(), 899).expect("rows");
        assert_eq!((few.rows(), few.physical_rows()), (100, 100));
        assert_eq!(harness.rows(&few)[99], [Some(999)]);
        assert!(filtered(&harness, input(), 1000).is_none());
        let all = filtered(&harness, input(), -1).expect("rows");
        assert_eq!((all.rows(), all.physical_rows()), (1000, 1000));
    }

    #[test]
    fn unselected_and_null_rows_do_not_come_back() {
        let harness = Harness::new(16 << 20);
        let input = ints(&harness, [Some(5), None, Some(7), Some(8)]);
        let input = harness.select(input, &[0, 1, 3]);
        let output = filtered(&harness, input, 4).expect("rows");
        assert_eq!(harness.rows(&output), [[Some(5)], [Some(8)]]);
    }
}
