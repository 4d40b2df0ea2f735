//! `disabled_optimizers`: rules of the optimizer left out.

use super::{Setting, Settings};
use crate::session::builder::check_optional;
use crate::session::engine::EngineInner;
use std::collections::HashSet;

pub(super) struct DisabledOptimizers;

impl Setting for DisabledOptimizers {
    fn name(&self) -> &'static str {
        "disabled_optimizers"
    }

    fn description(&self) -> &'static str {
        "optimizer rules left out, by name, with commas between them"
    }

    fn set(&self, settings: &mut Settings, value: Option<&str>) -> Result<(), String> {
        let names = |text: &str| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect::<HashSet<String>>()
        };
        let rules = value.map(names);
        if let Some(rules) = &rules {
            check_optional(rules)?;
        }
        settings.disabled_optimizers = rules;
        Ok(())
    }

    fn value(&self, settings: &Settings, engine: &EngineInner) -> String {
        let rules = settings.disabled_optimizers.as_ref().unwrap_or(&engine.optimizer.disabled);
        let mut rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        rules.sort_unstable();
        rules.join(",")
    }
}
