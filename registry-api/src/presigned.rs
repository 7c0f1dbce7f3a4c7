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
    /// Whether the object store has a blob that is recorded as stored. A client that is redirected to an object store that is
    /// unavailable, or has lost the blob, has no alternative.
    present: Cache<Digest, bool>,
    /// Whether the last `HEAD` or signature failed, so that a lasting failure is logged once. Cached presence says nothing
    /// about it.
    failing: AtomicBool,
}

impl PresignedUrls {
    /// Presence in the object store is cached for `max_age`.
    pub(crate) fn new(presigner: Option<Presigner>, max_age: Duration) -> Self {
        let present = Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(max_age).build();
        Self { presigner, present, failing: AtomicBool::new(false) }
    }

    /// Whether clients are redirected to an object store.
    pub(crate) fn is_enabled(&self) -> bool {
        self.presigner.is_some()
    }

    /// The URL of a stored blob in the object store, valid for `lifetime`; `None` when the object store does not have the
    /// blob, is unavailable, or no URL can be signed.
    pub(crate) async fn url(&self, digest: &Digest, lifetime: Duration) -> Option<String> {
        match self.find_and_sign(self.presigner.as_ref()?, digest, lifetime).await {
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
        lifetime: Duration,
    ) -> Result<Option<String>, Arc<StoreError>> {
        let present = self.present.entry_by_ref(digest).or_try_insert_with(presigner.exists(digest)).await?;
        let is_fresh = present.is_fresh();
        if !present.into_value() {
            if is_fresh {
                tracing::warn!(%digest, "stored blob missing from the object store");
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
