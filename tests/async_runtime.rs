//! Queries from within an asynchronous runtime: they block the thread that asks, and nothing else of theirs does.

use gristmill::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use gristmill::arrow::datatypes::Int64Type;
use gristmill::{Engine, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;

const ROWS: i64 = 100_000;

fn session() -> Session {
    let engine = Engine::builder().threads(2).memory_limit(64 << 20).build().expect("starts");
    let session = engine.session();
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let batch = RecordBatch::try_from_iter([("n", n)]).expect("one column");
    session.register_batches("numbers", vec![batch]).expect("a table");
    session
}

/// How many of the numbers leave `rest` when divided by 7, by way of a join and groups.
fn count(session: &Session, rest: i64) -> i64 {
    let sql = format!("select count(*) from numbers a join numbers b on a.n = b.n where a.n % 7 = {rest}");
    let batches = session.query(&sql).expect("plans").collect().expect("runs");
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn expected(rest: i64) -> i64 {
    (0..ROWS).filter(|n| n % 7 == rest).count() as i64
}

#[test]
fn a_query_may_be_run_on_a_thread_of_the_runtime() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.build().expect("a runtime");
        let found = runtime.block_on(async { count(&session(), 3) });
        assert_eq!(found, expected(3));
        // The engine ends on the runtime, too.
        let found = runtime.block_on(async { tokio::spawn(async { count(&session(), 4) }).await });
        assert_eq!(found.expect("no panic"), expected(4));
    }
}

#[test]
fn many_tasks_ask_at_a_time_and_what_is_dropped_is_cancelled() {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let session = Arc::new(session());
    runtime.block_on(async {
        let ask = |rest: i64| {
            let session = Arc::clone(&session);
            tokio::task::spawn_blocking(move || {
                let endless = "select count(*) from numbers a, numbers b, numbers c where a.n + b.n = c.n";
                let stream = session.query(endless).and_then(gristmill::Query::stream).expect("starts");
                let handle = stream.handle();
                drop(stream);
                assert_eq!(count(&session, rest % 7), expected(rest % 7));
                handle
            })
        };
        let asked: Vec<_> = (0..32).map(ask).collect();
        for task in asked {
            let handle = task.await.expect("no panic");
            assert!(handle.progress() <= 1.0);
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}
