//! `spill_partitions`: the most partitions that a join or an aggregation spills to at a time.

use super::{Setting, Settings};
use crate::session::engine::EngineInner;
use crate::session::query::MOST_FAN_OUT;

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
            Ok(number) if (4..=256).contains(&number) && number.is_power_of_two() => Ok(number),
            Ok(_) | Err(_) => Err("write a power of two from 4 to 256".to_owned()),
        });
        settings.spill_partitions = number.transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, _engine: &EngineInner) -> String {
        settings.spill_partitions.unwrap_or(MOST_FAN_OUT).to_string()
    }
}
