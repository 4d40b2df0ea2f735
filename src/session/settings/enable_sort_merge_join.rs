//! `enable_sort_merge_join`: whether the planner may choose merge joins.

use super::{Setting, Settings, units};
use crate::session::engine::EngineInner;

pub(super) struct EnableSortMergeJoin;

impl Setting for EnableSortMergeJoin {
    fn name(&self) -> &'static str {
        "enable_sort_merge_join"
    }

    fn description(&self) -> &'static str {
        "whether joins of inputs in the order of their keys may be merged instead of hashed"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        settings.enable_sort_merge_join = units::boolean(value)?;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        settings.enable_sort_merge_join.unwrap_or(engine.joins.allows_merge).to_string()
    }
}
