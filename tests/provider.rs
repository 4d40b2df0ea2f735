//! Tables that an embedder provides: right rows, bounded memory, and mistakes that fail one query.

mod support;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchIterator, RecordBatchReader, StringArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use gristmill::{Engine, Error, MemoryError, Query, Session, TableProvider};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::{rows, tables};

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Calls a function for the batches of a part, and projects them.
struct Parts<F> {
    schema: SchemaRef,
    parts: usize,
    rows: Option<u64>,
    batch_bytes: usize,
    batches: F,
}

impl<F: Fn(usize) -> Batches + Send + Sync + 'static> TableProvider for Parts<F> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn rows(&self) -> Option<u64> {
        self.rows
    }
    fn partitions(&self) -> usize {
        self.parts
    }
    fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }
    fn scan(
        &self,
        partition: usize,
        projection: &[usize],
    ) -> Result<Box<dyn RecordBatchReader + Send>, ArrowError> {
        let schema = Arc::new(self.schema.project(projection)?);
        let projection = projection.to_vec();
        let project = move |batch: Result<RecordBatch, ArrowError>| {
            // What is wrong with a batch should stay wrong.
            batch.map(|b| b.project(&projection).unwrap_or(b))
        };
        Ok(Box::new(RecordBatchIterator::new((self.batches)(partition).map(project), schema)))
    }
}

fn parts(
    schema: SchemaRef,
    parts: usize,
    batches: impl Fn(usize) -> Batches + Send + Sync + 'static,
) -> Parts<impl Fn(usize) -> Batches + Send + Sync + 'static> {
    Parts { schema, parts, rows: None, batch_bytes: 64 << 10, batches }
}

fn session(limit_bytes: usize) -> (Engine, Session) {
    let engine = Engine::builder().threads(2).memory_limit(limit_bytes).build().expect("starts");
    let session = engine.session();
    (engine, session)
}

fn answer(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    let mut rows = rows::texts(&session.query(sql)?.collect()?);
    rows.sort();
    Ok(rows)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers, and texts of which every tenth is long; `rows` of them from `start` on.
fn numbered(start: i64, rows: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + rows));
    let text = |n: i64| format!("{:0width$}", n, width = if n % 10 == 0 { 200 } else { 5 });
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((start..start + rows).map(text)));
    RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).expect("columns of one length")
}

#[test]
fn rows_are_those_of_the_same_batches_in_memory() {
    let (engine, session) = session(256 << 20);
    let many = tables::many();
    session.register_batches("batches", vec![many.clone()]).expect("a good table");
    let schema = many.schema();
    let table = parts(schema, 3, move |part| {
        let rows = many.num_rows();
        let (from, to) = (rows * part / 3, rows * (part + 1) / 3);
        let many = many.clone();
        // Slices of a larger batch, some empty.
        Box::new(
            (from..to)
                .step_by(700)
                .flat_map(move |at| [Ok(many.slice(at, 0)), Ok(many.slice(at, 700.min(to - at)))]),
        )
    });
    session.register_table("provided", Arc::new(table)).expect("a good table");
    for sql in [
        "select * from T",
        "select count(*) from T",
        "select flag, day, id from T where small < 3 and name like '%1%'",
        "select flag, count(*), min(name), max(day), sum(amount) from T group by flag",
        "select a.name, b.id from T a join T b on a.id = b.id where a.small = 4",
    ] {
        let of =
            |table: &str| answer(&session, &sql.replace('T', table)).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let provided = of("provided");
        assert!(!provided.is_empty());
        assert_eq!(provided, of("batches"), "{sql}");
    }
    wait_until("memory is back", || engine.memory_used() == 0);
}

#[test]
fn one_part_keeps_its_order_and_many_are_read_once_each() {
    let (_engine, session) = session(64 << 20);
    let schema = numbered(0, 1).schema();
    let opened = Arc::new(AtomicUsize::new(0));
    let one = parts(Arc::clone(&schema), 1, |_| Box::new((0..50).map(|at| Ok(numbered(at * 100, 100)))));
    session.register_table("one", Arc::new(one)).expect("a good table");
    let batches = session.query("select n from one").and_then(Query::collect).expect("runs");
    let numbers = batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec());
    assert!(numbers.eq(0..5000));
    let many = {
        let opened = Arc::clone(&opened);
        parts(schema, 40, move |part| {
            opened.fetch_add(1, SeqCst);
            Box::new(std::iter::once(Ok(numbered(part as i64 * 10, 10))))
        })
    };
    session.register_table("many", Arc::new(Parts { rows: Some(400), ..many })).expect("a good table");
    assert_eq!(answer(&session, "select count(*), sum(n) from many").expect("runs"), [["400", "79800"]]);
    assert_eq!(opened.load(SeqCst), 40);
    let plan = answer(&session, "explain select n from many").expect("plans");
    assert!(plan.iter().any(|line| line[0].contains("about 400 rows")), "{plan:?}");
}

#[test]
fn more_than_the_memory_limit_is_aggregated_within_it() {
    const LIMIT: usize = 12_000_000;
    let (engine, session) = session(LIMIT);
    // 400 batches of 2,000 rows of about 37 bytes: 30 MB, and as many groups as rows.
    let table = parts(numbered(0, 1).schema(), 4, |part| {
        Box::new((0..100).map(move |at| Ok(numbered((part as i64 * 100 + at) * 2000, 2000))))
    });
    let table = Parts { batch_bytes: 128 << 10, rows: Some(800_000), ..table };
    session.register_table("large", Arc::new(table)).expect("a good table");
    let sql = "select count(*), sum(c), max(x) from (select t, count(*) c, max(n) x from large group by t)";
    let stream = session.query(sql).and_then(Query::stream).expect("starts");
    let handle = stream.handle();
    let batches = stream.collect::<Result<Vec<_>, _>>().expect("fits by spilling");
    assert_eq!(rows::texts(&batches), [["800000", "800000", "799999"]]);
    assert!(handle.metrics().spilled_bytes > 1 << 20, "{} bytes spilled", handle.metrics().spilled_bytes);
    assert!(engine.memory_peak() <= LIMIT);
    drop(handle);
    wait_until("memory is back", || engine.memory_used() == 0);
}

