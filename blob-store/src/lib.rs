//! Storage of blobs: verified blobs on the local disk or in an object store, and partial files.
//!
//! [`BlobStore`] has the operations `get`, `head`, `list` and `delete` for stored blobs, which are verified, durable and
//! never written again. A blob is stored in three steps: [`BlobStore::open_partial`], writes through
//! [`Partial::spawn_blocking`], and [`BlobStore::commit`] once the caller has verified the digest.
//!
//! ```
//! use blob_store::{BlobStore, StoredBlob};
//! use oci_types::Digest;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let store = BlobStore::open_local(directory.path())?;
//! let digest = Digest::sha256(b"hello world");
//!
//! // Put: any number of writes, in any order, on the blocking pool.
//! let partial = store.open_partial(&digest, Some(11)).await?;
//! partial
//!     .spawn_blocking(|file| {
//!         file.write_at(6, b"world")?;
//!         file.write_at(0, b"hello ")
//!     })
//!     .await??;
//! store.commit(&partial, &digest, 11, None).await?;
//!
//! // Get: opens the blob, here on the local disk.
//! let blob = store.get(&digest).await?.expect("stored above");
//! assert_eq!(blob.size(), 11);
//!
//! // Read a range: of the file, or as a stream from the object store.
//! let range = match blob {
//!     StoredBlob::File(blob) => {
//!         let read = move || blob_store::ReadBuffer::new(4096).read(&blob.file, 6, 5);
//!         tokio::task::spawn_blocking(read).await??
//!     }
//!     StoredBlob::Object(blob) => {
//!         use futures::TryStreamExt;
//!         blob.get_range(6..11).try_collect::<Vec<_>>().await?.concat().into()
//!     }
//! };
//! assert_eq!(range, "world");
//! # Ok(())
//! # }
//! ```
//!
//! A commit makes bytes durable in this order: written to a file on the same filesystem, `fdatasync`, rename, `fsync` of
//! the directories.
//!
//! Blocking functions are those of [`PartialFile`] and [`ReadBuffer::read`]; all others are `async` or do no I/O, except
//! the functions that open a store.

mod blob;
mod cache;
mod disk;
mod durable;
mod error;
mod layout;
mod partial;
mod read;
mod request_error;
mod s3;
mod segments;
mod store;
mod stream;

pub use blob::{BlobFile, BlobMeta, DiskUsage, StoredBlob};
pub use error::{StoreError, is_damage};
pub use partial::{HashedPrefix, Partial, PartialFile, PartialId, SegmentMap};
pub use read::{ReadBuffer, read_nowait};
pub use request_error::{RequestError, RequestErrorKind};
pub use s3::{AccessKeys, Addressing, BlobObject, Presigner, S3Config, S3Timeouts, Upload};
pub use segments::{Segments, SegmentsError};
pub use store::BlobStore;

#[cfg(test)]
mod tests;
