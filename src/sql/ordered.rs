//! Calls of aggregates over ordered rows: where the order and the fraction are written.

use super::function::Arguments;
use super::{located, place};
use crate::data::{DataType, Scalar, Value};
use crate::error::{Error, Location, Result};
use crate::expr::{Expr, cast_to, evaluate_constant};
use crate::functions::{AggregateFunction, Evaluation, Ordered};
use sqlparser::ast;

/// The arguments of `f(fraction) WITHIN GROUP (ORDER BY x)` as those of `f(x, fraction)`, and whether `x` descends.
pub(super) fn within_group<'a>(
    function: &'a ast::Function,
    called: Option<&dyn AggregateFunction>,
    mut arguments: Arguments<'a>,
    location: Option<Location>,
) -> Result<(Arguments<'a>, bool)> {
    let kind = match called.map(AggregateFunction::evaluation) {
        Some(Evaluation::Ordered(kind)) => kind,
        Some(Evaluation::States(_)) | None => {
            let message = "WITHIN GROUP goes with percentile_cont, percentile_disc and mode only";
            return Err(Error::plan(message, location));
        }
    };
    let [key] = function.within_group.as_slice() else {
        return Err(Error::plan("WITHIN GROUP takes one expression to order by", location));
    };
    let at = place(&key.expr).or(location);
    let descends = match key.options.sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(_) => return Err(Error::unsupported("ORDER BY … USING", at)),
    };
    if key.with_fill.is_some() {
        return Err(Error::unsupported("WITH FILL", at));
    }
    if descends && kind != Ordered::Continuous {
        let message =
            "DESC in WITHIN GROUP of what is no percentile_cont; order by an expression that ascends";
        return Err(Error::unsupported(message, at));
    }
    if arguments.distinct || arguments.is_star {
        return Err(Error::plan("WITHIN GROUP goes with neither DISTINCT nor *", location));
    }
    arguments.list.insert(0, &key.expr);
    Ok((arguments, descends))
}

/// The fraction an argument is: a constant from 0 to 1, counted from the other end if values descend.
pub(super) fn fraction(
    name: &str,
    argument: &Expr,
    descends: bool,
    location: Option<Location>,
) -> Result<Expr> {
    let mut reads_columns = false;
    argument.for_each_column(&mut |_| reads_columns = true);
    if reads_columns {
        let message = format!("the fraction of {name} must be a constant");
        return Err(Error::plan(message, location));
    }
    let value = evaluate_constant(&cast_to(argument.clone(), &DataType::Float64)?);
    match value.map_err(|error| located(error, location))?.value {
        Value::Float(fraction) if (0.0..=1.0).contains(&fraction) => {
            let fraction = if descends { 1.0 - fraction } else { fraction };
            Ok(Expr::Literal(Scalar { data_type: DataType::Float64, value: Value::Float(fraction) }))
        }
        _ => Err(Error::plan(format!("the fraction of {name} must be from 0 to 1"), location)),
    }
}
