//! Limits each group of rows on its own.

use super::changes::{Changes, ChangesLocal};
use crate::data::{Batch, BufMut, Selection};
use crate::error::Result;
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr};
use crate::mem::Knobs;

/// A buffer is at least this large.
const BUFFER_BYTES: usize = 4 << 10;

/// Of rows that agree in `groups`, which come one after the other on a single lane, those after the first `skip`, at
/// most `fetch` of them. Nulls are equal to each other.
pub(crate) fn limit_per(
    layout: Vec<ColumnId>,
    groups: Vec<Expr>,
    skip: u64,
    fetch: Option<u64>,
) -> TransformBox {
    TransformBox::new(LimitPer::new(layout, groups, skip, fetch))
}

struct LimitPer {
    layout: Vec<ColumnId>,
    groups: Vec<Expr>,
    changes: Changes,
    skip: u64,
    end: u64,
}

struct Local {
    groups: Evaluator,
    changes: ChangesLocal,
    /// How many rows of the last row's group have come.
    seen: u64,
}

impl LimitPer {
    fn new(layout: Vec<ColumnId>, groups: Vec<Expr>, skip: u64, fetch: Option<u64>) -> Self {
        let changes = Changes::new(groups.iter().map(Expr::data_type).collect());
        let end = fetch.map_or(u64::MAX, |fetch| skip.saturating_add(fetch));
        Self { layout, groups, changes, skip, end }
    }
}

impl Transform for LimitPer {
    type Shared = ();
    type Local = Local;

    fn name(&self) -> String {
        "LimitPer".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let rows = knobs.batch_rows;
        let width: usize = self.groups.iter().map(|e| e.data_type().value_bytes() + 1).sum();
        let scratch = Evaluator::scratch_bytes(&self.groups, rows) + self.changes.scratch_bytes(rows);
        let columns = (2 * self.groups.len() + 1) * BUFFER_BYTES;
        Need { lane_bytes: scratch + rows * (width + size_of::<u32>()) + columns, shared_bytes: 0 }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Local> {
        let groups = Evaluator::new(&self.groups, &self.layout)?;
        Ok(Local { groups, changes: self.changes.local()?, seen: 0 })
    }

    fn push(&self, _shared: &(), local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let batch = batch.compact(cx.account)?;
        let rows = batch.rows();
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let groups = local.groups.evaluate(&batch, &mut eval)?;
        let same = local.changes.same_as_before(&groups, rows, &mut eval)?;
        let mut kept: BufMut<u32> = BufMut::with_capacity(cx.account, rows)?;
        for row in 0..rows {
            local.seen = if same.get(row) { local.seen + 1 } else { 1 };
            if local.seen > self.skip && local.seen <= self.end {
                kept.push(row as u32);
            }
        }
        if kept.is_empty() {
            return Ok(Output::NeedInput);
        }
        if kept.len() == rows {
            return Ok(Output::Emit(batch));
        }
        Ok(Output::Emit(batch.with_selection(Some(Selection::new(kept.freeze())))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, column, int_column};
    use super::*;

    #[test]
    fn each_group_is_limited_across_batches() {
        let groups = [None, None, None, Some(1), Some(2), Some(2), Some(2), Some(2), Some(3), Some(3)];
        for (skip, fetch, expected) in [
            (0, Some(1), vec![0, 3, 4, 8]),
            (0, Some(2), vec![0, 1, 3, 4, 5, 8, 9]),
            (1, Some(2), vec![1, 2, 5, 6, 9]),
            (2, None, vec![2, 6, 7]),
        ] {
            for size in [1, 2, 3, 10] {
                let harness = Harness::new(16 << 20);
                let cx = harness.lane();
                let layout = vec![ColumnId(7), ColumnId(8)];
                let transform = LimitPer::new(layout, vec![column(7)], skip, fetch);
                let mut local = transform.local(&(), &cx).expect("valid");
                let mut kept = vec![];
                for (at, part) in groups.chunks(size).enumerate() {
                    let numbers: Vec<_> = (0..part.len()).map(|i| Some((at * size + i) as i64)).collect();
                    let columns = vec![int_column(&harness, part), int_column(&harness, &numbers)];
                    match transform.push(&(), &mut local, Batch::new(columns, part.len()), &cx).expect("fits")
                    {
                        Output::Emit(batch) => {
                            kept.extend(harness.rows(&batch).iter().filter_map(|row| row[1]));
                        }
                        Output::NeedInput => {}
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(kept, expected, "{skip} {fetch:?} in batches of {size}");
            }
        }
    }
}
