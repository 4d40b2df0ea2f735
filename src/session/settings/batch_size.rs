//! `batch_size`: the most rows of a batch.

use super::{Setting, Settings};
use crate::session::engine::EngineInner;
use crate::session::query::BATCH_ROWS;

pub(super) struct BatchSize;

impl Setting for BatchSize {
    fn name(&self) -> &'static str {
        "batch_size"
    }

    fn description(&self) -> &'static str {
        "the most rows of a batch; with little memory there are fewer"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let number = value.map(|text| match text.trim().parse::<usize>() {
            Ok(number) if (1..=65536).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err("write a number of rows from 1 to 65536".to_owned()),
        });
        settings.batch_rows = number.transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, _engine: &EngineInner) -> String {
        settings.batch_rows.unwrap_or(BATCH_ROWS).to_string()
    }
}
