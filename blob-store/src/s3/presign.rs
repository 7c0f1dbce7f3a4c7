//! URLs under which a client reads a blob from the object store itself.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{aws::AmazonS3, signer::Signer};
use oci_types::Digest;
use reqwest::Method;
use tokio::{runtime::Handle, time::timeout};
use url::Url;

use super::{
    bucket::{Objects, path},
    config::S3Config,
    connect,
    error::Failure,
};
use crate::{StoreError, layout::object_key};

/// Signs URLs to the objects of a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Presigner(Arc<Inner>);

struct Inner {
    signer: AmazonS3,
    objects: Objects,
    prefix: String,
    answer: Duration,
    /// Where credentials are fetched.
    runtime: Handle,
}

impl Presigner {
    /// A signer for the bucket. Asks nothing of the object store. To be called on the runtime that outlives every
    /// request.
    ///
    /// # Errors
    /// [`StoreError::Settings`], [`StoreError::NoRuntime`].
    pub fn new(config: &S3Config) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        config.check()?;
        let (signer, objects) = (connect::for_clients(config)?, Objects::new(config)?);
        let (prefix, answer) = (config.prefix().to_owned(), config.timeouts.answer);
        Ok(Self(Arc::new(Inner { signer, objects, prefix, answer, runtime })))
    }

    /// Whether the blob can be read in the bucket now. While the object store is known to be away, this is said at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Stopped`].
    pub async fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        let inner = Arc::clone(&self.0);
        let key = object_key(&inner.prefix, digest);
        let object = path(&key)?;
        let size = self.0.runtime.spawn(async move { inner.objects.size_unless_away(&object).await });
        let size = size.await.map_err(|_| StoreError::Stopped)?;
        Ok(size.map_err(|failure| failure.during("find", &key))?.is_some())
    }

    /// The URL under which the blob can be read with `GET`, whole or in ranges, for `lifetime`: at most seven days,
    /// and no longer than the credentials live where they are lent. Whether the blob is there is not looked at.
    /// Whoever has the URL can read the blob, so it belongs in no log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the platform gives no credentials, [`StoreError::Stopped`].
    pub async fn url(&self, digest: &Digest, lifetime: Duration) -> Result<Url, StoreError> {
        let inner = Arc::clone(&self.0);
        let key = object_key(&inner.prefix, digest);
        let object = path(&key)?;
        let signed = self.0.runtime.spawn(async move {
            let signed = inner.signer.signed_url(Method::GET, &object, lifetime);
            timeout(inner.answer, signed).await.map_err(|_| Failure::too_late())?.map_err(Failure::from)
        });
        signed
            .await
            .map_err(|_| StoreError::Stopped)?
            .map_err(|failure| failure.during("sign a URL to", &key))
    }
}

impl fmt::Debug for Presigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Presigner").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}
