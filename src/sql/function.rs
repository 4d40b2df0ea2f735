//! Function calls: special forms, aggregates, scalar functions.

use super::expression::{ExprBinder, case_of, to_boolean};
use super::{located, name, ordered, place};
use crate::data::Scalar;
use crate::error::{Error, Location, Result};
use crate::expr::{self, CompareOp, Expr, cast_to, compare};
use crate::functions::{self, AggregateCall, AggregateFunction, Evaluation};
use sqlparser::ast;
use std::sync::Arc;

/// The arguments of a call.
pub(super) struct Arguments<'a> {
    pub(super) list: Vec<&'a ast::Expr>,
    /// `f(*)`.
    pub(super) is_star: bool,
    pub(super) distinct: bool,
}

impl ExprBinder<'_, '_, '_> {
    pub(super) fn function(&mut self, function: &ast::Function) -> Result<Expr> {
        let location = place(&function.name);
        let Some(ast::ObjectNamePart::Identifier(ident)) = function.name.0.last() else {
            return Err(Error::unsupported("computed function names", location));
        };
        let called = ident.value.to_lowercase();
        if function.over.is_some() {
            // The place where window functions will be added.
            return Err(Error::unsupported("window functions", location));
        }
        if function.null_treatment.is_some() {
            return Err(Error::unsupported("IGNORE NULLS and RESPECT NULLS", location));
        }
        let aggregate = functions::aggregate::find(&called);
        let (arguments, descends) = match plain_arguments(function, location)? {
            plain if function.within_group.is_empty() => (plain, false),
            plain => ordered::within_group(function, aggregate.as_deref(), plain, location)?,
        };
        if let Some(aggregate) = aggregate {
            return self.aggregate(aggregate, &arguments, descends, function, location);
        }
        if arguments.is_star || arguments.distinct || function.filter.is_some() {
            let message = format!("{called} is not an aggregate: it takes no *, DISTINCT or FILTER");
            return Err(Error::plan(message, location));
        }
        let sources = &arguments.list;
        let mut bound = Vec::with_capacity(sources.len());
        for source in sources {
            bound.push(self.bind(source)?);
        }
        match (called.as_str(), sources.len()) {
            ("coalesce", 1..) | ("ifnull", 2) => self.coalesce(bound, sources),
            ("nullif", 2) => self.nullif(bound, sources, location),
            ("if", 3) => choose(bound, sources),
            _ => self.call(&called, bound, location),
        }
    }

    /// The first argument that is not null.
    fn coalesce(&mut self, mut arguments: Vec<Expr>, sources: &[&ast::Expr]) -> Result<Expr> {
        let last = arguments.pop().zip(sources.last()).map(|(e, source)| (e, place(*source)));
        if arguments.is_empty()
            && let Some((only, _)) = last
        {
            return Ok(only);
        }
        let mut branches = Vec::with_capacity(arguments.len());
        for (e, source) in arguments.into_iter().zip(sources) {
            let is_null = Expr::IsNull(Box::new(self.copy(&e, source)?));
            branches.push((Expr::Not(Box::new(is_null)), (e, place(*source))));
        }
        case_of(branches, last)
    }

    /// The first argument, or null where it equals the second.
    fn nullif(
        &mut self,
        arguments: Vec<Expr>,
        sources: &[&ast::Expr],
        location: Option<Location>,
    ) -> Result<Expr> {
        let (Ok([value, unwanted]), [source, _]) = (<[Expr; 2]>::try_from(arguments), sources) else {
            return Err(Error::plan("nullif takes two arguments", location));
        };
        let null = Expr::Literal(Scalar::null(value.data_type()));
        let copy = self.copy(&value, source)?;
        let equal = compare(CompareOp::Eq, copy, unwanted).map_err(|e| located(e, location))?;
        let at = place(*source);
        case_of(vec![(equal, (null, at))], Some((value, at)))
    }

    /// A call of the scalar function `called`, arguments coerced to its signature.
    pub(super) fn call(
        &mut self,
        called: &str,
        arguments: Vec<Expr>,
        location: Option<Location>,
    ) -> Result<Expr> {
        let Some(function) = functions::scalar::find(called) else {
            return Err(Error::plan(format!("no function \"{called}\""), location));
        };
        expr::call(function, arguments).map_err(|e| located(e, location))
    }

    fn aggregate(
        &mut self,
        aggregate: Arc<dyn AggregateFunction>,
        arguments: &Arguments<'_>,
        descends: bool,
        function: &ast::Function,
        location: Option<Location>,
    ) -> Result<Expr> {
        if self.in_aggregate {
            return Err(Error::plan("aggregates cannot be nested", location));
        }
        if !self.clause.sees_groups() {
            let remedy = if self.clause_name() == "WHERE" { "; use HAVING" } else { "" };
            let message = format!("{} cannot contain aggregates{remedy}", self.clause_name());
            return Err(Error::plan(message, location));
        }
        if arguments.is_star && arguments.distinct {
            return Err(Error::unsupported("count(DISTINCT *)", location));
        }
        if arguments.is_star && !arguments.list.is_empty() {
            return Err(Error::plan("count takes either * or an expression", location));
        }
        if arguments.is_star && aggregate.name() != "count" {
            let message = format!("{}(*): only count takes *", aggregate.name());
            return Err(Error::plan(message, location));
        }
        self.in_aggregate = true;
        let bound = self.aggregate_operands(arguments, function);
        self.in_aggregate = false;
        let (bound, filter) = bound?;
        let outer = self.scope.outer_ids();
        let (mut any, mut all) = (false, true);
        for e in &bound {
            e.for_each_column(&mut |id| {
                any = true;
                all &= outer.contains(&id);
            });
        }
        if any && all {
            return Err(Error::unsupported("aggregates over columns of the query around only", location));
        }
        let types: Vec<_> = bound.iter().map(Expr::data_type).collect();
        let (expected, data_type) = aggregate.signature(&types).map_err(|e| located(e, location))?;
        let mut bound = coerce(bound, &expected).map_err(|e| located(e, location))?;
        if let (Evaluation::Ordered(_), Some(fraction)) = (aggregate.evaluation(), bound.get_mut(1)) {
            *fraction = ordered::fraction(aggregate.name(), fraction, descends, location)?;
        }
        let call = AggregateCall {
            function: aggregate,
            arguments: bound,
            distinct: arguments.distinct,
            filter,
            data_type,
        };
        let name = name::of_function(function);
        Ok(self.aggregates.result_of(call, name, &mut self.binder.ids))
    }

    fn aggregate_operands(
        &mut self,
        arguments: &Arguments<'_>,
        function: &ast::Function,
    ) -> Result<(Vec<Expr>, Option<Expr>)> {
        let bound = arguments.list.iter().map(|source| self.bind(source)).collect::<Result<_>>()?;
        let filter = match &function.filter {
            Some(source) => {
                let condition = self.bind(source)?;
                Some(to_boolean(condition, source)?)
            }
            None => None,
        };
        Ok((bound, filter))
    }
}

