//! Joins and subqueries: plan texts before any rule has run, names, and errors with their places.

use super::bind;
use crate::data::DataType;
use crate::error::{Error, Location};
use crate::optimizer::testing::{self, catalog, text};

fn assert_binds(sql: &str, expected: &str) {
    assert_eq!(text(&testing::bind(sql)), expected, "{sql}");
}

fn error(sql: &str) -> Error {
    match bind(sql, &catalog()) {
        Ok(_) => panic!("{sql} binds"),
        Err(error) => error,
    }
}

#[test]
fn conditions_are_keys_and_filters() {
    assert_binds(
        "select * from t, u where a = k",
        "Project: a, b, c, d, k, x, y
  Filter: (a = k)
    InnerJoin
      Scan t: [a, b, c, d]
      Scan u: [k, x, y]
",
    );
    assert_binds(
        "select * from t join u on a = k and x > b",
        "Project: a, b, c, d, k, x, y
  InnerJoin: a = k filters=[(x > b)]
    Scan t: [a, b, c, d]
    Scan u: [k, x, y]
",
    );
    assert_binds(
        "select * from t right join u on a = k and b > 1",
        "Project: a, b, c, d, k, x, y
  LeftJoin: k = a filters=[(b > 1)]
    Scan u: [k, x, y]
    Scan t: [a, b, c, d]
",
    );
    assert_binds(
        "select * from t full join u on a = k and b > y",
        "Project: a, b, c, d, k, x, y
  FullJoin: a = k filters=[(b > y)]
    Scan t: [a, b, c, d]
    Scan u: [k, x, y]
",
    );
}

