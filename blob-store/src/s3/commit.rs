//! From a verified partial file to an object.

use oci_types::Digest;

use super::{
    S3Backend,
    upload::{Upload, Uploader},
};
use crate::{Partial, PartialFile, StoreError, partial::Stage};

impl S3Backend {
    /// Completes the upload, or uploads the blob again, and keeps the file in the local cache if it fits.
    pub(crate) async fn commit(
        &self,
        partial: &Partial,
        digest: &Digest,
        size: u64,
        upload: Option<Upload>,
    ) -> Result<(), StoreError> {
        let checked = partial.spawn_blocking(move |file| is_committed(file, size));
        if checked.await.map_err(|_| StoreError::Stopped)?? {
            return Ok(());
        }
        if !complete(upload, digest, size).await? && self.stored_size(digest).await? != Some(size) {
            self.upload_from_file(partial, digest, size).await?;
        }
        self.cache_or_close(partial, digest, size).await
    }

    async fn stored_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.head(digest).await?.map(|blob| blob.size))
    }

    async fn upload_from_file(
        &self,
        partial: &Partial,
        digest: &Digest,
        size: u64,
    ) -> Result<(), StoreError> {
        partial.set_size(Some(size));
        let mut uploader = Uploader::new(&self.uploads, partial, digest);
        let result = uploader.complete(size).await;
        if result.is_err() {
            uploader.abort().await;
        }
        result
    }

    /// The blob is stored already; failures here are only logged.
    async fn cache_or_close(&self, partial: &Partial, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let (cache, disk, digest) = (self.cache.clone(), self.disk.clone(), digest.clone());
        let done = partial.spawn_blocking(move |file| {
            match cache.commit(file, &digest, size) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "blob stored; failed to keep it in the local cache");
                    // The file may have been renamed without being durable.
                    if let Err(error) = cache.delete(&digest) {
                        tracing::warn!(%digest, %error, "failed to delete a cached blob");
                    }
                }
            }
            if let Err(error) = disk.close(file) {
                tracing::warn!(%digest, %error, "blob stored; failed to remove its partial file");
            }
        });
        done.await.map_err(|_| StoreError::Stopped)
    }
}

/// Whether there is nothing left to do.
fn is_committed(file: &PartialFile, size: u64) -> Result<bool, StoreError> {
    match file.stage() {
        Stage::Committed => return Ok(true),
        Stage::Discarded => return Err(StoreError::Closed),
        Stage::Open | Stage::Renamed => {}
    }
    let actual = file.length()?;
    if actual < size { Err(StoreError::Incomplete { expected: size, actual }) } else { Ok(false) }
}

/// Completes the upload that ran during the download. One that failed, or whose bytes were replaced, is repeated from
/// the file.
async fn complete(upload: Option<Upload>, digest: &Digest, size: u64) -> Result<bool, StoreError> {
    let Some(upload) = upload else { return Ok(false) };
    match upload.complete(size).await {
        Ok(()) => Ok(true),
        Err(error @ (StoreError::Unavailable { .. } | StoreError::DigestMismatch { .. })) => {
            tracing::warn!(%digest, %error, "upload failed; restarting it");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
