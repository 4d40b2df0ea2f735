//! FROM clauses: from syntax to a plan and the relations it brings into scope.

use super::query::{CteNode, Surroundings};
use super::scope::{Relation, Scope, Tables, unknown_name};
use super::{Binder, BoundQuery, place};
use crate::data::Field;
use crate::error::{Error, Result};
use crate::logical::{Column, Plan};
use sqlparser::ast;
use std::sync::Arc;

/// A bound FROM clause.
pub(super) struct FromClause {
    /// Produces the columns of all relations.
    pub(super) plan: Arc<Plan>,
    /// What names may refer to.
    pub(super) tables: Tables,
}

impl Binder<'_> {
    /// Binds a FROM clause; without one there is one row of no columns.
    pub(super) fn bind_from<'q>(
        &mut self,
        from: &'q [ast::TableWithJoins],
        around: &Surroundings<'q>,
    ) -> Result<FromClause> {
        let Some((first, rest)) = from.split_first() else {
            let plan = Plan::Values { columns: vec![], rows: vec![vec![]] };
            return Ok(FromClause { plan: Arc::new(plan), tables: Tables::default() });
        };
        let mut clause = self.bind_joined(first, around, &Tables::default())?;
        for next in rest {
            let right = self.bind_joined(next, around, &clause.tables)?;
            clause = self.cross(clause, right, place(&next.relation))?;
        }
        Ok(clause)
    }

    /// Binds a table and what is joined to it. `beside` are the tables to the left of it, which LATERAL may read.
    fn bind_joined<'q>(
        &mut self,
        tables: &'q ast::TableWithJoins,
        around: &Surroundings<'q>,
        beside: &Tables,
    ) -> Result<FromClause> {
        let mut clause = self.bind_factor(&tables.relation, around, beside)?;
        for join in &tables.joins {
            let visible = beside.clone().and(clause.tables.clone());
            let right = self.bind_factor(&join.relation, around, &visible)?;
            clause = self.bind_join(clause, right, join, around)?;
        }
        Ok(clause)
    }

    fn bind_factor<'q>(
        &mut self,
        factor: &'q ast::TableFactor,
        around: &Surroundings<'q>,
        beside: &Tables,
    ) -> Result<FromClause> {
        match factor {
            ast::TableFactor::Table {
                name,
                alias,
                args: None,
                with_hints: _,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                index_hints: _,
            } if partitions.is_empty() => self.bind_named(name, alias.as_ref(), around),
            ast::TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                // Only a lateral one sees the columns of its siblings.
                let scope = Scope { tables: beside.clone(), parent: around.outer };
                let outer = if *lateral { Some(&scope) } else { around.outer };
                let bound = self.bind_query(subquery, &Surroundings { ctes: around.ctes.clone(), outer })?;
                derived(bound, alias.as_ref().map(|a| a.name.value.clone()), alias.as_ref())
            }
            ast::TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.bind_joined(table_with_joins, around, beside)
            }
            other => {
                let what = match other {
                    ast::TableFactor::Table { args: Some(_), .. }
                    | ast::TableFactor::TableFunction { .. }
                    | ast::TableFactor::Function { .. }
                    | ast::TableFactor::UNNEST { .. } => "table functions in FROM",
                    ast::TableFactor::Pivot { .. } | ast::TableFactor::Unpivot { .. } => "PIVOT and UNPIVOT",
                    _ => "this form of table in FROM",
                };
                Err(Error::unsupported(what, place(other)))
            }
        }
    }

    fn bind_named<'q>(
        &mut self,
        name: &'q ast::ObjectName,
        alias: Option<&'q ast::TableAlias>,
        around: &Surroundings<'q>,
    ) -> Result<FromClause> {
        let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            return Err(Error::unsupported("table names with a catalog or schema", place(name)));
        };
        let shown = alias.map(|a| a.name.value.clone());
        if let Some(CteNode { cte, before }) = around.cte(&ident.value) {
            let around = Surroundings { ctes: before.clone(), outer: None };
            let mut bound = self.bind_query(&cte.query, &around)?;
            rename(&mut bound.outputs, &cte.alias)?;
            return derived(bound, Some(shown.unwrap_or_else(|| cte.alias.name.value.clone())), alias);
        }
        let Some((table, provider)) = self.resolver.table(&ident.value)? else {
            if let Some(view) = self.resolver.view(&ident.value) {
                let bound = self.bind_view(&view, place(name))?;
                return derived(bound, Some(shown.unwrap_or_else(|| view.name().to_owned())), alias);
            }
            let mut known = self.resolver.names();
            known.extend(around.cte_names());
            let known = known.iter().map(String::as_str);
            return Err(unknown_name("table", &ident.value, known, "the catalog", place(name)));
        };
        let statistics = provider.statistics();
        let columns: Vec<(Column, usize)> = provider
            .schema()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                // A snapshot known to hold no null is as good as a NOT NULL constraint.
                let no_nulls = statistics.columns.get(i).is_some_and(|c| c.null_count == Some(0));
                let field = Field { nullable: field.nullable && !no_nulls, ..field.clone() };
                (Column { id: self.ids.fresh(), field }, i)
            })
            .collect();
        let outputs = columns.iter().map(|(column, _)| column.clone()).collect();
        let scan =
            Plan::Scan { table: table.clone(), provider, columns, filter_columns: vec![], filters: vec![] };
        derived(BoundQuery { plan: Arc::new(scan), outputs }, Some(shown.unwrap_or(table)), alias)
    }
}

/// A bound query as a relation called `name`.
fn derived(
    mut bound: BoundQuery,
    name: Option<String>,
    alias: Option<&ast::TableAlias>,
) -> Result<FromClause> {
    if let Some(alias) = alias {
        rename(&mut bound.outputs, alias)?;
    }
    let columns = bound.outputs.into_iter().map(|column| (column.field.name.clone(), column)).collect();
    let tables = Tables { relations: vec![Relation { name, columns }], merged: vec![] };
    Ok(FromClause { plan: bound.plan, tables })
}

/// Gives the first columns the names of a column alias list.
fn rename(outputs: &mut [Column], alias: &ast::TableAlias) -> Result<()> {
    if alias.columns.len() > outputs.len() {
        let message = format!(
            "{} column aliases for the {} columns of \"{}\"",
            alias.columns.len(),
            outputs.len(),
            alias.name.value
        );
        return Err(Error::plan(message, super::location(alias.name.span)));
    }
    for (column, alias) in outputs.iter_mut().zip(&alias.columns) {
        column.field.name.clone_from(&alias.name.value);
    }
    Ok(())
}
