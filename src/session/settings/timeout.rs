//! `timeout`: how long one query may take.

use super::units::{format_duration, parse_duration};
use super::{Setting, Settings};
use crate::session::engine::EngineInner;

pub(super) struct Timeout;

impl Setting for Timeout {
    fn name(&self) -> &'static str {
        "timeout"
    }

    fn description(&self) -> &'static str {
        "the time one query may take, waiting for its turn included"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        settings.timeout = value.map(parse_duration).transpose().map_err(|e| e.to_string())?;
        Ok(())
    }

    fn value(&self, settings: &Settings, _engine: &EngineInner) -> String {
        settings.timeout.map(format_duration).unwrap_or_default()
    }
}
