//! The `tidegate` command: modes, configuration, and the wiring of the services.

pub mod cli;
pub mod config;
pub mod first_run;
pub mod health;
pub mod process;
mod services;
mod storage;
pub mod telemetry;
mod upstream_metrics;
mod upstream_sharing;
