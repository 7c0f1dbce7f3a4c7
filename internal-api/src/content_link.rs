//! The signed link by which registry-api hands a client over to content-app, and the signature between services.
//!
//! A link is `/content/v1/{repository}/blobs/{digest}?expires=SECONDS&key=ID&sig=HEX`. Its signature is the
//! HMAC-SHA-256 of the key's id, the repository, the digest and the expiry, each framed by its length.

mod signature;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use oci_types::{Digest, Millis, RepositoryName};

/// The shortest secret, in bytes: the output length of the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// How far the clocks of two services may be apart when one asks the other.
pub const INTERNAL_WINDOW: Duration = Duration::from_secs(60);

/// One secret and the name that links carry for it.
#[derive(Clone)]
pub struct LinkKey {
    id: String,
    secret: Vec<u8>,
}

/// Why a key can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkKeyError {
    /// The id is empty, too long, or has characters that a query would have to escape.
    #[error("the id of a link key is 1 to 64 letters, digits, '.', '_' or '-'")]
    Id,
    /// The secret is shorter than [`MIN_SECRET_BYTES`].
    #[error("the secret of a link key has at least {MIN_SECRET_BYTES} bytes")]
    Secret,
}

/// The link or header is not valid: which part is wrong is nobody's business who sends one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid or has expired")]
pub struct LinkError;

/// The keys of a deployment: one signs, all verify, so that a key can be replaced while links made with it run out.
#[derive(Debug, Clone)]
pub struct LinkKeys {
    keys: Arc<(LinkKey, Vec<LinkKey>)>,
}

impl LinkKey {
    /// A key named `id`.
    ///
    /// # Errors
    /// [`LinkKeyError`], when the id or the secret breaks its rule.
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, LinkKeyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > 64 || !id.bytes().all(allowed) {
            return Err(LinkKeyError::Id);
        }
        if secret.len() < MIN_SECRET_BYTES {
            return Err(LinkKeyError::Secret);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_vec() })
    }

    /// The name that links carry.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LinkKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl LinkKeys {
    /// `first` signs; it and `others` verify.
    pub fn new(first: LinkKey, others: Vec<LinkKey>) -> Self {
        Self { keys: Arc::new((first, others)) }
    }

    /// The path and query of a link to `digest`, readable through `repository` until `expires` (rounded up to a
    /// second).
    pub fn sign(&self, repository: &RepositoryName, digest: &Digest, expires: Millis) -> String {
        let key = &self.keys.0;
        let expires = expires.0.saturating_add(999).div_euclid(1000).to_string();
        let signature = signature::of_link(key, repository.as_str(), digest.as_str(), &expires).hex();
        format!("/content/v1/{repository}/blobs/{digest}?expires={expires}&key={}&sig={signature}", key.id)
    }

    /// Checks a link that a client came with: the two variable parts of its path, and its raw query. Parameters that
    /// are not part of a link are ignored; one of ours given twice is refused.
    ///
    /// # Errors
    /// [`LinkError`], whatever is wrong.
    pub fn verify(
        &self,
        repository: &str,
        digest: &str,
        query: &str,
        now: Millis,
    ) -> Result<(RepositoryName, Digest), LinkError> {
        let [expires, key, hex] = fields(query, '&', ["expires", "key", "sig"])?;
        signature::of_link(self.find(key)?, repository, digest, expires).check(hex)?;
        if now.0 >= number(expires)?.saturating_mul(1000) {
            return Err(LinkError);
        }
        let repository = RepositoryName::parse(repository).map_err(|_| LinkError)?;
        Ok((repository, Digest::parse(digest).map_err(|_| LinkError)?))
    }

    /// The `Authorization` of a request from one service to another: `Tidegate key=ID,at=MILLIS,sig=HEX`.
    pub fn sign_internal(&self, method: &str, path_and_query: &str, now: Millis) -> String {
        let key = &self.keys.0;
        let at = now.0.to_string();
        let signature = signature::of_request(key, method, path_and_query, &at).hex();
        format!("Tidegate key={},at={at},sig={signature}", key.id)
    }

    /// Checks what [`LinkKeys::sign_internal`] made, no more than [`INTERNAL_WINDOW`] ago or ahead.
    ///
    /// # Errors
    /// [`LinkError`], whatever is wrong.
    pub fn verify_internal(
        &self,
        method: &str,
        path_and_query: &str,
        header: &str,
        now: Millis,
    ) -> Result<(), LinkError> {
        let parameters = header.strip_prefix("Tidegate ").ok_or(LinkError)?;
        let [key, at, hex] = fields(parameters, ',', ["key", "at", "sig"])?;
        signature::of_request(self.find(key)?, method, path_and_query, at).check(hex)?;
        let at = Millis(number(at)?);
        if at.age(now) > INTERNAL_WINDOW || now.age(at) > INTERNAL_WINDOW { Err(LinkError) } else { Ok(()) }
    }

    fn find(&self, id: &str) -> Result<&LinkKey, LinkError> {
        let (first, others) = &*self.keys;
        std::iter::once(first).chain(others).find(|key| key.id == id).ok_or(LinkError)
    }
}

/// The values of `names`, each of which stands exactly once in `text`.
fn fields<'a, const N: usize>(
    text: &'a str,
    separator: char,
    names: [&str; N],
) -> Result<[&'a str; N], LinkError> {
    let mut found = [None; N];
    for (name, value) in text.split(separator).filter_map(|part| part.split_once('=')) {
        let Some(place) = names.iter().position(|ours| *ours == name).and_then(|at| found.get_mut(at)) else {
            continue;
        };
        if place.replace(value).is_some() {
            return Err(LinkError);
        }
    }
    let mut values = [""; N];
    for (value, found) in values.iter_mut().zip(found) {
        *value = found.ok_or(LinkError)?;
    }
    Ok(values)
}

/// A decimal number in the one form that is signed.
fn number(text: &str) -> Result<i64, LinkError> {
    text.parse().map_err(|_| LinkError)
}
