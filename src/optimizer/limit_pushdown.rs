//! Limits pass projections, so that no more rows are computed than asked for, and go into the inputs of unions; nested
//! limits become one, and a limit of no rows leaves none.

use super::Rule;
use crate::error::Result;
use crate::logical::{ColumnIds, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct LimitPushdown;

impl Rule for LimitPushdown {
    fn name(&self) -> &'static str {
        "limit_pushdown"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let Plan::Limit { input, skip, fetch } = plan.as_ref() else {
            return Ok(Arc::new(plan.try_map_inputs(&mut |input| self.apply(input, ids))?));
        };
        Ok(match (input.as_ref(), fetch) {
            (_, Some(0)) => Arc::new(input.emptied()),
            (_, None) if *skip == 0 => self.apply(input, ids)?,
            (Plan::Project { input, columns }, _) => {
                let limited = Arc::new(Plan::Limit { input: Arc::clone(input), skip: *skip, fetch: *fetch });
                let input = self.apply(&limited, ids)?;
                Arc::new(Plan::Project { input, columns: columns.clone() })
            }
            (Plan::Limit { input, skip: inner_skip, fetch: inner_fetch }, _) => {
                // The outer limit counts within what the inner one lets through.
                let left = inner_fetch.map(|rows| rows.saturating_sub(*skip));
                let fetch = [*fetch, left].into_iter().flatten().min();
                let skip = inner_skip.saturating_add(*skip);
                self.apply(&Arc::new(Plan::Limit { input: Arc::clone(input), skip, fetch }), ids)?
            }
            (Plan::UnionAll { columns, inputs, values }, Some(rows)) => {
                // No input has to give more than all are asked for together.
                let fetch_each = Some(skip.saturating_add(*rows));
                let limited = inputs.iter().map(|input| {
                    let input = Arc::clone(input);
                    self.apply(&Arc::new(Plan::Limit { input, skip: 0, fetch: fetch_each }), ids)
                });
                let inputs = limited.collect::<Result<_>>()?;
                let union = Plan::UnionAll { columns: columns.clone(), inputs, values: values.clone() };
                Arc::new(Plan::Limit { input: Arc::new(union), skip: *skip, fetch: *fetch })
            }
            (
                Plan::Scan { .. }
                | Plan::Values { .. }
                | Plan::Filter { .. }
                | Plan::Aggregate { .. }
                | Plan::Join { .. }
                | Plan::UnionAll { .. }
                | Plan::Shared { .. }
                | Plan::Repeat { .. }
                | Plan::LimitPer { .. }
                | Plan::Sort { .. },
                _,
            ) => Arc::new(Plan::Limit { input: self.apply(input, ids)?, skip: *skip, fetch: *fetch }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn limits_pass_projections_and_meet() {
        assert_rewrites(
            &LimitPushdown,
            "select x + 1 as y from (select a + 1 as x from t limit 10 offset 2) limit 5 offset 7",
            "Project: (x + 1) AS y\n  Project: (a + 1) AS x\n    Limit: 3 offset 9\n      Scan t: [a, b, c, d]\n",
        );
    }

    #[test]
    fn a_limit_of_nothing_reads_nothing() {
        assert_rewrites(&LimitPushdown, "select a from t limit 0", "Values: [a] rows=0\n");
        assert_rewrites(&LimitPushdown, "select a from t limit null", "Project: a\n  Scan t: [a, b, c, d]\n");
    }
}
