//! Scalar expressions: from syntax to typed trees.

use super::aggregate::Aggregates;
use super::query::CteNode;
use super::scope::{Resolved, Scope, same_name};
use super::subquery::Subquery;
use super::{Binder, literal, located, place, types};
use crate::data::{DataType, Scalar};
use crate::error::{Error, Location, Result};
use crate::expr::{
    ArithmeticOp, CompareOp, Expr, arithmetic, cast_to, common_type, compare, evaluate_constant,
};
use crate::functions;
use crate::logical::Column;
use sqlparser::ast;
use std::rc::Rc;
use std::sync::Arc;

/// How deep the binder recurses.
pub(super) const MAX_DEPTH: usize = 200;

/// How high a bound expression may be, chains of operators and expanded aliases included: what walks it recurses.
pub(super) const MAX_HEIGHT: usize = 1200;

/// How many nodes the expressions of one SELECT may have in all. Aliases that build on each other multiply, and so do
/// nested constructs that repeat an operand, such as coalesce.
const MAX_NODES: usize = 1 << 18;

/// A select-list alias and what it stands for.
pub(super) type Alias<'q> = (String, &'q ast::Expr);

/// The clause an expression stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    On,
    Where,
    GroupBy,
    Select,
    Having,
    OrderBy,
    Values,
    Limit,
}

impl Clause {
    fn name(self) -> &'static str {
        match self {
            Self::On => "ON",
            Self::Where => "WHERE",
            Self::GroupBy => "GROUP BY",
            Self::Select => "SELECT",
            Self::Having => "HAVING",
            Self::OrderBy => "ORDER BY",
            Self::Values => "VALUES",
            Self::Limit => "LIMIT and OFFSET",
        }
    }

    /// Whether it is evaluated after grouping.
    pub(super) fn sees_groups(self) -> bool {
        match self {
            Self::Select | Self::Having | Self::OrderBy => true,
            Self::On | Self::Where | Self::GroupBy | Self::Values | Self::Limit => false,
        }
    }
}

/// Binds the expressions of one SELECT.
pub(super) struct ExprBinder<'s, 'b, 'q> {
    pub(super) binder: &'s mut Binder<'b>,
    pub(super) scope: &'s Scope<'s>,
    aliases: &'s [Alias<'q>],
    pub(super) aggregates: Aggregates,
    /// The CTEs subqueries see; `None` where none may stand.
    pub(super) ctes: Option<Option<Rc<CteNode<'q>>>>,
    pub(super) subqueries: Vec<Subquery>,
    pub(super) clause: Clause,
    /// Inside the arguments of an aggregate.
    pub(super) in_aggregate: bool,
    /// Aliases being expanded, so that none stands for itself.
    expanding: Vec<usize>,
    /// Height of the highest operand bound since the node being bound was entered.
    height: usize,
    nodes: usize,
}

