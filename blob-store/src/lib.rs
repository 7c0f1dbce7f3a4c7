//! Where verified blob bytes and partial fills lie.
//!
//! A blob is filled into a [`Partial`], verified by the caller, and committed: from then on it is *stored*,
//! which means verified, durable and never written again. It lies on a local disk ([`LocalStore`]) or in a bucket of
//! an S3-compatible object store ([`S3Store`]), with a cache tier on the node.
//!
//! Bytes become durable in one order: written to a file on the same filesystem, `fdatasync`, rename, `fsync`
//! of the folders. Methods that touch the disk are `async` and run on the blocking pool of the runtime that
//! opened the store; those of [`Partial`] and the functions of [`read`] block and say so.

mod cache;
mod durable;
mod layout;

pub mod disk;
pub mod error;
pub mod partial;
pub mod read;
pub mod s3;
pub mod segments;
pub mod store;

pub use disk::LocalStore;
pub use error::StoreError;
pub use partial::{Partial, SavedMap};
pub use read::{ReadBuffer, read_nowait};
pub use s3::{AccessKeys, Addressing, Presigner, S3Config, S3Store, S3Timeouts, StoredObject, Upload};
pub use segments::Segments;
pub use store::{BlobStore, DiskUsage, ListedBlob, StoredAt, StoredBlob};

#[cfg(test)]
mod tests;
