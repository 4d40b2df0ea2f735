//! `batch_size`: the most rows of a batch.

use super::{Setting, Settings};
use crate::session::engine::EngineInner;
use crate::session::query::BATCH_ROWS;

pub(super) struct BatchSize;

/// The number, if a batch can have so many rows; else what would do.
pub(in crate::session) fn check(rows: usize) -> Result<usize, String> {
    match (1..=65536).contains(&rows) {
        true => Ok(rows),
        false => Err("write a number of rows from 1 to 65536".to_owned()),
    }
}

impl Setting for BatchSize {
    fn name(&self) -> &'static str {
        "batch_size"
    }

    fn description(&self) -> &'static str {
        "the most rows of a batch; with little memory there are fewer"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let number = value.map(|text| check(text.trim().parse().unwrap_or(0)));
        settings.batch_rows = number.transpose()?;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        settings.batch_rows.or(engine.batch_rows).unwrap_or(BATCH_ROWS).to_string()
    }
}
