//! Sending clients to the object store itself for what is stored there.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use blob_store::Presigner;
use shared_models::Digest;

/// No URL is signed for longer (AWS Signature Version 4, "Authenticating Requests: Using Query Parameters").
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Signs URLs of the object store; without a presigner, none.
pub(crate) struct Presigned {
    presigner: Option<Presigner>,
    /// Whether the last URL could not be signed, so that a failure that lasts is told once.
    failing: AtomicBool,
}

impl Presigned {
    pub(crate) fn new(presigner: Option<Presigner>) -> Self {
        Self { presigner, failing: AtomicBool::new(false) }
    }

    /// Whether there is an object store that clients are sent to.
    pub(crate) fn is_on(&self) -> bool {
        self.presigner.is_some()
    }

    /// The address of a stored blob in the object store, for so long; `None` when it cannot be signed now.
    pub(crate) async fn url(&self, digest: &Digest, lifetime: Duration) -> Option<String> {
        let signed = self.presigner.as_ref()?.url(digest, lifetime.min(LONGEST)).await;
        let failing = self.failing.swap(signed.is_err(), Ordering::Relaxed);
        match signed {
            Ok(url) => {
                if failing {
                    tracing::info!("clients are sent to the object store again");
                }
                Some(url.into())
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "clients are not sent to the object store: no URL can be signed");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use blob_store::{AccessKeys, S3Config};

    use super::*;

    fn presigner() -> Presigner {
        let keys = AccessKeys {
            access_key: "AKIATEST".to_owned().into(),
            secret_key: "secret".to_owned().into(),
            session_token: None,
        };
        Presigner::new(&S3Config { keys: Some(keys), ..S3Config::new("layers") }).unwrap()
    }

    #[tokio::test]
    async fn no_url_is_signed_for_longer_than_an_object_store_takes() {
        let presigned = Presigned::new(Some(presigner()));
        let digest = Digest::sha256(b"x");
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
        let presigned = Presigned::new(Some(gone.join().unwrap()));
        assert!(presigned.is_on());
        for _ in 0..2 {
            assert_eq!(presigned.url(&Digest::sha256(b"x"), Duration::from_secs(60)).await, None);
        }
        assert_eq!(Presigned::new(None).url(&Digest::sha256(b"x"), Duration::from_secs(60)).await, None);
    }
}
