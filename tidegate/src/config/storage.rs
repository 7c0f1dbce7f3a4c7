//! The section `[storage]`.

use std::path::PathBuf;

use blob_store::{AccessKeys, Addressing, S3Config, S3Timeouts};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{
    error::ConfigError,
    files::{PemFile, SecretFile},
    section::{Keys, Section},
};

/// `[storage]`
#[derive(Debug, Clone, Serialize)]
pub struct Storage {
    /// The part for the process.
    #[serde(flatten)]
    pub tier: StorageTier,
    /// The part for the object store.
    #[serde(flatten)]
    pub s3: S3Config,
    /// The files that the object store needs.
    #[serde(flatten)]
    files: S3Files,
}

/// The settings of `[storage]` that concern the process.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageTier {
    /// Where blobs are stored.
    pub kind: StorageKind,
    /// Whether clients are redirected to presigned URLs of the object store.
    pub redirect: bool,
    /// The free space of the disk that downloads leave, in bytes.
    #[serde(with = "settings::size")]
    pub keep_free: u64,
    /// The directory of fills and of the local cache in front of the object store. `None`: the data directory.
    #[serde(deserialize_with = "super::path::option")]
    pub cache_dir: Option<PathBuf>,
    /// The maximum size of the local cache, in bytes. `None`: no cache.
    #[serde(with = "settings::size::option")]
    pub cache_size: Option<u64>,
}

impl Default for StorageTier {
    fn default() -> Self {
        Self {
            kind: StorageKind::Local,
            redirect: true,
            keep_free: 256 * 1024 * 1024,
            cache_dir: None,
            cache_size: None,
        }
    }
}

/// Where blobs are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageKind {
    /// In the data directory.
    Local,
    /// In a bucket of an S3-compatible object store.
    S3,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct S3Files {
    access_key_file: Option<SecretFile>,
    secret_key_file: Option<SecretFile>,
    ca_file: Option<PemFile>,
}

/// The keys of `[storage]` without a default. They are refused if `kind` is `local`: a configuration that names a bucket
/// is not meant for the local disk.
const S3_ONLY: [&str; 11] = [
    "bucket",
    "region",
    "endpoint",
    "public_endpoint",
    "prefix",
    "access_key_file",
    "secret_key_file",
    "ca_file",
    "proxy",
    "cache_dir",
    "cache_size",
];

impl Section for Storage {
    type Parts = (StorageTier, S3Config, S3Timeouts, S3Files);

    fn from_parts(
        (tier, mut s3, timeouts, files): Self::Parts,
        keys: &Keys<'_>,
    ) -> Result<Self, ConfigError> {
        s3.timeouts = timeouts;
        if tier.kind == StorageKind::Local {
            for key in S3_ONLY {
                let message = format!("`{key}` is only used with `kind = \"s3\"`");
                keys.ensure(keys.get(key).is_none(), key, &message)?;
            }
            return Ok(Self { tier, s3, files });
        }
        keys.ensure(!s3.bucket.is_empty(), "kind", "the key `bucket` is missing")?;
        for (key, endpoint) in [("endpoint", &s3.endpoint), ("public_endpoint", &s3.public_endpoint)] {
            let is_address =
                matches!(endpoint.as_ref().and_then(Url::host), Some(Host::Ipv4(_) | Host::Ipv6(_)));
            let message = format!("`{key}` is an IP address: it needs `addressing = \"path\"`");
            keys.ensure(!is_address || s3.addressing == Addressing::Path, key, &message)?;
        }
        s3.keys = match (&files.access_key_file, &files.secret_key_file) {
            (None, None) => None,
            (Some(access), Some(secret)) => Some(AccessKeys {
                access_key: access.secret.clone(),
                secret_key: secret.secret.clone(),
                session_token: None,
            }),
            (access, _) => {
                let (present, missing) = match access {
                    Some(_) => ("access_key_file", "secret_key_file"),
                    None => ("secret_key_file", "access_key_file"),
                };
                return Err(ConfigError::new(
                    keys.location(present),
                    format!("`{present}` needs `{missing}`"),
                ));
            }
        };
        s3.ca_pem = files.ca_file.as_ref().map(|file| file.pem.clone());
        Ok(Self { tier, s3, files })
    }
}
