//! What succeeds in some memory succeeds in more, with the same rows.
//!
//! Each query runs under ever larger limits, from ones that refuse it to ones it hardly notices. Most of what it holds
//! is strings, of which floors know only a guess.

mod support;

use gristmill::{Engine, Error, Query};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use support::{rows, tables};

const QUERIES: &[&str] = &[
    "select * from lineitem order by l_comment, l_orderkey, l_linenumber",
    "select l_orderkey, l_comment from lineitem order by l_comment, l_orderkey, l_linenumber",
    "select l_comment, l_shipmode from lineitem order by l_comment, l_orderkey, l_linenumber limit 20000",
    "select count(*), sum(n), max(m) from \
     (select l_comment, count(*) n, max(l_shipinstruct || l_comment) m from lineitem group by l_comment)",
    "select count(distinct l_comment), count(distinct l_shipmode || l_comment) from lineitem",
    "select l_linenumber, median(l_quantity), quantile_disc(l_comment || l_shipinstruct, 0.3), \
     quantile_disc(l_comment || l_shipinstruct, 0.6), quantile_disc(l_comment || l_shipinstruct, 0.9) \
     from lineitem group by l_linenumber",
    "select count(*), max(a.l_comment), min(b.l_comment || a.l_comment) from lineitem a join lineitem b \
     on a.l_orderkey = b.l_orderkey and a.l_linenumber = b.l_linenumber",
    "select count(a.l_comment), count(b.l_comment) from lineitem a full join lineitem b on a.l_orderkey = b.l_suppkey",
    "with g as (select l_comment, count(*) n, sum(l_quantity) q from lineitem group by l_comment) \
     select count(*), max(a.q), max(b.l_comment) from g a join g b on a.l_comment = b.l_comment",
    "select count(*) from (select l_comment from lineitem where l_linenumber < 4 except select l_comment from lineitem \
     where l_linenumber > 2)",
];

const LEAST_BYTES: usize = 1 << 20;
const MOST_BYTES: usize = 24 << 20;
/// Each limit is larger than the one before by one part in so many.
const STEP: usize = 8;

enum Answer {
    Rows(usize, u64),
    /// Refused, with the bytes that it says would do.
    Refused(usize),
}

fn run(sql: &str, threads: usize, limit_bytes: usize) -> Answer {
    let engine = Engine::builder().threads(threads).memory_limit(limit_bytes).build().expect("starts");
    let session = engine.session();
    session.register_parquet("lineitem", tables::folder().join("lineitem.parquet")).expect("a good file");
    let digest = |stream: gristmill::ResultStream| -> Result<(usize, u64), Error> {
        let (mut count, mut hasher) = (0, DefaultHasher::new());
        for batch in stream {
            let batch = batch?;
            count += batch.num_rows();
            rows::texts(&[batch]).hash_rows(&mut hasher);
        }
        Ok((count, hasher.finish()))
    };
    match session.query(sql).and_then(Query::stream).and_then(digest) {
        Ok((count, hash)) => Answer::Rows(count, hash),
        Err(Error::Memory(error)) => Answer::Refused(match *error {
            gristmill::MemoryError::BudgetTooSmall { required_bytes, .. } => required_bytes,
            other @ gristmill::MemoryError::Exceeded { .. } => {
                panic!("{sql} in {limit_bytes} bytes with {threads} threads: {other}")
            }
        }),
        Err(error) => panic!("{sql} in {limit_bytes} bytes with {threads} threads: {error}"),
    }
}

/// Row by row, so that batches may end anywhere.
trait HashRows {
    fn hash_rows(&self, hasher: &mut DefaultHasher);
}

impl HashRows for Vec<Vec<String>> {
    fn hash_rows(&self, hasher: &mut DefaultHasher) {
        self.iter().for_each(|row| row.hash(hasher));
    }
}

#[test]
fn what_succeeds_in_some_memory_succeeds_in_more() {
    let mut failures = Vec::new();
    for sql in QUERIES {
        let Answer::Rows(count, hash) = run(sql, 2, 1 << 30) else { panic!("{sql}: 1 GiB is not enough") };
        for threads in [1, 2, 4] {
            let (mut limit_bytes, mut enough_bytes) = (LEAST_BYTES, None);
            while limit_bytes <= MOST_BYTES {
                match (run(sql, threads, limit_bytes), enough_bytes) {
                    (Answer::Rows(rows, digest), _) => {
                        assert_eq!((rows, digest), (count, hash), "{sql} in {limit_bytes} bytes");
                        enough_bytes.get_or_insert(limit_bytes);
                    }
                    (Answer::Refused(_), None) => {}
                    (Answer::Refused(required_bytes), Some(enough_bytes)) => failures.push(format!(
                        "{sql}\n  with {threads} threads: {enough_bytes} bytes are enough, {limit_bytes} are not: \
                         it is said to need {required_bytes}"
                    )),
                }
                limit_bytes += limit_bytes / STEP;
            }
            assert!(
                enough_bytes.is_some(),
                "{sql}: {MOST_BYTES} bytes are not enough with {threads} threads"
            );
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
