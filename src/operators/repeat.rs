//! Rows several times over.

use crate::data::{Batch, BufMut, DataType, Values};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr};
use crate::mem::Knobs;

/// A buffer is at least this large.
const BUFFER_BYTES: usize = 4 << 10;

/// Each row of batches of `layout` and `types` as often as the `BIGINT` `times` says; not at all if that is null or
/// less than one.
pub(crate) fn repeat(layout: Vec<ColumnId>, types: Vec<DataType>, times: Expr) -> TransformBox {
    TransformBox::new(Repeat { layout, types, times: [times] })
}

struct Repeat {
    layout: Vec<ColumnId>,
    types: Vec<DataType>,
    times: [Expr; 1],
}

struct Local {
    evaluator: Evaluator,
    rest: Option<Rest>,
}

/// What of a batch is still to be emitted.
struct Rest {
    batch: Batch,
    times: Values,
    /// The row at hand, and how often it has been emitted.
    row: usize,
    emitted: i64,
}

impl Rest {
    /// The next rows to emit, at most `most`; whether there are any after them.
    fn next(&mut self, most: usize, cx: &LaneCx<'_>) -> Result<(Option<Batch>, bool)> {
        let Values::I64(times) = &self.times else {
            return Err(Error::internal("rows are repeated a number of times that is no BIGINT"));
        };
        let mut rows: BufMut<u32> = BufMut::with_len(cx.account, most)?;
        let mut taken = 0;
        while self.row < times.len() && taken < most {
            let left = times[self.row].saturating_sub(self.emitted).max(0);
            let now = usize::try_from(left).unwrap_or(most).min(most - taken);
            rows[taken..taken + now].fill(self.row as u32);
            taken += now;
            self.emitted += now as i64;
            if self.emitted >= times[self.row] {
                (self.row, self.emitted) = (self.row + 1, 0);
            }
        }
        let has_more = times[self.row.min(times.len())..].iter().any(|&times| times > 0);
        if taken == 0 {
            return Ok((None, false));
        }
        let columns = self.batch.columns().iter().map(|column| column.gather(&rows[..taken], cx.account));
        Ok((Some(Batch::new(columns.collect::<Result<_, _>>()?, taken)), has_more))
    }
}

impl Repeat {
    fn emit(&self, local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        let Some(rest) = &mut local.rest else { return Ok(Output::NeedInput) };
        let (batch, has_more) = rest.next(cx.batch_rows(), cx)?;
        if !has_more {
            local.rest = None;
        }
        Ok(match (batch, has_more) {
            (Some(batch), true) => Output::EmitMore(batch),
            (Some(batch), false) => Output::Emit(batch),
            (None, _) => Output::NeedInput,
        })
    }
}

impl Transform for Repeat {
    type Shared = ();
    type Local = Local;

    fn name(&self) -> String {
        "Repeat".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let width: usize = self.types.iter().map(|t| t.value_bytes() + 1).sum();
        let numbers = size_of::<u32>() + 2 * size_of::<i64>();
        let columns = (2 * self.types.len() + 3) * BUFFER_BYTES;
        let scratch = Evaluator::scratch_bytes(&self.times, knobs.batch_rows);
        // A batch to take from, compacted, and one to emit.
        Need { lane_bytes: scratch + knobs.batch_rows * (2 * width + numbers) + columns, shared_bytes: 0 }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local { evaluator: Evaluator::new(&self.times, &self.layout)?, rest: None })
    }

    fn push(&self, _shared: &(), local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let batch = batch.compact(cx.account)?;
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let [times] = local
            .evaluator
            .evaluate(&batch, &mut eval)?
            .try_into()
            .map_err(|_| Error::internal("one expression has one value"))?;
        let flat = times.flatten(cx.account)?;
        let times = match (&flat.validity, flat.values) {
            (None, values) => values,
            (Some(validity), Values::I64(values)) => {
                let mut known = BufMut::copy_of(cx.account, &values)?;
                for (row, times) in known.iter_mut().enumerate() {
                    *times = if validity.get(row) { *times } else { 0 };
                }
                Values::I64(known.freeze())
            }
            (Some(_), other) => other,
        };
        local.rest = Some(Rest { batch, times, row: 0, emitted: 0 });
        self.emit(local, cx)
    }

    fn resume(&self, _shared: &(), local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        self.emit(local, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, column, int_column};
    use super::*;

    #[test]
    fn rows_come_as_often_as_they_say() {
        let harness = Harness::new(16 << 20);
        let cx = harness.lane();
        let layout = vec![ColumnId(0), ColumnId(1)];
        let transform = Repeat { layout, types: vec![DataType::Int64; 2], times: [column(1)] };
        let mut local = transform.local(&(), &cx).expect("valid");
        let times = [Some(3), None, Some(0), Some(-5), Some(2000), Some(1), Some(0)];
        let values: Vec<_> = (0..times.len() as i64).map(Some).collect();
        let columns = vec![int_column(&harness, &values), int_column(&harness, &times)];
        let mut counts = [0; 7];
        let mut batches = 0;
        let mut answer = transform.push(&(), &mut local, Batch::new(columns, 7), &cx).expect("fits");
        loop {
            let (batch, is_last) = match answer {
                Output::EmitMore(batch) => (batch, false),
                Output::Emit(batch) => (batch, true),
                other => panic!("{other:?}"),
            };
            batches += 1;
            assert!(batch.rows() <= cx.batch_rows());
            for row in harness.rows(&batch) {
                counts[row[0].expect("a number") as usize] += 1;
            }
            if is_last {
                break;
            }
            answer = transform.resume(&(), &mut local, &cx).expect("fits");
        }
        assert_eq!(counts, [3, 0, 0, 0, 2000, 1, 0]);
        assert_eq!(batches, 2);
        let none = Batch::new(vec![int_column(&harness, &[Some(1)]), int_column(&harness, &[None])], 1);
        let answer = transform.push(&(), &mut local, none, &cx).expect("fits");
        assert!(matches!(answer, Output::NeedInput));
    }
}
