//! Sort keys that cannot change the order vanish: constants, and repetitions of a key before them.

use super::Rule;
use crate::error::Result;
use crate::expr::Expr;
use crate::logical::{ColumnIds, Plan, SortKey};
use std::sync::Arc;

/// See the module.
pub(super) struct SortKeys;

impl Rule for SortKeys {
    fn name(&self) -> &'static str {
        "sort_keys"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        let Plan::Sort { input, keys, fetch } = node else { return Ok(Arc::new(node)) };
        let mut kept: Vec<SortKey> = vec![];
        for key in keys {
            let is_constant = is_constant_in(&key.expr, &input);
            if !is_constant && !kept.iter().any(|earlier| earlier.expr == key.expr) {
                kept.push(key);
            }
        }
        Ok(match (kept.is_empty(), fetch) {
            (false, _) => Arc::new(Plan::Sort { input, keys: kept, fetch }),
            (true, None) => input,
            (true, Some(fetch)) => Arc::new(Plan::Limit { input, skip: 0, fetch: Some(fetch) }),
        })
    }
}

/// Whether an expression is a literal, or a column the node right below computes as one.
fn is_constant_in(expr: &Expr, input: &Plan) -> bool {
    match (expr, input) {
        (Expr::Literal(_), _) => true,
        (Expr::Column { id, .. }, Plan::Project { columns, .. }) => {
            columns.iter().any(|(column, value)| column.id == *id && matches!(value, Expr::Literal(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn repeated_and_constant_keys_vanish() {
        assert_rewrites(
            &SortKeys,
            "select a, 1 as k from t order by a, k, a desc, b",
            "Project: a, k\n  Sort: a, b\n    Project: a, 1 AS k, b\n      Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &SortKeys,
            "select 1 as k from t order by k",
            "Project: 1 AS k\n  Scan t: [a, b, c, d]\n",
        );
    }
}
