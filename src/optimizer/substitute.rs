//! Expressions in terms of a node's inputs instead of its outputs.

use crate::expr::{ColumnId, Expr};
use crate::logical::Column;
use std::collections::HashMap;

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
