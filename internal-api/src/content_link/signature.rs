//! HMAC-SHA-256 over framed fields.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{LinkError, LinkKey};

/// A signature made here, to be sent or to compare with one that came.
pub(super) struct Signature(Option<Hmac<Sha256>>);

pub(super) fn of_link(key: &LinkKey, repository: &str, digest: &str, expires: &str) -> Signature {
    of_fields(key, ["tidegate content link 1", &key.id, repository, digest, expires])
}

pub(super) fn of_request(key: &LinkKey, method: &str, path_and_query: &str, at: &str) -> Signature {
    of_fields(key, ["tidegate internal request 1", &key.id, method, path_and_query, at])
}

/// The first field says what is signed, so that a signature of one use is none for another. Each field stands behind
/// its length, so that no two lists of fields make the same bytes.
fn of_fields<const N: usize>(key: &LinkKey, fields: [&str; N]) -> Signature {
    // HMAC takes a key of any length, so this is always some.
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).ok();
    for field in fields {
        let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
        if let Some(mac) = &mut mac {
            mac.update(&length.to_be_bytes());
            mac.update(field.as_bytes());
        }
    }
    Signature(mac)
}

impl Signature {
    pub(super) fn hex(self) -> String {
        self.0.map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// Compares in constant time. Only lower-case digits count, so that a link has one form.
    pub(super) fn check(self, hex: &str) -> Result<(), LinkError> {
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(LinkError);
        }
        let given = hex::decode(hex).map_err(|_| LinkError)?;
        self.0.ok_or(LinkError)?.verify_slice(&given).map_err(|_| LinkError)
    }
}
