//! Group keys that are the same for every row do not group: they are computed after the aggregation.

use super::Rule;
use crate::error::Result;
use crate::expr::Expr;
use crate::logical::{Column, ColumnIds, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct ConstantGroups;

impl Rule for ConstantGroups {
    fn name(&self) -> &'static str {
        "constant_groups"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        let Plan::Aggregate { input, groups, aggregates } = node else { return Ok(Arc::new(node)) };
        let is_constant = |(_, key): &(Column, Expr)| matches!(key, Expr::Literal(_));
        // Without any key left, no rows would make one group instead of none: the first constant stays.
        let kept: Vec<(Column, Expr)> = if groups.iter().all(is_constant) {
            groups.iter().take(1).cloned().collect()
        } else {
            groups.iter().filter(|group| !is_constant(group)).cloned().collect()
        };
        if kept.len() == groups.len() {
            return Ok(Arc::new(Plan::Aggregate { input, groups, aggregates }));
        }
        let columns = groups
            .into_iter()
            .map(|(column, key)| {
                let computed = kept.iter().any(|(known, _)| known.id == column.id);
                let expr = if computed { column.to_expr() } else { key };
                (column, expr)
            })
            .chain(aggregates.iter().map(|(column, _)| (column.clone(), column.to_expr())))
            .collect();
        let aggregate = Plan::Aggregate { input, groups: kept, aggregates };
        Ok(Arc::new(Plan::Project { input: Arc::new(aggregate), columns }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn constants_leave_the_key() {
        assert_rewrites(
            &ConstantGroups,
            "select 'x' as k, a, count(*) from t group by 1, 2",
            "Project: k, a, count_star()\n  Project: 'x' AS k, a, count_star()\n    \
             Aggregate: groups=[a] aggregates=[count(*) AS count_star()]\n      Scan t: [a, b, c, d]\n",
        );
    }

    #[test]
    fn one_constant_stays_as_the_only_key() {
        assert_rewrites(
            &ConstantGroups,
            "select 'x' as k, count(*) from t group by k, 'y'",
            "Project: k, count_star()\n  Project: k, 'y', count_star()\n    \
             Aggregate: groups=['x' AS k] aggregates=[count(*) AS count_star()]\n      Scan t: [a, b, c, d]\n",
        );
    }
}
