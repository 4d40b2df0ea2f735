//! SELECT: FROM, WHERE, GROUP BY, HAVING, the list, DISTINCT and ORDER BY, in the order they take effect.

use super::aggregate::Grouping;
use super::expression::{Alias, Clause, ExprBinder};
use super::order::{KeySource, bind_keys, ordinal, output_at};
use super::query::Surroundings;
use super::scope::{Resolved, Scope, same_name, unknown_name};
use super::subquery::{Stages, Subquery, filter_with, join_all, stages};
use super::{Binder, BoundQuery, name, place};
use crate::data::Field;
use crate::error::{Error, Location, Result};
use crate::expr::{ColumnId, Expr};
use crate::logical::{Column, ColumnIds, Plan, SortKey};
use sqlparser::ast;
use std::collections::HashSet;
use std::sync::Arc;

/// An entry of the select list, wildcards expanded.
struct Item<'q> {
    name: String,
    source: Source<'q>,
}

/// What an entry of the select list is.
enum Source<'q> {
    Expr(&'q ast::Expr),
    /// A column a wildcard stands for.
    Column(Column, Option<Location>),
}

impl Binder<'_> {
    pub(super) fn bind_select<'q>(
        &mut self,
        select: &'q ast::Select,
        order_by: Option<&'q ast::OrderBy>,
        around: &Surroundings<'q>,
    ) -> Result<BoundQuery> {
        refuse_clauses(select)?;
        let distinct = match &select.distinct {
            None | Some(ast::Distinct::All) => false,
            Some(ast::Distinct::Distinct) => true,
            Some(ast::Distinct::On(list)) => {
                return Err(Error::unsupported("DISTINCT ON", list.first().and_then(place)));
            }
        };
        let from = self.bind_from(&select.from, around)?;
        let scope = Scope { tables: from.tables, parent: around.outer };
        let mut plan = from.plan;
        let items = expand(select, &scope)?;
        let aliases: Vec<Alias<'q>> = select
            .projection
            .iter()
            .filter_map(|item| match item {
                ast::SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), expr)),
                ast::SelectItem::UnnamedExpr(_)
                | ast::SelectItem::ExprWithAliases { .. }
                | ast::SelectItem::QualifiedWildcard(..)
                | ast::SelectItem::Wildcard(_) => None,
            })
            .collect();
        let mut binder = ExprBinder::new(self, &scope, &aliases).with_subqueries(around.ctes.clone());

        if let Some(condition) = &select.selection {
            let mut conjuncts = vec![];
            binder.bind_condition(Clause::Where, condition)?.into_conjuncts(&mut conjuncts);
            plan = filter_with(plan, conjuncts, binder.take_subqueries());
        }
        let mut outputs = Vec::with_capacity(items.len());
        for item in &items {
            outputs.push(match &item.source {
                Source::Expr(source) => binder.bind_in(Clause::Select, source)?,
                Source::Column(column, location) => binder.read_column(column, *location, Clause::Select),
            });
        }
        let groups = bind_groups(&mut binder, select, &items, &outputs)?;
        let having = match &select.having {
            Some(condition) => Some(binder.bind_condition(Clause::Having, condition)?),
            None => None,
        };
        let mut key_names = vec![];
        let mut keys = match order_by {
            Some(order_by) => bind_keys(order_by, outputs.len(), &mut |key| {
                let output = match key {
                    KeySource::Output(i) => Some(i),
                    // A bare name means the result column before it means a column of FROM.
                    KeySource::Expr(source) => alias_of(source, &items),
                };
                match (output, key) {
                    (Some(i), _) | (None, KeySource::Output(i)) => {
                        key_names.push(items[i].name.clone());
                        Ok(outputs[i].clone())
                    }
                    (None, KeySource::Expr(source)) => {
                        key_names.push(name::of_expr(source));
                        binder.bind_in(Clause::OrderBy, source)
                    }
                }
            })?,
            None => vec![],
        };

        let subqueries = binder.take_subqueries();
        let aggregates = binder.into_aggregates();
        let outer = scope.outer_ids();
        if groups.is_some() || having.is_some() || !aggregates.calls.is_empty() {
            let keys_of_groups = groups.unwrap_or_default();
            let grouping = Grouping::new(keys_of_groups, aggregates, outer.clone(), &mut self.ids);
            let mut over_groups = |e: Expr| grouping.over_groups(e);
            for output in &mut outputs {
                *output = over_groups(output.clone())?;
            }
            for key in &mut keys {
                key.expr = over_groups(key.expr.clone())?;
            }
            let having = having.map(&mut over_groups).transpose()?;
            let Stages { early, having: for_having, late } = stages(subqueries, grouping.reads());
            let mut rewritten = |list: Vec<Subquery>| {
                list.into_iter()
                    .map(|subquery| subquery.try_map(&mut over_groups))
                    .collect::<Result<Vec<_>>>()
            };
            let (for_having, late) = (rewritten(for_having)?, rewritten(late)?);
            plan = grouping.into_plan(join_all(plan, early));
            let mut conjuncts = vec![];
            if let Some(condition) = having {
                condition.into_conjuncts(&mut conjuncts);
            }
            plan = join_all(filter_with(plan, conjuncts, for_having), late);
        } else {
            plan = join_all(plan, subqueries);
        }
        let names: Vec<String> = items.into_iter().map(|item| item.name).collect();
        let keys = key_names.into_iter().zip(keys).collect();
        finish(plan, &names, outputs, keys, distinct.then(|| order_by.and_then(place)), outer, &mut self.ids)
    }
}

