//! Types of the OCI image and distribution specifications, validated where they are parsed.
//!
//! Nothing in this crate does I/O. The feature `diesel` lets the types be stored as database columns.

mod column;
pub mod constant_blobs;
pub mod content_range;
pub mod digest;
pub mod failure;
pub mod hasher;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod referrer;
pub mod time;

pub use content_range::ContentRange;
pub use digest::{Algorithm, Digest};
pub use failure::UpstreamFailure;
pub use hasher::{Hasher, HasherState, HasherStateError};
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use name::{Reference, RepositoryName, Tag};
pub use referrer::Referrer;
pub use time::Millis;
