//! Real servers, a chaos upstream, and the scenarios that run on them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this crate is tests: an unexpected result fails the test at its line"
)]

pub mod balancer;
pub mod chaos;
pub mod cluster;
pub mod eventually;
pub mod http_client;
pub mod http_proxy;
pub mod image;
pub mod load;
pub mod process;
pub mod puller;
pub mod real_registry;
pub mod s3_server;
pub mod tcp_proxy;
pub mod tool;
pub mod world;
