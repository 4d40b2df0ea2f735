//! What tests of operators need: an account, a lane's context, batches and expressions.

use crate::data::{Batch, BitmapMut, BufMut, DataType, FlatVector, Scalar, Selection, Values, Vector};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{LaneCx, OpenCx, QueryCx};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use std::sync::Arc;
use std::task::Waker;

/// A query of one lane whose waker does nothing.
pub(super) struct Harness {
    pub(super) account: Account,
    pub(super) query: Arc<QueryCx>,
    metrics: Arc<OperatorMetrics>,
}

impl Harness {
    pub(super) fn new(limit_bytes: usize) -> Self {
        let knobs = Knobs { lanes: 2, batch_rows: 1024, block_bytes: 64 << 10, fan_out: 4 };
        Self::with((limit_bytes, 0), knobs, &SpillDirectory::new(None, 0), None)
    }

    /// A lane with a floor, in a pool with a limit.
    pub(super) fn with(
        (limit_bytes, floor_bytes): (usize, usize),
        knobs: Knobs,
        spill: &SpillDirectory,
        faults: Option<FaultConfig>,
    ) -> Self {
        let pool = Pool::new("test", limit_bytes);
        let account = Account::open(&pool, floor_bytes, 4096, 0).expect("the floor fits");
        let faults = faults.map(|config| Arc::new(Faults::new(config)));
        let fails = faults.as_ref().and_then(Faults::disk_hook);
        let query = Arc::new(QueryCx::new(pool, knobs, Arc::new(spill.for_query(fails)), None, faults));
        Self { account, query, metrics: OperatorMetrics::new("test") }
    }

    pub(super) fn lane(&self) -> LaneCx<'_> {
        self.lane_woken_by(Waker::noop())
    }

    pub(super) fn lane_woken_by<'a>(&'a self, waker: &'a Waker) -> LaneCx<'a> {
        LaneCx { query: &self.query, account: &self.account, lane: 0, waker, metrics: &self.metrics }
    }

    pub(super) fn open(&self) -> OpenCx<'_> {
        OpenCx::granted(&self.query, 1, &self.metrics, 0).expect("nothing is granted")
    }

    /// What an operator that needs `shared_bytes` is opened with.
    pub(super) fn open_with(&self, lanes: usize, shared_bytes: usize) -> OpenCx<'_> {
        OpenCx::granted(&self.query, lanes, &self.metrics, shared_bytes).expect("the floor fits")
    }

    /// The same batch with `rows` selected.
    pub(super) fn select(&self, batch: Batch, rows: &[u32]) -> Batch {
        let rows = BufMut::copy_of(&self.account, rows).expect("fits").freeze();
        batch.with_selection(Some(Selection::new(rows)))
    }

    /// The rows alive of a batch of `BIGINT`s.
    pub(super) fn rows(&self, batch: &Batch) -> Vec<Vec<Option<i64>>> {
        let batch = batch.clone().compact(&self.account).expect("fits");
        let value = |column: &Vector, row| {
            column.scalar(row, &DataType::Int64).as_int().map(|v| i64::try_from(v).expect("a BIGINT"))
        };
        (0..batch.rows()).map(|row| batch.columns().iter().map(|c| value(c, row)).collect()).collect()
    }
}

/// A column of `BIGINT`s.
pub(super) fn int_column(harness: &Harness, values: &[Option<i64>]) -> Vector {
    let plain: Vec<i64> = values.iter().map(|v| v.unwrap_or(-1)).collect();
    let data = Values::I64(BufMut::copy_of(&harness.account, &plain).expect("fits").freeze());
    let mut bits = BitmapMut::with_len(&harness.account, values.len()).expect("fits");
    bits.fill_from(|row| values[row].is_some());
    let validity = values.contains(&None).then(|| bits.freeze());
    Vector::Flat(FlatVector { values: data, validity, bounds: None })
}

/// A batch of one column.
pub(super) fn ints(harness: &Harness, values: impl IntoIterator<Item = Option<i64>>) -> Batch {
    let values: Vec<_> = values.into_iter().collect();
    Batch::new(vec![int_column(harness, &values)], values.len())
}

/// A batch of two columns.
pub(super) fn two_columns(harness: &Harness, rows: impl IntoIterator<Item = (i64, i64)>) -> Batch {
    let (a, b): (Vec<_>, Vec<_>) = rows.into_iter().map(|(a, b)| (Some(a), Some(b))).unzip();
    Batch::new(vec![int_column(harness, &a), int_column(harness, &b)], a.len())
}

/// A nullable `BIGINT` column by its id.
pub(super) fn column(id: u32) -> Expr {
    Expr::Column { id: ColumnId(id), data_type: DataType::Int64, nullable: true }
}

/// `operand > bound`.
pub(super) fn above(operand: Expr, bound: i64) -> Expr {
    let bound = Expr::Literal(Scalar::int(DataType::Int64, bound.into()));
    Expr::Compare { op: CompareOp::Gt, left: Box::new(operand), right: Box::new(bound) }
}
