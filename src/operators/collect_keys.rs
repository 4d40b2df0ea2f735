//! Collects the keys of a join's build side for runtime filters, on their way to the table.
//!
//! Invariants:
//! 1. All rows of the build side come by: the sink behind it takes every row.

use crate::data::Batch;
use crate::error::Result;
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr};
use crate::mem::{Account, Knobs};
use crate::scan::RuntimeFilter;
use std::sync::Arc;

/// A transform over batches of `layout` that passes them on and adds the value of each key to its filter.
pub(crate) fn collect_keys(layout: Vec<ColumnId>, keys: Vec<(Expr, Arc<RuntimeFilter>)>) -> TransformBox {
    let (keys, filters) = keys.into_iter().unzip();
    TransformBox::new(CollectKeys { layout, keys, filters })
}

struct CollectKeys {
    layout: Vec<ColumnId>,
    keys: Vec<Expr>,
    filters: Vec<Arc<RuntimeFilter>>,
}

impl Transform for CollectKeys {
    type Shared = ();
    type Local = Evaluator;

    fn name(&self) -> String {
        "CollectKeys".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        Need { lane_bytes: Evaluator::scratch_bytes(&self.keys, knobs.batch_rows), shared_bytes: 0 }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<()> {
        // No floor: a filter that is refused memory is left out.
        let account = Account::open(&cx.query.pool, 0, 4096, 0)?;
        self.filters.iter().for_each(|filter| filter.open(&account));
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Evaluator> {
        Evaluator::new(&self.keys, &self.layout)
    }

    fn push(&self, _shared: &(), evaluator: &mut Evaluator, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let keys = evaluator.evaluate(&batch, &mut EvalCx { account: cx.account, ids: &cx.query.ids })?;
        for (key, filter) in keys.iter().zip(&self.filters) {
            filter.add(key, batch.selection(), cx.account)?;
        }
        Ok(Output::Emit(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, column, ints};
    use super::*;
    use crate::data::DataType;
    use crate::scan::RuntimeFilterSpec;

    #[test]
    fn selected_rows_are_collected_and_passed_on() {
        let harness = Harness::new(16 << 20);
        let spec =
            RuntimeFilterSpec { id: 0, data_type: DataType::Int64, range: Some(0..=99), expected_rows: 4 };
        let filter = Arc::new(RuntimeFilter::new(spec));
        let transform = CollectKeys {
            layout: vec![ColumnId(0)],
            keys: vec![column(0)],
            filters: vec![Arc::clone(&filter)],
        };
        transform.open(&harness.open()).expect("no error");
        let cx = harness.lane();
        let mut local = transform.local(&(), &cx).expect("valid");
        let input = harness.select(ints(&harness, [Some(7), Some(8), None, Some(9)]), &[0, 2, 3]);
        let Output::Emit(batch) = transform.push(&(), &mut local, input, &cx).expect("no error") else {
            panic!("rows go on");
        };
        assert_eq!(batch.rows(), 3);
        let probe = ints(&harness, (0..12).map(Some));
        let passed = filter.select(probe.column(0), &harness.account).expect("fits").expect("not all");
        assert_eq!(&*passed, [7, 9]);
    }
}
