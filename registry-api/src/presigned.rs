//! Redirects to the object store for stored blobs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use blob_store::{Presigner, StoreError};
use moka::future::Cache;
use oci_types::Digest;

/// The maximum lifetime of a URL (AWS Signature Version 4, "Authenticating Requests: Using Query Parameters").
const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The maximum number of blobs whose presence in the object store is cached.
const MAX_ENTRIES: u64 = 100_000;

/// Signs URLs of the object store; without a presigner, none.
pub(crate) struct PresignedUrls {
    presigner: Option<Presigner>,
    /// The size of a blob in the object store, if it is there. A client that is redirected to an object store that is
    /// unavailable, or has lost the blob, has no alternative.
    sizes: Cache<Digest, Option<u64>>,
    /// Whether the last `HEAD` or signature failed, so that a lasting failure is logged once. Cached sizes do not
    /// reset it.
    failing: AtomicBool,
}

impl PresignedUrls {
    /// Presence and sizes in the object store are cached for `max_age`.
    pub(crate) fn new(presigner: Option<Presigner>, max_age: Duration) -> Self {
        let sizes = Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(max_age).build();
        Self { presigner, sizes, failing: AtomicBool::new(false) }
    }

    /// Whether clients are redirected to an object store.
    pub(crate) fn is_enabled(&self) -> bool {
        self.presigner.is_some()
    }

    /// The URL of a stored blob of `size` bytes in the object store, valid for `lifetime`; `None` when the object store does
    /// not have the blob in that size, is unavailable, or no URL can be signed.
    pub(crate) async fn url(&self, digest: &Digest, size: Option<u64>, lifetime: Duration) -> Option<String> {
        match self.find_and_sign(self.presigner.as_ref()?, digest, size, lifetime).await {
            Ok(url) => url,
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "redirects to the object store suspended");
                }
                None
            }
        }
    }

    async fn find_and_sign(
        &self,
        presigner: &Presigner,
        digest: &Digest,
        size: Option<u64>,
        lifetime: Duration,
    ) -> Result<Option<String>, Arc<StoreError>> {
        let found = self.sizes.entry_by_ref(digest).or_try_insert_with(presigner.size(digest)).await?;
        let (is_fresh, found) = (found.is_fresh(), found.into_value());
        if found.is_none_or(|found| size.is_some_and(|size| size != found)) {
            if is_fresh {
                tracing::warn!(%digest, size, found, "stored blob missing from the object store, or of another size");
            }
            return Ok(None);
        }
        let url = presigner.signed_url(digest, lifetime.min(MAX_LIFETIME)).await?;
        if is_fresh && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("redirects to the object store resumed");
        }
        Ok(Some(url.into()))
    }
}

#[cfg(test)]
mod tests;
