//! Tidegate as many nodes: real processes over one PostgreSQL database, that share downloads, die, come and go.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this crate is tests: a surprise ends the test at the line where it shows"
)]

mod clocks;
mod cold;
mod database_lost;
mod drained;
mod killed;
mod migrators;
mod moving_tag;
mod object_store;
mod object_store_away;
mod placement;
mod rolling;
mod support;
