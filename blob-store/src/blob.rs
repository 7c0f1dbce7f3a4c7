//! Stored blobs and their properties.

use std::{fs::File, sync::Arc, time::SystemTime};

use oci_types::Digest;

use crate::BlobObject;

/// A stored blob, ready to be read.
#[derive(Debug, Clone)]
pub enum StoredBlob {
    /// On the local disk.
    File(BlobFile),
    /// In the object store.
    Object(BlobObject),
}

impl StoredBlob {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Object(object) => object.size(),
        }
    }
}

/// An open file with the bytes of a stored blob.
#[derive(Debug, Clone)]
pub struct BlobFile {
    /// Size in bytes.
    pub size: u64,
    /// The file. It stays readable after the blob is deleted.
    pub file: Arc<File>,
}

/// Properties of a stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobMeta {
    /// Its digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write; for a blob in the local cache, of the last read.
    pub modified_at: SystemTime,
}

/// Disk space of the stored blobs on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of stored blobs, without partial files.
    pub bytes: u64,
    /// Whether the scan of the blobs that were present at start is complete; before that, `bytes` is too low.
    pub complete: bool,
}
