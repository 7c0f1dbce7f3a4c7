//! The configuration of an S3-compatible object store.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Unexpected},
};
use settings::proxy::{Proxies, ProxySetting};
use url::Url;

use crate::StoreError;

/// The minimum size of a part that is not the last, in bytes (Amazon S3, "Multipart upload limits").
const MIN_PART_SIZE: u64 = 5 * 1024 * 1024;

/// The settings of `[storage]` that concern the bucket and requests to it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The name of the bucket, which must exist.
    #[serde(deserialize_with = "bucket", skip_serializing_if = "String::is_empty")]
    pub bucket: String,
    /// The region. `None`: `AWS_REGION` of the environment, else `us-east-1`.
    pub region: Option<String>,
    /// The URL of the object store without the bucket; `http` is allowed. `None`: `AWS_ENDPOINT_URL` of the
    /// environment, else AWS.
    #[serde(with = "settings::http_url::option")]
    pub endpoint: Option<Url>,
    /// The URL of the object store for clients, if it differs: presigned URLs begin with it.
    #[serde(with = "settings::http_url::option")]
    pub public_endpoint: Option<Url>,
    /// The position of the bucket name in URLs.
    pub addressing: Addressing,
    /// The prefix of all object keys. Slashes at both ends are ignored.
    #[serde(deserialize_with = "prefix", skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The access keys. `None`: those of the environment (`AWS_ACCESS_KEY_ID` …) or of the platform (web identity
    /// token, container or instance role), renewed before they expire.
    #[serde(skip)]
    pub keys: Option<AccessKeys>,
    /// Additional trusted certificate authorities, in PEM format.
    #[serde(skip)]
    pub ca_pem: Option<Vec<u8>>,
    /// The HTTP proxy of requests.
    #[serde(with = "settings::proxy")]
    pub proxy: ProxySetting,
    /// The proxies of the environment, for [`ProxySetting::Environment`].
    #[serde(skip)]
    pub env_proxies: Proxies,
    /// The size of an uploaded part, in bytes; larger for blobs that would have more than 10,000 parts. Up to four
    /// parts of each upload are in memory, and 256 MiB of all uploads.
    #[serde(serialize_with = "settings::size::serialize", deserialize_with = "part_size")]
    pub part_size: u64,
    /// The time limits of requests.
    #[serde(skip_deserializing, flatten)]
    pub timeouts: S3Timeouts,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            region: None,
            endpoint: None,
            public_endpoint: None,
            addressing: Addressing::Path,
            prefix: String::new(),
            keys: None,
            ca_pem: None,
            proxy: ProxySetting::default(),
            env_proxies: Proxies::default(),
            part_size: 16 * 1024 * 1024,
            timeouts: S3Timeouts::default(),
        }
    }
}

impl S3Config {
    /// A bucket with the default settings.
    pub fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.bucket.is_empty() {
            return Err(StoreError::config("the bucket has no name"));
        }
        if self.part_size < MIN_PART_SIZE {
            return Err(StoreError::config(format!("the part size is below {MIN_PART_SIZE} bytes")));
        }
        Ok(())
    }

    /// The prefix without slashes at both ends.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix.trim_matches('/')
    }
}

fn bucket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    settings::from_text(deserializer, "the name of a bucket", |text| {
        (!text.is_empty() && !text.contains('/')).then(|| text.to_owned())
    })
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = "letters, digits, '.', '_' and '-', in segments separated by '/'";
    settings::from_text(deserializer, expected, |text| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed);
        let trimmed = text.trim_matches('/');
        (trimmed.is_empty() || trimmed.split('/').all(is_segment)).then(|| text.to_owned())
    })
}

fn part_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = settings::size::deserialize(deserializer)?;
    if bytes < MIN_PART_SIZE {
        let expected = format!("{} at least", settings::size::format(MIN_PART_SIZE));
        let found = settings::size::format(bytes);
        return Err(D::Error::invalid_value(Unexpected::Str(&found), &expected.as_str()));
    }
    Ok(bytes)
}

/// The position of the bucket name in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// `https://endpoint/bucket/key`, supported by all S3-compatible servers.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`, preferred by AWS.
    VirtualHost,
}

/// The keys that sign requests.
#[derive(Clone)]
pub struct AccessKeys {
    /// The id of the key.
    pub access_key: SecretString,
    /// The secret.
    pub secret_key: SecretString,
    /// The token of temporary keys.
    pub session_token: Option<SecretString>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AccessKeys").finish_non_exhaustive()
    }
}

/// The time limits of requests to the object store. A request that exceeds one is
/// [`crate::StoreError::Unavailable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Timeouts {
    /// For a connection.
    #[serde(rename = "connect_timeout", with = "settings::duration::positive")]
    pub connect: Duration,
    /// For a whole request without blob bytes, retries included; for the response head of one with them.
    #[serde(rename = "answer_timeout", with = "settings::duration::positive")]
    pub answer: Duration,
    /// For the next bytes of a blob that is being read.
    #[serde(rename = "read_timeout", with = "settings::duration::positive")]
    pub read: Duration,
    /// For the retries of a failed part upload. Only the fill waits for it.
    #[serde(rename = "upload_timeout", with = "settings::duration::positive")]
    pub upload: Duration,
    /// For the completion of an upload, which joins its parts.
    #[serde(rename = "complete_timeout", with = "settings::duration::positive")]
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
