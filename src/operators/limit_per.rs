//! Limits each group of rows on its own.

use crate::data::{Batch, Bitmap, BufMut, DataType, Selection, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, CompareOp, EvalCx, Evaluator, Expr};
use crate::mem::{Account, Knobs};

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
    /// Whether a row's groups are those of the row before: over columns numbered in pairs.
    is_same: [Expr; 1],
    pairs: Vec<ColumnId>,
    skip: u64,
    end: u64,
}

struct Local {
    groups: Evaluator,
    is_same: Evaluator,
    /// The groups of the last row, one row each.
    last: Option<Vec<Vector>>,
    /// How many rows of the last row's group have come.
    seen: u64,
}

impl LimitPer {
    fn new(layout: Vec<ColumnId>, groups: Vec<Expr>, skip: u64, fetch: Option<u64>) -> Self {
        let pairs: Vec<ColumnId> = (0..2 * groups.len() as u32).map(ColumnId).collect();
        let column = |id: &ColumnId, data_type: &DataType| {
            Box::new(Expr::Column { id: *id, data_type: data_type.clone(), nullable: true })
        };
        let same = groups.iter().zip(pairs.chunks(2)).map(|(group, pair)| Expr::Compare {
            op: CompareOp::IsNotDistinct,
            left: column(&pair[0], &group.data_type()),
            right: column(&pair[1], &group.data_type()),
        });
        let is_same = [Expr::And(same.collect())];
        let end = fetch.map_or(u64::MAX, |fetch| skip.saturating_add(fetch));
        Self { layout, groups, is_same, pairs, skip, end }
    }

    /// For each row whether it is in the group of the row before it.
    fn same(
        local: &mut Local,
        groups: &[Vector],
        before: &[Vector],
        rows: usize,
        eval: &mut EvalCx<'_>,
    ) -> Result<Bitmap> {
        let columns = groups.iter().zip(before).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        let [answer] = local
            .is_same
            .evaluate(&Batch::new(columns, rows), eval)?
            .try_into()
            .map_err(|_| Error::internal("one expression has one value"))?;
        match answer.flatten(eval.account)?.values {
            Values::Bool(bits) => Ok(bits),
            _ => Err(Error::internal("a comparison is no boolean")),
        }
    }
}

/// `row` of each vector.
fn row_of(vectors: &[Vector], row: u32, account: &Account) -> Result<Vec<Vector>> {
    let rows = vectors.iter().map(|vector| vector.gather(&[row], account));
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Transform for LimitPer {
    type Shared = ();
    type Local = Local;

    fn name(&self) -> String {
        "LimitPer".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let width: usize = self.groups.iter().map(|e| e.data_type().value_bytes() + 1).sum();
        let scratch = Evaluator::scratch_bytes(&self.groups, knobs.batch_rows)
            + Evaluator::scratch_bytes(&self.is_same, knobs.batch_rows);
        let columns = (4 * self.groups.len() + 4) * BUFFER_BYTES;
        Need {
            lane_bytes: scratch + knobs.batch_rows * (2 * width + 2 * size_of::<u32>()) + columns,
            shared_bytes: 0,
        }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Local> {
        let groups = Evaluator::new(&self.groups, &self.layout)?;
        Ok(Local { groups, is_same: Evaluator::new(&self.is_same, &self.pairs)?, last: None, seen: 0 })
    }

    fn push(&self, _shared: &(), local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let batch = batch.compact(cx.account)?;
        let rows = batch.rows();
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let groups = local.groups.evaluate(&batch, &mut eval)?;
        let mut shifted: BufMut<u32> = BufMut::with_len(cx.account, rows)?;
        for (row, to) in shifted.iter_mut().enumerate() {
            *to = row.saturating_sub(1) as u32;
        }
        let before = groups.iter().map(|vector| vector.gather(&shifted, cx.account));
        let before = before.collect::<Result<Vec<_>, _>>()?;
        let same = Self::same(local, &groups, &before, rows, &mut eval)?;
        drop(before);
        let goes_on = match local.last.take() {
            Some(last) => {
                let first = row_of(&groups, 0, cx.account)?;
                Self::same(local, &first, &last, 1, &mut eval)?.get(0)
            }
            None => false,
        };
        let mut kept: BufMut<u32> = BufMut::with_capacity(cx.account, rows)?;
        for row in 0..rows {
            let is_same = if row == 0 { goes_on } else { same.get(row) };
            local.seen = if is_same { local.seen + 1 } else { 1 };
            if local.seen > self.skip && local.seen <= self.end {
                kept.push(row as u32);
            }
        }
        local.last = Some(row_of(&groups, rows as u32 - 1, cx.account)?);
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
