//! Identity of a partial file.

use std::fmt;

use oci_types::Digest;
use uuid::Uuid;

/// What a partial file is for: a blob with a known digest, or an upload whose digest is known at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartialId {
    /// A blob that is downloaded.
    Blob(Digest),
    /// An upload session (distribution-spec: "Pushing a blob in chunks").
    Upload(Uuid),
}

impl PartialId {
    /// The digest that the bytes must have; `None` for an upload.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Blob(digest) => Some(digest),
            Self::Upload(_) => None,
        }
    }

    /// Name of the directory of this partial file.
    pub(crate) fn directory_name(&self) -> String {
        match self {
            Self::Blob(digest) => format!("{}-{}", digest.algorithm().as_str(), digest.hex()),
            Self::Upload(id) => format!("{UPLOAD_PREFIX}{id}"),
        }
    }

    /// The partial file whose directory has this name; `None` for other names.
    pub(crate) fn from_directory_name(name: &str) -> Option<Self> {
        let id = match name.strip_prefix(UPLOAD_PREFIX) {
            Some(id) => Self::Upload(Uuid::parse_str(id).ok()?),
            None => {
                let (algorithm, hex) = name.split_once('-')?;
                Self::Blob(Digest::parse(&format!("{algorithm}:{hex}")).ok()?)
            }
        };
        (id.directory_name() == name).then_some(id)
    }
}

const UPLOAD_PREFIX: &str = "upload-";

impl From<&Digest> for PartialId {
    fn from(digest: &Digest) -> Self {
        Self::Blob(digest.clone())
    }
}

impl From<&Self> for PartialId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl fmt::Display for PartialId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(out, "{digest}"),
            Self::Upload(id) => write!(out, "upload {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_types::Algorithm;

    use super::*;

    #[test]
    fn a_directory_name_is_parsed_back() {
        let upload = PartialId::Upload(Uuid::from_u128(7));
        assert_eq!(upload.directory_name(), "upload-00000000-0000-0000-0000-000000000007");
        let blobs = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| {
            let digest = Digest::of(algorithm, b"x");
            let id = PartialId::Blob(digest.clone());
            assert_eq!(id.directory_name(), format!("{}-{}", algorithm.as_str(), digest.hex()));
            id
        });
        for id in blobs.into_iter().chain([upload]) {
            assert_eq!(PartialId::from_directory_name(&id.directory_name()), Some(id));
        }
    }

    #[test]
    fn other_names_are_ignored() {
        let braced = format!("upload-{{{}}}", Uuid::from_u128(7));
        for name in
            ["", ".probe", "sha256", "sha256-", "md5-00", "lost+found", "upload-", "upload-7", &braced]
        {
            assert_eq!(PartialId::from_directory_name(name), None, "{name:?}");
        }
    }
}
