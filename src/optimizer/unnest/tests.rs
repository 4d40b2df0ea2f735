//! Plan texts after unnesting.

use super::super::testing::{assert_rewrites, bind};
use super::*;

/// The plan, and that nothing in it depends on anything beside it.
fn assert_unnests(sql: &str, expected: &str) {
    assert_rewrites(&UnnestSubqueries, sql, expected);
    let plan = bind(sql);
    let unnested = UnnestSubqueries.apply(&plan, &mut ColumnIds::after(&plan)).expect("unnests");
    unnested.for_each_node(&mut |node| assert!(node.free_columns().is_empty(), "{sql}"));
}

#[test]
fn conditions_move_up_to_the_join() {
    assert_unnests(
        "select a from t where exists (select 1 from u where k = a and x > b order by y limit 3)",
        "Project: a
  Filter: exists
    MarkJoin: a = k filters=[((x > b) IS NOT DISTINCT FROM true)] AS exists
      Scan t: [a, b, c, d]
      Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a from t where b = 1 or b in (select x from u where k = a)",
        "Project: a
  Filter: ((b = 1) OR in)
    MarkJoin: a = k filters=[(b = x)] AS in
      Scan t: [a, b, c, d]
      Project: x, k
        Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a from t where b = 1 or b in (select distinct y from u where k = a group by y, x)",
        "Project: a
  Filter: ((b = 1) OR in)
    MarkJoin: a = k filters=[(b = y)] AS in
      Scan t: [a, b, c, d]
      Project: y, k
        Project: y, k
          Aggregate: groups=[y, x, k] aggregates=[]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a from t where b > all (select x from u where k = a)",
        "Project: a
  Filter: (NOT any)
    MarkJoin: a = k filters=[(b <= x)] AS any
      Scan t: [a, b, c, d]
      Project: x, k
        Scan u: [k, x, y]
",
    );
}

