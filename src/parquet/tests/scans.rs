//! Scans: filters, projections, lanes, pruning.

use super::files::{Memory, every_type, with_codec, write};
use crate::catalog::TableProvider;
use crate::data::{Batch, DataType, DictionaryIds, Scalar, Vector, from_arrow_array};
use crate::error::Result;
use crate::exec::{LaneCx, OpenCx, Pull, QueryCx, Source};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::parquet::codec::Codec;
use crate::parquet::file::ParquetFile;
use crate::parquet::scan::ParquetScan;
use crate::parquet::table::ParquetTable;
use crate::scan::ScanRequest;
use arrow::array::RecordBatch;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use std::sync::Arc;
use std::task::Waker;

pub(super) struct Fixture {
    pub(super) batch: RecordBatch,
    pub(super) pool: Pool,
    pub(super) table: ParquetTable,
}

fn fixture(batch: RecordBatch, properties: WriterPropertiesBuilder) -> Fixture {
    let pool = Pool::new("test", 256 << 20);
    let bytes = with_codec(write(&batch, properties.build()), Codec::Lz4Raw);
    let file = Arc::new(ParquetFile::new(0, Box::new(Memory(bytes)), &pool).expect("valid"));
    let table = ParquetTable::from_files(vec![file]).expect("one file");
    Fixture { batch, pool, table }
}

fn small() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_data_page_row_count_limit(200)
        .set_write_batch_size(100)
        .set_max_row_group_row_count(Some(1500))
}

impl Fixture {
    pub(super) fn column(&self, name: &str) -> Expr {
        let at = self.batch.schema().index_of(name).expect("exists");
        let data_type = self.table.schema()[at].data_type.clone();
        Expr::Column { id: ColumnId(at as u32), data_type, nullable: true }
    }

    fn compare(&self, name: &str, op: CompareOp, value: i128) -> Expr {
        let left = self.column(name);
        let right = Expr::Literal(Scalar::int(left.data_type(), value));
        Expr::Compare { op, left: Box::new(left), right: Box::new(right) }
    }

    pub(super) fn request(&self, outputs: &[&str], filters: Vec<Expr>) -> ScanRequest {
        let id = |name: &&str| ColumnId(self.batch.schema().index_of(name).expect("exists") as u32);
        let outputs: Vec<ColumnId> = outputs.iter().map(id).collect();
        let mut ids = outputs.clone();
        filters.iter().for_each(|f| f.for_each_column(&mut |id| ids.push(id)));
        ids.sort_unstable();
        ids.dedup();
        let columns = ids.into_iter().map(|id| (id, id.0 as usize)).collect();
        ScanRequest {
            table: "t".to_owned(),
            columns,
            outputs,
            filters,
            runtime_filters: Vec::new(),
            prunes: true,
            clustered_by: None,
        }
    }

    /// The rows of a scan as text, sorted, and how many row groups were pruned.
    pub(super) fn scan(
        &self,
        outputs: &[&str],
        filters: Vec<Expr>,
        lanes: usize,
        batch_rows: usize,
    ) -> Vec<String> {
        self.try_scan(outputs, filters, lanes, batch_rows).expect("valid").0
    }

    fn try_scan(
        &self,
        outputs: &[&str],
        filters: Vec<Expr>,
        lanes: usize,
        batch_rows: usize,
    ) -> Result<(Vec<String>, u64)> {
        self.scan_beside(false, outputs, filters, lanes, batch_rows)
    }

