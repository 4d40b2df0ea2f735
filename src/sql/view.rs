//! Views: queries kept under a name, bound anew wherever they are used.
//!
//! A view is bound once when it is made, so that what is wrong is said then. Tables and views may change afterwards:
//! an error within a view is reported at the place of its name, together with its own text.

use super::query::Surroundings;
use super::scope::{same_name, unknown_name};
use super::{Binder, BoundQuery, Statement, TableResolver, place};
use crate::error::{Error, Location, Result};
use sqlparser::ast;
use std::sync::Arc;

/// A query with a name.
pub(crate) struct View {
    name: String,
    /// Names for its first columns.
    columns: Vec<ast::Ident>,
    query: ast::Query,
    /// The text its places speak of.
    sql: Arc<str>,
}

impl View {
    /// As written where it was made.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a statement does to the views.
#[derive(Clone)]
pub(crate) enum Definition {
    /// Adds one, or replaces the one of its name.
    Create(Arc<View>),
    /// Takes these away.
    Drop(Vec<String>),
}

/// Binds CREATE VIEW.
pub(super) fn create(create: &ast::CreateView, sql: &str, resolver: &dyn TableResolver) -> Result<Statement> {
    let location = place(&create.name);
    let refused = if create.materialized {
        Some("materialized views")
    } else if create.or_alter || create.secure || create.copy_grants || create.with_no_schema_binding {
        Some("this form of CREATE VIEW")
    } else if create.to.is_some()
        || create.params.is_some()
        || create.comment.is_some()
        || !create.cluster_by.is_empty()
        || !matches!(create.options, ast::CreateTableOptions::None)
        || create.columns.iter().any(|column| column.data_type.is_some() || column.options.is_some())
    {
        Some("options of CREATE VIEW")
    } else {
        None
    };
    if let Some(refused) = refused {
        return Err(Error::unsupported(refused, location));
    }
    let name = simple_name(&create.name)?;
    if resolver.has_table(name) {
        return Err(Error::plan(format!("\"{name}\" is a table; give the view another name"), location));
    }
    if resolver.view(name).is_some() && !create.or_replace {
        if create.if_not_exists {
            return Ok(Statement::Define(Definition::Drop(vec![])));
        }
        let message = format!("view \"{name}\" exists already; use CREATE OR REPLACE VIEW");
        return Err(Error::plan(message, location));
    }
    let view = View {
        name: name.to_owned(),
        columns: create.columns.iter().map(|column| column.name.clone()).collect(),
        query: create.query.as_ref().clone(),
        sql: sql.into(),
    };
    let mut binder = Binder::new(resolver);
    binder.views.push(view.name.clone());
    let bound = binder.bind_query(&view.query, &Surroundings::default())?;
    named(bound, &view, location)?;
    Ok(Statement::Define(Definition::Create(Arc::new(view))))
}

/// Binds DROP VIEW.
pub(super) fn drop(
    names: &[ast::ObjectName],
    if_exists: bool,
    resolver: &dyn TableResolver,
) -> Result<Statement> {
    let mut dropped = vec![];
    for object in names {
        let name = simple_name(object)?;
        if resolver.view(name).is_some() {
            dropped.push(name.to_owned());
        } else if resolver.has_table(name) {
            return Err(Error::plan(format!("\"{name}\" is a table, not a view"), place(object)));
        } else if !if_exists {
            let known = resolver.names();
            let known = known.iter().map(String::as_str);
            return Err(unknown_name("view", name, known, "the catalog", place(object)));
        }
    }
    Ok(Statement::Define(Definition::Drop(dropped)))
}

fn simple_name(name: &ast::ObjectName) -> Result<&str> {
    match name.0.as_slice() {
        [ast::ObjectNamePart::Identifier(ident)] => Ok(&ident.value),
        _ => Err(Error::unsupported("view names with a catalog or schema", place(name))),
    }
}

/// The query's columns under the names the view gives them.
fn named(mut bound: BoundQuery, view: &View, location: Option<Location>) -> Result<BoundQuery> {
    if view.columns.len() > bound.outputs.len() {
        let message = format!(
            "view \"{}\" names {} columns, but its query has {}",
            view.name,
            view.columns.len(),
            bound.outputs.len()
        );
        return Err(Error::plan(message, location));
    }
    for (column, name) in bound.outputs.iter_mut().zip(&view.columns) {
        column.field.name.clone_from(&name.value);
    }
    Ok(bound)
}

impl Binder<'_> {
    /// Binds the query of a view that is named at `location`.
    pub(super) fn bind_view(&mut self, view: &View, location: Option<Location>) -> Result<BoundQuery> {
        if self.views.iter().any(|name| same_name(name, &view.name)) {
            let path = format!("{} → {}", self.views.join(" → "), view.name);
            return Err(Error::plan(format!("view \"{}\" reads itself: {path}", view.name), location));
        }
        self.views.push(view.name.clone());
        let bound = self.bind_query(&view.query, &Surroundings::default());
        self.views.pop();
        let bound = bound.map_err(|error| {
            let within = |text: String| format!("in view \"{}\": {text}", view.name);
            match error.with_excerpt(&view.sql) {
                Error::Plan(inner) => Error::plan(within(inner.to_string()), location),
                Error::Unsupported(inner) => Error::unsupported(within(inner.to_string()), location),
                other => other,
            }
        })?;
        named(bound, view, location)
    }
}
