//! Queries to plan texts, result names, and errors with their places.

use super::{Statement, bind};
use crate::data::DataType;
use crate::error::{Error, Location};
use crate::logical::explain;
use crate::optimizer::testing::{FakeCatalog, FakeTable, catalog, field, text};
use std::sync::Arc;

fn outputs(sql: &str) -> Vec<(String, String)> {
    let mut statements = bind(sql, &catalog()).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let Some(Statement::Query(query)) = statements.pop() else { panic!("{sql} is no query") };
    let produced: Vec<_> = query.plan.columns().iter().map(|c| c.id).collect();
    assert_eq!(produced, query.outputs.iter().map(|c| c.id).collect::<Vec<_>>(), "{sql}");
    query.outputs.into_iter().map(|c| (c.field.name, c.field.data_type.to_string())).collect()
}

fn names(sql: &str) -> Vec<String> {
    outputs(sql).into_iter().map(|(name, _)| name).collect()
}

fn plan(sql: &str) -> String {
    text(&crate::optimizer::testing::bind(sql))
}

fn error(sql: &str) -> Error {
    match bind(sql, &catalog()) {
        Ok(_) => panic!("{sql} binds"),
        Err(error) => error,
    }
}

fn assert_error(sql: &str, message: &str, line: u64, column: u64) {
    let error = error(sql);
    let text = error.to_string();
    assert!(text.contains(message), "{sql}: {text}");
    assert_eq!(error.location(), Some(Location { line, column }), "{sql}: {text}");
    assert!(text.ends_with('^'), "{text}");
}

#[test]
fn result_columns_are_named_as_duckdb_names_them() {
    for (item, name) in [
        ("A", "a"),
        ("t.a", "a"),
        ("(a)", "a"),
        ("a+1", "(a + 1)"),
        ("-a", "(-(a))"),
        ("-1", "-1"),
        ("a*(1-b)", "(a * (1 - b))"),
        ("SUM(A)", "sum(A)"),
        ("sum(t.a)", "sum(t.a)"),
        ("count(*)", "count_star()"),
        ("count()", "count_star()"),
        ("count(distinct a)", "count(DISTINCT a)"),
        ("count(*) filter (where a>1)", "count_star() FILTER (WHERE (a > 1))"),
        ("min(a)+max(a)", "(min(a) + max(a))"),
        ("case when a>1 then 2 else 3 end", "CASE  WHEN ((a > 1)) THEN (2) ELSE 3 END"),
        ("case a when 1 then 2 end", "CASE  WHEN ((a = 1)) THEN (2) ELSE NULL END"),
        ("cast(a as bigint)", "CAST(a AS BIGINT)"),
        ("a::bigint", "CAST(a AS BIGINT)"),
        ("a between 1 and 2", "(a BETWEEN 1 AND 2)"),
        ("a not in (1,2)", "(NOT (a IN (1, 2)))"),
        ("c like 'x%'", "(c ~~ 'x%')"),
        ("c not like 'x'", "(c !~~ 'x')"),
        ("c like 'x' escape '$'", "like_escape(c, 'x', '$')"),
        ("a is not null", "(a IS NOT NULL)"),
        ("a <> 1", "(a != 1)"),
        ("coalesce(a,1)", "COALESCE(a, 1)"),
        ("nullif(a,1)", "\"nullif\"(a, 1)"),
        ("true and null", "(true AND NULL)"),
        ("0.05", "0.05"),
        ("'a''b'", "'a''b'"),
        ("interval '1' day as i", "i"),
        ("interval 3 months", "to_months(CAST(trunc(CAST(3 AS DOUBLE)) AS INTEGER))"),
        ("interval '1.5' second", "to_seconds(CAST('1.5' AS DOUBLE))"),
        ("interval '1 year'", "CAST('1 year' AS INTERVAL)"),
    ] {
        assert_eq!(names(&format!("select {item} from t")), [name], "{item}");
    }
}

#[test]
fn select_lists_expand() {
    assert_eq!(names("select *, t.* from t"), ["a", "b", "c", "d", "a", "b", "c", "d"]);
    assert_eq!(names("select * exclude (b, C) from t"), ["a", "d"]);
    assert_eq!(names("from t"), ["a", "b", "c", "d"]);
    assert_eq!(names("select * from t as x(q)"), ["q", "b", "c", "d"]);
    assert_eq!(
        plan("select * exclude (c, d) replace (a + 1 as b) from t"),
        "Project: a, (a + 1) AS b#4\n  Scan t: [a, b#1, c, d]\n"
    );
}