/// Projects the outputs and what the sort keys need besides, makes rows distinct, sorts, drops what was extra.
/// `distinct` holds the place to report a sort key at that DISTINCT leaves without a value; `taken` are the ids no
/// result may have.
fn finish(
    input: Arc<Plan>,
    names: &[String],
    outputs: Vec<Expr>,
    mut keys: Vec<(String, SortKey)>,
    distinct: Option<Option<Location>>,
    mut taken: HashSet<ColumnId>,
    ids: &mut ColumnIds,
) -> Result<BoundQuery> {
    let mut columns: Vec<(Column, Expr)> = outputs
        .into_iter()
        .zip(names)
        .map(|(expr, name)| (column_for(&expr, name, &mut taken, ids), expr))
        .collect();
    let visible = columns.len();
    for (name, key) in &mut keys {
        let known = columns.iter().find(|(_, expr)| *expr == key.expr).map(|(column, _)| column.to_expr());
        key.expr = match known {
            Some(expr) => expr,
            None => {
                let expr = key.expr.clone();
                let column = column_for(&expr, name, &mut taken, ids);
                columns.push((column.clone(), expr));
                column.to_expr()
            }
        };
    }
    if let Some(location) = distinct
        && columns.len() > visible
    {
        return Err(Error::plan(
            "with SELECT DISTINCT, every ORDER BY expression must appear in the select list",
            location,
        ));
    }
    let outputs: Vec<Column> = columns.iter().take(visible).map(|(column, _)| column.clone()).collect();
    let has_hidden = columns.len() > visible;
    let mut plan = Arc::new(Plan::Project { input, columns });
    let visible_columns = || outputs.iter().map(|c| (c.clone(), c.to_expr())).collect();
    if distinct.is_some() {
        plan = Arc::new(Plan::Aggregate { input: plan, groups: visible_columns(), aggregates: vec![] });
    }
    if !keys.is_empty() {
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        plan = Arc::new(Plan::Sort { input: plan, keys, fetch: None });
    }
    if has_hidden {
        plan = Arc::new(Plan::Project { input: plan, columns: visible_columns() });
    }
    Ok(BoundQuery { plan, outputs })
}

/// The column an expression becomes: the one it reads if that is all it does and nobody has it yet, else a new one.
pub(super) fn column_for(
    expr: &Expr,
    name: &str,
    taken: &mut HashSet<ColumnId>,
    ids: &mut ColumnIds,
) -> Column {
    let id = match expr {
        Expr::Column { id, .. } if taken.insert(*id) => *id,
        _ => ids.fresh(),
    };
    let field = Field { name: name.to_owned(), data_type: expr.data_type(), nullable: expr.is_nullable() };
    Column { id, field }
}

