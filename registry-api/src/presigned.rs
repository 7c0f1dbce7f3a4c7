//! Sending clients to the object store itself for what is stored there.

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

/// No URL is signed for longer (AWS Signature Version 4, "Authenticating Requests: Using Query Parameters").
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The most blobs that are remembered to be in the object store.
const MOST_FOUND: u64 = 100_000;

/// Signs URLs of the object store; without a presigner, none.
pub(crate) struct Presigned {
    presigner: Option<Presigner>,
    /// Whether a blob that is recorded as stored was found in the object store a moment ago. A client that is sent to one
    /// that is away, or has lost the blob, has nowhere else to go.
    found: Cache<Digest, bool>,
    /// Whether a blob could not be looked for or signed, and none was found and signed since, so that a failure that lasts
    /// is told once. What was found before it began says nothing of it.
    failing: AtomicBool,
}

impl Presigned {
    /// What was found is looked for again after `max_age`.
    pub(crate) fn new(presigner: Option<Presigner>, max_age: Duration) -> Self {
        let found = Cache::builder().max_capacity(MOST_FOUND).time_to_live(max_age).build();
        Self { presigner, found, failing: AtomicBool::new(false) }
    }

    /// Whether there is an object store that clients are sent to.
    pub(crate) fn is_on(&self) -> bool {
        self.presigner.is_some()
    }

    /// The address of a stored blob in the object store, for so long; `None` when the object store does not have it, is
    /// away, or no URL can be signed.
    pub(crate) async fn url(&self, digest: &Digest, lifetime: Duration) -> Option<String> {
        match self.find_and_sign(self.presigner.as_ref()?, digest, lifetime).await {
            Ok(url) => url,
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!("clients are not sent to the object store: {error}");
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
        let found = self.found.entry_by_ref(digest).or_try_insert_with(presigner.has(digest)).await?;
        let looked_for_now = found.is_fresh();
        if !found.into_value() {
            if looked_for_now {
                tracing::warn!(%digest, "a blob is recorded as stored, but the object store does not have it");
            }
            return Ok(None);
        }
        let url = presigner.url(digest, lifetime.min(LONGEST)).await?;
        if looked_for_now && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("clients are sent to the object store again");
        }
        Ok(Some(url.into()))
    }
}

#[cfg(test)]
mod tests {
    use blob_store::{AccessKeys, S3Config};

    use super::*;

    fn config() -> S3Config {
        let keys = AccessKeys {
            access_key: "AKIATEST".to_owned().into(),
            secret_key: "secret".to_owned().into(),
            session_token: None,
        };
        S3Config { keys: Some(keys), ..S3Config::new("layers") }
    }

    fn presigner() -> Presigner {
        Presigner::new(&config()).unwrap()
    }

    #[tokio::test]
    async fn no_url_is_signed_for_longer_than_an_object_store_takes() {
        let presigned = Presigned::new(Some(presigner()), Duration::from_secs(5));
        let digest = Digest::sha256(b"x");
        presigned.found.insert(digest.clone(), true).await;
        for (lifetime, signed) in [(60, "X-Amz-Expires=60&"), (u64::MAX, "X-Amz-Expires=604800&")] {
            let url = presigned.url(&digest, Duration::from_secs(lifetime)).await.unwrap();
            assert!(url.contains(digest.hex()) && url.contains(signed), "{url}");
        }
    }

    #[tokio::test]
    async fn without_a_signature_there_is_no_url() {
        // A presigner whose runtime has gone cannot sign, as one that gets no credentials.
        let gone = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { presigner() })
        });
        let presigned = Presigned::new(Some(gone.join().unwrap()), Duration::from_secs(5));
        presigned.found.insert(Digest::sha256(b"x"), true).await;
        assert!(presigned.is_on());
        for _ in 0..2 {
            assert_eq!(presigned.url(&Digest::sha256(b"x"), Duration::from_secs(60)).await, None);
        }
        let none = Presigned::new(None, Duration::from_secs(5));
        assert_eq!(none.url(&Digest::sha256(b"x"), Duration::from_secs(60)).await, None);
    }

    #[tokio::test]
    async fn nobody_is_sent_to_an_object_store_that_is_away_or_lacks_the_blob() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = S3Config { endpoint: Some(format!("http://{nobody}").parse().unwrap()), ..config() };
        let presigned = Presigned::new(Some(Presigner::new(&config).unwrap()), Duration::from_secs(5));
        let digest = Digest::sha256(b"x");
        assert_eq!(presigned.url(&digest, Duration::from_secs(60)).await, None);
        presigned.found.insert(digest.clone(), false).await;
        assert_eq!(presigned.url(&digest, Duration::from_secs(60)).await, None);
    }

    #[tokio::test]
    async fn a_blob_that_was_found_before_does_not_end_a_failure() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = S3Config { endpoint: Some(format!("http://{nobody}").parse().unwrap()), ..config() };
        let presigned = Presigned::new(Some(Presigner::new(&config).unwrap()), Duration::from_secs(60));
        let (found, sought) = (Digest::sha256(b"found"), Digest::sha256(b"sought"));
        presigned.found.insert(found.clone(), true).await;
        for failing in [false, true] {
            assert_eq!(presigned.failing.load(Ordering::Relaxed), failing);
            assert!(presigned.url(&found, Duration::from_secs(60)).await.is_some());
            assert_eq!(presigned.failing.load(Ordering::Relaxed), failing);
            assert_eq!(presigned.url(&sought, Duration::from_secs(60)).await, None);
        }
    }
}
