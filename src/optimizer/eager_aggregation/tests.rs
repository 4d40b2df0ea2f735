//! Which aggregations are begun below joins, and what becomes of them.

use super::super::testing::{FakeCatalog, FakeTable, assert_rewrites_in, bind_over, field, text};
use super::super::{OptimizerSettings, filter_pushdown::FilterPushdown, optimize};
use super::EagerAggregation;
use crate::catalog::{ColumnStatistics, TableStatistics};
use crate::data::DataType;
use std::sync::Arc;

/// `sales(s_item, s_shop, s_price, s_count, s_rate)`: a million of 10,000 items in 500 shops. `item(i_id, i_name, i_kind)` and
/// `shop(p_id, p_name, p_owner)`, of which `p_name` is a string, with a row for each.
fn catalog() -> FakeCatalog {
    let table = |rows: u64, columns: &[(&str, DataType, u64)]| FakeTable {
        fields: columns.iter().map(|(name, data_type, _)| field(name, data_type.clone(), true)).collect(),
        statistics: TableStatistics {
            rows: Some(rows),
            columns: columns
                .iter()
                .map(|(_, _, values)| ColumnStatistics {
                    distinct_count: Some(*values),
                    ..ColumnStatistics::default()
                })
                .collect(),
        },
    };
    let (int, text) = (DataType::Int64, DataType::Utf8);
    let sales = [
        ("s_item", int.clone(), 10_000),
        ("s_shop", int.clone(), 500),
        ("s_price", int.clone(), 900_000),
        ("s_count", int.clone(), 20),
        ("s_rate", DataType::Float64, 10),
    ];
    let item = [("i_id", int.clone(), 10_000), ("i_name", text.clone(), 10_000), ("i_kind", int.clone(), 30)];
    let shop = [("p_id", int.clone(), 500), ("p_name", text, 500), ("p_owner", int, 40)];
    let tables =
        [("sales", table(1_000_000, &sales)), ("item", table(10_000, &item)), ("shop", table(500, &shop))];
    FakeCatalog(tables.into_iter().map(|(name, table)| (name, Arc::new(table))).collect())
}

fn rewritten(sql: &str) -> String {
    text(&assert_rewrites_in(&catalog(), &[&FilterPushdown], &EagerAggregation, sql))
}

/// Whether any of it is aggregated below a join.
fn is_eager(sql: &str) -> bool {
    rewritten(sql).matches("Aggregate").count() > 1
}

#[test]
fn sums_are_begun_below_the_join_that_names_their_groups() {
    let text = rewritten(
        "select i_name, sum(s_price), count(*) from sales, item where s_item = i_id group by i_name",
    );
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}\n{text}"));
    let (total, join, part) = (at("groups=[i_name]"), at("InnerJoin"), at("groups=[s_item"));
    assert!(total < join && join < part, "{text}");
    assert!(text.contains("sum(sum(s_price)") && text.contains("sum(count_star()"), "{text}");
}

#[test]
fn the_part_is_whatever_makes_the_fewest_groups() {
    // Grouped by shop, not by shop and item.
    let text = rewritten(
        "select p_name, sum(s_price) from sales, item, shop where s_item = i_id and s_shop = p_id group by p_name",
    );
    assert!(text.contains("groups=[s_shop"), "{text}");
    // Both sides of a key that is asked for as such.
    let text = rewritten(
        "select p_name, s_count, sum(s_price) from sales, shop where s_shop = p_id group by p_name, s_count",
    );
    assert!(text.contains("groups=[s_shop"), "{text}");
}

#[test]
fn rows_that_an_outer_join_adds_count_nothing() {
    let text =
        rewritten("select i_id, count(s_price) from item left join sales on s_item = i_id group by i_id");
    assert!(text.contains("LeftJoin") && text.contains("groups=[s_item"), "{text}");
    for sql in [
        "select i_id, count(*) from item left join sales on s_item = i_id group by i_id",
        "select i_id, sum(coalesce(s_price, 1)) from item left join sales on s_item = i_id group by i_id",
        "select i_id, min(coalesce(s_price, 1)), sum(s_price) from item left join sales on s_item = i_id group by i_id",
        "select i_id, sum(s_price) filter (where s_count > 2) from item left join sales on s_item = i_id group by i_id",
        "select i_name, sum(i_kind) from item left join sales on s_item = i_id group by i_name",
    ] {
        assert!(!is_eager(sql), "{sql}\n{}", rewritten(sql));
    }
}

