//! HMAC-SHA-256 over length-prefixed fields, and the parameters that carry it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is missing, invalid or expired. Which of them is deliberately not reported.
    #[error("the signature is invalid or has expired")]
    Invalid,
    /// No key has this id.
    #[error("the signature is of a key with the unknown id {id}")]
    UnknownKey {
        /// The id, in the grammar of [`is_key_id`](crate::is_key_id).
        id: String,
    },
}

/// A message authentication code under one key.
#[derive(Clone)]
pub(crate) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(secret).ok().map(Self)
    }

    /// Adds fields. Each is preceded by its length, so that no two lists of fields produce the same bytes. The first
    /// names the use of the signature, so that it is invalid for any other use.
    pub(crate) fn fields<const N: usize>(mut self, fields: [&str; N]) -> Self {
        for field in fields {
            let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
            self.0.update(&length.to_be_bytes());
            self.0.update(field.as_bytes());
        }
        self
    }

    pub(crate) fn hex(self) -> String {
        hex::encode(self.0.finalize().into_bytes())
    }

    /// Compares in constant time. Upper-case digits are invalid: a signature has one form.
    pub(crate) fn verify(self, signature: &str) -> Result<(), SignatureError> {
        if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(SignatureError::Invalid);
        }
        let bytes = hex::decode(signature).map_err(|_| SignatureError::Invalid)?;
        self.0.verify_slice(&bytes).map_err(|_| SignatureError::Invalid)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Mac(..)")
    }
}

/// The values of the parameters `names`, each of which `text` has exactly once. Other parameters are ignored.
pub(crate) fn parameters<'a, const N: usize>(
    text: &'a str,
    separator: char,
    names: [&str; N],
) -> Result<[&'a str; N], SignatureError> {
    let mut found = [None; N];
    for (name, value) in text.split(separator).filter_map(|parameter| parameter.split_once('=')) {
        let Some(slot) = names.iter().position(|known| *known == name).and_then(|index| found.get_mut(index))
        else {
            continue;
        };
        if slot.replace(value).is_some() {
            return Err(SignatureError::Invalid);
        }
    }
    let mut values = [""; N];
    for (value, found) in values.iter_mut().zip(found) {
        *value = found.ok_or(SignatureError::Invalid)?;
    }
    Ok(values)
}

/// A decimal number.
pub(crate) fn number(text: &str) -> Result<i64, SignatureError> {
    text.parse().map_err(|_| SignatureError::Invalid)
}