impl<'s, 'b, 'q> ExprBinder<'s, 'b, 'q> {
    pub(super) fn new(binder: &'s mut Binder<'b>, scope: &'s Scope<'s>, aliases: &'s [Alias<'q>]) -> Self {
        Self {
            binder,
            scope,
            aliases,
            aggregates: Aggregates::default(),
            ctes: None,
            subqueries: vec![],
            clause: Clause::Select,
            in_aggregate: false,
            expanding: vec![],
            height: 0,
            nodes: 0,
        }
    }

    /// Binds an expression of a clause.
    pub(super) fn bind_in(&mut self, clause: Clause, source: &ast::Expr) -> Result<Expr> {
        self.clause = clause;
        self.bind(source)
    }

    /// Binds a condition; anything that is not a boolean is cast to one.
    pub(super) fn bind_condition(&mut self, clause: Clause, source: &ast::Expr) -> Result<Expr> {
        let bound = self.bind_in(clause, source)?;
        to_boolean(bound, source)
    }

    /// The aggregates of all expressions bound.
    pub(super) fn into_aggregates(self) -> Aggregates {
        self.aggregates
    }

    /// Whether an expression reads the result of an aggregate.
    pub(super) fn reads_aggregate(&self, expr: &Expr) -> bool {
        self.aggregates.are_read_by(expr)
    }

    /// Whether an unqualified name, being no column, can only be an alias of the select list.
    pub(super) fn may_be_alias(&self, name: &ast::Ident) -> bool {
        matches!(self.scope.find(std::slice::from_ref(name)), Ok(None))
    }

    /// An expression that reads a column of the scope.
    pub(super) fn read_column(
        &mut self,
        column: &Column,
        location: Option<Location>,
        clause: Clause,
    ) -> Expr {
        if clause.sees_groups() && !self.in_aggregate {
            let name = || (column.field.name.clone(), location);
            self.aggregates.reads.entry(column.id).or_insert_with(name);
        }
        column.to_expr()
    }

    pub(super) fn bind(&mut self, source: &ast::Expr) -> Result<Expr> {
        self.binder.expression_depth += 1;
        self.nodes += 1;
        let siblings = std::mem::take(&mut self.height);
        let bound = if self.binder.expression_depth > MAX_DEPTH {
            let message = format!("expressions nest more than {MAX_DEPTH} levels deep; simplify the query");
            Err(Error::plan(message, place(source)))
        } else {
            self.check_size(source).and_then(|()| self.bind_node(source))
        };
        self.binder.expression_depth -= 1;
        let height = self.height + 1;
        self.height = siblings.max(height);
        if height > MAX_HEIGHT {
            let message =
                format!("the expression is more than {MAX_HEIGHT} operators high; simplify the query");
            return Err(Error::plan(message, place(source)));
        }
        bound
    }

    fn check_size(&self, source: &ast::Expr) -> Result<()> {
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = "the expressions are too large with aliases and repeated operands written out; simplify the query";
        Err(Error::plan(message, place(source)))
    }

    /// A second copy of an operand of `source`, which evaluates it once but reads it twice.
    pub(super) fn copy(&mut self, operand: &Expr, source: &ast::Expr) -> Result<Expr> {
        self.nodes += operand.node_count();
        self.check_size(source)?;
        Ok(operand.clone())
    }

    /// One arm per construct; what an arm needs is a method, which keeps this recursive frame small.
    fn bind_node(&mut self, source: &ast::Expr) -> Result<Expr> {
        match source {
            ast::Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            ast::Expr::CompoundIdentifier(parts) => self.column(parts),
            ast::Expr::Nested(inner) => self.bind(inner),
            ast::Expr::Value(value) => {
                literal::value(&value.value, super::location(value.span)).map(Expr::Literal)
            }
            ast::Expr::TypedString(typed) => self.typed_string(typed, source),
            ast::Expr::Interval(interval) => literal::interval(interval, place(source)).map(Expr::Literal),
            ast::Expr::BinaryOp { .. } => self.chain(source),
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr, source),
            ast::Expr::Between { expr, negated, low, high } => {
                self.between(expr, low, high, source).map(|e| negate_if(*negated, e))
            }
            ast::Expr::InList { expr, list, negated } => {
                self.in_list(expr, list, source).map(|e| negate_if(*negated, e))
            }
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), false).map(|e| negate_if(*negated, e))
            }
            ast::Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), true).map(|e| negate_if(*negated, e))
            }
            ast::Expr::IsNull(e) | ast::Expr::IsUnknown(e) => Ok(Expr::IsNull(Box::new(self.bind(e)?))),
            ast::Expr::IsNotNull(e) | ast::Expr::IsNotUnknown(e) => {
                Ok(Expr::Not(Box::new(Expr::IsNull(Box::new(self.bind(e)?)))))
            }
            ast::Expr::IsTrue(e) => self.truth(e, true, CompareOp::IsNotDistinct),
            ast::Expr::IsNotTrue(e) => self.truth(e, true, CompareOp::IsDistinct),
            ast::Expr::IsFalse(e) => self.truth(e, false, CompareOp::IsNotDistinct),
            ast::Expr::IsNotFalse(e) => self.truth(e, false, CompareOp::IsDistinct),
            ast::Expr::IsDistinctFrom(a, b) => self.comparison(CompareOp::IsDistinct, a, b, source),
            ast::Expr::IsNotDistinctFrom(a, b) => self.comparison(CompareOp::IsNotDistinct, a, b, source),
            ast::Expr::Cast { kind, expr, data_type, format: None } => {
                let is_try = match kind {
                    ast::CastKind::Cast | ast::CastKind::DoubleColon => false,
                    ast::CastKind::TryCast | ast::CastKind::SafeCast => true,
                };
                self.cast(expr, data_type, is_try, source)
            }
            ast::Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            ast::Expr::Extract { field, expr, .. } => self.extract(field, expr, source),
            ast::Expr::Substring { expr, substring_from, substring_for, .. } => {
                let from = substring_from.as_deref();
                // SUBSTRING(x FOR n) starts at the first character.
                let start = match (from, substring_for) {
                    (Some(from), _) => Some(self.bind(from)?),
                    (None, Some(_)) => Some(Expr::Literal(Scalar::int(DataType::Int64, 1))),
                    (None, None) => None,
                };
                let mut arguments = vec![self.bind(expr)?];
                arguments.extend(start);
                if let Some(length) = substring_for {
                    arguments.push(self.bind(length)?);
                }
                self.call("substring", arguments, place(source))
            }
            ast::Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    None | Some(ast::TrimWhereField::Both) => "trim",
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                };
                let mut arguments = vec![self.bind(expr)?];
                let characters = trim_characters.iter().flatten();
                for e in trim_what.as_deref().into_iter().chain(characters) {
                    arguments.push(self.bind(e)?);
                }
                self.call(name, arguments, place(source))
            }
            ast::Expr::Ceil { expr, field } => self.rounding("ceil", expr, field, source),
            ast::Expr::Floor { expr, field } => self.rounding("floor", expr, field, source),
            ast::Expr::Position { expr, r#in } => {
                let arguments = vec![self.bind(r#in)?, self.bind(expr)?];
                self.call("position", arguments, place(source))
            }
            ast::Expr::Function(function) => self.function(function),
            ast::Expr::Subquery(query) => self.scalar_subquery(query),
            ast::Expr::Exists { subquery, negated } => self.exists(subquery, *negated),
            ast::Expr::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            ast::Expr::AnyOp { left, compare_op, right, .. } => {
                self.quantified(left, compare_op, right, false, source)
            }
            ast::Expr::AllOp { left, compare_op, right } => {
                self.quantified(left, compare_op, right, true, source)
            }
            other => Err(Error::unsupported(describe(other), place(other))),
        }
    }

    fn column(&mut self, parts: &[ast::Ident]) -> Result<Expr> {
        let location = parts.first().and_then(|part| super::location(part.span));
        match self.scope.find(parts)? {
            Some(Resolved::Own(column)) => Ok(self.read_column(column, location, self.clause)),
            // For this query it is a constant.
            Some(Resolved::Outer(column)) => Ok(column.to_expr()),
            None => self.alias(parts, location),
        }
    }

    /// A name that is no column may be an alias of the select list.
    fn alias(&mut self, parts: &[ast::Ident], location: Option<Location>) -> Result<Expr> {
        let aliases = self.aliases;
        let position = match parts {
            [name] => aliases.iter().position(|(alias, _)| same_name(alias, &name.value)),
            _ => None,
        };
        let Some(position) = position else {
            let names: Vec<String> = aliases.iter().map(|(alias, _)| alias.clone()).collect();
            return Err(self.scope.unknown(parts, &names));
        };
        if self.expanding.contains(&position) {
            let message = format!("alias \"{}\" is defined by itself", aliases[position].0);
            return Err(Error::plan(message, location));
        }
        self.expanding.push(position);
        let bound = self.bind(aliases[position].1);
        self.expanding.pop();
        bound
    }

    /// Binary operators, left-deep chains without recursion on their length.
    fn chain(&mut self, source: &ast::Expr) -> Result<Expr> {
        let mut links = vec![];
        let mut leftmost = source;
        while let ast::Expr::BinaryOp { left, op, right } = leftmost {
            links.push((op, right.as_ref(), leftmost));
            leftmost = left;
        }
        let mut bound = self.bind(leftmost)?;
        let mut left_source = leftmost;
        while let Some((op, right, node)) = links.pop() {
            self.nodes += 1;
            let right_bound = self.bind(right)?;
            // A conjunction or disjunction stays one node however long it is.
            self.height += usize::from(!matches!(op, ast::BinaryOperator::And | ast::BinaryOperator::Or));
            bound = self.binary(op, (bound, left_source), (right_bound, right), node)?;
            left_source = node;
        }
        Ok(bound)
    }

    fn binary(
        &mut self,
        op: &ast::BinaryOperator,
        (left, left_source): (Expr, &ast::Expr),
        (right, right_source): (Expr, &ast::Expr),
        node: &ast::Expr,
    ) -> Result<Expr> {
        use ast::BinaryOperator as B;
        if let Some(op) = compare_op(op) {
            return compare(op, left, right).map_err(|e| located(e, place(node)));
        }
        let arithmetic_op = match op {
            B::And | B::Or => {
                let (left, right) = (to_boolean(left, left_source)?, to_boolean(right, right_source)?);
                return Ok(junction(left, right, matches!(op, B::And)));
            }
            B::StringConcat => return self.call("||", vec![left, right], place(node)),
            B::PGExp => return self.call("pow", vec![left, right], place(node)),
            B::Plus => ArithmeticOp::Add,
            B::Minus => ArithmeticOp::Subtract,
            B::Multiply => ArithmeticOp::Multiply,
            B::Divide => ArithmeticOp::Divide,
            B::DuckIntegerDivide | B::MyIntegerDivide => ArithmeticOp::IntegerDivide,
            B::Modulo => ArithmeticOp::Modulo,
            other => return Err(Error::unsupported(format!("the operator {other}"), place(node))),
        };
        arithmetic(arithmetic_op, left, right).map_err(|e| located(e, place(node)))
    }

    fn unary(&mut self, op: ast::UnaryOperator, operand: &ast::Expr, source: &ast::Expr) -> Result<Expr> {
        match op {
            ast::UnaryOperator::Not => {
                let bound = self.bind(operand)?;
                Ok(Expr::Not(Box::new(to_boolean(bound, operand)?)))
            }
            ast::UnaryOperator::Minus => {
                if let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), span }) =
                    operand
                {
                    // The most negative integer has no positive counterpart of its type.
                    let literal = literal::number(&format!("-{digits}"), super::location(*span))?;
                    return Ok(Expr::Literal(literal));
                }
                let bound = self.bind(operand)?;
                let data_type = bound.data_type();
                if data_type.is_numeric() || matches!(data_type, DataType::Interval | DataType::Null) {
                    Ok(Expr::Negate(Box::new(bound)))
                } else {
                    Err(Error::plan(format!("cannot negate a value of type {data_type}"), place(source)))
                }
            }
            ast::UnaryOperator::Plus => self.bind(operand),
            other => Err(Error::unsupported(format!("the operator {other}"), place(source))),
        }
    }

    fn comparison(
        &mut self,
        op: CompareOp,
        left: &ast::Expr,
        right: &ast::Expr,
        source: &ast::Expr,
    ) -> Result<Expr> {
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        compare(op, left, right).map_err(|e| located(e, place(source)))
    }

    fn truth(&mut self, operand: &ast::Expr, value: bool, op: CompareOp) -> Result<Expr> {
        let bound = self.bind(operand)?;
        let bound = to_boolean(bound, operand)?;
        compare(op, bound, Expr::Literal(Scalar::boolean(value))).map_err(|e| located(e, place(operand)))
    }

    fn between(
        &mut self,
        operand: &ast::Expr,
        low: &ast::Expr,
        high: &ast::Expr,
        source: &ast::Expr,
    ) -> Result<Expr> {
        let (operand, low, high) = (self.bind(operand)?, self.bind(low)?, self.bind(high)?);
        let copy = self.copy(&operand, source)?;
        compare(CompareOp::GtEq, copy, low)
            .and_then(|above| Ok(Expr::And(vec![above, compare(CompareOp::LtEq, operand, high)?])))
            .map_err(|e| located(e, place(source)))
    }

    fn in_list(&mut self, operand: &ast::Expr, list: &[ast::Expr], source: &ast::Expr) -> Result<Expr> {
        let operand = self.bind(operand)?;
        let mut common = operand.data_type();
        let mut values = Vec::with_capacity(list.len());
        for item in list {
            let value = self.bind(item)?;
            common = common_type(&common, &value.data_type()).ok_or_else(|| {
                let message = format!("IN compares {common} with {}", value.data_type());
                Error::plan(message, place(item))
            })?;
            values.push(value);
        }
        if list.is_empty() {
            return Err(Error::plan("IN needs at least one value", place(source)));
        }
        let operand = cast_to(operand, &common).map_err(|e| located(e, place(source)))?;
        let mut scalars = Vec::with_capacity(values.len());
        let mut computed = vec![];
        for (value, item) in values.into_iter().zip(list) {
            let value = cast_to(value, &common).map_err(|e| located(e, place(item)))?;
            match as_constant(value).map_err(|e| located(e, place(item)))? {
                Expr::Literal(scalar) => scalars.push(scalar),
                other => computed.push(other),
            }
        }
        let mut any = vec![];
        if !scalars.is_empty() {
            let operand = Box::new(self.copy(&operand, source)?);
            any.push(Expr::InList { operand, list: Arc::from(scalars) });
        }
        for value in computed {
            let operand = self.copy(&operand, source)?;
            any.push(compare(CompareOp::Eq, operand, value).map_err(|e| located(e, place(source)))?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Or(any) })
    }

    fn like(
        &mut self,
        operand: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
        ignore_case: bool,
    ) -> Result<Expr> {
        let mut text = |source: &ast::Expr| {
            let bound = self.bind(source)?;
            match bound.data_type() {
                DataType::Utf8 | DataType::Null => {
                    cast_to(bound, &DataType::Utf8).map_err(|e| located(e, place(source)))
                }
                other => Err(Error::plan(
                    format!("LIKE compares text, not {other}; cast it to VARCHAR"),
                    place(source),
                )),
            }
        };
        let (operand, pattern) = (Box::new(text(operand)?), Box::new(text(pattern)?));
        let escape = match escape {
            Some(source) => literal::escape(source)?,
            None => None,
        };
        Ok(Expr::Like { operand, pattern, escape, ignore_case })
    }

    fn typed_string(&mut self, typed: &ast::TypedString, source: &ast::Expr) -> Result<Expr> {
        let value = literal::value(&typed.value.value, super::location(typed.value.span))?;
        let to = types::data_type(&typed.data_type, place(source))?;
        explicit_cast(Expr::Literal(value), to, false, source)
    }

    fn cast(
        &mut self,
        operand: &ast::Expr,
        data_type: &ast::DataType,
        is_try: bool,
        source: &ast::Expr,
    ) -> Result<Expr> {
        let bound = self.bind(operand)?;
        let to = types::data_type(data_type, place(source))?;
        explicit_cast(bound, to, is_try, source)
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Expr> {
        let operand = operand.map(|e| self.bind(e)).transpose()?;
        let mut branches = Vec::with_capacity(conditions.len());
        for when in conditions {
            let condition = self.bind(&when.condition)?;
            let condition = match &operand {
                Some(operand) => {
                    let operand = self.copy(operand, &when.condition)?;
                    compare(CompareOp::Eq, operand, condition)
                        .map_err(|e| located(e, place(&when.condition)))?
                }
                None => to_boolean(condition, &when.condition)?,
            };
            branches.push((condition, (self.bind(&when.result)?, place(&when.result))));
        }
        let otherwise = match otherwise {
            Some(e) => Some((self.bind(e)?, place(e))),
            None => None,
        };
        case_of(branches, otherwise)
    }

    fn extract(
        &mut self,
        field: &ast::DateTimeField,
        operand: &ast::Expr,
        source: &ast::Expr,
    ) -> Result<Expr> {
        let bound = self.bind(operand)?;
        let field = field.to_string().trim_matches('\'').to_lowercase();
        if functions::scalar::find(&field).is_some() {
            return self.call(&field, vec![bound], place(source));
        }
        self.call("date_part", vec![Expr::Literal(Scalar::utf8(field)), bound], place(source))
    }

    fn rounding(
        &mut self,
        name: &'static str,
        operand: &ast::Expr,
        field: &ast::CeilFloorKind,
        source: &ast::Expr,
    ) -> Result<Expr> {
        match field {
            ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) => {
                let bound = self.bind(operand)?;
                self.call(name, vec![bound], place(source))
            }
            ast::CeilFloorKind::DateTimeField(_) | ast::CeilFloorKind::Scale(_) => {
                Err(Error::unsupported(format!("{name} to a unit or scale"), place(source)))
            }
        }
    }

    /// The name of the clause being bound.
    pub(super) fn clause_name(&self) -> &'static str {
        self.clause.name()
    }
}

