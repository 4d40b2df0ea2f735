//! What an engine is built with: sessions see it and cannot change it.

use super::units::format_bytes;
use super::{Setting, Settings};
use crate::session::engine::EngineInner;

macro_rules! engine_wide {
    ($(#[doc = $what:literal] $type:ident, $name:literal, $builder:literal, |$engine:ident| $value:expr;)*) => { $(
        pub(super) struct $type;

        impl Setting for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn description(&self) -> &'static str {
                $what
            }

            fn set(&self, _settings: &mut Settings, _value: Option<&str>) -> Result<(), String> {
                Err(concat!("it belongs to the engine, for all its sessions; use EngineBuilder::", $builder).to_owned())
            }

            fn value(&self, _settings: &Settings, $engine: &EngineInner) -> String {
                $value
            }
        }
    )* };
}

engine_wide! {
    #[doc = "queries that run at a time; others wait for their turn"]
    MaxConcurrentQueries, "max_concurrent_queries", "max_concurrent_queries", |engine| match engine.max_concurrent_queries {
        usize::MAX => String::new(),
        most => most.to_string(),
    };
    #[doc = "the most bytes all spill files together may take"]
    MaxTempDirectorySize, "max_temp_directory_size", "max_temp_directory_size", |engine| {
        format_bytes(engine.spill.quota_bytes())
    };
    #[doc = "where queries spill"]
    TempDirectory, "temp_directory", "temp_directory", |engine| {
        engine.spill.places().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    #[doc = "worker threads"]
    Threads, "threads", "threads", |engine| engine.threads.to_string();
}
