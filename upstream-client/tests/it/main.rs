//! The client against servers on this machine, one file for each thing an upstream may do.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what helpers of a test cannot do fails the test"
)]

mod blobs;
mod breaker;
mod manifests;
mod redirects;
mod snapshot;
mod support;
mod tags;
mod tls;
mod tokens;
mod transport;
