//! What every HTTP listener of Tidegate does alike: set-up, request log, metrics, health, error bodies.
//!
//! A service brings routes and state; this crate brings the server around them, so that a request to either service is
//! counted, logged, refused and shut down in the same way.

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
