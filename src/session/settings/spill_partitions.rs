//! `spill_partitions`: the most partitions that a join or an aggregation spills to at a time.

use super::{Setting, Settings};
use crate::session::engine::EngineInner;
use crate::session::query::FAN_OUT;

/// With fewer, rows that do not fit are written too often.
const LEAST: usize = 4;

pub(super) struct SpillPartitions;

/// The number, if so many partitions can be told apart; else what would do.
pub(in crate::session) fn check(partitions: usize) -> Result<usize, String> {
    match (LEAST..=FAN_OUT).contains(&partitions) && partitions.is_power_of_two() {
        true => Ok(partitions),
        false => Err(format!("write a power of two from {LEAST} to {FAN_OUT}")),
    }
}

impl Setting for SpillPartitions {
    fn name(&self) -> &'static str {
        "spill_partitions"
    }

    fn description(&self) -> &'static str {
        "the most partitions that a join or an aggregation spills to at a time, a power of two"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let number = value.map(|text| check(text.trim().parse().unwrap_or(0)));
        settings.spill_partitions = number.transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        settings.spill_partitions.or(engine.spill_partitions).unwrap_or(FAN_OUT).to_string()
    }
}