    /// The same where, if `is_beset`, lanes have next to nothing and somebody else all the rest, until a lane waits.
    fn scan_beside(
        &self,
        is_beset: bool,
        outputs: &[&str],
        filters: Vec<Expr>,
        lanes: usize,
        batch_rows: usize,
    ) -> Result<(Vec<String>, u64)> {
        let schema = self.table.schema();
        let request = self.request(outputs, filters);
        let types: Vec<DataType> =
            request.outputs.iter().map(|id| schema[id.0 as usize].data_type.clone()).collect();
        let scan = ParquetScan::new(Arc::clone(&self.table.files), &schema, request)?;
        let knobs = Knobs { lanes, batch_rows, block_bytes: 64 << 10, fan_out: 4 };
        let spill = Arc::new(crate::spill::SpillDirectory::new(None, 1 << 20));
        let query = Arc::new(QueryCx::new(self.pool.child("query", usize::MAX), knobs, spill, None, None));
        let metrics = OperatorMetrics::new("scan");
        let run = scan.open(&OpenCx::granted(&query, lanes, &metrics, scan.need(&knobs).shared_bytes)?)?;
        let lane_bytes = if is_beset { 4 << 10 } else { scan.need(&knobs).lane_bytes };
        let accounts: Vec<Account> = (0..lanes)
            .map(|_| Account::open(&query.pool, lane_bytes, 64 << 10, 4 << 20))
            .collect::<std::result::Result<_, _>>()?;
        let rest_bytes = self.pool.available_bytes();
        let mut others = is_beset.then(|| Account::open(&self.pool, rest_bytes, 0, 0).expect("what is left"));
        let cx = |lane| LaneCx {
            query: &query,
            account: &accounts[lane],
            lane,
            waker: Waker::noop(),
            metrics: &metrics,
        };
        let mut locals = (0..lanes).map(|l| scan.local(&run, &cx(l))).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        let mut is_done = vec![false; lanes];
        while is_done.contains(&false) {
            for lane in 0..lanes {
                match scan.pull(&run, &mut locals[lane], &cx(lane))? {
                    Pull::Emit(batch) => {
                        assert!(batch.rows() > 0, "batches have rows");
                        collect(&batch, &types, &mut rows);
                    }
                    Pull::Done => is_done[lane] = true,
                    Pull::Wait(_) => drop(others.take().expect("somebody to wait for")),
                }
            }
        }
        rows.sort();
        let pruned =
            metrics.counters().iter().find(|(n, _)| *n == "row_groups_pruned").map_or(0, |(_, n)| *n);
        Ok((rows, pruned))
    }

    /// The same, computed row by row.
    fn expected(&self, outputs: &[&str], passes: impl Fn(&dyn Fn(&str) -> Scalar) -> bool) -> Vec<String> {
        let schema = self.table.schema();
        let account = Account::open(&self.pool, 0, 64 << 10, 0).expect("fits");
        let ids = DictionaryIds::default();
        let vectors: Vec<Vector> = self
            .batch
            .columns()
            .iter()
            .map(|c| from_arrow_array(c, &ids, &account).expect("supported"))
            .collect();
        let index = |name: &str| self.batch.schema().index_of(name).expect("exists");
        let mut rows = Vec::new();
        for row in 0..self.batch.num_rows() {
            let value = |name: &str| vectors[index(name)].scalar(row, &schema[index(name)].data_type);
            if passes(&value) {
                rows.push(outputs.iter().map(|o| format!("{}|", value(o))).collect());
            }
        }
        rows.sort();
        rows
    }
}

fn collect(batch: &Batch, types: &[DataType], rows: &mut Vec<String>) {
    let all: Vec<u32> = (0..batch.physical_rows() as u32).collect();
    for &row in batch.selection().map_or(&all[..], |s| s.indices()) {
        let value = |(column, data_type): (&Vector, &DataType)| {
            format!("{}|", column.scalar(row as usize, data_type))
        };
        rows.push(batch.columns().iter().zip(types).map(value).collect());
    }
}

const OUTPUTS: [&str; 4] = ["i32", "text", "f64", "middle"];

#[test]
fn every_row_is_read_once_by_any_number_of_lanes() {
    let f = fixture(every_type(50_000, 9, 400), small().set_max_row_group_row_count(Some(40_000)));
    let expected = f.expected(&OUTPUTS, |_| true);
    for (lanes, batch_rows) in [(1, 8192), (3, 1000), (2, 1)] {
        if batch_rows > 1 {
            assert_eq!(f.scan(&OUTPUTS, vec![], lanes, batch_rows), expected);
        }
    }
    assert_eq!(f.scan(&[], vec![], 2, 512).len(), 50_000, "rows are counted without reading a column");
}

