//! Domain types, database rows and queries, and the signed content link of Tidegate.
//!
//! Everything here is below the services: nothing in this crate speaks HTTP or touches blob files.

pub mod constant_blobs;
pub mod content_link;
pub mod db;
pub mod digest;
pub mod hasher;
pub mod manifest;
pub mod media_type;
pub mod migrate;
pub mod name;
pub mod noted;
pub mod outage;
pub mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod test_fill;
#[cfg(any(test, feature = "testing"))]
pub mod test_postgres;
pub mod time;

pub use digest::{Algorithm, Digest};
pub use hasher::Hasher;
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use name::{Reference, RepositoryName, Tag};
pub use noted::Noted;
pub use outage::{Change, Outage};
pub use time::Millis;
