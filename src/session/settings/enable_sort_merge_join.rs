//! `enable_sort_merge_join`: whether the planner may choose merge joins.

use super::{Setting, Settings};
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
        settings.enable_sort_merge_join = match value.map(|text| text.trim().to_ascii_lowercase()).as_deref()
        {
            None => None,
            Some("true" | "on" | "1") => Some(true),
            Some("false" | "off" | "0") => Some(false),
            Some(_) => return Err("write true or false".to_owned()),
        };
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        settings.enable_sort_merge_join.unwrap_or(engine.joins.allows_merge).to_string()
    }
}