#[test]
fn an_expression_over_missing_rows_is_evaluated_above() {
    let sql = "select i_kind, coalesce(s_count, 7), count(s_price) from item left join sales on s_item = i_id \
               group by i_kind, coalesce(s_count, 7)";
    let text = rewritten(sql);
    assert!(text.contains("groups=[s_item"), "{text}");
    assert!(text.rfind("CASE WHEN (NOT") < text.find("LeftJoin"), "{text}");
}

/// Keys make one of zeros of both signs, which only a column by itself does not show.
#[test]
fn floats_are_keys_by_themselves_only() {
    let sql = |key: &str| {
        format!(
            "select i_id, {key}, count(s_price) from item left join sales on s_item = i_id group by i_id, {key}"
        )
    };
    assert!(is_eager(&sql("s_rate")), "{}", rewritten(&sql("s_rate")));
    let text = sql("cast(s_rate as varchar)");
    assert!(!is_eager(&text), "{}", rewritten(&text));
}

#[test]
fn what_is_grouped_below_may_be_begun_further_below() {
    let text = rewritten(
        "select p_name, sum(s_price) from sales, item, shop where s_count = i_id and s_shop = p_id group by p_name",
    );
    assert_eq!(text.matches("Aggregate").count(), 3, "{text}");
}

#[test]
fn what_repetition_does_not_change_is_computed_where_its_columns_are() {
    let text = rewritten(
        "select i_name, sum(s_price), max(i_kind), min(s_count) from sales, item where s_item = i_id group by i_name",
    );
    assert!(text.contains("max(i_kind)") && text.contains("min(min(s_count)"), "{text}");
}

#[test]
fn it_is_left_alone_where_it_does_not_pay_or_is_not_the_same() {
    for sql in [
        // As many groups below as rows.
        "select i_name, sum(s_price) from sales, item where s_price = i_id group by i_name",
        // Nothing is summed; both sides are.
        "select i_name, max(s_price) from sales, item where s_item = i_id group by i_name",
        "select i_name, sum(s_price), sum(i_kind) from sales, item where s_item = i_id group by i_name",
        "select i_name, sum(s_price * i_kind) from sales, item where s_item = i_id group by i_name",
        // The other side drops nearly all rows.
        "select i_name, sum(s_price) from sales, item where s_item = i_id and i_kind = 3 group by i_name",
        // Everything is one group; no key; no parts.
        "select sum(s_price) from sales, item where s_item = i_id",
        "select p_name, sum(s_price) from sales, shop where s_shop < p_id group by p_name",
        "select i_name, stddev(s_price) from sales, item where s_item = i_id group by i_name",
        // Other joins than inner and left ones.
        "select i_name, sum(s_price) from item full join sales on s_item = i_id group by i_name",
    ] {
        assert!(!is_eager(sql), "{sql}\n{}", rewritten(sql));
    }
}

#[test]
fn join_order_and_the_other_rules_find_it_as_any_other_plan() {
    let sql = "select i_name, p_name, sum(s_price) from sales, item, shop \
               where s_item = i_id and s_shop = p_id group by i_name, p_name";
    // A key that is an expression of a column.
    let cast =
        "select i_name, sum(s_price) from sales, item where cast(s_item as varchar) = i_name group by i_name";
    assert!(is_eager(cast), "{}", rewritten(cast));
    for sql in [
        sql,
        cast,
        "select p_name, sum(s_price) from sales, item, shop where s_item = i_id and s_shop = p_id group by p_name",
    ] {
        optimize(bind_over(&catalog(), sql), &OptimizerSettings::default())
            .expect("a plan that holds together");
    }
}
