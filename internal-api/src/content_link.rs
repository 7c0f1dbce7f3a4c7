//! The signed URL by which registry-api redirects a client to a blob at content-app.
//!
//! A content link is `/content/v1/{repository}/blobs/{digest}?expires=SECONDS&key=ID&sig=HEX`. The signature is the
//! HMAC-SHA-256, under the key `ID`, of the key id, the repository, the digest and the expiry (seconds since the Unix
//! epoch), each preceded by its length.

use oci_types::{Digest, Millis, RepositoryName};

use crate::{
    LinkKey, LinkKeys, SignatureError,
    signature::{Mac, number, parameters},
};

fn signature(key: &LinkKey, repository: &str, digest: &str, expires: &str) -> Mac {
    key.mac().fields(["tidegate content link 1", key.id(), repository, digest, expires])
}

impl LinkKeys {
    /// The path and query of a content link to `digest`, readable through `repository` until `expires`, rounded up to a
    /// second.
    pub fn sign(&self, repository: &RepositoryName, digest: &Digest, expires: Millis) -> String {
        let key = self.signing_key();
        let expires = expires.0.saturating_add(999).div_euclid(1000).to_string();
        let signature = signature(key, repository.as_str(), digest.as_str(), &expires).hex();
        format!("/content/v1/{repository}/blobs/{digest}?expires={expires}&key={}&sig={signature}", key.id())
    }

    /// Verifies a content link by the two variable parts of its path and its raw query. Unknown parameters are ignored;
    /// a known one that occurs twice is an error.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(
        &self,
        repository: &str,
        digest: &str,
        query: &str,
        now: Millis,
    ) -> Result<(RepositoryName, Digest), SignatureError> {
        let [expires, key, hex] = parameters(query, '&', ["expires", "key", "sig"])?;
        signature(self.find(key)?, repository, digest, expires).verify(hex)?;
        if now.0 >= number(expires)?.saturating_mul(1000) {
            return Err(SignatureError::Invalid);
        }
        let repository = RepositoryName::parse(repository).map_err(|_| SignatureError::Invalid)?;
        Ok((repository, Digest::parse(digest).map_err(|_| SignatureError::Invalid)?))
    }
}
