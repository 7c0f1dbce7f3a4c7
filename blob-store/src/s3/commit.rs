//! From a verified partial to a stored object.

use oci_types::Digest;

use super::{
    Inner,
    upload::{Upload, Uploader},
};
use crate::{Partial, StoreError, error::During, partial::Stage};

impl Inner {
    pub(super) async fn commit(
        &self,
        partial: &Partial,
        size: u64,
        upload: Option<Upload>,
    ) -> Result<(), StoreError> {
        match partial.stage_now() {
            Stage::Committed => return Ok(()),
            Stage::Discarded => return Err(StoreError::Closed),
            Stage::Open | Stage::Placed => {}
        }
        let data = partial.data_path();
        let actual = partial.file().metadata().during("look at", &data)?.len();
        if actual < size {
            return Err(StoreError::Short { expected: size, actual });
        }
        let digest = partial.digest();
        if !completed(upload, size, digest).await? && self.size(digest).await? != Some(size) {
            self.upload_whole(partial, size).await?;
        }
        self.keep_or_drop(partial, size).await;
        Ok(())
    }

    async fn upload_whole(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        partial.set_size(size);
        let mut uploader = Uploader::new(&self.uploads, partial);
        let done = uploader.complete(size).await;
        if done.is_err() {
            uploader.abort().await;
        }
        done
    }

    /// The blob is stored by now, whatever becomes of the file.
    async fn keep_or_drop(&self, partial: &Partial, size: u64) {
        let digest = partial.digest();
        match self.tier.keep(partial, size).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%digest, %error, "the blob is stored, but cannot be kept on this node");
                // It may have its name, and not be durable.
                if let Err(error) = self.tier.remove(digest).await {
                    tracing::warn!(%digest, %error, "what was kept of a blob cannot be removed");
                }
            }
        }
        if let Err(error) = self.local.close(partial).await {
            tracing::warn!(%digest, %error, "the blob is stored, but the folder of its fill is left behind");
        }
    }
}

/// Whether the upload that went along with the fill made the object. One that the object store, or bytes that
/// were replaced, made useless is begun anew.
async fn completed(upload: Option<Upload>, size: u64, digest: &Digest) -> Result<bool, StoreError> {
    let Some(upload) = upload else { return Ok(false) };
    match upload.complete(size).await {
        Ok(()) => Ok(true),
        Err(error @ (StoreError::Unavailable { .. } | StoreError::Corrupt { .. })) => {
            tracing::warn!(%digest, "the upload of a blob broke, and is begun anew: {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
