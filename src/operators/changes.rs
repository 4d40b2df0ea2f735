//! Where rows that come in order differ from the row before.
//!
//! Invariants:
//! 1. All rows come to one lane, one batch after the other, none of them empty; the last row of a batch is kept for the next.

use crate::data::{Batch, Bitmap, BitmapMut, DataType, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::{ColumnId, CompareOp, EvalCx, Evaluator, Expr};

/// A buffer is at least this large.
const BUFFER_BYTES: usize = 4 << 10;

/// Columns that are compared. Nulls are equal to each other.
pub(super) struct Changes {
    types: Vec<DataType>,
    /// Whether a row is the same as the row before: over columns numbered in pairs.
    is_same: [Expr; 1],
    pairs: Vec<ColumnId>,
}

/// The last row that came to a lane.
pub(super) struct ChangesLocal {
    is_same: Evaluator,
    last: Option<Vec<Vector>>,
}

impl Changes {
    /// Of columns of `types`.
    pub(super) fn new(types: Vec<DataType>) -> Self {
        let pairs: Vec<ColumnId> = (0..2 * types.len() as u32).map(ColumnId).collect();
        let column = |id: &ColumnId, data_type: &DataType| {
            Box::new(Expr::Column { id: *id, data_type: data_type.clone(), nullable: true })
        };
        let same = types.iter().zip(pairs.chunks(2)).map(|(data_type, pair)| Expr::Compare {
            op: CompareOp::IsNotDistinct,
            left: column(&pair[0], data_type),
            right: column(&pair[1], data_type),
        });
        let is_same = [Expr::And(same.collect())];
        Self { types, is_same, pairs }
    }

    /// What comparing batches of `rows` takes.
    pub(super) fn scratch_bytes(&self, rows: usize) -> usize {
        // Of slices only their validity is copied.
        Evaluator::scratch_bytes(&self.is_same, rows)
            + rows * 2 * self.types.len()
            + (4 * self.types.len() + 3) * BUFFER_BYTES
    }

    /// No row has come.
    pub(super) fn local(&self) -> Result<ChangesLocal> {
        Ok(ChangesLocal { is_same: Evaluator::new(&self.is_same, &self.pairs)?, last: None })
    }
}

impl ChangesLocal {
    /// For each of `rows` rows, at least one, whether it is the same as the row before, which for the first one came with
    /// the last call. After an error nothing has changed.
    pub(super) fn same_as_before(
        &mut self,
        columns: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Bitmap> {
        let row_of = |row: u32, cx: &EvalCx<'_>| -> Result<Vec<Vector>> {
            columns.iter().map(|column| Ok(column.gather(&[row], cx.account)?)).collect()
        };
        let from = |start: usize, cx: &EvalCx<'_>| -> Result<Vec<Vector>> {
            columns.iter().map(|column| Ok(column.slice(start, rows - 1, cx.account)?)).collect()
        };
        let same = self.same(&from(1, cx)?, &from(0, cx)?, rows - 1, cx)?;
        let goes_on = match self.last.clone() {
            Some(last) => self.same(&row_of(0, cx)?, &last, 1, cx)?.get(0),
            None => false,
        };
        let mut answer = BitmapMut::with_len(cx.account, rows)?;
        self.last = Some(row_of(rows as u32 - 1, cx)?);
        answer.fill_from(|row| if row == 0 { goes_on } else { same.get(row - 1) });
        Ok(answer.freeze())
    }

    fn same(
        &mut self,
        columns: &[Vector],
        before: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Bitmap> {
        let columns = columns.iter().zip(before).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        let [answer] = self
            .is_same
            .evaluate(&Batch::new(columns, rows), cx)?
            .try_into()
            .map_err(|_| Error::internal("one expression has one value"))?;
        match answer.flatten(cx.account)?.values {
            Values::Bool(bits) => Ok(bits),
            _ => Err(Error::internal("a comparison is no boolean")),
        }
    }
}
