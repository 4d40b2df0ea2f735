//! Many queries at a time, many of which are cancelled, dropped, timed out, or made to fail: none hangs, those that
//! finish are right, and nothing is left behind.
//!
//! By default a few rounds. `GRISTMILL_STRESS_ROUNDS=N` runs N rounds, each of 64 queries from 16 threads.
//! `GRISTMILL_STRESS_DATA=DIR`, with TPC-H at `DIR/sf0.1` and `DIR/sf10`, also measures a short query beside long ones.
//!
//! Everything is one test: what is counted (threads, file descriptors, memory) is the process's.

mod support;

use gristmill::arrow::row::{RowConverter, SortField};
use gristmill::{Engine, EngineBuilder, Error, Query, ResultStream, Session, TestKnobs};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::tables;

const CLIENTS: usize = 16;
/// Queries each client has in flight.
const IN_FLIGHT: usize = 4;
const QUICK_ROUNDS: usize = 8;
/// No query here takes a tenth of this, on a busy machine and under a debug build.
const PATIENCE: Duration = Duration::from_secs(120);
/// What cancelling may take in this test. The promise is 20 ms, of a release build on a machine of its own.
const CANCEL_BOUND: Duration = Duration::from_millis(500);

/// Those of few rows first: what they return waits in their queues whether or not somebody reads.
const QUERIES: &[&str] = &[
    include_str!("../tools/runner/tpch/queries/q01.sql"),
    include_str!("../tools/runner/tpch/queries/q06.sql"),
    include_str!("../tools/runner/tpch/queries/q14.sql"),
    include_str!("../tools/runner/tpch/queries/q04.sql"),
    include_str!("../tools/runner/tpch/queries/q12.sql"),
    "select count(*), sum(c) from (select l_orderkey, count(*) c from lineitem group by l_orderkey)",
    "select count(distinct l_comment), min(l_comment) from lineitem",
    "select count(*) from nation a, nation b, nation c, region where a.n_nationkey + b.n_nationkey > c.n_nationkey",
    "select l_orderkey, l_linenumber, l_comment from lineitem order by l_comment, l_orderkey, l_linenumber limit 50",
    include_str!("../tools/runner/tpch/queries/q03.sql"),
    include_str!("../tools/runner/tpch/queries/q18.sql"),
    "select l_orderkey, l_linenumber, l_comment from lineitem where l_quantity < 20",
    "select o_orderkey, o_comment, c_name from orders join customer on o_custkey = c_custkey",
    "select o_orderkey, o_comment from orders order by o_comment, o_orderkey",
];
const SMALL_QUERIES: usize = 11;

/// A chance in 1/65536.
const fn one_in(calls: u16) -> u16 {
    u16::MAX / calls
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn micros(&mut self, most: usize) -> Duration {
        Duration::from_micros(self.below(most) as u64)
    }
}

/// What a client does with a query.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Collect,
    Cancel(Duration),
    Timeout(Duration),
    DropAtOnce,
    DropAfterFirst,
    ReadLate(Duration),
}

impl Fate {
    fn random(random: &mut Random) -> Self {
        match random.below(20) {
            0..=7 => Self::Collect,
            8..=11 => Self::Cancel(random.micros(8_000)),
            12..=14 => Self::Timeout(random.micros(15_000)),
            15 | 16 => Self::DropAtOnce,
            17 => Self::DropAfterFirst,
            _ => Self::ReadLate(random.micros(5_000)),
        }
    }
}

/// The number of rows and a sum over them that knows no order.
type Digest = (usize, u64);

/// Cheap, so that clients leave the processors to the engine.
fn digest(stream: ResultStream) -> Result<Digest, Error> {
    let (mut count, mut sum) = (0, 0u64);
    let mut converter = None;
    for batch in stream {
        let batch = batch?;
        let converter = converter.get_or_insert_with(|| {
            let fields =
                batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
            RowConverter::new(fields).expect("flat columns")
        });
        let rows = converter.convert_columns(batch.columns()).expect("of the schema");
        for row in &rows {
            let mut hasher = DefaultHasher::new();
            row.as_ref().hash(&mut hasher);
            (count, sum) = (count + 1, sum.wrapping_add(hasher.finish()));
        }
    }
    Ok((count, sum))
}

/// What the process holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    threads: usize,
    descriptors: usize,
}

