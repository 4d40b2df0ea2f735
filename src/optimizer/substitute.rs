//! Expressions in terms of a node's inputs instead of its outputs.

use crate::expr::{ColumnId, Expr};
use crate::logical::{Column, Plan};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

/// How large an expression may grow by substitution.
const MAX_EXPANDED_NODES: usize = 256;

/// What the columns a node computes stand for.
pub(super) struct Definitions<'a>(HashMap<ColumnId, &'a Expr>);

impl<'a> Definitions<'a> {
    pub(super) fn of(columns: impl IntoIterator<Item = &'a (Column, Expr)>) -> Self {
        Self(columns.into_iter().map(|(column, expr)| (column.id, expr)).collect())
    }

    /// Whether all columns of `expr` are defined here.
    pub(super) fn cover(&self, expr: &Expr) -> bool {
        let mut all = true;
        expr.for_each_column(&mut |id| all &= self.0.contains_key(&id));
        all
    }

    /// Whether `expr` stays of reasonable size with columns replaced by their definitions. Definitions used twice
    /// multiply from one nested query to the next.
    pub(super) fn may_expand(&self, expr: &Expr) -> bool {
        let nodes = expr.node_count();
        let mut expanded = nodes;
        expr.for_each_column(&mut |id| {
            // The definition takes the place of the column, which was a node itself.
            expanded += self.0.get(&id).map_or(0, |definition| definition.node_count() - 1);
        });
        expanded <= nodes.max(MAX_EXPANDED_NODES)
    }

    /// `expr` with columns replaced by their definitions.
    pub(super) fn apply(&self, expr: Expr) -> Expr {
        match &expr {
            Expr::Column { id, .. } => match self.0.get(id) {
                Some(definition) => (*definition).clone(),
                None => expr,
            },
            _ => expr.map_children(&mut |child| self.apply(child)),
        }
    }
}

/// `expr` with columns replaced by what they stand for.
pub(super) fn inline(expr: Expr, definitions: &HashMap<ColumnId, Expr>) -> Expr {
    if definitions.is_empty() {
        return expr;
    }
    match &expr {
        Expr::Column { id, .. } => definitions.get(id).cloned().unwrap_or(expr),
        _ => expr.map_children(&mut |child| inline(child, definitions)),
    }
}

/// `plan` with columns replaced in every expression.
pub(super) fn inline_plan(plan: &Arc<Plan>, definitions: &HashMap<ColumnId, Expr>) -> Arc<Plan> {
    if definitions.is_empty() {
        return Arc::clone(plan);
    }
    let inputs: Result<_, Infallible> = plan.try_map_inputs(&mut |input| Ok(inline_plan(input, definitions)));
    let Ok(node) = inputs.and_then(|node| node.try_map_exprs(&mut |e| Ok(inline(e, definitions))));
    Arc::new(node)
}

/// Whether a column comes out of a plan. What neither side of a join produces belongs to a join further out.
pub(super) fn produced_by(plan: &Plan) -> impl Fn(ColumnId) -> bool + use<> {
    let produced: HashSet<ColumnId> = plan.output_columns().into_iter().map(|column| column.id).collect();
    move |id| produced.contains(&id)
}

/// Whether an expression reads a column that `is_one`.
pub(super) fn reads(expr: &Expr, is_one: &dyn Fn(ColumnId) -> bool) -> bool {
    let mut any = false;
    expr.for_each_column(&mut |id| any |= is_one(id));
    any
}

/// Whether equal inputs give equal values, so that the expression may be moved or evaluated again.
pub(super) fn is_deterministic(expr: &Expr) -> bool {
    if let Expr::Call { function, .. } = expr
        && !function.is_deterministic()
    {
        return false;
    }
    let mut all = true;
    expr.for_each_child(&mut |child| all &= is_deterministic(child));
    all
}

/// Whether it only names a column or a value, so that evaluating it again costs nothing.
pub(super) fn is_trivial(expr: &Expr) -> bool {
    matches!(expr, Expr::Column { .. } | Expr::Literal(_))
}