#[test]
fn filters_keep_exactly_the_rows_they_are_true_of() {
    for (distinct, nulls) in [(40, 0), (40, 5), (20_000, 5)] {
        let f = fixture(every_type(6000, nulls, distinct), small());
        for limit in [-1000, 0, 300, 100_000_000] {
            let filters =
                || vec![f.compare("i32", CompareOp::Gt, limit), f.compare("date", CompareOp::NotEq, 10)];
            let expected = f.expected(&OUTPUTS, |value| {
                value("i32").as_int().is_some_and(|v| v > limit) && value("date").as_int() != Some(10)
            });
            for (lanes, batch_rows) in [(1, 512), (2, 3000), (1, 37)] {
                let rows = f.scan(&OUTPUTS, filters(), lanes, batch_rows);
                assert!(
                    rows == expected,
                    "{distinct} values, > {limit}: {} of {}",
                    rows.len(),
                    expected.len()
                );
            }
        }
    }
}

#[test]
fn conjuncts_over_two_columns_and_nulls() {
    let f = fixture(every_type(5000, 4, 90), small());
    let less = Expr::Compare {
        op: CompareOp::Lt,
        left: Box::new(f.column("i32")),
        right: Box::new(Expr::Literal(Scalar::int(DataType::Int32, 500))),
    };
    let equal = Expr::Compare {
        op: CompareOp::Eq,
        left: Box::new(f.column("i32")),
        right: Box::new(f.column("date")),
    };
    let rows = f.scan(&OUTPUTS, vec![less, equal], 1, 700);
    assert_eq!(rows, f.expected(&OUTPUTS, |value| value("i32").as_int().is_some_and(|v| v < 500)));
    let nulls = f.scan(&OUTPUTS, vec![Expr::IsNull(Box::new(f.column("text")))], 2, 700);
    assert_eq!(nulls, f.expected(&OUTPUTS, |value| value("text").is_null()));
    assert!(!nulls.is_empty());
}

#[test]
fn statistics_prune_row_groups_and_prove_filters() {
    let sorted: arrow::array::Int64Array = (0..10_000i64).collect();
    let parity: arrow::array::Int64Array = (0..10_000i64).map(|v| v % 2).collect();
    let batch = RecordBatch::try_from_iter([
        ("k", Arc::new(sorted) as arrow::array::ArrayRef),
        ("p", Arc::new(parity) as arrow::array::ArrayRef),
    ])
    .expect("equally long");
    let f = fixture(batch, WriterProperties::builder().set_max_row_group_row_count(Some(1000)));
    let scan = |op, value| {
        let (rows, pruned) = f.try_scan(&["k"], vec![f.compare("k", op, value)], 1, 512).expect("valid");
        (rows.len(), pruned)
    };
    assert_eq!(scan(CompareOp::Lt, 2000), (2000, 8));
    assert_eq!(scan(CompareOp::LtEq, 2000), (2001, 7));
    assert_eq!(scan(CompareOp::Gt, 8999), (1000, 9));
    assert_eq!(scan(CompareOp::GtEq, 8999), (1001, 8));
    assert_eq!(scan(CompareOp::Eq, 4321), (1, 9));
    assert_eq!(scan(CompareOp::NotEq, 4321), (9999, 0));
    assert_eq!(scan(CompareOp::Eq, -1), (0, 10));
    let list = Expr::InList {
        operand: Box::new(f.column("k")),
        list: [5i128, 5005].map(|v| Scalar::int(DataType::Int64, v)).into(),
    };
    let (rows, pruned) = f.try_scan(&["p"], vec![list], 1, 512).expect("valid");
    assert_eq!((rows.len(), pruned), (2, 8));
    let (rows, pruned) =
        f.try_scan(&["p"], vec![Expr::IsNull(Box::new(f.column("k")))], 1, 512).expect("valid");
    assert_eq!((rows.len(), pruned), (0, 10));
    let statistics = f.table.statistics();
    assert_eq!(statistics.rows, Some(10_000));
    assert_eq!(statistics.columns[0].max, Some(Scalar::int(DataType::Int64, 9999)));
    assert_eq!(statistics.columns[1].null_count, Some(0));
}

#[test]
fn lanes_wait_for_memory_that_others_give_back() {
    let fixture = fixture(every_type(3000, 5, 40), small());
    let columns: Vec<String> = fixture.batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    for lanes in [1, 3] {
        let expected = fixture.scan(&columns, vec![], lanes, 100);
        let (rows, _) = fixture.scan_beside(true, &columns, vec![], lanes, 100).expect("memory comes back");
        assert_eq!(rows, expected, "{lanes} lanes");
    }
}
