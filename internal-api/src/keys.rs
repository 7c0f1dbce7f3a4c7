//! The keys that sign content links and internal requests.

use std::{fmt, sync::Arc};

use crate::signature::{Mac, SignatureError};

/// The minimum length of a secret, in bytes: the output length of the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// The maximum length of a key id, in bytes.
const MAX_ID_BYTES: usize = 64;

/// One secret, and the id by which signatures refer to it.
#[derive(Clone)]
pub struct LinkKey {
    id: String,
    mac: Mac,
}

/// An invalid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkKeyError {
    /// The id is empty, too long, or has characters that a query would have to escape.
    #[error("the id of a link key is 1 to {MAX_ID_BYTES} letters, digits, '.', '_' or '-'")]
    Id,
    /// The secret is shorter than [`MIN_SECRET_BYTES`].
    #[error("the secret of a link key has at least {MIN_SECRET_BYTES} bytes")]
    Secret,
}

/// The keys of a deployment. The first signs, all verify: a key can be replaced while its links are still in use.
#[derive(Debug, Clone)]
pub struct LinkKeys {
    keys: Arc<(LinkKey, Vec<LinkKey>)>,
}

/// Whether `id` is a valid key id.
pub fn is_key_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(is_allowed)
}

impl LinkKey {
    /// A key named `id`.
    ///
    /// # Errors
    /// [`LinkKeyError`].
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, LinkKeyError> {
        if !is_key_id(id) {
            return Err(LinkKeyError::Id);
        }
        if secret.len() < MIN_SECRET_BYTES {
            return Err(LinkKeyError::Secret);
        }
        let mac = Mac::new(secret).ok_or(LinkKeyError::Secret)?;
        Ok(Self { id: id.to_owned(), mac })
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac.clone()
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

    pub(crate) fn signing_key(&self) -> &LinkKey {
        &self.keys.0
    }

    pub(crate) fn find(&self, id: &str) -> Result<&LinkKey, SignatureError> {
        let (first, others) = &*self.keys;
        std::iter::once(first).chain(others).find(|key| key.id == id).ok_or_else(|| match is_key_id(id) {
            true => SignatureError::UnknownKey { id: id.to_owned() },
            false => SignatureError::Invalid,
        })
    }
}
