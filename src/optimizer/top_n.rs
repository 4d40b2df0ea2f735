//! A sort of which only the first rows are asked for keeps only those.

use super::Rule;
use crate::error::Result;
use crate::logical::{ColumnIds, Plan};
use std::sync::Arc;

/// See the module.
pub(super) struct TopN;

impl Rule for TopN {
    fn name(&self) -> &'static str {
        "top_n"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let node = plan.try_map_inputs(&mut |input| self.apply(input, ids))?;
        let Plan::Limit { input, skip, fetch: Some(rows) } = &node else { return Ok(Arc::new(node)) };
        let Plan::Sort { input: unsorted, keys, fetch } = input.as_ref() else { return Ok(Arc::new(node)) };
        let needed = skip.saturating_add(*rows);
        let fetch = Some(fetch.map_or(needed, |known| known.min(needed)));
        let sort = Arc::new(Plan::Sort { input: Arc::clone(unsorted), keys: keys.clone(), fetch });
        // The sort emits no row too many; only rows to skip still need a limit.
        if *skip == 0 {
            return Ok(sort);
        }
        Ok(Arc::new(Plan::Limit { input: sort, skip: *skip, fetch: Some(*rows) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn a_limited_sort_keeps_what_is_asked_for() {
        assert_rewrites(
            &TopN,
            "select a from t order by a desc limit 3",
            "Top 3: a DESC\n  Project: a\n    Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &TopN,
            "select a from t order by a limit 3 offset 4",
            "Limit: 3 offset 4\n  Top 7: a\n    Project: a\n      Scan t: [a, b, c, d]\n",
        );
    }
}
