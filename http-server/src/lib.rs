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
mod request_id;
mod route;
mod server;
mod unserved;
mod upstream;

pub use conditional::if_none_match;
pub use health::{Health, Readiness, Refresh};
pub use metrics::HttpMetrics;
pub use oci::{OciCode, OciError};
pub use request_id::RequestId;
pub use route::Route;
pub use server::{Listen, Options, serve};
pub use unserved::{is_read, only_read, unmatched};
pub use upstream::{DEFAULT_RETRY_AFTER, Resource};
