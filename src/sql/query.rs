//! Whole queries: WITH, the body, ORDER BY and LIMIT around it.

use super::expression::{Clause, ExprBinder};
use super::scope::{Relation, Scope, Tables};
use super::{Binder, BoundQuery, located, place};
use crate::data::{DataType, Field, Scalar, Value};
use crate::error::{Error, Result};
use crate::expr::{Expr, cast_to, common_type, evaluate_constant};
use crate::logical::{Column, Plan};
use sqlparser::ast;
use std::rc::Rc;
use std::sync::Arc;

/// How deep derived tables and CTEs may nest, references to CTEs included.
pub(super) const MAX_QUERIES: usize = 64;

/// What a query sees of the text around it.
#[derive(Clone, Default)]
pub(super) struct Surroundings<'q> {
    /// The innermost CTE in sight.
    pub(super) ctes: Option<Rc<CteNode<'q>>>,
    /// The scope of the query around, if its columns may be read.
    pub(super) outer: Option<&'q Scope<'q>>,
}

/// A CTE and those in sight where it is defined. It is bound anew at each reference, so that ids stay unique.
pub(super) struct CteNode<'q> {
    pub(super) cte: &'q ast::Cte,
    pub(super) before: Option<Rc<CteNode<'q>>>,
}

impl<'q> Surroundings<'q> {
    /// The innermost CTE of that name.
    pub(super) fn cte(&self, name: &str) -> Option<&CteNode<'q>> {
        let mut next = self.ctes.as_deref();
        while let Some(node) = next {
            if super::scope::same_name(&node.cte.alias.name.value, name) {
                return Some(node);
            }
            next = node.before.as_deref();
        }
        None
    }

    /// The names of all CTEs in sight.
    pub(super) fn cte_names(&self) -> Vec<String> {
        let mut names = vec![];
        let mut next = self.ctes.as_deref();
        while let Some(node) = next {
            names.push(node.cte.alias.name.value.clone());
            next = node.before.as_deref();
        }
        names
    }
}

