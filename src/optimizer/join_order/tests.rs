use super::super::Rule;
use super::super::filter_pushdown::FilterPushdown;
use super::super::mark_joins::MarkJoins;
use super::super::outer_joins::OuterJoins;
use super::super::testing::{FakeCatalog, FakeTable, bind_over, field, text};
use super::super::unnest::UnnestSubqueries;
use super::JoinOrder;
use crate::catalog::{ColumnStatistics, TableStatistics};
use crate::data::DataType;
use crate::logical::{ColumnIds, Plan};
use std::sync::Arc;

/// Tables of `(name, prefix, rows)`, with columns `<prefix>k` and `<prefix>v` of as many values.
fn catalog() -> FakeCatalog {
    let tables = [("big", "b", 1_000_000), ("middle", "m", 10_000), ("small", "s", 100), ("tiny", "t", 10)];
    let tables = tables.map(|(name, prefix, rows)| {
        let column = || ColumnStatistics { distinct_count: Some(rows), ..ColumnStatistics::default() };
        let table = FakeTable {
            fields: vec![
                field(&format!("{prefix}k"), DataType::Int32, true),
                field(&format!("{prefix}v"), DataType::Int32, false),
            ],
            statistics: TableStatistics { rows: Some(rows), columns: vec![column(), column()] },
        };
        (name, Arc::new(table))
    });
    FakeCatalog(tables.into())
}

fn ordered_by(rule: &JoinOrder, sql: &str) -> Arc<Plan> {
    let mut plan = bind_over(&catalog(), sql);
    let mut ids = ColumnIds::after(&plan);
    let before: [&dyn Rule; 4] = [&UnnestSubqueries, &MarkJoins, &OuterJoins, &FilterPushdown];
    for rule in before.into_iter().chain([rule as &dyn Rule]) {
        plan = rule.apply(&plan, &mut ids).expect("applies");
    }
    plan
}

/// Joins of the cheapest plan, from the top; what is below a line's join is indented.
fn joins(sql: &str) -> Vec<String> {
    let text = text(&ordered_by(&JoinOrder::BY_COST, sql));
    let is_told = |line: &&str| line.contains("Join") || line.contains("Scan") || line.contains("Filter");
    let short = |line: &str| line.split(": [").next().unwrap_or(line).replace("  ", " ");
    let lines: Vec<String> = text.lines().filter(is_told).map(short).collect();
    let margin = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| line[margin..].to_owned()).collect()
}

#[test]
fn left_joins_are_done_where_rows_are_few() {
    // The inner join with the small table comes first, though it is written last.
    assert_eq!(
        joins("select * from big left join middle on bv = mk join tiny on bk = tk"),
        ["LeftJoin: bv = mk", " InnerJoin: bk = tk", "  Scan big", "  Scan tiny", " Scan middle"]
    );
}

#[test]
fn semi_and_anti_joins_are_done_where_rows_are_few() {
    assert_eq!(
        joins("select * from big join middle on bv = mk where exists (select 1 from tiny where tk = bk)"),
        ["InnerJoin: bv = mk", " SemiJoin: bk = tk", "  Scan big", "  Scan tiny", " Scan middle"]
    );
    assert_eq!(
        joins("select * from big join tiny on bk = tk where not exists (select 1 from middle where mk = bv)"),
        ["AntiJoin: bv = mk", " InnerJoin: bk = tk", "  Scan big", "  Scan tiny", " Scan middle"]
    );
    // What is asked of two relations waits for both.
    assert_eq!(
        joins(
            "select * from big join middle on bv = mk \
             where exists (select 1 from tiny where tk = bk and tv = mv)"
        ),
        ["SemiJoin: bk = tk, mv = tv", " InnerJoin: bv = mk", "  Scan big", "  Scan middle", " Scan tiny"]
    );
}

#[test]
fn left_joins_associate_where_conditions_reject_nulls() {
    let nested = ["LeftJoin: bk = mk", " Scan big", " LeftJoin: mv = tk", "  Scan middle", "  Scan tiny"];
    assert_eq!(joins("select * from big left join middle on bk = mk left join tiny on mv = tk"), nested);
    assert_eq!(joins("select * from big left join (middle left join tiny on mv = tk) on bk = mk"), nested);
    let chain = ["LeftJoin: mv = bk", " LeftJoin: tk = mk", "  Scan tiny", "  Scan middle", " Scan big"];
    assert_eq!(joins("select * from tiny left join (middle left join big on mv = bk) on tk = mk"), chain);

    // Null columns of the middle may meet: they have to be there first, or not at all.
    let of_nulls = "mv is not distinct from tk";
    assert_eq!(
        joins(&format!("select * from big left join middle on bk = mk left join tiny on {of_nulls}"))[1],
        " LeftJoin: bk = mk"
    );
    assert_eq!(
        joins(&format!("select * from big left join (middle left join tiny on {of_nulls}) on bk = mk"))[2],
        " LeftJoin: mv <=> tk"
    );
    // A condition on both of the right side's tables needs them joined.
    assert_eq!(
        joins(
            "select * from tiny left join (middle left join big on mv = bk) on tk = mk and coalesce(bv, 1) > tv"
        )[2],
        " LeftJoin: mv = bk"
    );
}

#[test]
fn inner_joins_on_the_right_of_left_joins_stay_there() {
    assert_eq!(
        joins("select * from big left join (middle join tiny on mk = tk) on bk = mv")[2],
        " InnerJoin: mk = tk"
    );
}

#[test]
fn filters_between_joins_follow_what_they_read() {
    assert_eq!(
        joins(
            "select * from big left join middle on bk = mk join tiny on bv = tk \
             where mv is null or mv = 3 or tv = 1"
        ),
        [
            "Filter: ((mv IS NULL) OR (mv = 3) OR (tv = 1))",
            " LeftJoin: bk = mk",
            "  InnerJoin: bv = tk",
            "   Scan big",
            "   Scan tiny",
            "  Scan middle"
        ]
    );
}

#[test]
fn errors_of_scalar_subqueries_come_from_the_same_rows_in_any_order() {
    assert_eq!(
        joins("select (select mv from middle where mk = bk) from big join small on bv = sk")[0],
        "SingleJoin: bk = mk"
    );
}

#[test]
fn full_joins_are_relations() {
    assert_eq!(
        joins("select * from (big full join middle on bk = mk) left join tiny on bv = tk"),
        ["LeftJoin: bv = tk", " FullJoin: bk = mk", "  Scan big", "  Scan middle", " Scan tiny"]
    );
}
