//! Presigned URLs: clients read blobs directly from the object store.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{aws::AmazonS3, signer::Signer};
use oci_types::Digest;
use reqwest::Method;
use tokio::{runtime::Handle, time::timeout};
use url::Url;

use super::{bucket::Bucket, config::S3Config, connect};
use crate::{StoreError, request_error::RequestError};

/// Signs URLs to the objects of a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Presigner(Arc<Inner>);

struct Inner {
    signer: AmazonS3,
    bucket: Bucket,
    /// Runs the requests for objects and credentials.
    runtime: Handle,
}

impl Presigner {
    /// A signer for the bucket. Sends no request. Must be called on the main runtime, which outlives every request.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::NoRuntime`].
    pub fn new(config: &S3Config) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        config.check()?;
        let signer = connect::signing_client(config)?;
        let bucket = Bucket::new(config, &|builder| builder)?;
        Ok(Self(Arc::new(Inner { signer, bucket, runtime })))
    }

    /// The size in bytes of a blob in the bucket; `None` if it is not stored. Sends one `HEAD` request, and fails at once
    /// while the circuit of the object store is open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Stopped`].
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let inner = Arc::clone(&self.0);
        let key = inner.bucket.key(digest);
        let head = self.0.runtime.spawn(async move {
            let found = inner.bucket.head_if_available(&key).await;
            found.map_err(|error| error.context("find", &key))
        });
        Ok(head.await.map_err(|_| StoreError::Stopped)??.map(|object| object.size))
    }

    /// A URL that serves `GET` for the blob, with or without `Range`, during `lifetime`: at most seven days, and no longer
    /// than temporary credentials are valid. Does not check that the blob exists. The URL grants access to the blob and
    /// must not be logged.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the platform provides no credentials, [`StoreError::Stopped`].
    pub async fn signed_url(&self, digest: &Digest, lifetime: Duration) -> Result<Url, StoreError> {
        let inner = Arc::clone(&self.0);
        let key = inner.bucket.key(digest);
        let signed = self.0.runtime.spawn(async move {
            let signed =
                timeout(inner.bucket.timeouts().answer, inner.signer.signed_url(Method::GET, &key, lifetime));
            let signed = signed.await.map_err(|_| RequestError::timed_out());
            signed.and_then(|signed| Ok(signed?)).map_err(|error| error.context("sign a URL for", &key))
        });
        signed.await.map_err(|_| StoreError::Stopped)?
    }
}

impl fmt::Debug for Presigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Presigner").finish_non_exhaustive()
    }
}