impl Binder<'_> {
    /// Binds the query of a statement.
    pub(super) fn bind_top(&mut self, query: &ast::Query) -> Result<BoundQuery> {
        self.bind_query(query, &Surroundings::default())
    }

    /// Binds a query within its surroundings.
    pub(super) fn bind_query<'q>(
        &mut self,
        query: &'q ast::Query,
        around: &Surroundings<'q>,
    ) -> Result<BoundQuery> {
        if self.depth >= MAX_QUERIES {
            let message = format!("queries nest more than {MAX_QUERIES} levels deep; simplify the query");
            return Err(Error::plan(message, place(query)));
        }
        self.depth += 1;
        let bound = self.bind_query_within(query, around);
        self.depth -= 1;
        bound
    }

    fn bind_query_within<'q>(
        &mut self,
        query: &'q ast::Query,
        around: &Surroundings<'q>,
    ) -> Result<BoundQuery> {
        refuse_clauses(query)?;
        let mut around = around.clone();
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(Error::unsupported("recursive CTEs", super::location(with.with_token.0.span)));
            }
            for cte in &with.cte_tables {
                around.ctes = Some(Rc::new(CteNode { cte, before: around.ctes.take() }));
            }
        }
        let order_by = query.order_by.as_ref();
        let mut bound = match query.body.as_ref() {
            ast::SetExpr::Select(select) => self.bind_select(select, order_by, &around)?,
            body => {
                let bound = self.bind_body(body, &around)?;
                self.order_outputs(bound, order_by)?
            }
        };
        let (skip, fetch) = self.bind_limits(query)?;
        if skip > 0 || fetch.is_some() {
            bound.plan = Arc::new(Plan::Limit { input: bound.plan, skip, fetch });
        }
        Ok(bound)
    }

    /// Binds what stands between WITH and ORDER BY, or beside a set operation.
    pub(super) fn bind_body<'q>(
        &mut self,
        body: &'q ast::SetExpr,
        around: &Surroundings<'q>,
    ) -> Result<BoundQuery> {
        match body {
            ast::SetExpr::Select(select) => self.bind_select(select, None, around),
            ast::SetExpr::Query(inner) => self.bind_query(inner, around),
            ast::SetExpr::Values(values) => self.bind_values(values),
            ast::SetExpr::SetOperation { .. } => self.bind_set_operations(body, around),
            ast::SetExpr::Table(_)
            | ast::SetExpr::Insert(_)
            | ast::SetExpr::Update(_)
            | ast::SetExpr::Delete(_)
            | ast::SetExpr::Merge(_) => {
                let message = "this kind of query; write it as SELECT … FROM …";
                Err(Error::unsupported(message, place(body)))
            }
        }
    }

    /// Orders the result of a query whose own columns are all ORDER BY may name.
    fn order_outputs(&mut self, bound: BoundQuery, order_by: Option<&ast::OrderBy>) -> Result<BoundQuery> {
        let Some(order_by) = order_by else { return Ok(bound) };
        let columns = bound.outputs.iter().map(|c| (c.field.name.clone(), c.clone())).collect();
        let scope = Scope {
            tables: Tables { relations: vec![Relation { name: None, columns }], merged: vec![] },
            parent: None,
        };
        let mut binder = ExprBinder::new(self, &scope, &[]);
        let outputs: Vec<Expr> = bound.outputs.iter().map(Column::to_expr).collect();
        let keys = super::order::bind_keys(order_by, outputs.len(), &mut |key| match key {
            super::order::KeySource::Output(i) => Ok(outputs[i].clone()),
            super::order::KeySource::Expr(e) => binder.bind_in(Clause::OrderBy, e),
        })?;
        Ok(BoundQuery { plan: Arc::new(Plan::Sort { input: bound.plan, keys, fetch: None }), ..bound })
    }

    /// Binds `VALUES (…), (…)`.
    fn bind_values(&mut self, values: &ast::Values) -> Result<BoundQuery> {
        let scope = Scope::default();
        let mut rows: Vec<Vec<Expr>> = vec![];
        let mut types: Vec<DataType> = vec![];
        for row in &values.rows {
            let mut binder = ExprBinder::new(self, &scope, &[]);
            let bound: Vec<Expr> =
                row.content.iter().map(|e| binder.bind_in(Clause::Values, e)).collect::<Result<_>>()?;
            if rows.is_empty() {
                types = bound.iter().map(Expr::data_type).collect();
            } else if bound.len() != types.len() {
                return Err(Error::plan(
                    format!("this row has {} values, but the first has {}", bound.len(), types.len()),
                    super::location(row.opening_token.0.span),
                ));
            }
            for (i, (e, source)) in bound.iter().zip(&row.content).enumerate() {
                types[i] = common_type(&types[i], &e.data_type()).ok_or_else(|| {
                    let message = format!("column {} mixes {} and {}", i + 1, types[i], e.data_type());
                    Error::plan(message, place(source))
                })?;
            }
            rows.push(bound);
        }
        let mut scalars = Vec::with_capacity(rows.len());
        for (row, source) in rows.into_iter().zip(&values.rows) {
            let mut out: Vec<Scalar> = Vec::with_capacity(row.len());
            for ((e, data_type), source) in row.into_iter().zip(&types).zip(&source.content) {
                let value = cast_to(e, data_type).and_then(|e| evaluate_constant(&e));
                out.push(value.map_err(|e| located(e, place(source)))?);
            }
            scalars.push(out);
        }
        let columns: Vec<Column> = types
            .into_iter()
            .enumerate()
            .map(|(i, data_type)| {
                let nullable = scalars.iter().any(|row| row[i].is_null());
                Column { id: self.ids.fresh(), field: Field { name: format!("col{i}"), data_type, nullable } }
            })
            .collect();
        Ok(BoundQuery {
            plan: Arc::new(Plan::Values { columns: columns.clone(), rows: scalars }),
            outputs: columns,
        })
    }

    /// Rows to skip and rows to return.
    fn bind_limits(&mut self, query: &ast::Query) -> Result<(u64, Option<u64>)> {
        let (limit, offset) = match &query.limit_clause {
            None => (None, None),
            Some(ast::LimitClause::LimitOffset { limit, offset, limit_by }) => {
                if let Some(by) = limit_by.first() {
                    return Err(Error::unsupported("LIMIT BY", place(by)));
                }
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(ast::LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        };
        let fetch_first = match &query.fetch {
            Some(fetch) if fetch.percent || fetch.with_ties => {
                return Err(Error::unsupported("FETCH with PERCENT or WITH TIES", place(fetch)));
            }
            Some(fetch) => Some(match &fetch.quantity {
                Some(quantity) => self.row_count(quantity)?.unwrap_or(u64::MAX),
                None => 1,
            }),
            None => None,
        };
        let limit = match limit {
            Some(limit) => self.row_count(limit)?,
            None => None,
        };
        let skip = match offset {
            Some(offset) => self.row_count(offset)?.unwrap_or(0),
            None => 0,
        };
        Ok((skip, limit.or(fetch_first)))
    }

    /// The value of a LIMIT or OFFSET; `None` for NULL.
    fn row_count(&mut self, source: &ast::Expr) -> Result<Option<u64>> {
        let scope = Scope::default();
        let bound = ExprBinder::new(self, &scope, &[]).bind_in(Clause::Limit, source)?;
        let value = cast_to(bound, &DataType::Int64).and_then(|e| evaluate_constant(&e));
        match value.map_err(|e| located(e, place(source)))?.value {
            Value::Null => Ok(None),
            Value::Int(n) if n >= 0 => Ok(Some(u64::try_from(n).unwrap_or(u64::MAX))),
            Value::Int(_) => Err(Error::plan("LIMIT and OFFSET cannot be negative", place(source))),
            Value::Boolean(_) | Value::Float(_) | Value::Utf8(_) | Value::Binary(_) => {
                Err(Error::plan("LIMIT and OFFSET take a number of rows", place(source)))
            }
        }
    }
}

/// The places where the clauses of other dialects are refused.
fn refuse_clauses(query: &ast::Query) -> Result<()> {
    let clause = if !query.locks.is_empty() {
        "FOR UPDATE and FOR SHARE"
    } else if query.for_clause.is_some() {
        "FOR XML and FOR JSON"
    } else if query.settings.is_some() || query.format_clause.is_some() {
        "SETTINGS and FORMAT"
    } else if !query.pipe_operators.is_empty() {
        "pipe operators"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(clause, place(query)))
}
