//! The library's API: settings, admission, handles, and who may call from where.

mod support;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use gristmill::{
    Engine, EngineBuilder, Error, MemoryError, Priority, Query, QueryHandle, ResultStream, Session, TestKnobs,
};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use support::rows;

/// Nothing here takes a tenth of this on its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs for longer than any test is willing to wait.
const ENDLESS: &str = "select count(*) from n a, n b, n c, n d where a.n + b.n + c.n + d.n < 0";

/// A table `n` of the numbers from 0 to 9,999 in batches of 100.
fn session(builder: EngineBuilder) -> (Engine, Session) {
    let engine = builder.build().expect("starts");
    let session = engine.session();
    let batch = |start: i64| {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 100));
        RecordBatch::try_from_iter([("n", column)]).expect("one column")
    };
    let batches = (0..100).map(|at| batch(at * 100)).collect();
    session.register_batches("n", batches).expect("a good table");
    (engine, session)
}

fn small() -> EngineBuilder {
    Engine::builder().threads(2).memory_limit(256 << 20)
}

fn answer(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    Ok(rows::texts(&session.query(sql)?.collect()?))
}

fn start(session: &Session, sql: &str) -> ResultStream {
    session.query(sql).and_then(Query::stream).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_shared_between_threads_may_be() {
    fn is_shared<T: Send + Sync + 'static>() {}
    fn is_sent<T: Send + 'static>() {}
    is_shared::<Engine>();
    is_shared::<Session>();
    is_shared::<QueryHandle>();
    is_shared::<Error>();
    is_sent::<Query>();
    is_sent::<ResultStream>();
}

#[test]
fn settings_are_set_shown_and_reset() {
    let (_engine, session) = session(small().temp_directory("spilled"));
    let value = |name: &str| {
        let setting = session.settings().into_iter().find(|s| s.name == name);
        setting.unwrap_or_else(|| panic!("{name}")).value
    };
    assert_eq!((value("memory_limit"), value("threads")), ("256MiB".to_owned(), "2".to_owned()));
    assert_eq!((value("timeout"), value("temp_directory")), (String::new(), "spilled".to_owned()));
    for sql in
        ["set memory_limit = '64MiB'", "SET Memory_Limit TO '64MiB'", "set session max_memory = \"64MiB\""]
    {
        assert_eq!(answer(&session, sql).expect(sql), Vec::<Vec<String>>::new());
        assert_eq!(value("memory_limit"), "64MiB", "{sql}");
        answer(&session, "reset memory_limit").expect("resets");
        assert_eq!(value("memory_limit"), "256MiB");
    }
    answer(&session, "set priority = 200").expect("sets");
    answer(&session, "set timeout to '90s'").expect("sets");
    answer(&session, "set disabled_optimizers = 'top_n, filter_pushdown'").expect("sets");
    assert_eq!((value("priority"), value("timeout")), ("200".to_owned(), "90s".to_owned()));
    assert_eq!(value("disabled_optimizers"), "filter_pushdown,top_n");
    answer(&session, "set priority = default").expect("resets");
    assert_eq!(value("priority"), "100");
    answer(&session, "reset all").expect("resets");
    assert_eq!((value("timeout"), value("disabled_optimizers")), (String::new(), String::new()));
}

#[test]
fn settings_take_effect_when_their_statement_runs() {
    let (_engine, session) = session(small());
    let change = session.query("set memory_limit = '10kB'").expect("plans");
    answer(&session, "select sum(n) from n").expect("nothing has changed");
    change.collect().expect("runs");
    let refused = answer(&session, "select sum(n) from n").expect_err("too little");
    assert!(
        matches!(&refused, Error::Memory(e) if matches!(**e, MemoryError::BudgetTooSmall { limit_bytes: 10_000, .. })),
        "{refused}"
    );
    let query = session.query("select sum(n) from n").expect("plans").with_memory_limit(64 << 20);
    assert_eq!(rows::texts(&query.collect().expect("a query's own limit wins")), [["49995000"]]);
    session.reset("memory_limit").expect("resets");
    session.set("timeout", "50ms").expect("sets");
    let late = answer(&session, ENDLESS).expect_err("takes longer");
    assert!(matches!(late, Error::Timeout { limit } if limit == Duration::from_millis(50)), "{late}");
}

#[test]
fn a_disabled_rule_is_left_out_of_the_session_s_plans() {
    let (_engine, session) = session(small());
    let explain = "explain select a.n from n a join n b on a.n = b.n where a.n + b.n < 5 order by 1 limit 3";
    let usual = answer(&session, explain).expect("plans");
    session.set("disabled_optimizers", "top_n").expect("sets");
    assert_ne!(answer(&session, explain).expect("plans"), usual);
    session.reset("disabled_optimizers").expect("resets");
    assert_eq!(answer(&session, explain).expect("plans"), usual);
}

#[test]
fn errors_of_settings_name_them_and_say_where() {
    let (_engine, session) = session(small());
    for (sql, expected, column) in [
        ("set memory_limt = '1GB'", "memory_limit", 5),
        ("set memory_limit = '1 potato'", "'256MB'", 5),
        ("set threads = 4", "EngineBuilder::threads", 5),
        ("reset temp_directory", "EngineBuilder::temp_directory", 7),
        ("set timeout = -1", "'30s'", 5),
        ("set priority = 1 + 1", "literal", 16),
        ("set global timeout = '1s'", "session", 12),
    ] {
        let error = answer(&session, sql).expect_err(sql);
        assert!(error.to_string().contains(expected), "{sql}: {error}");
        assert_eq!(error.location().map(|l| l.column), Some(column), "{sql}: {error}");
    }
    assert!(matches!(session.set("nonsense", "1"), Err(Error::Plan(_))));
    assert!(matches!(session.reset("threads"), Err(Error::Plan(_))));
    assert!(matches!(small().max_concurrent_queries(0).build(), Err(Error::Plan(_))));
    let error = small().threads(100_000).build().expect_err("more than any machine has");
    assert!(error.to_string().contains("at most 1024"), "{error}");
}

#[test]
fn a_lazy_table_is_opened_when_it_is_named() {
    let (_engine, session) = session(small());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("late.parquet");
    std::fs::write(&path, "not Parquet").expect("a file");
    session.register_parquet_lazily("late", &path);
    assert_eq!(session.tables(), ["late", "n"]);
    assert_eq!(answer(&session, "select max(n) from n").expect("another table"), [["9999"]]);
    let error = answer(&session, "select * from late").expect_err("damaged").to_string();
    assert!(error.contains("late.parquet"), "{error}");
    let error = answer(&session, "create view late as select 1").expect_err("taken").to_string();
    assert!(error.contains("is a table"), "{error}");

    let column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let batch = RecordBatch::try_from_iter([("x", column)]).expect("one column");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("writes");
    writer.close().expect("ends");
    assert_eq!(answer(&session, "select x from LATE").expect("mended"), [["7"]]);
}

#[test]
fn places_of_statements_are_places_in_their_text() {
    let (_engine, session) = session(small());
    let sql = "select 1;\n\n  select\n  nothing from n";
    let statements = session.statements(sql).expect("tokens");
    assert_eq!(statements.iter().map(|s| s.start().line).collect::<Vec<_>>(), [1, 3]);
    let error = session.query_statement(&statements[1]).err().expect("no such column");
    assert_eq!(error.location().map(|l| (l.line, l.column)), Some((4, 3)));
    assert!(error.to_string().ends_with("    nothing from n\n    ^"), "{error}");
}

#[test]
fn queries_wait_for_their_turn_in_the_order_they_came() {
    let (engine, session) = session(small().max_concurrent_queries(1));
    let long = start(&session, ENDLESS);
    assert_eq!((engine.running_queries(), engine.waiting_queries()), (1, 0));
    let mut waiting: Vec<_> =
        (0..4).map(|n| start(&session, &format!("select {n} from n limit 1"))).collect();
    assert_eq!((engine.running_queries(), engine.waiting_queries()), (1, 4));
    long.handle().cancel();
    let last = waiting.pop().expect("four");
    assert_eq!(rows::texts(&last.collect::<Result<Vec<_>, _>>().expect("runs in the end")), [["3"]]);
    assert!(waiting.iter().all(|before| before.handle().progress() == 1.0), "all before it have run");
    drop(long);
    wait_until("places are free", || (engine.running_queries(), engine.waiting_queries()) == (0, 0));
}

#[test]
fn a_query_that_waits_can_be_cancelled_dropped_and_timed_out() {
    let (engine, session) = session(small().max_concurrent_queries(1));
    let long = start(&session, ENDLESS);
    let mut cancelled = start(&session, "select 1");
    let dropped = start(&session, "select 2");
    let mut late = session
        .query("select 3")
        .expect("plans")
        .with_timeout(Duration::from_millis(20))
        .stream()
        .expect("waits");
    let last = start(&session, "select 4");
    assert_eq!(engine.waiting_queries(), 4);
    assert_eq!(cancelled.handle().progress(), 0.0);
    cancelled.handle().cancel();
    assert!(matches!(cancelled.next(), Some(Err(Error::Cancelled))));
    drop(dropped);
    let waited = Instant::now();
    assert!(matches!(late.next(), Some(Err(Error::Timeout { .. }))));
    assert!(waited.elapsed() < PATIENCE);
    wait_until("one is left", || engine.waiting_queries() == 1);
    drop(long);
    assert_eq!(last.count(), 1);
    wait_until("places are free", || engine.running_queries() == 0);
    assert_eq!(engine.memory_used(), 0);
}

#[test]
fn a_failed_query_frees_its_place() {
    let knobs = TestKnobs { panic: u16::MAX, ..TestKnobs::default() };
    let (engine, session) = session(small().max_concurrent_queries(1).testing(knobs));
    for _ in 0..3 {
        let error = answer(&session, "select sum(n) from n").expect_err("every call panics");
        assert!(matches!(&error, Error::Internal(message) if message.contains("injected")), "{error}");
    }
    wait_until("places are free", || engine.running_queries() == 0);
    wait_until("memory is back", || engine.memory_used() == 0);
}

#[test]
fn an_engine_dropped_with_queries_waiting_ends_them() {
    let (engine, session) = session(small().max_concurrent_queries(1));
    let streams: Vec<_> = (0..3).map(|_| start(&session, ENDLESS)).collect();
    drop((engine, session));
    drop(streams);
}

#[test]
fn progress_grows_from_0_to_1() {
    let (_engine, session) = session(small());
    let sql = "select count(*) from n a, n b where a.n % 7 < b.n % 5";
    let mut stream = start(&session, sql);
    let handle = stream.handle();
    let watched = std::thread::spawn(move || {
        let mut seen = vec![handle.progress()];
        while seen.last().is_some_and(|last| *last < 1.0) {
            seen.push(handle.progress());
        }
        (seen, handle.metrics(), handle.profile())
    });
    assert!(stream.next().expect("a row").is_ok());
    assert!(stream.next().is_none());
    assert_eq!(stream.handle().progress(), 1.0);
    let (seen, metrics, profile) = watched.join().expect("the watcher lives");
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
    assert!(seen.iter().all(|progress| (0.0..=1.0).contains(progress)), "{seen:?}");
    assert!(
        seen.iter().any(|progress| *progress > 0.0 && *progress < 1.0),
        "{} looks, all at an end",
        seen.len()
    );
    assert!(metrics.peak_granted_bytes > 0 && profile.len() > 2);
    let cut = start(&session, "select n from n limit 3");
    let handle = cut.handle();
    assert_eq!(cut.map(|batch| batch.expect("rows").num_rows()).sum::<usize>(), 3);
    assert_eq!((handle.progress(), handle.metrics().rows), (1.0, 3));
    handle.cancel();
    assert_eq!(start(&session, "explain select 1").handle().progress(), 1.0);
}

#[test]
fn a_cancelled_query_s_progress_stays() {
    let (engine, session) = session(small());
    let mut stream = start(&session, ENDLESS);
    let handle = stream.handle();
    handle.cancel();
    assert!(matches!(stream.next(), Some(Err(Error::Cancelled))));
    assert!(stream.next().is_none());
    assert!(handle.progress() < 1.0);
    drop(stream);
    wait_until("memory is back", || engine.memory_used() == 0);
    handle.cancel();
    assert!(handle.progress() < 1.0);
}

#[test]
fn an_explained_run_is_cancelled_watched_and_timed_out_as_any_other() {
    let (engine, session) = session(small());
    let sql = format!("explain analyze {ENDLESS}");
    let mut stream = start(&session, &sql);
    assert_eq!(stream.schema().field(0).name(), "plan");
    let handle = stream.handle();
    assert!(handle.progress() < 1.0);
    let cancel = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        handle.cancel();
    });
    assert!(matches!(stream.next(), Some(Err(Error::Cancelled))));
    assert!(stream.next().is_none());
    cancel.join().expect("the other thread lives");
    let late = session.query(&sql).expect("plans").with_timeout(Duration::from_millis(20));
    assert!(matches!(late.collect(), Err(Error::Timeout { .. })));
    drop(start(&session, &sql));
    wait_until("memory is back", || engine.memory_used() == 0);
    let plan = answer(&session, "explain analyze select sum(n) from n").expect("runs");
    assert!(plan.len() > 2, "{plan:?}");
}