impl Held {
    fn now() -> Self {
        let count = |folder: &str| fs::read_dir(folder).expect("Linux").count();
        Self { threads: count("/proc/self/task"), descriptors: count("/proc/self/fd") }
    }
}

/// Bytes of anonymous memory.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What clients do, for the watchdog and the report.
#[derive(Default)]
struct Board {
    steps: AtomicU64,
    doing: [Mutex<String>; CLIENTS],
    outcomes: Mutex<BTreeMap<&'static str, usize>>,
    cancels: Mutex<Vec<Duration>>,
}

impl Board {
    fn note(&self, client: usize, doing: String) {
        self.steps.fetch_add(1, SeqCst);
        *self.doing[client].lock().expect("no client panics holding it") = doing;
    }

    fn count(&self, outcome: &'static str) {
        *self.outcomes.lock().expect("as above").entry(outcome).or_default() += 1;
    }
}

/// Ends the process if nobody does anything for long.
fn watch(board: &Arc<Board>) {
    let board = Arc::clone(board);
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        // Until the test has let go of the board.
        while Arc::strong_count(&board) > 1 {
            std::thread::sleep(Duration::from_millis(500));
            let steps = board.steps.load(SeqCst);
            if steps != last {
                (last, since) = (steps, Instant::now());
            } else if since.elapsed() > PATIENCE {
                for (client, doing) in board.doing.iter().enumerate() {
                    eprintln!("client {client}: {}", doing.lock().map(|d| d.clone()).unwrap_or_default());
                }
                eprintln!("no query has moved for {PATIENCE:?}: a hang");
                std::process::abort();
            }
        }
    });
}

fn session(engine: &Engine) -> Session {
    let session = engine.session();
    for (name, file) in tables::all() {
        session.register_parquet(&name, file).expect("a good file");
    }
    session
}

/// An engine to try, by number: ample, tight, faulty, with few places.
fn engine(number: u64, spill: &Path) -> (&'static str, EngineBuilder) {
    let builder = Engine::builder().threads(4).temp_directory(spill);
    let seed = number * 1_000_003;
    match number % 4 {
        0 => ("ample", builder.memory_limit(512 << 20)),
        1 => {
            let knobs = TestKnobs {
                refuse_grant: one_in(20),
                refuse_charge: one_in(10),
                wait: one_in(10),
                seed,
                ..TestKnobs::default()
            };
            ("tight", builder.memory_limit(32 << 20).testing(knobs))
        }
        2 => {
            let knobs = TestKnobs {
                refuse_grant: one_in(10),
                refuse_charge: one_in(10),
                wait: one_in(10),
                spill_error: one_in(200),
                panic: one_in(3000),
                seed,
                ..TestKnobs::default()
            };
            ("faulty", builder.memory_limit(96 << 20).testing(knobs))
        }
        _ => {
            let knobs = TestKnobs { panic: one_in(10_000), seed, ..TestKnobs::default() };
            ("few places", builder.memory_limit(256 << 20).max_concurrent_queries(6).testing(knobs))
        }
    }
}

/// The queries of one client in one round.
fn client(
    client: usize,
    (name, session): (&str, &Session),
    expected: &[Digest],
    random: &mut Random,
    board: &Board,
) {
    let mut streams = Vec::new();
    for place in 0..IN_FLIGHT {
        // Only the one that is read first may have more rows than its queue: while a client reads one, queries it does
        // not read must not hold what others wait for.
        let of = if place == 0 { QUERIES.len() } else { SMALL_QUERIES };
        let (at, fate) = (random.below(of), Fate::random(random));
        let mut query = session.query(QUERIES[at]).expect("plans");
        if let Fate::Timeout(limit) = fate {
            query = query.with_timeout(limit);
        }
        streams.push((at, fate, query.stream().expect("fits")));
    }
    for (at, fate, mut stream) in streams {
        board.note(client, format!("{fate:?} of {}", QUERIES[at]));
        let (ended, cancelled) = match fate {
            Fate::Collect | Fate::Timeout(_) => (digest(stream), None),
            Fate::ReadLate(pause) => {
                std::thread::sleep(pause);
                (digest(stream), None)
            }
            Fate::Cancel(pause) => {
                std::thread::sleep(pause);
                let at = Instant::now();
                stream.handle().cancel();
                (digest(stream), Some(at))
            }
            Fate::DropAtOnce => {
                drop(stream);
                board.count("dropped");
                continue;
            }
            Fate::DropAfterFirst => {
                let first = stream.next();
                drop((first, stream));
                board.count("dropped");
                continue;
            }
        };
        match ended {
            Ok(digest) => {
                assert_eq!(digest, expected[at], "{fate:?} of {}", QUERIES[at]);
                board.count("finished");
            }
            Err(Error::Cancelled) => {
                let since = cancelled.unwrap_or_else(|| panic!("nobody cancelled {}", QUERIES[at]));
                board.cancels.lock().expect("no client panics holding it").push(since.elapsed());
                board.count("cancelled");
            }
            Err(Error::Timeout { .. }) if matches!(fate, Fate::Timeout(_)) => board.count("timed out"),
            Err(Error::Io { .. }) if name == "faulty" => board.count("spill failed"),
            Err(Error::Internal(message)) if message.contains("injected") => board.count("panicked"),
            // An operator that has spilled all it can says so when nobody gives back what it needs beyond its floor.
            Err(Error::Memory(_)) if name != "ample" => board.count("out of memory"),
            Err(error) => panic!("{fate:?} of {}: {error}", QUERIES[at]),
        }
    }
}

