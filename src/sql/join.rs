//! Joins of a FROM clause: their kinds, and the conditions of ON, USING and NATURAL.
//!
//! A right join is a left join with its sides exchanged; the names in scope keep the order of the text.

use super::expression::{Clause, ExprBinder};
use super::from::FromClause;
use super::query::Surroundings;
use super::scope::{Merged, Scope, Tables, same_name, unknown_name};
use super::subquery::filter_with;
use super::{Binder, located, place};
use crate::data::Field;
use crate::error::{Error, Location, Result};
use crate::expr::{ColumnId, Expr, cast_to, common_type};
use crate::logical::{Column, JoinKey, JoinKind, Plan};
use sqlparser::ast;
use std::collections::HashSet;
use std::sync::Arc;

/// How many joins, those of subqueries included, a statement may have: what walks a plan recurses.
const MAX_JOINS: usize = 256;

/// Which rows without a partner a join of the text keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

/// What rows must have in common.
#[derive(Default)]
struct Condition {
    keys: Vec<JoinKey>,
    filters: Vec<Expr>,
    /// Names that both sides have and the result has once, with the sides' columns.
    shared: Vec<(String, Column, Column)>,
}

impl Binder<'_> {
    /// Counts a join about to be made.
    pub(super) fn count_join(&mut self, location: Option<Location>) -> Result<()> {
        self.joins += 1;
        if self.joins > MAX_JOINS {
            let message =
                format!("the statement joins more than {MAX_JOINS} tables and subqueries; simplify it");
            return Err(Error::plan(message, location));
        }
        Ok(())
    }

    /// Every row of the one with every row of the other.
    pub(super) fn cross(
        &mut self,
        left: FromClause,
        right: FromClause,
        location: Option<Location>,
    ) -> Result<FromClause> {
        self.count_join(location)?;
        check_names(&left.tables, &right.tables, location)?;
        let plan = inner(left.plan, right.plan);
        Ok(FromClause { plan, tables: left.tables.and(right.tables) })
    }

    /// Joins `right` as `join` says.
    pub(super) fn bind_join<'q>(
        &mut self,
        left: FromClause,
        right: FromClause,
        join: &'q ast::Join,
        around: &Surroundings<'q>,
    ) -> Result<FromClause> {
        use ast::JoinOperator as J;
        let location = place(&join.relation);
        let (side, constraint) = match &join.join_operator {
            J::CrossJoin(ast::JoinConstraint::None) => return self.cross(left, right, location),
            J::Join(c) | J::Inner(c) | J::CrossJoin(c) => (Side::Inner, c),
            J::Left(c) | J::LeftOuter(c) => (Side::Left, c),
            J::Right(c) | J::RightOuter(c) => (Side::Right, c),
            J::FullOuter(c) => (Side::Full, c),
            J::Semi(c) | J::LeftSemi(c) => (Side::Semi, c),
            J::Anti(c) | J::LeftAnti(c) => (Side::Anti, c),
            J::RightSemi(_) | J::RightAnti(_) => {
                return Err(Error::unsupported(
                    "RIGHT SEMI and RIGHT ANTI joins; exchange the tables",
                    location,
                ));
            }
            // The place where as-of joins will be added.
            J::AsOf { .. } => return Err(Error::unsupported("ASOF joins", location)),
            J::CrossApply
            | J::OuterApply
            | J::StraightJoin(_)
            | J::ArrayJoin
            | J::LeftArrayJoin
            | J::InnerArrayJoin => return Err(Error::unsupported("this form of join", location)),
        };
        self.count_join(location)?;
        check_names(&left.tables, &right.tables, location)?;
        if matches!(side, Side::Right | Side::Full) {
            let lateral = right.plan.free_columns();
            if left.tables.ids().any(|id| lateral.contains(&id)) {
                let message = "LATERAL cannot read the left side of a RIGHT or FULL join";
                return Err(Error::plan(message, location));
            }
        }
        let condition = match constraint {
            ast::JoinConstraint::On(condition) => {
                let tables = left.tables.clone().and(right.tables.clone());
                let scope = Scope { tables, parent: around.outer };
                let mut binder = ExprBinder::new(self, &scope, &[]).with_subqueries(around.ctes.clone());
                let mut conjuncts = vec![];
                binder.bind_condition(Clause::On, condition)?.into_conjuncts(&mut conjuncts);
                let subqueries = binder.take_subqueries();
                if !subqueries.is_empty() {
                    if side != Side::Inner {
                        let message = "subqueries in the ON of a join that is not an inner one";
                        return Err(Error::unsupported(message, place(condition)));
                    }
                    let plan = filter_with(inner(left.plan, right.plan), conjuncts, subqueries);
                    return Ok(FromClause { plan, tables: scope.tables });
                }
                split(conjuncts, &left.tables, &right.tables)
            }
            ast::JoinConstraint::Using(names) => {
                let mut idents = Vec::with_capacity(names.len());
                for name in names {
                    let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
                        return Err(Error::plan("USING takes plain column names", place(name)));
                    };
                    idents.push(ident.clone());
                }
                shared(&idents, &left.tables, &right.tables)?
            }
            ast::JoinConstraint::Natural => {
                let theirs = right.tables.visible();
                let is_common = |name: &str| theirs.iter().any(|(other, _)| same_name(name, other));
                let names = left.tables.visible().into_iter().map(|(name, _)| name);
                let idents: Vec<_> = names.filter(|name| is_common(name)).map(ast::Ident::new).collect();
                if idents.is_empty() {
                    let message = "the tables of the NATURAL JOIN have no column name in common; use ON";
                    return Err(Error::plan(message, location));
                }
                shared(&idents, &left.tables, &right.tables).map_err(|e| located(e, location))?
            }
            ast::JoinConstraint::None => {
                let message = "the join has no condition; add ON or USING, or write CROSS JOIN";
                return Err(Error::plan(message, location));
            }
        };
        self.join_on(side, left, right, condition)
    }

    fn join_on(
        &mut self,
        side: Side,
        left: FromClause,
        right: FromClause,
        condition: Condition,
    ) -> Result<FromClause> {
        let Condition { mut keys, filters, shared } = condition;
        let (mut left_tables, mut right_tables) = (left.tables, right.tables);
        let kind = match side {
            Side::Inner => JoinKind::Inner,
            Side::Left | Side::Right => JoinKind::Left,
            Side::Full => JoinKind::Full,
            Side::Semi => JoinKind::Semi,
            Side::Anti => JoinKind::Anti { null_aware: false },
        };
        let (mut left_plan, mut right_plan) = (left.plan, right.plan);
        if side == Side::Right {
            std::mem::swap(&mut left_plan, &mut right_plan);
            for key in &mut keys {
                std::mem::swap(&mut key.left, &mut key.right);
            }
        }
        let mut plan = Arc::new(Plan::Join { kind, left: left_plan, right: right_plan, keys, filters });
        if matches!(side, Side::Semi | Side::Anti) {
            return Ok(FromClause { plan, tables: left_tables });
        }
        if matches!(side, Side::Left | Side::Full) {
            right_tables.make_nullable();
        }
        if matches!(side, Side::Right | Side::Full) {
            left_tables.make_nullable();
        }
        let mut tables = left_tables.and(right_tables);
        let mut coalesced = vec![];
        for (name, ours, theirs) in shared {
            let mut hides: Vec<ColumnId> = vec![];
            tables.merged.retain(|merged| {
                let is_part = merged.column.id == ours.id || merged.column.id == theirs.id;
                if is_part && same_name(&merged.name, &name) {
                    hides.extend(&merged.hides);
                }
                !(is_part && same_name(&merged.name, &name))
            });
            hides.extend([ours.id, theirs.id]);
            let column = match side {
                Side::Inner | Side::Left | Side::Semi | Side::Anti => ours,
                Side::Right => theirs,
                Side::Full => {
                    let expr = first_not_null(&ours.into_nullable(), &theirs.into_nullable())?;
                    let field = Field { name: name.clone(), data_type: expr.data_type(), nullable: true };
                    let column = Column { id: self.ids.fresh(), field };
                    coalesced.push((column.clone(), expr));
                    column
                }
            };
            tables.merged.push(Merged { name, column, hides });
        }
        if !coalesced.is_empty() {
            let through = plan.output_columns().into_iter().map(|column| {
                let expr = column.to_expr();
                (column, expr)
            });
            let columns = through.chain(coalesced).collect();
            plan = Arc::new(Plan::Project { input: plan, columns });
        }
        Ok(FromClause { plan, tables })
    }
}

