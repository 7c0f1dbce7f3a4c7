//! Streaming: fills, resumes, ranges and wrong bytes, against a chaos upstream.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this crate is tests: a surprise ends the test at the line where it shows"
)]

mod abandoned;
mod broken;
mod cold;
mod disk;
mod kill;
mod limits;
mod model;
mod raw;
mod sizes;
mod together;
mod windows;
mod wrong;
