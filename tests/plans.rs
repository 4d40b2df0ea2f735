//! Plans of the TPC-H queries at scale factor 0.01, as texts in `tests/plans`, and the figures of plans that ran.
//!
//! A plan that differs from its text fails; `GRISTMILL_REWRITE_PLANS=1` writes the texts anew, for the author of the
//! change to read. Estimates are left out: they may move without moving the plan.

mod support;

use gristmill::{Engine, OperatorProfile, Session};
use std::fs;
use std::path::{Path, PathBuf};
use support::tables;

/// Queries of TPC-H.
const QUERIES: u32 = 22;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn session(engine: &Engine) -> Session {
    let session = engine.session();
    for (name, file) in tables::all() {
        session.register_parquet(&name, file).expect("a good file");
    }
    session
}

fn engine() -> Engine {
    Engine::builder().threads(2).memory_limit(1 << 30).build().expect("starts")
}

/// A plan's text without the estimates at the ends of its lines.
fn without_estimates(plan: &str) -> String {
    plan.lines().map(|line| line.split(" (about ").next().unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn plans_are_those_on_record() {
    let engine = engine();
    let session = session(&engine);
    let rewrite = std::env::var_os("GRISTMILL_REWRITE_PLANS").is_some();
    let mut differing = vec![];
    for number in 1..=QUERIES {
        let sql = path(&format!("tools/runner/tpch/queries/q{number:02}.sql"));
        let sql = fs::read_to_string(&sql).unwrap_or_else(|e| panic!("{}: {e}", sql.display()));
        let plan = session.query(&sql).unwrap_or_else(|e| panic!("q{number:02}: {e}")).explain();
        let plan = without_estimates(&plan);
        let record = path(&format!("tests/plans/q{number:02}.txt"));
        if rewrite {
            fs::write(&record, plan).unwrap_or_else(|e| panic!("{}: {e}", record.display()));
            continue;
        }
        let recorded = fs::read_to_string(&record).unwrap_or_else(|e| panic!("{}: {e}", record.display()));
        if plan != recorded {
            differing.push(format!("q{number:02} was\n{recorded}and is\n{plan}"));
        }
    }
    let remedy = "if it should be so, run this test with GRISTMILL_REWRITE_PLANS=1 and commit the texts";
    assert!(differing.is_empty(), "{}\n{remedy}", differing.join("\n"));
}

fn profile(session: &Session, sql: &str) -> Vec<OperatorProfile> {
    let mut stream =
        session.query(sql).and_then(gristmill::Query::stream).unwrap_or_else(|e| panic!("{sql}: {e}"));
    for batch in stream.by_ref() {
        batch.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    stream.profile()
}

#[test]
fn profiles_tell_what_every_operator_emitted() {
    let engine = engine();
    let session = session(&engine);
    let profile = profile(
        &session,
        "select n_name, stddev(o_custkey) from orders join customer on o_custkey = c_custkey join nation on c_nationkey = n_nationkey \
         where o_orderkey < 1000 group by n_name order by n_name limit 3",
    );
    let find = |prefix: &str| {
        let mut found = profile.iter().filter(|operator| operator.title.starts_with(prefix));
        let first = found.next().unwrap_or_else(|| panic!("no {prefix} in {profile:?}"));
        assert!(found.next().is_none(), "{prefix} is there twice: {profile:?}");
        first
    };
    let orders = find("Scan orders").rows;
    // Of 32 order keys 8 are used.
    assert!((240..260).contains(&orders), "{orders} rows of orders");
    assert_eq!(find("Scan nation").rows, 25);
    assert_eq!(find("Scan customer").rows, 1500);
    assert_eq!(find("Scan nation").build_rows, None);
    assert_eq!(find("HashAggregate").rows, 25);
    assert_eq!(find("Sort").rows, 3);
    assert_eq!(find("Sort").estimated_rows, Some(3));
    // Each order has a customer, each customer a nation: no join loses or adds rows of what streams past.
    let joins: Vec<_> = profile.iter().filter(|operator| operator.title.starts_with("HashJoin")).collect();
    assert_eq!(joins.len(), 2);
    assert_eq!(joins[0].rows, orders, "{profile:?}");
    for (at, operator) in profile.iter().enumerate().filter(|(_, o)| o.title.starts_with("HashJoin")) {
        let build = &profile[at + 1];
        assert_eq!(build.depth, operator.depth + 1);
        assert_eq!(operator.build_rows, Some(build.rows), "{profile:?}");
    }
    assert!(profile.iter().all(|operator| operator.estimated_rows.is_some()));
}

#[test]
fn explain_analyze_shows_rows_beside_estimates() {
    let engine = engine();
    let batches = session(&engine)
        .query("explain analyze select count(*) from orders join customer on o_custkey = c_custkey")
        .and_then(gristmill::Query::collect)
        .expect("runs");
    let text: Vec<String> = support::rows::texts(&batches).into_iter().flatten().collect();
    let has = |parts: &[&str]| text.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["HashJoin", "(rows 15000 of about 15000, build rows 1500, busy "]), "{text:#?}");
    assert!(has(&["Aggregate", "(rows 1 of about 1, busy "]));
    assert!(has(&["Scan customer", "(rows 1500 of about 1500, busy "]), "{text:#?}");
}

#[test]
fn samples_tell_what_statistics_cannot() {
    let engine = engine();
    let session = session(&engine);
    let before = engine.memory_used();
    for (table, condition) in [
        ("part", "p_name like 'forest%'"),
        ("part", "p_type like '%BRASS' and p_size < 15"),
        // Ship dates follow order dates: taken apart, these would let a quarter through.
        ("lineitem", "l_shipdate < l_commitdate and l_commitdate < l_receiptdate"),
        ("customer", "substring(c_phone from 1 for 2) in ('13', '31', '23')"),
        ("orders", "o_comment not like '%special%requests%'"),
    ] {
        let sql = format!("select * from {table} where {condition}");
        let profile = profile(&session, &sql);
        let scan = profile.last().expect("a plan has a scan");
        let (estimate, rows) = (scan.estimated_rows.expect("known") as f64, scan.rows.max(1) as f64);
        let error = (estimate / rows).max(rows / estimate);
        assert!(error < 2.0, "{condition}: {rows} rows, estimated as {estimate}");
    }
    assert_eq!(engine.memory_used(), before, "samples are given back");
}
