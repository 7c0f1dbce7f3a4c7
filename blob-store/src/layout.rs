//! Every path under the data folder, and every key in a bucket.
//!
//! ```text
//! DATA/
//! ├── blobs/                       verified and durable; a file here is never written again
//! │   ├── .probe                   for a moment, while the store checks that it can write
//! │   ├── sha256/
//! │   │   └── ab/                  the first two hexadecimal digits: a shard
//! │   │       └── <64 hex digits>
//! │   └── sha512/
//! │       └── ab/
//! │           └── <128 hex digits>
//! ├── partial/                     blobs being filled, and fills that may be resumed
//! │   ├── .probe                   as above
//! │   └── <algorithm>-<hex>/
//! │       ├── data                 sparse: bytes lie at their offset in the blob
//! │       ├── map                  JSON: which bytes of `data` are there and durable
//! │       ├── map.new              the next `map` while it is written
//! │       └── lock                 flock: one process writes here
//! └── s3/                          where blobs lie in a bucket, this instead of the two above
//!     ├── blobs/                   as above: the cache tier. A file's time is when it was last read
//!     ├── partial/                 as above
//!     └── uploads/                 multipart uploads that are not completed
//!         ├── <algorithm>-<hex>.<n>        JSON: key and upload id; flock: its process is at it
//!         └── <algorithm>-<hex>.<n>.new    the same, while it is written
//!
//! BUCKET/{prefix}/blobs/sha256/ab/<64 hex digits>     verified and complete; written as a whole
//! ```

use std::path::{Path, PathBuf};

use oci_types::{Algorithm, Digest};

/// The file of a partial folder that holds the bytes.
pub(crate) const DATA: &str = "data";
/// The file of a partial folder that says which bytes are there.
pub(crate) const MAP: &str = "map";
/// The name under which a map is written before it takes the place of [`MAP`].
pub(crate) const NEW_MAP: &str = "map.new";
/// The file of a partial folder that is locked by whoever writes there.
pub(crate) const LOCK: &str = "lock";

const PROBE: &str = ".probe";

/// The folder of what a store in a bucket keeps on the node.
pub(crate) fn s3_folder(root: &Path) -> PathBuf {
    root.join("s3")
}

/// The folder of the records of multipart uploads, in the folder above.
pub(crate) fn uploads(s3_folder: &Path) -> PathBuf {
    s3_folder.join("uploads")
}

/// What is appended to the name of a record while it is written.
pub(crate) const NEW_RECORD: &str = "new";

/// The name of the `n`th record of an upload of this blob.
pub(crate) fn upload_record(digest: &Digest, n: u128) -> String {
    format!("{}-{}.{n}", digest.algorithm().as_str(), digest.hex())
}

/// The key of every blob in a bucket begins with this and a slash. `prefix` has no slash at its ends, and may
/// be empty.
pub(crate) fn object_folder(prefix: &str) -> String {
    if prefix.is_empty() { "blobs".to_owned() } else { format!("{prefix}/blobs") }
}

/// The key of a blob in a bucket.
pub(crate) fn object_key(prefix: &str, digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    format!("{}/{algorithm}/{:02x}/{hex}", object_folder(prefix), Shard::of(digest).first_byte)
}

/// The digest of the blob with this key, if it is one.
pub(crate) fn object_digest(prefix: &str, key: &str) -> Option<Digest> {
    let (algorithm, rest) = key.strip_prefix(&object_folder(prefix))?.strip_prefix('/')?.split_once('/')?;
    let digest = Digest::parse(&format!("{algorithm}:{}", rest.split_once('/')?.1)).ok()?;
    (object_key(prefix, &digest) == key).then_some(digest)
}

/// The paths under one data folder.
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

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()))
    }

    /// Where a probe is written, and where it is then moved to: the way of every blob.
    pub(crate) fn probe(&self) -> (PathBuf, PathBuf) {
        (self.partials().join(PROBE), self.blobs().join(PROBE))
    }
}

/// The digest whose partial folder has this name, if it is one.
pub(crate) fn partial_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// One folder of blobs: those whose hash begins with the same byte.
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

    /// All shards, in ascending order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .flat_map(|algorithm| (0..=u8::MAX).map(move |first_byte| Self { algorithm, first_byte }))
    }

    /// The digest of the blob with this file name, if it is one that belongs here.
    pub(crate) fn digest(self, name: &str) -> Option<Digest> {
        let digest = Digest::parse(&format!("{}:{name}", self.algorithm.as_str())).ok()?;
        (Self::of(&digest) == self).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_and_a_partial_lie_where_the_tree_says_and_read_back() {
        let layout = Layout::new(Path::new("/d"));
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            let (name, hex) = (algorithm.as_str(), digest.hex());
            let blob = layout.blob(&digest);
            assert_eq!(blob, PathBuf::from(format!("/d/blobs/{name}/{}/{hex}", hex.get(..2).unwrap())));
            assert_eq!(Shard::of(&digest).digest(hex), Some(digest.clone()));
            assert_eq!(layout.partial(&digest), PathBuf::from(format!("/d/partial/{name}-{hex}")));
            assert_eq!(partial_digest(&format!("{name}-{hex}")), Some(digest));
        }
    }

    #[test]
    fn a_name_that_is_no_digest_of_the_shard_is_not_read_as_one() {
        let digest = Digest::sha256(b"x");
        let other = Shard::all().find(|shard| *shard != Shard::of(&digest)).unwrap();
        assert_eq!(other.digest(digest.hex()), None);
        assert_eq!(Shard::of(&digest).digest(".probe"), None);
        for name in ["", ".probe", "sha256", "sha256-", "md5-00", "lost+found"] {
            assert_eq!(partial_digest(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_key_in_a_bucket_is_the_path_of_the_blob_below_the_prefix_and_reads_back() {
        let digest = Digest::sha256(b"x");
        let hex = digest.hex();
        let below = format!("blobs/sha256/{}/{hex}", hex.get(..2).unwrap());
        for (prefix, key) in [("", below.clone()), ("a/b", format!("a/b/{below}"))] {
            assert_eq!(object_key(prefix, &digest), key);
            assert_eq!(object_digest(prefix, &key), Some(digest.clone()));
            assert_eq!(object_digest("other", &key), None);
            assert_eq!(object_digest(prefix, &format!("{key}/x")), None);
        }
        assert_eq!(object_digest("", &format!("blobs/sha256/zz/{hex}")), None);
    }

    #[test]
    fn shards_are_in_order_and_each_comes_once() {
        let shards: Vec<Shard> = Shard::all().collect();
        assert_eq!(shards.len(), 512);
        assert!(shards.is_sorted_by(|left, right| left < right));
    }
}