/// `rounds` rounds on engine `number`, and then nothing is left.
fn rounds(number: u64, rounds: usize, expected: &[Digest], board: &Board) {
    let before = Held::now();
    let spill = tempfile::tempdir().expect("temporary folder");
    let (name, builder) = engine(number, spill.path());
    let engine = builder.build().expect("starts");
    let session = session(&engine);
    let quiet = |engine: &Engine| engine.running_queries() == 0 && engine.waiting_queries() == 0;
    // What a table keeps of its first queries stays with it.
    for sql in QUERIES {
        drop(session.query(sql).and_then(Query::collect));
    }
    wait_until("warm queries end", || quiet(&engine));
    let (base_bytes, base_held) = (engine.memory_used(), Held::now());
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for at in 0..CLIENTS {
                let (session, board) = ((name, &session), &board);
                let mut random = Random((number << 40) + ((round as u64) << 8) + at as u64);
                scope.spawn(move || client(at, session, expected, &mut random, board));
            }
        });
    }
    wait_until("queries end", || quiet(&engine));
    // A query has given back its place when the rows go that a client who is gone has not taken.
    let kept = format!("memory of {name} after {rounds} rounds is {base_bytes} bytes again");
    wait_until(&kept, || engine.memory_used() == base_bytes);
    assert_eq!(engine.temp_directory_used(), 0, "{name}");
    assert!(engine.memory_peak() <= engine.memory_limit());
    wait_until("descriptors are closed", || Held::now() == base_held);
    assert_eq!(fs::read_dir(spill.path()).expect("readable").count(), 0, "spill files of {name}");
    drop((session, engine));
    wait_until("threads end", || Held::now() == before);
}

/// Durations as p50, p99 and the longest.
fn percentiles(durations: &mut [Duration]) -> (Duration, Duration, Duration) {
    durations.sort();
    let at = |share: usize| durations[(durations.len() * share / 100).min(durations.len() - 1)];
    (at(50), at(99), at(100))
}

/// From `cancel` to the end of the stream, on an engine with nothing else to do.
fn cancel_latency(times: usize, board: &Board) {
    let engine = Engine::builder().threads(2).memory_limit(512 << 20).build().expect("starts");
    let session = session(&engine);
    let mut random = Random(7);
    let mut all = Vec::new();
    for sql in QUERIES {
        let started = Instant::now();
        session.query(sql).and_then(Query::collect).expect("runs");
        let solo = started.elapsed();
        let mut of_query = Vec::new();
        for _ in 0..times {
            board.note(0, format!("cancel latency of {sql}"));
            let stream = session.query(sql).and_then(Query::stream).expect("starts");
            std::thread::sleep(random.micros(solo.as_micros() as usize + 1));
            let at = Instant::now();
            stream.handle().cancel();
            if matches!(stream.last(), Some(Err(Error::Cancelled))) {
                of_query.push(at.elapsed());
            }
        }
        if let Some(longest) = of_query.iter().max() {
            let title = sql.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
            println!("cancel: longest {longest:?} of {}, solo {solo:?}: {title}", of_query.len());
        }
        all.append(&mut of_query);
    }
    let count = all.len();
    let (p50, p99, longest) = percentiles(&mut all);
    println!("cancel of {count} queries alone: p50 {p50:?}, p99 {p99:?}, longest {longest:?}");
    assert!(p99 < CANCEL_BOUND, "{p99:?}");
}

