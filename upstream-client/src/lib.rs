//! Speaks the OCI distribution protocol to one upstream registry at a time: manifests, blobs and tag lists.
//!
//! An [`Upstream`] is made once for each configured upstream and shared. It answers challenges and keeps tokens,
//! follows redirects under rules of its own, refuses to dial addresses inside the network, retries what is safe to
//! retry, keeps a circuit breaker and reads the quota headers. What it hands out is either verified (manifests) or
//! marked as not yet verified (the stream of a blob, which whoever stores it has to hash).
//!
//! It never decides what to pull and stores nothing.

mod authorization;
mod blob;
mod body;
mod challenge;
mod config;
mod docker_hub;
mod error;
mod failure;
mod http_clients;
mod manifest;
mod observer;
mod rate_limit;
mod redirect;
mod registrable_domain;
mod request;
mod retry;
mod snapshot;
mod ssrf_guard;
mod tags;
mod token;
mod token_realms;
mod transport;
mod upstream;
mod verdict;

pub use blob::{BlobBody, BlobHead};
pub use config::{Credentials, UpstreamConfig, UpstreamConfigError};
pub use docker_hub::DOCKER_HUB_HOSTS;
pub use error::{InvalidResponse, Unreachable, UpstreamError};
pub use manifest::{FetchedManifest, ManifestHead};
pub use observer::{Observer, Unobserved};
pub use rate_limit::RateLimit;
pub use snapshot::Sighting;
pub use tags::TagPage;
pub use upstream::{Priority, Upstream, UpstreamStatus};