/// The group keys; `None` without GROUP BY.
fn bind_groups<'q>(
    binder: &mut ExprBinder<'_, '_, 'q>,
    select: &'q ast::Select,
    items: &[Item<'q>],
    outputs: &[Expr],
) -> Result<Option<Vec<(String, Expr)>>> {
    // The place where grouping sets will be added.
    let refuse_sets = |at: Option<Location>| Err(Error::unsupported("ROLLUP, CUBE and GROUPING SETS", at));
    let mut groups: Vec<(String, Expr)> = vec![];
    match &select.group_by {
        ast::GroupByExpr::Expressions(list, modifiers) => {
            if list.is_empty() && modifiers.is_empty() {
                return Ok(None);
            }
            if !modifiers.is_empty() {
                return refuse_sets(place(&select.group_by));
            }
            let mut sources: Vec<&'q ast::Expr> = vec![];
            for source in list {
                match source {
                    ast::Expr::Tuple(parts) => sources.extend(parts),
                    ast::Expr::GroupingSets(_) | ast::Expr::Cube(_) | ast::Expr::Rollup(_) => {
                        return refuse_sets(place(source).or_else(|| place(select)));
                    }
                    other => sources.push(other),
                }
            }
            for source in sources {
                if let Some(i) = alias_of(source, items)
                    && let ast::Expr::Identifier(ident) = source
                    && binder.may_be_alias(ident)
                    && !binder.reads_aggregate(&outputs[i])
                {
                    // The very column, should it be a subquery.
                    groups.push((items[i].name.clone(), outputs[i].clone()));
                    continue;
                }
                let (name, key) = match ordinal(source) {
                    Some(n) => {
                        let i = output_at(n, outputs.len(), "GROUP BY", source)?;
                        if binder.reads_aggregate(&outputs[i]) {
                            let message = format!("GROUP BY position {n} is an aggregate");
                            return Err(Error::plan(message, place(source)));
                        }
                        (items[i].name.clone(), outputs[i].clone())
                    }
                    None => (name::of_expr(source), binder.bind_in(Clause::GroupBy, source)?),
                };
                groups.push((name, key));
            }
        }
        ast::GroupByExpr::All(modifiers) => {
            if !modifiers.is_empty() {
                return refuse_sets(place(&select.group_by));
            }
            for (item, output) in items.iter().zip(outputs) {
                if !binder.reads_aggregate(output) {
                    groups.push((item.name.clone(), output.clone()));
                }
            }
        }
    }
    Ok(Some(groups))
}

