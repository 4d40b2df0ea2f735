//! Aggregates of groups from those of parts of the groups. What rules share, not a rule.

use crate::data::{Field, Scalar};
use crate::error::{Error, Result};
use crate::expr::{Expr, cast_to};
use crate::functions::AggregateCall;
use crate::functions::aggregate::built_in;
use crate::logical::{Column, ColumnIds, Plan};
use std::sync::Arc;

/// Whether a plain aggregate of a group follows from those of its parts.
pub(super) fn has_parts(call: &AggregateCall) -> bool {
    matches!(call.function.name(), "count" | "sum" | "min" | "max" | "bool_and" | "bool_or" | "any_value")
}

/// Whether the result is the same with every value once.
pub(super) fn ignores_repetition(call: &AggregateCall) -> bool {
    matches!(call.function.name(), "min" | "max" | "bool_and" | "bool_or" | "any_value" | "first")
}

/// `aggregate` with `outputs` over it, if its own columns are not those.
pub(super) fn with_outputs(aggregate: Plan, outputs: Vec<(Column, Expr)>) -> Plan {
    if outputs.iter().all(|(column, e)| *e == column.to_expr()) {
        return aggregate;
    }
    Plan::Project { input: Arc::new(aggregate), columns: outputs }
}

/// The call that puts the parts of a plain aggregate together, which are in column `part`, and its result as the
/// aggregate's, which is called `column`.
pub(super) fn put_together(
    call: &AggregateCall,
    column: &Column,
    part: &Column,
    is_ungrouped: bool,
    ids: &mut ColumnIds,
) -> Result<((Column, AggregateCall), Expr)> {
    let is_count = call.function.name() == "count";
    let function = if is_count { built_in("sum")? } else { Arc::clone(&call.function) };
    let (types, data_type) = function.signature(std::slice::from_ref(&part.field.data_type))?;
    let [wanted] = types.as_slice() else {
        return Err(Error::internal(format!("{} of one argument takes {}", function.name(), types.len())));
    };
    let arguments = vec![cast_to(part.to_expr(), wanted)?];
    let total = AggregateCall { function, arguments, distinct: false, filter: None, data_type };
    if total.data_type == call.data_type && !is_count {
        return Ok(((column.clone(), total), column.to_expr()));
    }
    let field = Field { data_type: total.data_type.clone(), nullable: true, ..column.field.clone() };
    let sum = Column { id: ids.fresh(), field };
    let mut value = cast_to(sum.to_expr(), &call.data_type)?;
    if is_count && is_ungrouped {
        let is_null = Expr::IsNull(Box::new(sum.to_expr()));
        let zero = Expr::Literal(Scalar::int(call.data_type.clone(), 0));
        let data_type = call.data_type.clone();
        value = Expr::Case { branches: vec![(is_null, zero)], otherwise: Some(Box::new(value)), data_type };
    }
    Ok(((sum, total), value))
}
