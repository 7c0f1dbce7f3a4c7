//! The section `[storage]`, and what must hold between its keys.

use std::{path::PathBuf, time::Duration};

use blob_store::AccessKeys;
use url::{Host, Url};

use super::{
    assemble::place_of,
    checks::{wrong, zero},
    error::{ConfigError, Problem},
    section::{Section as _, section},
    setting::words,
    tree::{Node, Value},
    units::ByteSize,
};

words! {
    /// Where blobs are stored.
    pub enum StorageKind {
        /// In the data folder.
        Local = "local",
        /// In a bucket of an S3-compatible object store.
        S3 = "s3",
    }
}

words! {
    /// Where the bucket's name goes in a URL.
    pub enum Addressing {
        /// `https://endpoint/bucket/key`.
        Path = "path",
        /// `https://bucket.endpoint/key`.
        VirtualHost = "virtual-host",
    }
}

section! {
    /// `[storage]`
    pub struct Storage {
        /// Where blobs are stored.
        pub kind: StorageKind = "local",
        /// The bucket.
        pub bucket: Option<String>,
        /// The bucket's region.
        pub region: Option<String>,
        /// The object store's URL, where it is not AWS.
        pub endpoint: Option<Url>,
        /// The same for clients, where they reach it elsewhere.
        pub public_endpoint: Option<Url>,
        /// Where the bucket's name goes in a URL.
        pub addressing: Addressing = "path",
        /// What every object key begins with.
        pub prefix: Option<String>,
        /// The file with the access key's id.
        pub access_key_file: Option<PathBuf>,
        /// The file with the secret access key.
        pub secret_key_file: Option<PathBuf>,
        /// Certificates to trust, in PEM form, besides the usual ones.
        pub ca_file: Option<PathBuf>,
        /// Whether clients are sent to presigned object URLs.
        pub redirect: bool = "true",
        /// The folder for fills and for the local tier before the bucket. Absent: the data folder.
        pub cache_dir: Option<PathBuf>,
        /// The most that the local tier holds. Absent: there is none.
        pub cache_size: Option<ByteSize>,
        /// What a blob is uploaded in.
        pub part_size: ByteSize = "16MiB",
        /// How long connecting may take.
        pub connect_timeout: Duration = "2s",
        /// How long an answer without blob bytes may take, retries included.
        pub answer_timeout: Duration = "4s",
        /// How long it may send nothing in the middle of a blob.
        pub read_timeout: Duration = "10s",
        /// How long a part that could not be uploaded is tried again.
        pub upload_timeout: Duration = "60s",
        /// How long joining the parts of an upload may take.
        pub complete_timeout: Duration = "5m",
    }
    resolved {
        /// What the key files hold.
        pub keys: Option<AccessKeys>,
        /// What `ca_file` holds.
        pub ca_pem: Option<Vec<u8>>,
    }
}

/// The least that a part of an upload may have (Amazon S3, "Multipart upload limits").
const LEAST_PART: ByteSize = ByteSize::new(5 << 20);

/// Checks the section, which is written at `node`.
///
/// # Errors
/// [`Problem::Missing`], [`Problem::Value`], [`Problem::Conflict`].
pub(crate) fn check(node: &Node, storage: &Storage) -> Result<(), ConfigError> {
    let at = |key: &str| place_of(node, key);
    let conflict = |key: &str, text: &str| Err(Problem::Conflict(text.to_owned()).at(at(key)));
    if storage.kind == StorageKind::Local {
        // Who names a bucket and leaves out the kind does not mean the local disk. A key with a default says nothing.
        return match Storage::KEYS.iter().find(|key| key.default.is_none() && is_written(node, key.name)) {
            Some(key) => conflict(key.name, &format!("`{}` is only used with `kind = \"s3\"`", key.name)),
            None => Ok(()),
        };
    }
    match storage.bucket.as_deref() {
        None => return Err(Problem::Missing("bucket").at(at("kind"))),
        Some(bucket) if bucket.is_empty() || bucket.contains('/') => {
            return Err(wrong("bucket", bucket, "the name of a bucket").at(at("bucket")));
        }
        Some(_) => {}
    }
    match (&storage.access_key_file, &storage.secret_key_file) {
        (Some(_), None) => {
            return conflict("access_key_file", "`access_key_file` needs `secret_key_file` beside it");
        }
        (None, Some(_)) => {
            return conflict("secret_key_file", "`secret_key_file` needs `access_key_file` beside it");
        }
        _ => {}
    }
    if let Some(prefix) = storage.prefix.as_deref().filter(|prefix| !is_prefix(prefix)) {
        let expected = "letters, digits, '.', '_' and '-', in segments parted by '/'";
        return Err(wrong("prefix", prefix, expected).at(at("prefix")));
    }
    let endpoints = [("endpoint", &storage.endpoint), ("public_endpoint", &storage.public_endpoint)];
    for (key, endpoint) in endpoints {
        let host = endpoint.as_ref().and_then(Url::host);
        if storage.addressing == Addressing::VirtualHost
            && matches!(host, Some(Host::Ipv4(_) | Host::Ipv6(_)))
        {
            return conflict(key, &format!("`{key}` is an IP address: it needs `addressing = \"path\"`"));
        }
    }
    if storage.part_size < LEAST_PART {
        let (found, limit) = (storage.part_size.to_string(), format!("{LEAST_PART} at least"));
        return Err(wrong("part_size", &found, &limit).at(at("part_size")));
    }
    let timeouts = [
        ("connect_timeout", storage.connect_timeout),
        ("answer_timeout", storage.answer_timeout),
        ("read_timeout", storage.read_timeout),
        ("upload_timeout", storage.upload_timeout),
        ("complete_timeout", storage.complete_timeout),
    ];
    match timeouts.iter().find(|(_, value)| value.is_zero()) {
        Some((key, _)) => Err(zero(key).at(at(key))),
        None => Ok(()),
    }
}

fn is_written(section: &Node, key: &str) -> bool {
    matches!(&section.value, Value::Table(table) if table.contains_key(key))
}

/// Slashes at the ends do not matter.
fn is_prefix(text: &str) -> bool {
    let segment = |segment: &str| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(word)
    };
    let text = text.trim_matches('/');
    text.is_empty() || text.split('/').all(segment)
}