/// `CASE`: all results are cast to their common type.
pub(super) fn case_of(
    branches: Vec<(Expr, (Expr, Option<Location>))>,
    otherwise: Option<(Expr, Option<Location>)>,
) -> Result<Expr> {
    let mut common = DataType::Null;
    for (result, location) in branches.iter().map(|(_, result)| result).chain(&otherwise) {
        let data_type = result.data_type();
        common = common_type(&common, &data_type).ok_or_else(|| {
            let message =
                format!("the results {common} and {data_type} have no common type; cast one of them");
            Error::plan(message, *location)
        })?;
    }
    let coerce = |(result, location): (Expr, Option<Location>)| {
        cast_to(result, &common).map_err(|e| located(e, location))
    };
    let branches = branches
        .into_iter()
        .map(|(condition, result)| Ok((condition, coerce(result)?)))
        .collect::<Result<_>>()?;
    let otherwise = otherwise.map(coerce).transpose()?.map(Box::new);
    Ok(Expr::Case { branches, otherwise, data_type: common })
}

/// A cast the query asks for. One of a constant is done at once, so that its failure has a place.
fn explicit_cast(operand: Expr, to: DataType, is_try: bool, source: &ast::Expr) -> Result<Expr> {
    if operand.data_type() == to {
        return Ok(operand);
    }
    let cast = Expr::Cast { operand: Box::new(operand), data_type: to, is_try };
    as_constant(cast).map_err(|e| located(e, place(source)))
}