fn inner(left: Arc<Plan>, right: Arc<Plan>) -> Arc<Plan> {
    Arc::new(Plan::Join { kind: JoinKind::Inner, left, right, keys: vec![], filters: vec![] })
}

/// Two tables of one FROM clause need two names.
fn check_names(left: &Tables, right: &Tables, location: Option<Location>) -> Result<()> {
    let names = right.relations.iter().filter_map(|relation| relation.name.as_ref());
    for name in names {
        if left.relations.iter().any(|relation| relation.is_called(name)) {
            let message = format!("two tables are called \"{name}\" in FROM; give one an alias");
            return Err(Error::plan(message, location));
        }
    }
    Ok(())
}

/// Equalities between the sides as keys, the rest as filters.
fn split(conjuncts: Vec<Expr>, left: &Tables, right: &Tables) -> Condition {
    let (left, right): (HashSet<_>, HashSet<_>) = (left.ids().collect(), right.ids().collect());
    let mut condition = Condition::default();
    for conjunct in conjuncts {
        match JoinKey::from_conjunct(conjunct, &|id| left.contains(&id), &|id| right.contains(&id)) {
            Ok(key) => condition.keys.push(key),
            Err(conjunct) => condition.filters.push(conjunct),
        }
    }
    condition
}

/// Equality of the columns of these names.
fn shared(names: &[ast::Ident], left: &Tables, right: &Tables) -> Result<Condition> {
    let mut condition = Condition::default();
    for ident in names {
        let find = |tables: &Tables, side: &str| -> Result<Column> {
            match tables.find(std::slice::from_ref(ident))? {
                Some(column) => Ok(column.clone()),
                None => {
                    let visible = tables.visible();
                    let known = visible.iter().map(|(name, _)| name.as_str());
                    let place = format!("the {side} side of the join");
                    Err(unknown_name("column", &ident.value, known, &place, super::location(ident.span)))
                }
            }
        };
        let (ours, theirs) = (find(left, "left")?, find(right, "right")?);
        let (l, r) = (&ours.field.data_type, &theirs.field.data_type);
        let Some(common) = common_type(l, r) else {
            let message = format!(
                "column \"{}\" is {l} on the left and {r} on the right; use ON with a cast",
                ident.value
            );
            return Err(Error::plan(message, super::location(ident.span)));
        };
        let (left, right) = (cast_to(ours.to_expr(), &common)?, cast_to(theirs.to_expr(), &common)?);
        condition.keys.push(JoinKey { left, right, null_safe: false });
        condition.shared.push((ident.value.clone(), ours, theirs));
    }
    Ok(condition)
}

/// `coalesce(a, b)`.
fn first_not_null(a: &Column, b: &Column) -> Result<Expr> {
    let data_type = common_type(&a.field.data_type, &b.field.data_type)
        .ok_or_else(|| Error::internal("columns of a join key have no common type"))?;
    let is_null = Expr::IsNull(Box::new(a.to_expr()));
    let branches = vec![(Expr::Not(Box::new(is_null)), cast_to(a.to_expr(), &data_type)?)];
    let otherwise = Some(Box::new(cast_to(b.to_expr(), &data_type)?));
    Ok(Expr::Case { branches, otherwise, data_type })
}