#[test]
fn shared_columns_appear_once() {
    assert_binds(
        "select * from t join (select k as a, x from u) as s using (a)",
        "Project: a, b, c, d, x
  InnerJoin: a = k
    Scan t: [a, b, c, d]
    Project: k, x
      Scan u: [k, x, y]
",
    );
    assert_binds(
        "select a, s.a, t.a from t right join (select k as a, x from u) as s using (a)",
        "Project: k, k AS a#7, a#0
  LeftJoin: k = a#0
    Project: k, x
      Scan u: [k, x, y]
    Scan t: [a#0, b, c, d]
",
    );
    assert_binds(
        "select * from t full join (select k as a, x from u) as s using (a)",
        "Project: a#7, b, c, d, x
  Project: a#0, b, c, d, k, x, CASE WHEN (NOT (a#0 IS NULL)) THEN a#0 ELSE k END AS a#7
    FullJoin: a#0 = k
      Scan t: [a#0, b, c, d]
      Project: k, x
        Scan u: [k, x, y]
",
    );
    assert_binds(
        "select * from t full join (select k as a from u) as s using (a) full join (select x as a from u) as r using (a)",
        "Project: a#11, b, c, d
  Project: a#0, b, c, d, k#4, a#7, x#9, CASE WHEN (NOT (a#7 IS NULL)) THEN a#7 ELSE x#9 END AS a#11
    FullJoin: a#7 = x#9
      Project: a#0, b, c, d, k#4, CASE WHEN (NOT (a#0 IS NULL)) THEN a#0 ELSE k#4 END AS a#7
        FullJoin: a#0 = k#4
          Scan t: [a#0, b, c, d]
          Project: k#4
            Scan u: [k#4, x#5, y#6]
      Project: x#9
        Scan u: [k#8, x#9, y#10]
",
    );
    assert_binds(
        "select * from t natural join (select k as a, y as b from u) as s",
        "Project: a, b, c, d
  InnerJoin: a = k, b = y
    Scan t: [a, b, c, d]
    Project: k, y
      Scan u: [k, x, y]
",
    );
}

#[test]
fn semi_and_anti_joins_are_written_out() {
    assert_binds(
        "select * from t semi join u on a = k and b > y",
        "Project: a, b, c, d
  SemiJoin: a = k filters=[(b > y)]
    Scan t: [a, b, c, d]
    Scan u: [k, x, y]
",
    );
    assert_binds(
        "select * from t anti join u on a = k",
        "Project: a, b, c, d
  AntiJoin: a = k
    Scan t: [a, b, c, d]
    Scan u: [k, x, y]
",
    );
}

#[test]
fn joins_nest() {
    assert_binds(
        "select t.a from t cross join (u join t as v on k = v.a)",
        "Project: a#0
  InnerJoin
    Scan t: [a#0, b#1, c#2, d#3]
    InnerJoin: k = a#7
      Scan u: [k, x, y]
      Scan t: [a#7, b#8, c#9, d#10]
",
    );
}

#[test]
fn subqueries_join_the_input_of_their_clause() {
    assert_binds(
        "select a from t join u on k = (select max(k) from u where x = b)",
        "Project: a
  Filter: (k#4 = max(k))
    SingleJoin
      InnerJoin
        Scan t: [a, b, c, d]
        Scan u: [k#4, x#5, y#6]
      Project: max(k)
        Aggregate: groups=[] aggregates=[max(k#7) AS max(k)]
          Filter: (x#8 = b)
            Scan u: [k#7, x#8, y#9]
",
    );
    assert_binds(
        "select b, (select max(x) from u where k = b) as m from t group by b having count(*) in (select y from u) order by (select min(x) from u)",
        "Project: b, max(x)
  Sort: min(x)
    Project: b, max(x), min(x)
      SingleJoin
        SingleJoin
          Filter: in
            NullAwareMarkJoin: count_star() = CAST(y#11 AS BIGINT) AS in
              Aggregate: groups=[b] aggregates=[count(*) AS count_star()]
                Scan t: [a, b, c, d]
              Project: y#11
                Scan u: [k#9, x#10, y#11]
          Project: max(x)
            Aggregate: groups=[] aggregates=[max(x#5) AS max(x)]
              Filter: (k#4 = b)
                Scan u: [k#4, x#5, y#6]
        Project: min(x)
          Aggregate: groups=[] aggregates=[min(x#14) AS min(x)]
            Scan u: [k#13, x#14, y#15]
",
    );
    assert_binds(
        "select 1 where exists (select 1)",
        "Project: 1 AS 1#2
  Filter: exists
    MarkJoin AS exists
      Values: [] rows=1
      Project: 1 AS 1#0
        Values: [] rows=1
",
    );
}

#[test]
fn subqueries_may_be_group_keys_and_arguments() {
    assert_binds(
        "select (select max(x) from u) as m, count(*) from t group by m",
        "Project: max(x), count_star()
  Aggregate: groups=[max(x)] aggregates=[count(*) AS count_star()]
    SingleJoin
      Scan t: [a, b, c, d]
      Project: max(x)
        Aggregate: groups=[] aggregates=[max(x)]
          Scan u: [k, x, y]
",
    );
    assert_binds(
        "select (select max(x) from u) as m, sum((select y from u where k = a)) from t group by 1 order by m",
        "Sort: max(x)
  Project: max(x), sum((SELECT y FROM u WHERE k = a))
    Aggregate: groups=[max(x)] aggregates=[sum(y#10) AS sum((SELECT y FROM u WHERE k = a))]
      SingleJoin
        SingleJoin
          Scan t: [a, b, c, d]
          Project: max(x)
            Aggregate: groups=[] aggregates=[max(x#5) AS max(x)]
              Scan u: [k#4, x#5, y#6]
        Project: y#10
          Filter: (k#8 = a)
            Scan u: [k#8, x#9, y#10]
",
    );
}

#[test]
fn outer_joins_make_columns_nullable() {
    let nullable = |sql: &str| -> Vec<bool> {
        let plan = testing::bind(sql);
        plan.columns().into_iter().map(|column| column.field.nullable).collect()
    };
    assert_eq!(nullable("select b, y from t join u on a = k"), [false, false]);
    assert_eq!(nullable("select b, y from t left join u on a = k"), [false, true]);
    assert_eq!(nullable("select b, y from t right join u on a = k"), [true, false]);
    assert_eq!(nullable("select b, y from t full join u on a = k"), [true, true]);
    assert_eq!(nullable("select b, (select max(y) from u) from t"), [false, true]);
    assert_eq!(nullable("select exists (select 1), b in (select y from u) from t"), [false, false]);
    assert_eq!(nullable("select b in (select x from u) from t"), [true]);
}

#[test]
fn results_of_subqueries_are_named_by_their_text() {
    for (item, name) in [
        ("(select max(x) from u)", "(SELECT max(x) FROM u)"),
        ("exists (select 1)", "EXISTS(SELECT 1)"),
        ("a not in (select k from u)", "(NOT (a = ANY(SELECT k FROM u)))"),
        ("a <> any (select k from u)", "(a != ANY(SELECT k FROM u))"),
    ] {
        let plan = testing::bind(&format!("select {item} from t"));
        assert_eq!(plan.columns()[0].field.name, name);
    }
}

#[test]
fn errors_point_at_their_place() {
    for (sql, message, column) in [
        ("select * from t, t", "two tables are called \"t\" in FROM", 18),
        ("select a from t join t as v on a = 1", "column \"a\" is ambiguous; write t.a or v.a", 32),
        ("select k from t join u using (k)", "no column \"k\" in the left side of the join", 31),
        ("select * from t natural join u", "have no column name in common", 30),
        ("select * from t join u", "the join has no condition", 22),
        (
            "select * from t left join u on exists (select 1)",
            "subqueries in the ON of a join that is not an inner one",
            40,
        ),
        ("select (select a, b from t)", "must have one column, not 2", 9),
        ("select a from t where a in (select a, b from t)", "IN compares 1 values with the 2 columns", 29),
        (
            "select c, (select max(x) from u where k = a) from t group by c",
            "column \"a\" must appear in GROUP BY",
            12,
        ),
        ("select a from t where b > (select max(a))", "aggregates over columns of the query around only", 35),
        ("select 1 limit (select 1)", "subqueries in LIMIT and OFFSET", 17),
        ("values ((select 1))", "subqueries in VALUES", 10),
        (
            "select * from t right join lateral (select x from u where k = a) on true",
            "LATERAL cannot read",
            37,
        ),
        ("select count(*, 1) from t", "count takes either * or an expression", 8),
    ] {
        let error = error(sql);
        assert!(error.to_string().contains(message), "{sql}: {error}");
        assert_eq!(error.location(), Some(Location { line: 1, column }), "{sql}: {error}");
    }
}

#[test]
fn a_statement_joins_a_bounded_number_of_tables() {
    let tables: Vec<String> = (0..300).map(|i| format!("t as t{i}")).collect();
    let error = error(&format!("select 1 from {}", tables.join(", ")));
    assert!(error.to_string().contains("joins more than"), "{error}");
    let few = tables[..200].join(", ");
    let plan = testing::optimized(testing::bind(&format!("select t7.a from {few} where t7.a = t8.b")));
    assert_eq!(plan.unwrap_or_else(|e| panic!("{e}")).columns()[0].field.data_type, DataType::Int32);
}