/// The value of an expression over literals only, where it is a cast of one or a negation; anything else unchanged.
fn as_constant(expr: Expr) -> Result<Expr> {
    let is_constant = match &expr {
        Expr::Cast { operand, .. } | Expr::Negate(operand) => matches!(operand.as_ref(), Expr::Literal(_)),
        _ => false,
    };
    if is_constant { evaluate_constant(&expr).map(Expr::Literal) } else { Ok(expr) }
}

/// The operand of a logical operator.
pub(super) fn to_boolean(expr: Expr, source: &ast::Expr) -> Result<Expr> {
    match expr.data_type() {
        DataType::Boolean => Ok(expr),
        other if other.is_numeric() || matches!(other, DataType::Null | DataType::Utf8) => {
            cast_to(expr, &DataType::Boolean).map_err(|e| located(e, place(source)))
        }
        other => {
            Err(Error::plan(format!("expected a condition, not a value of type {other}"), place(source)))
        }
    }
}

/// The comparison an operator of the text is, if it is one.
pub(super) fn compare_op(op: &ast::BinaryOperator) -> Option<CompareOp> {
    Some(match op {
        ast::BinaryOperator::Eq => CompareOp::Eq,
        ast::BinaryOperator::NotEq => CompareOp::NotEq,
        ast::BinaryOperator::Lt => CompareOp::Lt,
        ast::BinaryOperator::LtEq => CompareOp::LtEq,
        ast::BinaryOperator::Gt => CompareOp::Gt,
        ast::BinaryOperator::GtEq => CompareOp::GtEq,
        _ => return None,
    })
}

