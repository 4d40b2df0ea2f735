//! `memory_limit`: bytes one query may hold.

use super::units::{format_bytes, parse_bytes};
use super::{Setting, Settings};
use crate::session::engine::EngineInner;

pub(super) struct MemoryLimit;

impl Setting for MemoryLimit {
    fn name(&self) -> &'static str {
        "memory_limit"
    }

    fn alias(&self) -> Option<&'static str> {
        Some("max_memory")
    }

    fn description(&self) -> &'static str {
        "the most memory one query may hold, within the engine's"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let bytes = value.map(parse_bytes).transpose().map_err(|e| e.to_string())?;
        let in_address_space = |bytes: u64| usize::try_from(bytes).map_err(|e| e.to_string());
        settings.memory_limit = bytes.map(in_address_space).transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        let engine_bytes = engine.pool.limit_bytes();
        format_bytes(settings.memory_limit.map_or(engine_bytes, |own| own.min(engine_bytes)) as u64)
    }
}
