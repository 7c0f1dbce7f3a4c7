//! The `tidegate` command: modes, configuration, and the wiring of the services.

pub mod banner;
pub mod cli;
mod clock;
pub mod config;
mod data_dir;
pub mod health;
mod link_keys;
mod listeners;
pub mod process;
mod services;
pub mod signals;
mod stages;
mod storage;
pub mod telemetry;
mod upstream_metrics;
mod upstream_sharing;
