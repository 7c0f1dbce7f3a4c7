//! The client with local servers, one file per aspect of the protocol.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test that fails fails the test"
)]

mod blobs;
mod breaker;
mod manifests;
mod proxies;
mod redirects;
mod snapshot;
mod support;
mod tags;
mod tls;
mod tokens;
mod transport;
