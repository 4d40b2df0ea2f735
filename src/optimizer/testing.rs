//! A table to plan against, and assertions on plan texts.

use super::Rule;
use crate::catalog::{ColumnStatistics, TableProvider, TableStatistics};
use crate::data::{DataType, Field, Scalar, Schema};
use crate::error::Result;
use crate::logical::{ColumnIds, Plan, explain};
use crate::sql::{self, Statement, TableResolver};
use std::sync::Arc;

/// A table that is only a schema and statistics.
pub(crate) struct FakeTable {
    pub(crate) fields: Vec<Field>,
    pub(crate) statistics: TableStatistics,
}

impl TableProvider for FakeTable {
    fn schema(&self) -> Schema {
        self.fields.clone().into()
    }

    fn statistics(&self) -> TableStatistics {
        self.statistics.clone()
    }
}

/// Tables by name.
pub(crate) struct FakeCatalog(pub(crate) Vec<(&'static str, Arc<FakeTable>)>);

impl TableResolver for FakeCatalog {
    fn table(&self, name: &str) -> Result<Option<(String, Arc<dyn TableProvider>)>> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        Ok(found.map(|(name, table)| ((*name).to_owned(), Arc::clone(table) as Arc<dyn TableProvider>)))
    }

    fn has_table(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

pub(crate) fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    Field { name: name.into(), data_type, nullable }
}

/// `t(a INTEGER, b INTEGER NOT NULL, c VARCHAR, d DATE)` of 1000 rows; b runs from 0 to 100 over 50 values.
/// `u(k INTEGER, x INTEGER, y INTEGER NOT NULL)`.
pub(crate) fn catalog() -> FakeCatalog {
    let integer = |v| Some(Scalar::int(DataType::Int32, v));
    let b =
        ColumnStatistics { min: integer(0), max: integer(100), null_count: None, distinct_count: Some(50) };
    let none = ColumnStatistics::default;
    let table = FakeTable {
        fields: vec![
            field("a", DataType::Int32, true),
            field("b", DataType::Int32, false),
            field("c", DataType::Utf8, true),
            field("d", DataType::Date, true),
        ],
        statistics: TableStatistics { rows: Some(1000), columns: vec![none(), b, none(), none()] },
    };
    let other = FakeTable {
        fields: vec![
            field("k", DataType::Int32, true),
            field("x", DataType::Int32, true),
            field("y", DataType::Int32, false),
        ],
        statistics: TableStatistics::default(),
    };
    FakeCatalog(vec![("t", Arc::new(table)), ("u", Arc::new(other))])
}

/// A scan of `t`.
pub(crate) fn table() -> Arc<Plan> {
    let plan = bind("select a from t");
    Arc::clone(plan.inputs()[0])
}

/// The plan of a query over `t` and `u`.
pub(crate) fn bind(sql: &str) -> Arc<Plan> {
    bind_over(&catalog(), sql)
}

/// The plan of a query over other tables.
pub(crate) fn bind_over(catalog: &FakeCatalog, sql: &str) -> Arc<Plan> {
    let mut statements = sql::bind(sql, catalog).unwrap_or_else(|e| panic!("{sql}: {e}"));
    match statements.pop() {
        Some(Statement::Query(query)) => query.plan,
        Some(Statement::Explain { .. } | Statement::Define(_) | Statement::Set(_)) | None => {
            panic!("{sql} is no query")
        }
    }
}

pub(crate) fn text(plan: &Plan) -> String {
    explain(plan, &|_| None)
}

/// Asserts that a rule turns the plan of `sql` into the plan of that text, and then leaves it alone.
pub(super) fn assert_rewrites(rule: &dyn Rule, sql: &str, expected: &str) {
    assert_rewrites_after(&[], rule, sql, expected);
}

/// The same, after other rules have been applied.
pub(super) fn assert_rewrites_after(before: &[&dyn Rule], rule: &dyn Rule, sql: &str, expected: &str) {
    let mut plan = bind(sql);
    let mut ids = ColumnIds::after(&plan);
    for rule in before {
        plan = rule.apply(&plan, &mut ids).expect("applies");
    }
    let once = rule.apply(&plan, &mut ids).expect("applies");
    assert_eq!(text(&once), expected, "{sql}");
    let twice = rule.apply(&once, &mut ids).expect("applies");
    assert_eq!(text(&twice), expected, "{sql}, the second time");
}

/// What a rule makes of the plan of `sql` over other tables, after other rules; it then leaves it alone.
pub(super) fn assert_rewrites_in(
    catalog: &FakeCatalog,
    before: &[&dyn Rule],
    rule: &dyn Rule,
    sql: &str,
) -> Arc<Plan> {
    let mut plan = bind_over(catalog, sql);
    let mut ids = ColumnIds::after(&plan);
    for rule in before {
        plan = rule.apply(&plan, &mut ids).expect("applies");
    }
    let once = rule.apply(&plan, &mut ids).expect("applies");
    let twice = rule.apply(&once, &mut ids).expect("applies");
    assert_eq!(text(&twice), text(&once), "{sql}, the second time");
    once
}

/// The plan with all rules applied.
pub(crate) fn optimized(plan: Arc<Plan>) -> Result<Arc<Plan>> {
    super::optimize(plan, &super::OptimizerSettings::default()).map(|optimized| optimized.plan)
}
