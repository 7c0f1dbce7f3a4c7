//! Scenarios: a real Tidegate in front of a chaos upstream.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of this crate is tests: a surprise ends the test at the line where it shows"
)]

mod accept;
mod bad_answers;
mod bad_input;
mod blobs;
mod by_digest;
mod by_tag;
mod clocks;
mod credentials;
mod documents;
mod identity;
mod jobs;
mod limits;
mod links;
mod listing;
mod operations;
mod presigned;
mod proofs;
mod proxies;
mod pulls;
mod referrers;
mod resolve;
mod restart;
mod sharing;
mod stale;
mod support;
mod together;
