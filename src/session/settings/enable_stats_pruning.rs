//! `enable_stats_pruning`: whether scans may leave out what statistics rule out.

use super::{Setting, Settings, units};
use crate::session::engine::EngineInner;

pub(super) struct EnableStatsPruning;

impl Setting for EnableStatsPruning {
    fn name(&self) -> &'static str {
        "enable_stats_pruning"
    }

    fn description(&self) -> &'static str {
        "whether what statistics, page indexes and Bloom filters rule out is left unread"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        settings.enable_stats_pruning = units::boolean(value)?;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        settings.enable_stats_pruning.unwrap_or(engine.prunes).to_string()
    }
}
