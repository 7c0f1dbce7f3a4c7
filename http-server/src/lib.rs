//! The common parts of every HTTP listener of Tidegate: setup, request log, metrics, health, error
//! bodies.
//!
//! A service provides routes and state. This crate provides the server, so that both services
//! count, log and reject requests, and shut down, in the same way.

mod access;
mod conditional;
mod connection;
pub mod health;
pub mod metrics;
pub mod oci;
mod server;
mod upstream;

pub use access::Route;
pub use conditional::if_none_match;
pub use health::{Health, Readiness, Refresh};
pub use metrics::HttpMetrics;
pub use oci::{OciCode, OciError};
pub use server::{Listen, Options, is_read, only_read, serve, unmatched};
pub use upstream::{DEFAULT_RETRY_AFTER, Resource};