#[test]
fn priorities_give_shares() {
    let (_engine, session) = session(small().threads(1));
    // The one with 16 times the share must be far ahead; both run until they are dropped.
    let slow = session.query(ENDLESS).expect("plans").with_priority(Priority::LOW).stream().expect("starts");
    let fast = session.query(ENDLESS).expect("plans").with_priority(Priority::HIGH).stream().expect("starts");
    let busy = |stream: &ResultStream| stream.profile().iter().map(|node| node.busy).sum::<Duration>();
    wait_until("both have run", || busy(&fast) > Duration::from_millis(100));
    assert!(busy(&fast) > busy(&slow) * 2, "{:?} and {:?}", busy(&fast), busy(&slow));
}

/// As an async runtime's blocking threads do: queries start on one thread, are read on another, cancelled on a third.
#[test]
fn streams_move_between_threads() {
    let (engine, session) = session(small());
    let session = Arc::new(session);
    let (streams, started) = channel();
    let starter = {
        let session = Arc::clone(&session);
        std::thread::spawn(move || {
            for _ in 0..8 {
                streams.send(start(&session, "select n from n where n % 3 = 0")).expect("somebody listens");
                streams.send(start(&session, ENDLESS)).expect("somebody listens");
            }
        })
    };
    let readers = started.into_iter().enumerate().map(|(at, stream)| {
        let handle = stream.handle();
        let canceller = (at % 2 == 1).then(|| std::thread::spawn(move || handle.cancel()));
        std::thread::spawn(move || {
            let outcome: Result<Vec<_>, _> = stream.collect();
            if let Some(canceller) = canceller {
                canceller.join().expect("cancels");
            }
            outcome.map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>())
        })
    });
    let readers: Vec<_> = readers.collect();
    starter.join().expect("starts all");
    for (at, reader) in readers.into_iter().enumerate() {
        let outcome = reader.join().expect("reads");
        match at % 2 {
            0 => assert_eq!(outcome.expect("rows"), 3334),
            _ => assert!(matches!(outcome, Err(Error::Cancelled))),
        }
    }
    wait_until("memory is back", || engine.memory_used() == 0);
}