#[test]
fn columns_of_derived_tables_and_ctes_have_their_aliases() {
    assert_eq!(names("select * from (select a, b from t) as s(x)"), ["x", "b"]);
    assert_eq!(names("with s(x) as (select a from t), u as (select x as y from s) select y from u"), ["y"]);
    assert_eq!(names("with t as (select a as z from t) select * from t"), ["z"]);
    let types: Vec<String> = outputs("values (1, null), (2.5, 'x')").into_iter().map(|(_, t)| t).collect();
    assert_eq!(types, ["DECIMAL(11,1)", "VARCHAR"]);
    assert_eq!(names("select * from (values (1, 2)) v(q)"), ["q", "col1"]);
}

#[test]
fn grouping_reads_keys_and_aggregates() {
    let expected = "Sort: n DESC, b\n  Project: b, (sum((a + 1)) * 2) AS n\n    \
                    Aggregate: groups=[b] aggregates=[sum((a + 1))]\n      \
                    Filter: (a > 0)\n        Scan t: [a, b, c, d]\n";
    let select = "select b, sum(a+1)*2 as n from t where a > 0 group by";
    for group in ["b", "1", "t.b", "all", "b, B"] {
        for order in ["n desc, b", "2 desc, 1", "sum(a+1)*2 desc, t.b"] {
            // DuckDB multiplies HUGEINTs here, so the literal is cast.
            let text =
                plan(&format!("{select} {group} order by {order}")).replace("* CAST(2 AS HUGEINT)", "* 2");
            assert_eq!(text, expected, "{group}; {order}");
        }
    }
    assert_eq!(
        plan("select a + 1 as k, count(*) from t group by k having k > 2 and count(*) > 1"),
        "Project: (a + 1) AS k, count_star()\n  Filter: (k > 2), (count_star() > 1)\n    \
         Aggregate: groups=[(a + 1) AS k] aggregates=[count(*) AS count_star()]\n      Scan t: [a, b, c, d]\n"
            .replace("Project: (a + 1) AS k", "Project: k")
    );
}

#[test]
fn equal_aggregates_are_computed_once() {
    assert_eq!(
        plan("select sum(a), sum(A) as s, sum(t.a) + 1 as u, count(a) from t"),
        plan("select sum(a), sum(a) as s, sum(a) + 1 as u, count(a) from t")
    );
    assert!(plan("select sum(a), sum(A) as s from t").contains("aggregates=[sum(a)]"));
}

#[test]
fn ordering_by_what_is_not_selected_leaves_the_result_alone() {
    assert_eq!(
        plan("select a from t order by b desc nulls first, a + 1"),
        "Project: a\n  Sort: b DESC NULLS FIRST, (a + 1)\n    Project: a, b, (a + 1)\n      Scan t: [a, b, c, d]\n"
    );
    assert_eq!(
        plan("select -a as a from t order by a"),
        "Sort: a#4\n  Project: (-a#0) AS a#4\n    Scan t: [a#0, b, c, d]\n"
    );
    assert_eq!(
        plan("select distinct a, b from t order by 2 limit 1"),
        "Limit: 1\n  Sort: b\n    Aggregate: groups=[a, b] aggregates=[]\n      Project: a, b\n        \
         Scan t: [a, b, c, d]\n"
    );
}

#[test]
fn queries_without_tables_have_one_row() {
    assert_eq!(plan("select 1 as one"), "Project: 1 AS one\n  Values: [] rows=1\n");
    assert_eq!(plan("values (1), (2) limit 1 offset 1"), "Limit: 1 offset 1\n  Values: [col0] rows=2\n");
}

#[test]
fn lists_and_conditions_take_their_plan_form() {
    assert_eq!(
        plan("select a from t where a in (1, 2) and b not between 3 and 4 and c is not null"),
        "Project: a\n  Filter: (a IN (1, 2)), (NOT ((b >= 3) AND (b <= 4))), (NOT (c IS NULL))\n    \
         Scan t: [a, b, c, d]\n"
    );
    assert_eq!(
        plan("select a from t where d < date '1995-01-01' or nullif(a, 1) is null"),
        "Project: a\n  Filter: ((d < '1995-01-01') OR (CASE WHEN (a = 1) THEN NULL ELSE a END IS NULL))\n    \
         Scan t: [a, b, c, d]\n"
    );
}

