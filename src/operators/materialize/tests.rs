//! The sink and its readers, without and with memory for the rows.

use super::super::testing::{Harness, ints};
use super::sink::MaterializeSink;
use super::source::MaterializedSource;
use crate::data::DataType;
use crate::exec::{Combine, Finish, Flow, Handoff, LaneCx, OpenCx, Pull, QueryCx, Sink, Source};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use std::sync::Arc;
use std::task::Waker;

/// Keeps `batches` of `rows` rows in a budget, reads them twice; the sums and the number of spills.
fn run(batches: usize, rows: usize, limit_bytes: usize) -> (Vec<(usize, i64)>, u64) {
    let pool = Pool::new("test", limit_bytes);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spill = Arc::new(SpillDirectory::new(Some(folder.path().to_owned()), 1 << 30));
    let knobs = Knobs { lanes: 1, batch_rows: 1024, block_bytes: 16 << 10, fan_out: 4 };
    let query = Arc::new(QueryCx::new(pool.clone(), knobs, spill, None, None));
    let types: Arc<[DataType]> = vec![DataType::Int64].into();
    let handoff = Handoff::new();
    let sink = MaterializeSink::new(Arc::clone(&types), handoff.clone());
    let metrics = OperatorMetrics::new("test");
    let need = sink.need(&knobs);
    let open = OpenCx::granted(&query, 1, &metrics, need.shared_bytes).expect("its floor fits");
    let shared = sink.open(&open).expect("opens");
    drop(open);
    let account = Account::open(&pool, 256 << 10, 4096, 0).expect("a floor fits");
    let cx = LaneCx { query: &query, account: &account, lane: 0, waker: Waker::noop(), metrics: &metrics };
    let mut local = sink.local(&shared, &cx).expect("a lane");
    let harness = Harness::new(64 << 20);
    let mut next = 0;
    for _ in 0..batches {
        let batch = ints(&harness, (next..next + rows as i64).map(Some));
        next += rows as i64;
        let flow = sink.push(&shared, &mut local, batch, &cx).expect("is kept");
        assert!(matches!(flow, Flow::NeedInput));
    }
    assert!(matches!(sink.combine(&shared, &mut local, &cx).expect("combines"), Combine::Ready));
    assert!(matches!(sink.finish(&shared, &cx).expect("finishes"), Finish::Ready));
    drop((local, shared, sink));
    let spills = metrics.counter("spills").load(std::sync::atomic::Ordering::Relaxed);
    let read = || {
        let source = MaterializedSource::new(Arc::clone(&types), handoff.clone());
        let open = OpenCx::granted(&query, 1, &metrics, 0).expect("nothing is granted");
        let items = source.open(&open).expect("opens");
        let mut local = source.local(&items, &cx).expect("a lane");
        let (mut rows, mut sum) = (0, 0);
        while let Pull::Emit(batch) = source.pull(&items, &mut local, &cx).expect("reads") {
            assert!(batch.rows() <= 1024);
            for row in harness.rows(&batch) {
                (rows, sum) = (rows + 1, sum + row[0].expect("a number"));
            }
        }
        (rows, sum)
    };
    let sums = vec![read(), read()];
    drop(handoff);
    (sums, spills)
}

fn expected(rows: usize) -> (usize, i64) {
    (rows, (0..rows as i64).sum())
}

#[test]
fn every_reader_gets_all_rows() {
    for (batches, rows) in [(0, 1), (1, 1), (3000, 1), (700, 7), (50, 1024), (1, 5000)] {
        let (sums, spills) = run(batches, rows, 64 << 20);
        assert_eq!(sums, [expected(batches * rows); 2], "{batches} of {rows}");
        assert_eq!(spills, 0);
    }
}

#[test]
fn rows_that_do_not_fit_are_spilled() {
    for (batches, rows) in [(300, 1024), (40_000, 3), (2000, 100)] {
        let (sums, spills) = run(batches, rows, 1 << 20);
        assert_eq!(sums, [expected(batches * rows); 2], "{batches} of {rows}");
        assert!(spills > 0);
    }
}
