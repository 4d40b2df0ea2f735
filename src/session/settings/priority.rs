//! `priority`: a query's share of the workers.

use super::{Setting, Settings};
use crate::sched::Priority;
use crate::session::engine::EngineInner;

pub(super) struct QueryPriority;

impl Setting for QueryPriority {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn description(&self) -> &'static str {
        "a query's share of the workers beside other queries: 200 gets twice the time of 100"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let parse = |text: &str| text.trim().parse().ok().and_then(Priority::new);
        settings.priority = match value {
            None => Priority::DEFAULT,
            Some(text) => parse(text).ok_or("write a whole number from 1 on; 100 is the default")?,
        };
        Ok(())
    }

    fn value(&self, settings: &Settings, _engine: &EngineInner) -> String {
        settings.priority.weight().to_string()
    }
}