#[test]
fn errors_point_at_their_place() {
    assert_error(
        "select a,\n       bb from t",
        "no column \"bb\" in the FROM clause; did you mean \"b\"?",
        2,
        8,
    );
    assert_error("select * from tt", "no table \"tt\" in the catalog; did you mean \"t\"?", 1, 15);
    assert_error("select x.a from t", "no table \"x\" in the FROM clause", 1, 8);
    assert_error("select a from t where q.a > 1", "no table \"q\"", 1, 23);
    assert_error("select a, count(*) from t group by b", "column \"a\" must appear in GROUP BY", 1, 8);
    assert_error("select b from t group by b order by a", "column \"a\" must appear in GROUP BY", 1, 37);
    assert_error("select a from t having count(*) > 1", "column \"a\" must appear in GROUP BY", 1, 8);
    assert_error("select * from t group by a", "column \"b\" must appear in GROUP BY", 1, 8);
    assert_error("select a from t where sum(a) > 1", "WHERE cannot contain aggregates; use HAVING", 1, 23);
    assert_error("select sum(sum(a)) from t", "aggregates cannot be nested", 1, 12);
    assert_error("select a from t order by 2", "ORDER BY position 2 is out of range", 1, 26);
    assert_error("select count(*) from t group by 1", "GROUP BY position 1 is an aggregate", 1, 33);
    assert_error("select distinct a from t order by b", "must appear in the select list", 1, 35);
    assert_error("select date '1998-13-01'", "1998-13-01", 1, 13);
    assert_error("select foo(a) from t", "no function \"foo\"", 1, 8);
    assert_error("select c + d from t", "", 1, 8);
    assert_error("select a from t limit -1", "cannot be negative", 1, 24);
    assert_error("select x + 1 as y, y + 1 as x from t", "is defined by itself", 1, 8);
    assert_error("select * exclude (zz) from t", "no column \"zz\" in the columns of *", 1, 19);
    assert_error("select * from (values (1), (2, 3)) v", "this row has 2 values", 1, 28);
    assert_error("select a", "the query has no FROM clause", 1, 8);
}

#[test]
fn what_is_missing_is_refused_by_name_and_place() {
    for (sql, what, column) in [
        ("select sum(a) over () from t", "window functions", 8),
        ("select a from t qualify a > 1", "QUALIFY", 25),
        ("select distinct on (a) a from t", "DISTINCT ON", 21),
        ("select * from range(3)", "table functions", 15),
    ] {
        let error = error(sql);
        assert!(matches!(error, Error::Unsupported(_)), "{sql}: {error}");
        assert!(error.to_string().contains(what), "{sql}: {error}");
        assert_eq!(error.location(), Some(Location { line: 1, column }), "{sql}: {error}");
    }
    assert!(matches!(error("create table x (a int)"), Error::Unsupported(_)));
    assert!(matches!(error("with recursive r as (select 1) select * from r"), Error::Unsupported(_)));
}

#[test]
fn large_expressions_end_in_an_error_not_an_overflow() {
    let aliases: Vec<String> = (1..40).map(|i| format!("x{} + x{} as x{i}", i - 1, i - 1)).collect();
    let sql = format!("select a as x0, {} from t", aliases.join(", "));
    assert!(error(&sql).to_string().contains("too large with aliases"));
    let chain = " + 1".repeat(600);
    let sql = format!("select a{chain} as x, x{chain} as y, y{chain} as z from t");
    assert!(error(&sql).to_string().contains("operators high"));
    let coalesce = |n| format!("select {}a{} from t", "coalesce(".repeat(n), ", 1)".repeat(n));
    plan(&coalesce(8));
    assert!(error(&coalesce(120)).to_string().contains("too large with aliases"));
    plan(&format!("select {}a{} from t", "case when b > 1 then ".repeat(120), " end".repeat(120)));
    let nested = |n| format!("{}select a from t{}", "select a from (".repeat(n), ")".repeat(n));
    crate::optimizer::testing::optimized(crate::optimizer::testing::bind(&nested(60))).expect("optimizes");
    assert!(error(&nested(120)).to_string().contains("queries nest"));
    let ctes: Vec<String> = (1..1000).map(|i| format!("c{i} as (select * from c{})", i - 1)).collect();
    let sql = format!("with c0 as (select a from t), {} select * from c999", ctes.join(", "));
    assert!(error(&sql).to_string().contains("queries nest"));
    plan(&format!("select a from t where a = 1{}", " or a = 2".repeat(400)));
    plan(&format!("select a{} from t", " + 1".repeat(900)));
}

