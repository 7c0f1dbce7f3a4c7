//! The signature of a request from one process to another, in the header [`SIGNATURE_HEADER`].
//!
//! The value is `Tidegate key=ID,at=MILLIS,sig=HEX`. The signature is the HMAC-SHA-256 of the key id, the method, the path
//! with its query, and the time, each preceded by its length.

use std::time::Duration;

use oci_types::Millis;

use crate::{
    LinkKey, LinkKeys, SignatureError,
    signature::{Mac, number, parameters},
};

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "Tidegate-Signature";

/// The maximum difference between the clocks of two processes.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

fn signature(key: &LinkKey, method: &str, path_and_query: &str, at: &str) -> Mac {
    key.mac().fields(["tidegate internal request 1", key.id(), method, path_and_query, at])
}

impl LinkKeys {
    /// The value of [`SIGNATURE_HEADER`] for a request at `now`.
    pub fn sign_request(&self, method: &str, path_and_query: &str, now: Millis) -> String {
        let key = self.signing_key();
        let at = now.0.to_string();
        let signature = signature(key, method, path_and_query, &at).hex();
        format!("Tidegate key={},at={at},sig={signature}", key.id())
    }

    /// Verifies a value of [`SIGNATURE_HEADER`] that was made at most [`MAX_CLOCK_SKEW`] before or after `now`.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify_request(
        &self,
        method: &str,
        path_and_query: &str,
        header: &str,
        now: Millis,
    ) -> Result<(), SignatureError> {
        let fields = header.strip_prefix("Tidegate ").ok_or(SignatureError::Invalid)?;
        let [key, at, hex] = parameters(fields, ',', ["key", "at", "sig"])?;
        signature(self.find(key)?, method, path_and_query, at).verify(hex)?;
        let at = Millis(number(at)?);
        let is_recent = at.age(now) <= MAX_CLOCK_SKEW && now.age(at) <= MAX_CLOCK_SKEW;
        is_recent.then_some(()).ok_or(SignatureError::Invalid)
    }
}
