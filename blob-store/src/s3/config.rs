//! Which bucket, how to reach it, and how long to wait for it.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::StoreError;

/// The least bytes that a part has which is not the last (Amazon S3, "Multipart upload limits").
const LEAST_PART: u64 = 5 * 1024 * 1024;

/// A bucket of an S3-compatible object store, and how to reach it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The name of the bucket, which exists.
    pub bucket: String,
    /// The region; where `None`, `AWS_REGION` of the environment, else `us-east-1`.
    pub region: Option<String>,
    /// Where the object store listens, without the bucket; `http` is allowed here. Where `None`,
    /// `AWS_ENDPOINT_URL` of the environment, else AWS itself.
    pub endpoint: Option<Url>,
    /// Where clients reach it, if elsewhere than the services do: presigned URLs begin with this.
    pub public_endpoint: Option<Url>,
    /// Where the bucket's name goes in a URL.
    pub addressing: Addressing,
    /// What every key begins with. Slashes at its ends do not matter.
    pub prefix: String,
    /// The access keys. Where `None`, those of the environment (`AWS_ACCESS_KEY_ID` …) or of the platform (web
    /// identity token, container or instance role), which are renewed before they expire.
    pub keys: Option<AccessKeys>,
    /// Certificate authorities to trust besides the system's, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The size of an uploaded part in bytes, 16 MiB if not told otherwise; S3 wants 5 MiB or more. Larger for
    /// blobs that would have more than 10,000 parts. Up to four parts are in memory for each upload,
    /// and 256 MiB for all.
    pub part_size: u64,
    /// How long to wait.
    pub timeouts: S3Timeouts,
}

impl S3Config {
    /// The bucket with this name, reached as is usual.
    pub fn new(bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            region: None,
            endpoint: None,
            public_endpoint: None,
            addressing: Addressing::Path,
            prefix: String::new(),
            keys: None,
            ca_pem: None,
            part_size: 16 * 1024 * 1024,
            timeouts: S3Timeouts::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.bucket.is_empty() {
            return Err(StoreError::config("the bucket has no name"));
        }
        if self.part_size < LEAST_PART {
            return Err(StoreError::config(format!("the part size is below {LEAST_PART} bytes")));
        }
        Ok(())
    }

    /// The prefix without slashes at its ends.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix.trim_matches('/')
    }
}

/// Where the bucket's name goes in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`: what every S3-compatible server understands.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`: what AWS prefers.
    VirtualHost,
}

/// What requests are signed with.
#[derive(Clone)]
pub struct AccessKeys {
    /// Names the key.
    pub access_key: SecretString,
    /// Signs.
    pub secret_key: SecretString,
    /// Goes with keys that are only lent for a while.
    pub session_token: Option<SecretString>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AccessKeys").finish_non_exhaustive()
    }
}

/// How long the object store is waited for. What takes longer is [`crate::StoreError::Unavailable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the whole of a request that carries no blob bytes, with its retries; for the answer's head where it
    /// does.
    pub answer: Duration,
    /// For the next bytes of a blob that is being read.
    pub read: Duration,
    /// How long a part that could not be uploaded is tried again. Nobody but the fill waits for it.
    pub upload: Duration,
    /// For an upload to be completed, which joins its parts.
    pub complete: Duration,
}

impl Default for S3Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(4),
            read: Duration::from_secs(10),
            upload: Duration::from_secs(60),
            complete: Duration::from_secs(300),
        }
    }
}
