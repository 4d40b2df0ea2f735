//! Subqueries in expressions.
//!
//! Each becomes a join whose left is the input of the clause it stands in and whose right is the subquery; the
//! expression reads the column the join adds: the value of a scalar subquery, or whether a condition holds for some
//! row. The right side may read columns of the left; the optimizer removes such dependence.

use super::expression::{Clause, ExprBinder, negate_if, to_boolean};
use super::query::{CteNode, Surroundings};
use super::{BoundQuery, located, place};
use crate::data::{DataType, Field};
use crate::error::{Error, Result};
use crate::expr::{ColumnId, CompareOp, Expr, cast_to, common_type, compare};
use crate::logical::{Column, JoinKey, JoinKind, Plan};
use sqlparser::ast;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// A subquery on its way to becoming a join.
pub(super) struct Subquery {
    kind: JoinKind,
    plan: Arc<Plan>,
    keys: Vec<JoinKey>,
    filters: Vec<Expr>,
    clause: Clause,
    /// What reads it is evaluated before grouping.
    is_early: bool,
}

impl Subquery {
    /// `input` with the columns this adds.
    fn join(self, input: Arc<Plan>) -> Arc<Plan> {
        let Self { kind, plan, keys, filters, clause: _, is_early: _ } = self;
        Arc::new(Plan::Join { kind, left: input, right: plan, keys, filters })
    }

    /// The columns it adds.
    fn adds(&self) -> Vec<ColumnId> {
        match &self.kind {
            JoinKind::Mark { column, .. } => vec![column.id],
            _ => self.plan.columns().into_iter().map(|column| column.id).collect(),
        }
    }

    /// The columns of the input it reads.
    fn reads(&self) -> BTreeSet<ColumnId> {
        let mut reads = self.plan.free_columns();
        for expr in self.keys.iter().map(|key| &key.left).chain(&self.filters) {
            expr.for_each_column(&mut |id| {
                reads.insert(id);
            });
        }
        reads
    }

    /// The same with `f` applied to what it evaluates over the input.
    pub(super) fn try_map(self, f: &mut dyn FnMut(Expr) -> Result<Expr>) -> Result<Self> {
        let plan = map_plan(&self.plan, f)?;
        let keys = self.keys.into_iter().map(|key| Ok(JoinKey { left: f(key.left)?, ..key }));
        let keys = keys.collect::<Result<_>>()?;
        let filters = self.filters.into_iter().map(&mut *f).collect::<Result<_>>()?;
        Ok(Self { plan, keys, filters, ..self })
    }
}

fn map_plan(plan: &Arc<Plan>, f: &mut dyn FnMut(Expr) -> Result<Expr>) -> Result<Arc<Plan>> {
    plan.try_map_inputs(&mut |input| map_plan(input, f))?.try_map_exprs(f).map(Arc::new)
}

/// `input` with the columns `subqueries` add.
pub(super) fn join_all(input: Arc<Plan>, subqueries: Vec<Subquery>) -> Arc<Plan> {
    subqueries.into_iter().fold(input, |input, subquery| subquery.join(input))
}

/// `input` filtered by conjuncts that may read `subqueries`; those that do not come first.
pub(super) fn filter_with(input: Arc<Plan>, conjuncts: Vec<Expr>, subqueries: Vec<Subquery>) -> Arc<Plan> {
    let added: HashSet<ColumnId> = subqueries.iter().flat_map(Subquery::adds).collect();
    let (after, before): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(|e| {
        let mut reads = false;
        e.for_each_column(&mut |id| reads |= added.contains(&id));
        reads
    });
    let filter = |input, conjuncts: Vec<Expr>| {
        if conjuncts.is_empty() { input } else { Arc::new(Plan::Filter { input, conjuncts }) }
    };
    filter(join_all(filter(input, before), subqueries), after)
}

/// The subqueries of a grouped SELECT by where they are joined.
pub(super) struct Stages {
    /// Below the grouping.
    pub(super) early: Vec<Subquery>,
    /// Above it, for HAVING.
    pub(super) having: Vec<Subquery>,
    /// Above that.
    pub(super) late: Vec<Subquery>,
}

/// Divides subqueries: those whose columns the grouping reads, `read_early`, come before it.
pub(super) fn stages(subqueries: Vec<Subquery>, mut read_early: BTreeSet<ColumnId>) -> Stages {
    let mut stages = Stages { early: vec![], having: vec![], late: vec![] };
    // One may read those before it.
    for subquery in subqueries.into_iter().rev() {
        if subquery.is_early || subquery.adds().iter().any(|id| read_early.contains(id)) {
            read_early.extend(subquery.reads());
            stages.early.push(subquery);
        } else if subquery.clause == Clause::Having {
            stages.having.push(subquery);
        } else {
            stages.late.push(subquery);
        }
    }
    stages.early.reverse();
    stages.having.reverse();
    stages.late.reverse();
    stages
}

impl<'q> ExprBinder<'_, '_, 'q> {
    /// Allows subqueries, which see these CTEs.
    #[must_use]
    pub(super) fn with_subqueries(mut self, ctes: Option<Rc<CteNode<'q>>>) -> Self {
        self.ctes = Some(ctes);
        self
    }

    /// The subqueries of what has been bound so far.
    pub(super) fn take_subqueries(&mut self) -> Vec<Subquery> {
        std::mem::take(&mut self.subqueries)
    }

    /// `[NOT] EXISTS (query)`.
    pub(super) fn exists(&mut self, query: &ast::Query, negated: bool) -> Result<Expr> {
        let bound = self.subquery(query)?;
        let mark = self.mark(bound, false, "exists", vec![], vec![]);
        Ok(negate_if(negated, mark))
    }

