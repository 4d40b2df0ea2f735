//! The plans of the TPC-H queries.

use super::testing::{FakeCatalog, FakeTable, bind_over, field, text};
use super::{OptimizerSettings, Rule, optimize};
use crate::data::{DataType, Field};
use crate::logical::{ColumnIds, Plan};
use std::path::Path;
use std::sync::Arc;

const QUERIES: u32 = 22;

/// Tables and their columns: i(nteger), b(igint), n(umeric), s(tring), d(ate).
const TABLES: &[(&str, &str)] = &[
    ("region", "r_regionkey:b r_name:s r_comment:s"),
    ("nation", "n_nationkey:b n_name:s n_regionkey:b n_comment:s"),
    ("supplier", "s_suppkey:b s_name:s s_address:s s_nationkey:b s_phone:s s_acctbal:n s_comment:s"),
    (
        "customer",
        "c_custkey:b c_name:s c_address:s c_nationkey:b c_phone:s c_acctbal:n c_mktsegment:s c_comment:s",
    ),
    (
        "part",
        "p_partkey:b p_name:s p_mfgr:s p_brand:s p_type:s p_size:i p_container:s p_retailprice:n p_comment:s",
    ),
    ("partsupp", "ps_partkey:b ps_suppkey:b ps_availqty:i ps_supplycost:n ps_comment:s"),
    (
        "orders",
        "o_orderkey:b o_custkey:b o_orderstatus:s o_totalprice:n o_orderdate:d o_orderpriority:s o_clerk:s \
         o_shippriority:i o_comment:s",
    ),
    (
        "lineitem",
        "l_orderkey:b l_partkey:b l_suppkey:b l_linenumber:i l_quantity:n l_extendedprice:n l_discount:n l_tax:n \
         l_returnflag:s l_linestatus:s l_shipdate:d l_commitdate:d l_receiptdate:d l_shipinstruct:s l_shipmode:s \
         l_comment:s",
    ),
];

fn catalog() -> FakeCatalog {
    let column = |text: &str| -> Field {
        let (name, kind) = text.split_once(':').expect("name and type");
        let data_type = match kind {
            "i" => DataType::Int32,
            "b" => DataType::Int64,
            "n" => DataType::Decimal { precision: 15, scale: 2 },
            "d" => DataType::Date,
            _ => DataType::Utf8,
        };
        field(name, data_type, false)
    };
    let table = |columns: &str| FakeTable {
        fields: columns.split_whitespace().map(column).collect(),
        statistics: Default::default(),
    };
    FakeCatalog(TABLES.iter().map(|(name, columns)| (*name, Arc::new(table(columns)))).collect())
}

fn query(number: u32) -> Arc<Plan> {
    let file = format!("tools/runner/tpch/queries/q{number:02}.sql");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let sql = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    bind_over(&catalog(), &sql)
}

fn scans(plan: &Plan) -> usize {
    let mut scans = 0;
    plan.for_each_node(&mut |node| scans += usize::from(matches!(node, Plan::Scan { .. })));
    scans
}

#[test]
fn no_query_keeps_a_dependent_join_or_needs_a_domain() {
    for number in 1..=QUERIES {
        let plan = query(number);
        let unnested = super::unnest::UnnestSubqueries
            .apply(&plan, &mut ColumnIds::after(&plan))
            .unwrap_or_else(|e| panic!("q{number:02}: {e}"));
        unnested.for_each_node(&mut |node| {
            assert!(node.free_columns().is_empty(), "q{number:02} is dependent:\n{}", text(&unnested));
        });
        // A domain reads the tables to the left of the join once more.
        assert_eq!(scans(&unnested), scans(&plan), "q{number:02} has a domain:\n{}", text(&unnested));
    }
}

/// Asserts that lines of the plan, unnested and with filters in their places, are these.
fn assert_has_lines(number: u32, lines: &[&str]) {
    let mut plan = query(number);
    let mut ids = ColumnIds::after(&plan);
    let rules: [&dyn Rule; 6] = [
        &super::fold_constants::FoldConstants,
        &super::unnest::UnnestSubqueries,
        &super::mark_joins::MarkJoins,
        &super::outer_joins::OuterJoins,
        &super::or_factors::OrFactors,
        &super::filter_pushdown::FilterPushdown,
    ];
    for rule in rules {
        plan = rule.apply(&plan, &mut ids).unwrap_or_else(|e| panic!("q{number:02}: {e}"));
    }
    let text = text(&plan);
    for line in lines {
        assert!(text.lines().any(|l| l.trim().starts_with(line)), "q{number:02} lacks {line}:\n{text}");
    }
}

#[test]
fn subqueries_become_the_joins_one_would_write() {
    assert_has_lines(2, &["InnerJoin: p_partkey = ps_partkey#28", "Aggregate: groups=[ps_partkey#28]"]);
    assert_has_lines(4, &["SemiJoin: o_orderkey = l_orderkey"]);
    assert_has_lines(16, &["AntiJoin: ps_suppkey = s_suppkey"]);
    assert_has_lines(17, &["InnerJoin: p_partkey = l_partkey#26", "Aggregate: groups=[l_partkey#26]"]);
    assert_has_lines(18, &["SemiJoin: o_orderkey = l_orderkey"]);
    assert_has_lines(
        20,
        &[
            "SemiJoin: s_suppkey = ps_suppkey",
            "SemiJoin: ps_partkey = p_partkey",
            "InnerJoin: ps_partkey = l_partkey, ps_suppkey = l_suppkey",
            "Aggregate: groups=[l_partkey, l_suppkey]",
        ],
    );
    assert_has_lines(
        21,
        &[
            "AntiJoin: l_orderkey#7 = l_orderkey#53 filters=[(l_suppkey#55 <> l_suppkey#9)]",
            "SemiJoin: l_orderkey#7 = l_orderkey#36 filters=[(l_suppkey#38 <> l_suppkey#9)]",
        ],
    );
    assert_has_lines(22, &["AntiJoin: c_custkey#0 = o_custkey", "InnerJoin filters=[(CAST(c_acctbal"]);
}

#[test]
fn disjunctions_give_join_keys_and_filters_of_tables() {
    assert_has_lines(19, &["InnerJoin: l_partkey = p_partkey"]);
    assert_has_lines(
        7,
        &["Scan nation: [n_nationkey#40, n_name#41, n_regionkey#42, n_comment#43] \
           filters=[((n_name#41 = 'FRANCE') OR (n_name#41 = 'GERMANY'))]"],
    );
}

#[test]
fn every_query_optimizes() {
    for number in 1..=QUERIES {
        let plan = optimize(query(number), &OptimizerSettings::default())
            .unwrap_or_else(|e| panic!("q{number:02}: {e}"))
            .plan;
        plan.for_each_node(&mut |node| {
            assert!(node.free_columns().is_empty(), "q{number:02}: {}", text(&plan));
        });
    }
}
