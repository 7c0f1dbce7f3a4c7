//! A client of the OCI distribution protocol for one upstream registry: manifests, blobs, tag lists and referrers.
//!
//! One [`Upstream`] is made for each configured upstream, and shared. It
//!
//! - answers challenges and caches tokens, and sends credentials to permitted token services only;
//! - follows redirects, but not into the internal network;
//! - retries what is safe to retry, within a time limit;
//! - stops to send requests while its circuit breaker is open, and background requests while the quota is low.
//!
//! Manifests are verified against their digest. Blobs are streamed and not verified: the caller hashes them. Nothing is
//! stored here.
//!
//! A call ([`Upstream::get_manifest`] …) passes through `transport` (may it be made?), `retry` (its attempts), `exchange`
//! (authorization, redirects, each HTTP exchange) and `verdict` (what a response proves).

mod admission;
mod authorization;
mod blob;
mod body;
mod challenge;
mod clock;
mod config;
mod credentials;
mod docker_hub;
mod error;
mod exchange;
mod failure;
mod failure_log;
mod grant;
mod grants;
mod http_clients;
mod manifest;
mod next_page;
mod observer;
mod rate_limit;
mod redirect;
mod referrers;
mod registrable_domain;
mod request;
mod retry;
mod retry_after;
mod snapshot;
mod ssrf_guard;
mod tags;
mod tls;
mod token_realms;
mod transport;
mod upstream;
mod verdict;

pub use admission::{ListPermit, MemoryPermit};
pub use blob::{BlobBody, BlobHead, BlobRange, FirstByteLimit};
pub use config::{UpstreamConfig, UpstreamConfigError};
pub use credentials::Credentials;
pub use docker_hub::DOCKER_HUB_HOSTS;
pub use error::{InvalidResponse, ProxyRefusal, Unreachable, UpstreamError};
pub use manifest::{FetchedManifest, ManifestHead};
pub use observer::{Observer, Unobserved};
pub use rate_limit::RateLimit;
pub use snapshot::UpstreamSnapshot;
pub use tags::{MAX_TAGS, TagCursor, TagPage};
pub use upstream::{Priority, Upstream, UpstreamStatus};