#[test]
fn the_row_of_no_input_is_made_above_the_join() {
    assert_unnests(
        "select a, (select count(*) from u where k = a) as n from t",
        "Project: a, count_star()#7
  Project: a, b, c, d, count_star()#9, k, CASE WHEN (NOT (count_star()#9 IS NULL)) THEN count_star()#9 ELSE 0 END AS count_star()#7
    SingleJoin: a = k
      Scan t: [a, b, c, d]
      Project: count_star()#7 AS count_star()#9, k
        Project: count_star()#7, k
          Aggregate: groups=[k] aggregates=[count(*) AS count_star()#7]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, (select count(*) * 2 + 1 from u where k = a) as n from t",
        "Project: a, ((count_star() * 2) + 1)#8
  Project: a, b, c, d, ((count_star() * 2) + 1)#10, k, CASE WHEN (NOT (((count_star() * 2) + 1)#10 IS NULL)) THEN ((count_star() * 2) + 1)#10 ELSE 1 END AS ((count_star() * 2) + 1)#8
    SingleJoin: a = k
      Scan t: [a, b, c, d]
      Project: ((count_star() * 2) + 1)#8 AS ((count_star() * 2) + 1)#10, k
        Project: ((count_star() * 2) + 1) AS ((count_star() * 2) + 1)#8, k
          Aggregate: groups=[k] aggregates=[count(*) AS count_star()]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, (select coalesce(max(x), 7) from u where k = a) as n from t",
        "Project: a, COALESCE(max(x), 7)#8
  Project: a, b, c, d, COALESCE(max(x), 7)#10, k, matched, CASE WHEN matched THEN COALESCE(max(x), 7)#10 ELSE 7 END AS COALESCE(max(x), 7)#8
    SingleJoin: a = k
      Scan t: [a, b, c, d]
      Project: COALESCE(max(x), 7)#8 AS COALESCE(max(x), 7)#10, k, true AS matched
        Project: CASE WHEN (NOT (max(x) IS NULL)) THEN max(x) ELSE 7 END AS COALESCE(max(x), 7)#8, k
          Aggregate: groups=[k] aggregates=[max(x)]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, (select max(x) + b from u where k = a) as n from t",
        "Project: a, (max(x) + b)
  Project: a, b, c, d, k, max(x), matched, CASE WHEN matched THEN (max(x) + b) ELSE (NULL + b) END AS (max(x) + b)
    SingleJoin: a = k
      Scan t: [a, b, c, d]
      Project: k, max(x), true AS matched
        Project: k, max(x)
          Aggregate: groups=[k] aggregates=[max(x)]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a from t where b = 1 or exists (select count(*) from u where k = a)",
        "Project: a
  Filter: ((b = 1) OR exists)
    Project: a, b, c, d, true AS exists
      Project: a, b, c, d, k, count_star()#10, CASE WHEN (NOT (count_star()#10 IS NULL)) THEN count_star()#10 ELSE 0 END AS count_star()#7
        SingleJoin: a = k
          Scan t: [a, b, c, d]
          Project: k, count_star()#7 AS count_star()#10
            Aggregate: groups=[k] aggregates=[count(*) AS count_star()#7]
              Scan u: [k, x, y]
",
    );
}

#[test]
fn lateral_tables_are_joins() {
    assert_unnests(
        "select a, m from t, lateral (select max(x) as m from u where k = a) as s",
        "Project: a, max(x)
  LeftJoin: a = k
    Scan t: [a, b, c, d]
    Project: max(x), k
      Aggregate: groups=[k] aggregates=[max(x)]
        Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, n from t, lateral (select count(*) as n from u where k = a) as s",
        "Project: a, count_star()
  Project: a, b, c, d, n, k, CASE WHEN (NOT (n IS NULL)) THEN n ELSE 0 END AS count_star()
    LeftJoin: a = k
      Scan t: [a, b, c, d]
      Project: count_star() AS n, k
        Project: count_star(), k
          Aggregate: groups=[k] aggregates=[count(*) AS count_star()]
            Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, z from t left join lateral (select x as z from u where k = a) as s on z > b",
        "Project: a, x
  LeftJoin: a = k filters=[(x > b)]
    Scan t: [a, b, c, d]
    Project: x, k
      Scan u: [k, x, y]
",
    );
}

#[test]
fn having_decides_about_the_row_of_no_input() {
    assert_unnests(
        "select a, (select sum(x) from u where k = a having count(*) > 2) as n from t",
        "Project: a, sum(x)
  SingleJoin: a = k
    Scan t: [a, b, c, d]
    Project: sum(x), k
      Filter: (count_star() > 2)
        Aggregate: groups=[k] aggregates=[sum(x), count(*) AS count_star()]
          Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a, (select sum(x) from u where k = a having count(*) < 2) as n from t",
        "Project: a#0, sum(x)
  SingleJoin: a#0 <=> a#14
    Scan t: [a#0, b#1, c#2, d#3]
    Project: sum(x), a#14
      Filter: (count_star()#8 < 2)
        Project: a#14, a#9, sum(x), count_star()#13, CASE WHEN (NOT (count_star()#13 IS NULL)) THEN count_star()#13 ELSE 0 END AS count_star()#8
          LeftJoin: a#14 <=> a#9
            Aggregate: groups=[a#14] aggregates=[]
              Scan t: [a#14, b#15, c#16, d#17]
            Aggregate: groups=[a#9] aggregates=[sum(x), count(*) AS count_star()#13]
              Filter: (k = a#9)
                InnerJoin
                  Aggregate: groups=[a#9] aggregates=[]
                    Scan t: [a#9, b#10, c#11, d#12]
                  Scan u: [k, x, y]
",
    );
}

#[test]
fn what_is_not_an_equality_takes_a_domain_through_an_aggregation() {
    assert_unnests(
        "select a, (select count(*) from u where x > b) as n from t where c = 'x'",
        "Project: a#0, count_star()#7
  SingleJoin: b#1 = b#14
    Filter: (c#2 = 'x')
      Scan t: [a#0, b#1, c#2, d#3]
    Project: count_star()#7, b#14
      Project: b#14, b#9, count_star()#12, CASE WHEN (NOT (count_star()#12 IS NULL)) THEN count_star()#12 ELSE 0 END AS count_star()#7
        LeftJoin: b#14 = b#9
          Aggregate: groups=[b#14] aggregates=[]
            Filter: (c#15 = 'x')
              Scan t: [a#13, b#14, c#15, d#16]
          Aggregate: groups=[b#9] aggregates=[count(*) AS count_star()#12]
            Filter: (x > b#9)
              InnerJoin
                Aggregate: groups=[b#9] aggregates=[]
                  Filter: (c#10 = 'x')
                    Scan t: [a#8, b#9, c#10, d#11]
                Scan u: [k, x, y]
",
    );
    assert_unnests(
        "select a from t where b < (select sum(u.y) from u left join u as v on v.k = a and v.x = u.x)",
        "Project: a#0
  Filter: (CAST(b#1 AS HUGEINT) < sum(u.y))
    SingleJoin: a#0 <=> a#15
      Scan t: [a#0, b#1, c#2, d#3]
      Project: sum(u.y), a#15
        LeftJoin: a#15 <=> a#11
          Aggregate: groups=[a#15] aggregates=[]
            Scan t: [a#15, b#16, c#17, d#18]
          Aggregate: groups=[a#11] aggregates=[sum(y#6) AS sum(u.y)]
            LeftJoin: x#5 = x#8 filters=[(k#7 = a#11)]
              InnerJoin
                Aggregate: groups=[a#11] aggregates=[]
                  Scan t: [a#11, b#12, c#13, d#14]
                Scan u: [k#4, x#5, y#6]
              Scan u: [k#7, x#8, y#9]
",
    );
    assert_unnests(
        "select a from t where b < (select count(*) from (select distinct x from u where k = a and x > b) as s)",
        "Project: a#0
  Filter: (CAST(b#1 AS BIGINT) < count_star()#7)
    SingleJoin: a#0 <=> a#13, b#1 = b#14
      Scan t: [a#0, b#1, c#2, d#3]
      Project: count_star()#7, a#13, b#14
        Project: a#13, b#14, a#8, b#9, count_star()#12, CASE WHEN (NOT (count_star()#12 IS NULL)) THEN count_star()#12 ELSE 0 END AS count_star()#7
          LeftJoin: a#13 <=> a#8, b#14 = b#9
            Aggregate: groups=[a#13, b#14] aggregates=[]
              Scan t: [a#13, b#14, c#15, d#16]
            Aggregate: groups=[a#8, b#9] aggregates=[count(*) AS count_star()#12]
              Aggregate: groups=[x, a#8, b#9] aggregates=[]
                Project: x, a#8, b#9
                  Filter: (k = a#8), (x > b#9)
                    InnerJoin
                      Aggregate: groups=[a#8, b#9] aggregates=[]
                        Scan t: [a#8, b#9, c#10, d#11]
                      Scan u: [k, x, y]
",
    );
}

#[test]
fn correlation_reaches_through_several_levels() {
    assert_unnests(
        "select a from t where exists (select 1 from u where k = a and not exists (select 1 from u as v where v.k = u.x and v.x = t.b and v.y > t.b))",
        "Project: a#0
  Filter: exists#13
    MarkJoin: a#0 <=> a#14, b#1 = b#15 AS exists#13
      Scan t: [a#0, b#1, c#2, d#3]
      Filter: (NOT exists#11)
        MarkJoin: x#5 = k#7, a#14 <=> a#18, b#15 = b#19 AS exists#11
          Filter: (k#4 = a#14)
            InnerJoin
              Aggregate: groups=[a#14, b#15] aggregates=[]
                Scan t: [a#14, b#15, c#16, d#17]
              Scan u: [k#4, x#5, y#6]
          Filter: (x#8 = b#19), (y#9 > b#19)
            InnerJoin
              Aggregate: groups=[a#18, b#19] aggregates=[]
                Scan t: [a#18, b#19, c#20, d#21]
              Scan u: [k#7, x#8, y#9]
",
    );
}

#[test]
fn expressions_of_outer_columns_are_keys() {
    assert_unnests(
        "select c, (select max(x) from u where k = length(c)) as m from t group by c, length(c)",
        "Project: c, max(x)
  SingleJoin: length(c) = key
    Aggregate: groups=[c, length(c)] aggregates=[]
      Scan t: [a, b, c, d]
    Project: max(x), key
      Aggregate: groups=[CAST(k AS BIGINT) AS key] aggregates=[max(x)]
        Scan u: [k, x, y]
",
    );
}

#[test]
fn limits_are_for_each_outer_row() {
    assert_unnests(
        "select a, (select x from u where k = a order by y limit 1) as n from t",
        "Project: a#0, x
  SingleJoin: a#0 <=> a#7
    Scan t: [a#0, b#1, c#2, d#3]
    Project: x, a#7
      LimitPer [a#7]: 1 by y
        Project: x, y, a#7
          Filter: (k = a#7)
            InnerJoin
              Aggregate: groups=[a#7] aggregates=[]
                Scan t: [a#7, b#8, c#9, d#10]
              Scan u: [k, x, y]
",
    );
    let one_row = bind("select a, (select max(x) from u where k = a limit 1) as n from t");
    UnnestSubqueries.apply(&one_row, &mut ColumnIds::after(&one_row)).expect("one row is no more than one");
}

#[test]
fn domains_do_not_multiply() {
    let nodes = |plan: &Plan| {
        let mut nodes = 0;
        plan.for_each_node(&mut |_| nodes += 1);
        nodes
    };
    let item = "(select count(*) from u where x > a)";
    let plan = bind(&format!("select {} from t", vec![item; 40].join(", ")));
    let beside = UnnestSubqueries.apply(&plan, &mut ColumnIds::after(&plan)).expect("unnests");
    assert!(nodes(&beside) < 40 * 20, "{} nodes", nodes(&beside));
    let mut sql = "select a from t".to_owned();
    for _ in 0..30 {
        sql = format!("select a from ({sql}) where a > (select count(*) from u where x > a)");
    }
    let plan = bind(&sql);
    let Err(error) = UnnestSubqueries.apply(&plan, &mut ColumnIds::after(&plan)) else {
        panic!("each within the other")
    };
    assert!(error.to_string().contains("simplify"), "{error}");
}

#[test]
fn conditions_between_the_queries_around_are_keys_of_no_join_that_does_not_know_them() {
    let inner = "select 1 from t m where m.a = n.a and n.b = o.b and m.c < 3";
    let count = "select count(*) from t m where m.a = n.a and n.b = o.b";
    for sql in [
        format!("select a from t o where exists (select 1 from t n where exists ({inner}))"),
        format!("select a from t o where not exists (select 1 from t n where exists ({inner}))"),
        format!("select a from t o where exists (select 1 from t n where not exists ({inner}))"),
        format!("select a, exists (select 1 from t n where exists ({inner})) from t o"),
        format!("select a from t o where a in (select c from t n where exists ({inner}))"),
        format!("select a from t o where a not in (select c from t n where exists ({inner}))"),
        format!("select a, (select count(*) from t n where exists ({inner})) from t o"),
        format!("select a, (select sum(({count})) from t n) from t o"),
        format!("select a from t o where c < (select max(({count})) from t n where n.d = o.d)"),
        format!("select a from t o, lateral (select ({count}) as x from t n) s where s.x > 2"),
    ] {
        let plan = bind(&sql);
        let unnested = UnnestSubqueries.apply(&plan, &mut ColumnIds::after(&plan)).expect("unnests");
        unnested.for_each_node(&mut |node| {
            assert!(node.free_columns().is_empty(), "{sql}");
            if let Plan::Join { left, right, keys, .. } = node {
                let (is_left, is_right) = (produced_by(left), produced_by(right));
                for key in keys {
                    assert!(!reads(&key.left, &|id| !is_left(id)), "{sql}");
                    assert!(!reads(&key.right, &|id| !is_right(id)), "{sql}");
                }
            }
        });
    }
}
