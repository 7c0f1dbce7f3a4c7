//! Every path under the data directory, and every key in the bucket.
//!
//! ```text
//! DATA/
//! ├── blobs/                       stored blobs: verified, durable, never written again
//! │   ├── .probe                   exists while the store checks that it can write
//! │   ├── sha256/
//! │   │   └── ab/                  shard: the first two hexadecimal digits
//! │   │       └── <64 hex digits>
//! │   └── sha512/
//! │       └── ab/
//! │           └── <128 hex digits>
//! ├── partial/                     partial files
//! │   ├── .probe                   as above
//! │   ├── <algorithm>-<hex>/       of a blob with a known digest
//! │   │   ├── data                 sparse: each byte is at its offset in the blob
//! │   │   ├── map                  JSON: which bytes of `data` are present and durable
//! │   │   ├── map.new              the next `map` while it is written
//! │   │   └── lock                 flock: one process writes here
//! │   └── upload-<uuid>/           of an upload; files as above
//! └── s3/                          with an object store, instead of the two above
//!     ├── blobs/                   as above: the local cache; a file's mtime is its last read
//!     ├── partial/                 as above
//!     └── uploads/                 multipart uploads that are not completed
//!         ├── <algorithm>-<hex>.<n>        JSON: key and upload id; flock: the uploading process
//!         └── <algorithm>-<hex>.<n>.new    the same, while it is written
//!
//! BUCKET/{prefix}/blobs/sha256/ab/<64 hex digits>     stored blobs; written atomically
//! ```

use std::path::{Path, PathBuf};

use oci_types::{Algorithm, Digest};

use crate::PartialId;

/// The bytes of a partial file.
pub(crate) const DATA: &str = "data";
/// The segment map of a partial file.
pub(crate) const MAP: &str = "map";
/// A segment map that is written, to be renamed to [`MAP`].
pub(crate) const NEW_MAP: &str = "map.new";
/// The lock of a partial file.
pub(crate) const LOCK: &str = "lock";

const PROBE: &str = ".probe";

/// The data directory of a store with an object store.
pub(crate) fn s3_directory(root: &Path) -> PathBuf {
    root.join("s3")
}

/// The directory of the records of multipart uploads.
pub(crate) fn upload_records(s3_directory: &Path) -> PathBuf {
    s3_directory.join("uploads")
}

/// Extension of a record that is being written.
pub(crate) const NEW_RECORD: &str = "new";

/// File name of the `n`th record of an upload of this blob.
pub(crate) fn upload_record(digest: &Digest, n: u128) -> String {
    format!("{}-{}.{n}", digest.algorithm().as_str(), digest.hex())
}

/// The common prefix of all keys, without a slash at its end. `prefix` has no slash at its ends and may be empty.
pub(crate) fn object_directory(prefix: &str) -> String {
    if prefix.is_empty() { "blobs".to_owned() } else { format!("{prefix}/blobs") }
}

/// The segments of the key of a blob after the common prefix.
pub(crate) fn key_segments(digest: &Digest) -> [String; 3] {
    let shard = format!("{:02x}", Shard::of(digest).first_byte);
    [digest.algorithm().as_str().to_owned(), shard, digest.hex().to_owned()]
}

/// The key of a blob.
pub(crate) fn object_key(prefix: &str, digest: &Digest) -> String {
    format!("{}/{}", object_directory(prefix), key_segments(digest).join("/"))
}

/// The digest of the blob with this key; `None` for other keys.
pub(crate) fn object_digest(prefix: &str, key: &str) -> Option<Digest> {
    let (algorithm, rest) =
        key.strip_prefix(&object_directory(prefix))?.strip_prefix('/')?.split_once('/')?;
    let digest = Digest::parse(&format!("{algorithm}:{}", rest.split_once('/')?.1)).ok()?;
    (object_key(prefix, &digest) == key).then_some(digest)
}

/// Paths under one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn algorithm(&self, algorithm: Algorithm) -> PathBuf {
        self.blobs().join(algorithm.as_str())
    }

    pub(crate) fn shard(&self, shard: Shard) -> PathBuf {
        self.algorithm(shard.algorithm).join(format!("{:02x}", shard.first_byte))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.shard(Shard::of(digest)).join(digest.hex())
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn partial(&self, id: &PartialId) -> PathBuf {
        self.partials().join(id.directory_name())
    }

    /// The path at which a probe is written, and the path to which it is renamed, as for a blob.
    pub(crate) fn probe(&self) -> (PathBuf, PathBuf) {
        (self.partials().join(PROBE), self.blobs().join(PROBE))
    }
}

/// One directory of blobs, whose hashes start with the same byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shard {
    algorithm: Algorithm,
    first_byte: u8,
}

impl Shard {
    pub(crate) fn of(digest: &Digest) -> Self {
        let first_byte = digest.hex().get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        Self { algorithm: digest.algorithm(), first_byte: first_byte.unwrap_or_default() }
    }

    /// All shards in ascending order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .flat_map(|algorithm| (0..=u8::MAX).map(move |first_byte| Self { algorithm, first_byte }))
    }

    /// The digest of the blob with this file name; `None` for other names.
    pub(crate) fn digest(self, name: &str) -> Option<Digest> {
        let digest = Digest::parse(&format!("{}:{name}", self.algorithm.as_str())).ok()?;
        (Self::of(&digest) == self).then_some(digest)
    }
}

#[cfg(test)]
mod tests;