#[test]
fn explain_wraps_its_query() {
    let statements = bind("explain select a from t; explain analyze select 1", &catalog());
    let statements = statements.expect("binds");
    let analyzed: Vec<bool> =
        statements.iter().map(|s| matches!(s, Statement::Explain { analyze: true, .. })).collect();
    assert_eq!(analyzed, [false, true]);
}

#[test]
fn options_of_explain_are_followed_or_refused() {
    for (sql, expected) in
        [("explain (analyze) select 1", true), ("explain (analyze false, format text) select 1", false)]
    {
        let statements = bind(sql, &catalog()).expect("binds");
        assert!(matches!(statements[0], Statement::Explain { analyze, .. } if analyze == expected), "{sql}");
    }
    for (sql, column) in [
        ("explain (format json) select 1", 10),
        ("explain (analyze, format 'json') select 1", 19),
        ("explain (costs) select 1", 10),
    ] {
        let Err(error) = bind(sql, &catalog()) else { panic!("{sql} is bound") };
        assert!(matches!(error, Error::Unsupported(_)), "{sql}: {error}");
        assert_eq!(error.location(), Some(Location { line: 1, column }), "{sql}: {error}");
    }
    for sql in ["explain verbose select 1", "explain format json select 1"] {
        assert!(matches!(bind(sql, &catalog()), Err(Error::Unsupported(_) | Error::Parse(_))), "{sql}");
    }
}

/// `lineitem` as TPC-H defines it.
fn tpch() -> FakeCatalog {
    let decimal = || DataType::Decimal { precision: 15, scale: 2 };
    let columns = [
        ("l_orderkey", DataType::Int64),
        ("l_quantity", decimal()),
        ("l_extendedprice", decimal()),
        ("l_discount", decimal()),
        ("l_tax", decimal()),
        ("l_returnflag", DataType::Utf8),
        ("l_linestatus", DataType::Utf8),
        ("l_shipdate", DataType::Date),
    ];
    let fields = columns.into_iter().map(|(name, data_type)| field(name, data_type, false)).collect();
    FakeCatalog(vec![("lineitem", Arc::new(FakeTable { fields, statistics: Default::default() }))])
}

fn optimized(sql: &str) -> String {
    let mut statements = bind(sql, &tpch()).unwrap_or_else(|e| panic!("{e}"));
    let Some(Statement::Query(query)) = statements.pop() else { panic!("no query") };
    let plan = crate::optimizer::testing::optimized(query.plan).unwrap_or_else(|e| panic!("{e}"));
    explain(&plan, &|_| None)
}

#[test]
fn q01_reads_seven_columns_and_keeps_five_sums() {
    let sql = "SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
        sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
        sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
        avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc,
        count(*) AS count_order
        FROM lineitem WHERE l_shipdate <= CAST('1998-09-02' AS date)
        GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus;";
    assert_eq!(
        optimized(sql),
        "Sort: l_returnflag, l_linestatus
  Project: l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), \
sum((l_extendedprice * (1 - l_discount))), sum(((l_extendedprice * (1 - l_discount)) * (1 + l_tax))), \
(CAST(sum(l_quantity) AS DOUBLE) / CAST(count(*) AS DOUBLE)) AS avg(l_quantity), \
(CAST(sum(l_extendedprice) AS DOUBLE) / CAST(count(*) AS DOUBLE)) AS avg(l_extendedprice), \
(CAST(sum(l_discount) AS DOUBLE) / CAST(count(*) AS DOUBLE)) AS avg(l_discount), count(*) AS count_star()
    Aggregate: groups=[l_returnflag, l_linestatus] aggregates=[sum(l_quantity), sum(l_extendedprice), \
sum((l_extendedprice * (1 - l_discount))), sum(((l_extendedprice * (1 - l_discount)) * (1 + l_tax))), \
count(*), sum(l_discount)]
      Scan lineitem: [l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus] \
filters=[(l_shipdate <= '1998-09-02')] reads also [l_shipdate]
"
    );
}

#[test]
fn q06_filters_in_the_scan() {
    let sql = "SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
        WHERE l_shipdate >= CAST('1994-01-01' AS date) AND l_shipdate < CAST('1995-01-01' AS date)
        AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24;";
    assert_eq!(
        optimized(sql),
        "Aggregate: groups=[] aggregates=[sum((l_extendedprice * l_discount))]
  Scan lineitem: [l_extendedprice, l_discount] filters=[(l_shipdate >= '1994-01-01'), \
(l_shipdate < '1995-01-01'), (l_discount >= 0.05), (l_discount <= 0.07), (l_quantity < 24.00)] \
reads also [l_quantity, l_shipdate]
"
    );
}