pub(super) fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated { Expr::Not(Box::new(expr)) } else { expr }
}

/// AND or OR; operands that are such themselves contribute theirs, so that a chain stays one node.
fn junction(left: Expr, right: Expr, is_and: bool) -> Expr {
    let operands = |e: Expr| match e {
        Expr::And(list) if is_and => list,
        Expr::Or(list) if !is_and => list,
        other => vec![other],
    };
    let mut list = operands(left);
    list.extend(operands(right));
    if is_and { Expr::And(list) } else { Expr::Or(list) }
}

/// What to call a construct nobody binds.
fn describe(expr: &ast::Expr) -> String {
    match expr {
        ast::Expr::Like { .. } | ast::Expr::ILike { .. } => "LIKE ANY".into(),
        ast::Expr::SimilarTo { .. } | ast::Expr::RLike { .. } => "regular expressions".into(),
        ast::Expr::Tuple(_) => "row values".into(),
        ast::Expr::Array(_) | ast::Expr::CompoundFieldAccess { .. } => "lists and subscripts".into(),
        ast::Expr::Struct { .. } | ast::Expr::Dictionary(_) | ast::Expr::Map(_) => "structs and maps".into(),
        ast::Expr::AtTimeZone { .. } => "AT TIME ZONE".into(),
        ast::Expr::Collate { .. } => "COLLATE".into(),
        ast::Expr::Lambda(_) => "lambdas".into(),
        ast::Expr::Cast { .. } => "CAST … FORMAT".into(),
        other => format!("the expression {other}"),
    }
}
