//! The bytes of an upload, hashed while they are read.

use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use oci_types::{Digest, Hasher};

use crate::{Partial, StoreError, error::IoContext};

/// Reads a partial file in order and hashes it, so that no object is completed under a digest that
/// its bytes do not match.
pub(super) struct UploadSource {
    partial: Partial,
    /// `None` while the blocking pool has it, and after a failed read.
    hasher: Option<Hasher>,
    offset: u64,
}

impl UploadSource {
    pub(super) fn new(partial: &Partial, digest: &Digest) -> Self {
        Self { partial: partial.clone(), hasher: Some(Hasher::new(digest.algorithm())), offset: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next `length` bytes.
    pub(super) async fn read(&mut self, length: u64) -> Result<Bytes, StoreError> {
        let mut hasher = self.hasher.take().ok_or(StoreError::Closed)?;
        let offset = self.offset;
        let read = self.partial.spawn_blocking(move |file| {
            let path = file.data_path();
            let length = usize::try_from(length).map_err(|_| std::io::ErrorKind::OutOfMemory);
            let mut bytes = BytesMut::zeroed(length.context("read", &path)?);
            file.data().read_exact_at(&mut bytes, offset).context("read", &path)?;
            hasher.update(&bytes);
            Ok((hasher, bytes.freeze()))
        });
        let (hasher, bytes) = read.await.map_err(|_| StoreError::Stopped)??;
        self.hasher = Some(hasher);
        self.offset += length;
        Ok(bytes)
    }

    /// Checks that the bytes read so far are the whole blob.
    pub(super) fn verify(&self, digest: &Digest) -> Result<(), StoreError> {
        let hasher = self.hasher.as_ref().ok_or(StoreError::Closed)?;
        if hasher.clone().finish() == *digest {
            return Ok(());
        }
        Err(StoreError::DigestMismatch { path: self.partial.blocking().data_path() })
    }
}