fn coerce(arguments: Vec<Expr>, expected: &[crate::data::DataType]) -> Result<Vec<Expr>> {
    arguments.into_iter().zip(expected).map(|(argument, to)| cast_to(argument, to)).collect()
}

/// The positional arguments; whatever else a call may carry is refused here.
fn plain_arguments(function: &ast::Function, location: Option<Location>) -> Result<Arguments<'_>> {
    let list = match &function.args {
        ast::FunctionArguments::None => {
            return Ok(Arguments { list: vec![], is_star: false, distinct: false });
        }
        ast::FunctionArguments::Subquery(_) => {
            return Err(Error::unsupported("subqueries as function arguments", location));
        }
        ast::FunctionArguments::List(list) => list,
    };
    if !list.clauses.is_empty() {
        return Err(Error::unsupported("ORDER BY and other clauses inside a call", location));
    }
    let mut arguments = Arguments {
        list: Vec::with_capacity(list.args.len()),
        is_star: false,
        distinct: list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct),
    };
    for argument in &list.args {
        match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(source)) => arguments.list.push(source),
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => arguments.is_star = true,
            ast::FunctionArg::Unnamed(
                ast::FunctionArgExpr::QualifiedWildcard(_) | ast::FunctionArgExpr::WildcardWithOptions(_),
            ) => {
                return Err(Error::unsupported(
                    "this form of * as an argument",
                    place(argument).or(location),
                ));
            }
            ast::FunctionArg::Named { .. } | ast::FunctionArg::ExprNamed { .. } => {
                return Err(Error::unsupported("named arguments", place(argument).or(location)));
            }
        }
    }
    Ok(arguments)
}

/// `if(condition, then, otherwise)`.
fn choose(arguments: Vec<Expr>, sources: &[&ast::Expr]) -> Result<Expr> {
    let (Ok([condition, then, otherwise]), [at, then_at, otherwise_at]) =
        (<[Expr; 3]>::try_from(arguments), sources)
    else {
        return Err(Error::plan("if takes a condition and two results", None));
    };
    let condition = to_boolean(condition, at)?;
    case_of(vec![(condition, (then, place(*then_at)))], Some((otherwise, place(*otherwise_at))))
}