    /// The value of a subquery of one column and at most one row.
    pub(super) fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Expr> {
        let bound = self.subquery(query)?;
        let [column] = bound.outputs.as_slice() else {
            let message =
                format!("a subquery used as a value must have one column, not {}", bound.outputs.len());
            return Err(Error::plan(message, place(query)));
        };
        let value = column.clone().into_nullable().to_expr();
        self.add(JoinKind::Single, bound, vec![], vec![]);
        Ok(value)
    }

    /// `operand [NOT] IN (query)`.
    pub(super) fn in_subquery(
        &mut self,
        operand: &ast::Expr,
        query: &ast::Query,
        negated: bool,
    ) -> Result<Expr> {
        let sources = match operand {
            ast::Expr::Tuple(parts) => parts.iter().collect(),
            one => vec![one],
        };
        let operands = sources.iter().map(|source| self.bind(source)).collect::<Result<Vec<_>>>()?;
        let bound = self.subquery(query)?;
        if operands.len() != bound.outputs.len() {
            let message = format!(
                "IN compares {} values with the {} columns of the subquery",
                operands.len(),
                bound.outputs.len()
            );
            return Err(Error::plan(message, place(query).or_else(|| place(operand))));
        }
        let mut keys = vec![];
        for ((left, column), source) in operands.into_iter().zip(&bound.outputs).zip(sources) {
            let (left_type, right_type) = (left.data_type(), &column.field.data_type);
            let common = common_type(&left_type, right_type).ok_or_else(|| {
                Error::plan(format!("IN compares {left_type} with {right_type}; cast one"), place(source))
            })?;
            let cast = |e| cast_to(e, &common).map_err(|e| located(e, place(source)));
            keys.push(JoinKey { left: cast(left)?, right: cast(column.to_expr())?, null_safe: false });
        }
        let nullable = keys.iter().any(|key| key.left.is_nullable() || key.right.is_nullable());
        let null_aware = keys.len() == 1 && bound.plan.free_columns().is_empty();
        let mark = if null_aware {
            self.mark(bound, nullable, "in", keys, vec![])
        } else {
            let filters = keys.into_iter().map(JoinKey::into_conjunct).collect();
            self.mark(bound, nullable, "in", vec![], filters)
        };
        Ok(negate_if(negated, mark))
    }

    /// `operand op ANY (query)` or `operand op ALL (query)`.
    pub(super) fn quantified(
        &mut self,
        operand: &ast::Expr,
        op: &ast::BinaryOperator,
        right: &ast::Expr,
        is_all: bool,
        source: &ast::Expr,
    ) -> Result<Expr> {
        let mut right = right;
        while let ast::Expr::Nested(inner) = right {
            right = inner;
        }
        let ast::Expr::Subquery(query) = right else {
            return Err(Error::unsupported("ANY and ALL over lists; use IN", place(source)));
        };
        let Some(op) = super::expression::compare_op(op) else {
            return Err(Error::unsupported(format!("{op} with ANY and ALL"), place(source)));
        };
        // What holds for all rows is what fails for none.
        let op = if is_all { op.negated() } else { op };
        if op == CompareOp::Eq {
            return self.in_subquery(operand, query, is_all);
        }
        let left = self.bind(operand)?;
        let bound = self.subquery(query)?;
        let [column] = bound.outputs.as_slice() else {
            let message = format!("ANY and ALL compare with one column, not {}", bound.outputs.len());
            return Err(Error::plan(message, place(query.as_ref())));
        };
        let filter = compare(op, left, column.to_expr()).map_err(|e| located(e, place(source)))?;
        let nullable = filter.is_nullable();
        let mark = self.mark(bound, nullable, "any", vec![], vec![filter]);
        to_boolean(negate_if(is_all, mark), source)
    }

    /// Binds a query that may read the columns in scope.
    fn subquery(&mut self, query: &ast::Query) -> Result<BoundQuery> {
        let Some(ctes) = &self.ctes else {
            let message = format!("subqueries in {}", self.clause_name());
            return Err(Error::unsupported(message, place(query)));
        };
        self.binder.count_join(place(query))?;
        let around = Surroundings { ctes: ctes.clone(), outer: Some(self.scope) };
        let bound = self.binder.bind_query(query, &around)?;
        if self.clause.sees_groups() && !self.in_aggregate {
            let read = bound.plan.free_columns();
            for column in self.scope.tables.columns().filter(|column| read.contains(&column.id)) {
                let name = || (column.field.name.clone(), place(query));
                self.aggregates.reads.entry(column.id).or_insert_with(name);
            }
        }
        Ok(bound)
    }

    /// A column that says whether some row of `bound` satisfies keys and filters.
    fn mark(
        &mut self,
        bound: BoundQuery,
        nullable: bool,
        name: &str,
        keys: Vec<JoinKey>,
        filters: Vec<Expr>,
    ) -> Expr {
        let field = Field { name: name.to_owned(), data_type: DataType::Boolean, nullable };
        let column = Column { id: self.binder.ids.fresh(), field };
        let mark = column.to_expr();
        let null_aware = !keys.is_empty();
        self.add(JoinKind::Mark { column, null_aware }, bound, keys, filters);
        mark
    }

    fn add(&mut self, kind: JoinKind, bound: BoundQuery, keys: Vec<JoinKey>, filters: Vec<Expr>) {
        let (clause, is_early) = (self.clause, self.in_aggregate || !self.clause.sees_groups());
        self.subqueries.push(Subquery { kind, plan: bound.plan, keys, filters, clause, is_early });
    }
}