/// The position of the result column a bare name in ORDER BY means.
fn alias_of(source: &ast::Expr, items: &[Item<'_>]) -> Option<usize> {
    match source {
        ast::Expr::Identifier(ident) => items.iter().position(|item| same_name(&item.name, &ident.value)),
        _ => None,
    }
}

/// The select list with wildcards expanded and every entry named.
fn expand<'q>(select: &'q ast::Select, scope: &Scope<'_>) -> Result<Vec<Item<'q>>> {
    let mut items = vec![];
    if select.flavor == ast::SelectFlavor::FromFirstNoSelect {
        // `FROM t` alone means all of it.
        for (name, column) in scope.tables.visible() {
            items.push(Item { name, source: Source::Column(column, place(select)) });
        }
    }
    for item in &select.projection {
        match item {
            ast::SelectItem::UnnamedExpr(source) => {
                items.push(Item { name: name_of(source, scope)?, source: Source::Expr(source) });
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                items.push(Item { name: alias.value.clone(), source: Source::Expr(expr) });
            }
            ast::SelectItem::ExprWithAliases { expr, .. } => {
                return Err(Error::unsupported("several aliases for one expression", place(expr)));
            }
            ast::SelectItem::Wildcard(options) => {
                let location = super::location(options.wildcard_token.0.span);
                if scope.tables.relations.is_empty() {
                    return Err(Error::plan("SELECT * needs a FROM clause", location));
                }
                expand_wildcard(&scope.tables.visible(), options, location, &mut items)?;
            }
            ast::SelectItem::QualifiedWildcard(kind, options) => {
                let (ast::SelectItemQualifiedWildcardKind::ObjectName(ast::ObjectName(parts)), at) =
                    (kind, place(item))
                else {
                    return Err(Error::unsupported("wildcards over expressions", place(item)));
                };
                let [ast::ObjectNamePart::Identifier(table)] = parts.as_slice() else {
                    return Err(Error::unsupported("table names with a catalog or schema", at));
                };
                let Some(relation) = scope.tables.relations.iter().find(|r| r.is_called(&table.value)) else {
                    let known = scope.tables.relations.iter().filter_map(|r| r.name.as_deref());
                    return Err(unknown_name("table", &table.value, known, "the FROM clause", at));
                };
                expand_wildcard(&relation.columns, options, at, &mut items)?;
            }
        }
    }
    Ok(items)
}

/// A column keeps the name its table gave it; other expressions are named by their text.
fn name_of(source: &ast::Expr, scope: &Scope<'_>) -> Result<String> {
    let parts = match source {
        ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.as_slice(),
        _ => return Ok(name::of_expr(source)),
    };
    Ok(match scope.find(parts)? {
        Some(Resolved::Own(column) | Resolved::Outer(column)) => {
            let in_scope = scope
                .tables
                .relations
                .iter()
                .flat_map(|relation| &relation.columns)
                .find(|(_, c)| c.id == column.id)
                .map(|(name, _)| name.clone());
            in_scope.unwrap_or_else(|| column.field.name.clone())
        }
        None => name::of_expr(source),
    })
}

fn expand_wildcard<'q>(
    all: &[(String, Column)],
    options: &'q ast::WildcardAdditionalOptions,
    location: Option<Location>,
    items: &mut Vec<Item<'q>>,
) -> Result<()> {
    let ast::WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike: None,
        opt_exclude,
        opt_except: None,
        opt_replace,
        opt_rename: None,
        opt_alias: None,
    } = options
    else {
        return Err(Error::unsupported("ILIKE, EXCEPT, RENAME and aliases on *", location));
    };
    let excluded: Vec<&ast::ObjectName> = match opt_exclude {
        None => vec![],
        Some(ast::ExcludeSelectItem::Single(name)) => vec![name],
        Some(ast::ExcludeSelectItem::Multiple(names)) => names.iter().collect(),
    };
    let last = |name: &ast::ObjectName| match name.0.last() {
        Some(ast::ObjectNamePart::Identifier(ident)) => ident.value.clone(),
        Some(ast::ObjectNamePart::Function(_)) | None => String::new(),
    };
    let replaced = opt_replace.as_ref().map_or(&[][..], |replace| replace.items.as_slice());
    let require = |name: &str, location: Option<Location>| {
        if all.iter().any(|(column, _)| same_name(column, name)) {
            return Ok(());
        }
        Err(unknown_name("column", name, all.iter().map(|(n, _)| n.as_str()), "the columns of *", location))
    };
    for name in &excluded {
        require(&last(name), place(*name))?;
    }
    for element in replaced {
        require(&element.column_name.value, super::location(element.column_name.span))?;
    }
    for (name, column) in all {
        if excluded.iter().any(|excluded| same_name(&last(excluded), name)) {
            continue;
        }
        let source = match replaced.iter().find(|element| same_name(&element.column_name.value, name)) {
            Some(element) => Source::Expr(&element.expr),
            None => {
                let column =
                    Column { id: column.id, field: Field { name: name.clone(), ..column.field.clone() } };
                Source::Column(column, location)
            }
        };
        items.push(Item { name: name.clone(), source });
    }
    Ok(())
}

/// The places where clauses the engine lacks, and those of other dialects, are refused.
fn refuse_clauses(select: &ast::Select) -> Result<()> {
    let (clause, at) = if let Some(condition) = &select.qualify {
        // The place where QUALIFY will be added, with window functions.
        ("QUALIFY", place(condition))
    } else if !select.named_window.is_empty() {
        ("WINDOW", place(select))
    } else if select.top.is_some() {
        ("TOP; use LIMIT", place(select))
    } else if select.into.is_some() {
        ("SELECT … INTO", place(select))
    } else if !select.lateral_views.is_empty() {
        ("LATERAL VIEW", place(select))
    } else if let Some(condition) = &select.prewhere {
        ("PREWHERE; use WHERE", place(condition))
    } else if !select.connect_by.is_empty() {
        ("CONNECT BY", place(select))
    } else if !(select.cluster_by.is_empty() && select.distribute_by.is_empty() && select.sort_by.is_empty())
    {
        ("CLUSTER BY, DISTRIBUTE BY and SORT BY", place(select))
    } else if select.exclude.is_some() {
        ("EXCLUDE after the select list; write it after *", place(select))
    } else if select.value_table_mode.is_some() {
        ("SELECT AS VALUE and AS STRUCT", place(select))
    } else {
        return Ok(());
    };
    Err(Error::unsupported(clause, at))
}
