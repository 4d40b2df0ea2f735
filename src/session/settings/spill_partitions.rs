//! `spill_partitions`: the most partitions that a join or an aggregation spills to at a time.

use super::{Setting, Settings};
use crate::session::engine::EngineInner;
use crate::session::query::MOST_FAN_OUT;

/// With fewer, rows that do not fit are written too often.
const LEAST: usize = 4;

pub(super) struct SpillPartitions;

impl Setting for SpillPartitions {
    fn name(&self) -> &'static str {
        "spill_partitions"
    }

    fn description(&self) -> &'static str {
        "the most partitions that a join or an aggregation spills to at a time, a power of two"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let number = value.map(|text| match text.trim().parse::<usize>() {
            Ok(number) if (LEAST..=MOST_FAN_OUT).contains(&number) && number.is_power_of_two() => Ok(number),
            Ok(_) | Err(_) => Err(format!("write a power of two from {LEAST} to {MOST_FAN_OUT}")),
        });
        settings.spill_partitions = number.transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, _engine: &EngineInner) -> String {
        settings.spill_partitions.unwrap_or(MOST_FAN_OUT).to_string()
    }
}
