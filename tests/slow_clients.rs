//! A client that takes its time is no reason to refuse memory: what a query has made and nobody has taken lies in the
//! memory it needs to go on, and where other queries wait for theirs it gets no more.

mod support;

use gristmill::{Engine, Error, Query, ResultStream};
use std::time::Duration;
use support::tables;

/// More rows than a queue takes, most of them strings.
const QUERIES: &[&str] = &[
    "select l_orderkey, l_linenumber, l_comment from lineitem",
    "select l_orderkey, l_linenumber, l_comment from lineitem order by l_comment, l_orderkey, l_linenumber",
    "select l_comment, max(l_shipinstruct || l_comment), count(*) from lineitem group by l_comment",
    "select distinct l_comment from lineitem",
    "select a.l_comment, b.l_shipinstruct, b.l_comment from lineitem a join lineitem b \
     on a.l_orderkey = b.l_orderkey and a.l_linenumber = b.l_linenumber",
    "select a.l_comment, b.l_comment from lineitem a full join lineitem b on a.l_orderkey = b.l_suppkey",
    "with g as (select l_comment, count(*) n from lineitem group by l_comment) \
     select a.n, b.l_comment from g a join g b on a.l_comment = b.l_comment",
];

/// Longer than anybody waits for memory while nothing moves.
const PAUSE: Duration = Duration::from_millis(2600);
const LEAST_BYTES: usize = 1 << 20;
/// Limits tried for each query, the least that is enough and some above it.
const LIMITS: usize = 6;
/// Queries of clients that read nothing for now. Floors of so many do not fit.
const OTHERS: usize = 8;

/// The rows of a query on an engine of its own, beside `others` of the same that nobody reads.
fn rows(sql: &str, limit_bytes: usize, pause: Duration, others: usize) -> Result<usize, Error> {
    let engine = Engine::builder().threads(2).memory_limit(limit_bytes).build()?;
    let session = engine.session();
    session.register_parquet("lineitem", tables::folder().join("lineitem.parquet"))?;
    let count = |mut stream: ResultStream| {
        let first = stream.next().transpose()?.map_or(0, |batch| batch.num_rows());
        std::thread::sleep(pause);
        stream.try_fold(first, |rows, batch| Ok(rows + batch?.num_rows()))
    };
    let stream = session.query(sql).and_then(Query::stream)?;
    let _others: Vec<_> =
        (0..others).map(|_| session.query(sql).and_then(Query::stream)).collect::<Result<_, _>>()?;
    count(stream)
}

#[test]
fn a_slow_client_is_waited_for() {
    let mut runs = Vec::new();
    for sql in QUERIES {
        let expected = rows(sql, 1 << 30, Duration::ZERO, 0).expect("1 GiB is enough");
        let limits = std::iter::successors(Some(LEAST_BYTES), |bytes| Some(bytes + bytes / 8));
        let is_enough = |bytes: &usize| match rows(sql, *bytes, Duration::ZERO, 0) {
            Ok(_) => true,
            Err(Error::Memory(_)) => false,
            Err(error) => panic!("{sql} in {bytes} bytes: {error}"),
        };
        runs.extend(
            limits.skip_while(|bytes| !is_enough(bytes)).take(LIMITS).map(|bytes| (*sql, bytes, expected)),
        );
    }
    std::thread::scope(|scope| {
        let slow = |(sql, bytes, expected): (&'static str, usize, usize)| {
            scope.spawn(move || match rows(sql, bytes, PAUSE, OTHERS) {
                Ok(rows) if rows == expected => None,
                Ok(rows) => Some(format!("{sql} in {bytes} bytes: {rows} rows of {expected}")),
                Err(error) => Some(format!("{sql} in {bytes} bytes: {error}")),
            })
        };
        let started: Vec<_> = runs.into_iter().map(slow).collect();
        let failed: Vec<_> =
            started.into_iter().filter_map(|run| run.join().expect("does not panic")).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    });
}