/// Query 6 at scale factor 0.1 alone, and beside two of query 18 at scale factor 10.
fn a_short_query_beside_long_ones(data: &Path, board: &Board) {
    let engine = Engine::builder().memory_limit(2 << 30).build().expect("starts");
    let [small, large] = ["sf0.1", "sf10"].map(|scale| {
        let session = engine.session();
        for name in ["lineitem", "orders", "customer"] {
            let file = data.join(scale).join(format!("{name}.parquet"));
            let path = if file.exists() { file } else { data.join(scale).join(name) };
            session.register_parquet(name, path).expect("a good file");
        }
        session
    });
    let (q06, q18) = (QUERIES[1], QUERIES[10]);
    let measure = |times: usize| {
        let mut taken: Vec<_> = (0..times)
            .map(|_| {
                board.note(0, "query 6".to_owned());
                let started = Instant::now();
                small.query(q06).and_then(Query::collect).expect("runs");
                started.elapsed()
            })
            .collect();
        percentiles(&mut taken)
    };
    measure(5);
    let alone = measure(100);
    let start = || large.query(q18).and_then(Query::stream).expect("starts");
    let long = [start(), start()];
    std::thread::sleep(Duration::from_millis(500));
    let beside = measure(200);
    println!("query 6 (p50, p99, longest): alone {alone:?}, beside two of query 18 {beside:?}");
    println!("query 18 meanwhile: {:.3}, {:.3}", long[0].handle().progress(), long[1].handle().progress());
    assert!(long.iter().all(|stream| stream.handle().progress() < 1.0), "they have ended meanwhile");
    drop(long);
    assert!(beside.1 <= alone.1 * 5, "{:?} alone, {:?} beside long ones", alone.1, beside.1);
}

#[test]
fn nothing_hangs_and_nothing_is_left_behind() {
    // Injected panics are expected, and so many that they would hide a true one.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(|message| message.contains("injected")) {
            usual(info);
        }
    }));
    let wanted = std::env::var("GRISTMILL_STRESS_ROUNDS").ok();
    let wanted: Option<usize> = wanted.map(|rounds| rounds.parse().expect("a number of rounds"));
    let all = wanted.unwrap_or(QUICK_ROUNDS);
    let board = Arc::new(Board::default());
    watch(&board);
    let plain = Engine::builder().threads(2).memory_limit(1 << 30).build().expect("starts");
    let expected = {
        let session = session(&plain);
        let run = |sql: &&str| session.query(sql).and_then(Query::stream).and_then(digest);
        QUERIES.iter().map(|sql| run(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))).collect::<Vec<_>>()
    };
    drop(plain);

    let started = Instant::now();
    let (mut done, mut engines, mut early_bytes) = (0, 0, 0);
    while done < all {
        let some = (all - done).min(all.div_ceil(4).min(50));
        rounds(engines, some, &expected, &board);
        (done, engines) = (done + some, engines + 1);
        // Heaps grow while they have not seen the worst of each engine.
        if engines == 4 {
            early_bytes = resident_bytes();
        }
    }
    let late_bytes = resident_bytes();
    println!("{done} rounds on {engines} engines in {:?}", started.elapsed());
    println!("{:?}", board.outcomes.lock().expect("nobody else"));
    println!("resident: {} KiB after 4 engines, {} KiB at the end", early_bytes >> 10, late_bytes >> 10);
    assert!(late_bytes <= early_bytes + (64 << 20), "memory grows");
    {
        let mut cancels = board.cancels.lock().expect("nobody else");
        let count = cancels.len();
        let (p50, p99, longest) = percentiles(&mut cancels);
        println!("cancel of {count} queries under load: p50 {p50:?}, p99 {p99:?}, longest {longest:?}");
    }
    cancel_latency(if wanted.is_some() { 100 } else { 8 }, &board);
    if let Some(data) = std::env::var_os("GRISTMILL_STRESS_DATA") {
        a_short_query_beside_long_ones(Path::new(&data), &board);
    }
}