#[test]
fn a_batch_larger_than_said_is_read_if_there_is_memory() {
    let table = || {
        let table =
            parts(numbered(0, 1).schema(), 1, |_| Box::new(std::iter::once(Ok(numbered(0, 200_000)))));
        Arc::new(Parts { batch_bytes: 1, ..table })
    };
    let (_engine, ample) = session(256 << 20);
    ample.register_table("t", table()).expect("a good table");
    assert_eq!(answer(&ample, "select length(max(t)), max(n) from t").expect("fits"), [["5", "199999"]]);
    let (engine, tight) = session(4 << 20);
    tight.register_table("wide", table()).expect("a good table");
    let error = answer(&tight, "select max(t), max(n) from wide").expect_err("does not fit");
    let is_named =
        |e: &MemoryError| matches!(e, MemoryError::Exceeded { operator, .. } if operator == "Scan wide");
    assert!(matches!(&error, Error::Memory(e) if is_named(e)), "{error}");
    wait_until("memory is back", || engine.memory_used() == 0);
}

/// Good batches, and then `last`.
fn failing(
    last: impl Fn() -> Result<RecordBatch, ArrowError> + Clone + Send + Sync + 'static,
) -> Arc<dyn TableProvider> {
    Arc::new(parts(numbered(0, 1).schema(), 2, move |part| {
        let good = (0..20).map(|at| Ok(numbered(at * 100, 100)));
        let last = last.clone();
        if part == 0 { Box::new(good) } else { Box::new(good.chain(std::iter::once_with(last))) }
    }))
}

#[test]
fn mistakes_of_a_provider_fail_the_query_and_name_the_table() {
    let (engine, session) = session(64 << 20);
    let external = |error| Err(ArrowError::ExternalError(error));
    let other_type = || {
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(["x"]));
        RecordBatch::try_from_iter([("n", Arc::clone(&column)), ("t", column)])
    };
    let with_null = || {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)])
    };
    let cases: [(&str, Arc<dyn TableProvider>); 6] = [
        ("line 7 is not CSV", failing(|| Err(ArrowError::CsvError("line 7 is not CSV".to_owned())))),
        ("the server is gone", failing(move || external("the server is gone".into()))),
        ("its provider panicked: out of ideas", failing(|| panic!("out of ideas"))),
        ("column 'n' of type Utf8", failing(other_type)),
        ("nulls in column 'n'", failing(with_null)),
        ("0 columns, not 2", failing(|| Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))))),
    ];
    for (expected, table) in cases {
        session.register_table("bad", table).expect("a good schema");
        for sql in
            ["select n, t from bad", "select t, sum(n) from bad group by t", "select max(n), min(t) from bad"]
        {
            let error = answer(&session, sql).expect_err(expected);
            let text = error.to_string();
            assert!(matches!(error, Error::Data(_)), "{sql}: {text}");
            assert!(text.contains(expected) && text.contains("table 'bad', part 1"), "{sql}: {text}");
        }
        wait_until("memory is back", || engine.memory_used() == 0);
        assert_eq!(answer(&session, "select 1").expect("the engine lives"), [["1"]]);
    }
    let cancelled = failing(move || external(Box::new(Error::Cancelled)));
    session.register_table("bad", cancelled).expect("a good schema");
    assert!(
        matches!(answer(&session, "select n from bad"), Err(Error::Cancelled)),
        "an engine's error passes"
    );
}

#[test]
fn a_provider_that_panics_when_asked_fails_the_query() {
    struct Bad;
    impl TableProvider for Bad {
        fn schema(&self) -> SchemaRef {
            numbered(0, 1).schema()
        }
        fn scan(&self, _: usize, _: &[usize]) -> Result<Box<dyn RecordBatchReader + Send>, ArrowError> {
            panic!("no way in")
        }
    }
    let (engine, session) = session(64 << 20);
    session.register_table("bad", Arc::new(Bad)).expect("a good schema");
    let error = answer(&session, "select count(*) from bad").expect_err("panics").to_string();
    assert!(error.contains("no way in") && error.contains("'bad'"), "{error}");
    wait_until("memory is back", || engine.memory_used() == 0);
}

#[test]
fn nested_columns_are_refused_by_name() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let schema = Arc::new(Schema::new(vec![Field::new("l", list, true)]));
    let (_engine, session) = session(64 << 20);
    let error = session.register_table("t", Arc::new(parts(schema, 1, |_| Box::new(std::iter::empty()))));
    let error = error.expect_err("not supported");
    assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains("'l'"), "{error}");
}

#[test]
fn progress_follows_a_provider_that_tells_its_rows() {
    let (_engine, session) = session(64 << 20);
    let table = parts(numbered(0, 1).schema(), 1, |_| {
        Box::new((0..100).map(|at| {
            std::thread::sleep(Duration::from_millis(1));
            Ok(numbered(at * 10, 10))
        }))
    });
    session.register_table("slow", Arc::new(Parts { rows: Some(1000), ..table })).expect("a good table");
    let stream = session.query("select sum(n) from slow").and_then(Query::stream).expect("starts");
    let handle = stream.handle();
    wait_until("it is on its way", || handle.progress() > 0.2);
    handle.cancel();
    assert!(stream.last().expect("an end").is_err());
    assert!(handle.progress() < 1.0);
}
