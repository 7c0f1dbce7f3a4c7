//! The authorization of a request: a token or the login itself.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use secrecy::ExposeSecret;
use serde::Deserialize;

use crate::{UpstreamError, clock, credentials::Login};

/// Lifetime of a token without `expires_in` (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Maximum lifetime of a grant. After it a login is sent again only if the upstream still requests Basic.
const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Time before its expiry from which a token is no longer sent, so that it does not expire in transit.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// Maximum size of a token in bytes. Servers rarely accept a header that is larger.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The `Authorization` that answers a challenge.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Marked as sensitive, so that it is never printed.
    pub(crate) authorization: HeaderValue,
    /// Whether it is the login itself, which cannot be renewed.
    pub(crate) is_login: bool,
    expires: Instant,
}

impl Grant {
    /// Parses the response of the token service at `issuer`.
    ///
    /// # Errors
    /// `InvalidResponse` without a usable token.
    pub(crate) fn from_token_response(body: &[u8], issuer: &str) -> Result<Self, UpstreamError> {
        // The underlying error may quote the body, and with it a token.
        let invalid = || UpstreamError::invalid_response("no token in the response of the token service");
        // A byte order mark is not JSON, but some token services send one.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let response: TokenResponse = serde_json::from_slice(body).map_err(|_| invalid())?;
        let tokens = [response.token, response.access_token];
        let token = tokens.into_iter().flatten().find(|token| !token.is_empty()).ok_or_else(invalid)?;
        if token.len() > MAX_TOKEN_BYTES {
            let reason =
                format!("token of more than {MAX_TOKEN_BYTES} bytes from the token service {issuer}");
            return Err(UpstreamError::invalid_response(reason));
        }
        let lifetime = response.expires_in.as_ref().and_then(lifetime).unwrap_or(DEFAULT_LIFETIME);
        let lifetime = lifetime.saturating_sub(EXPIRY_MARGIN.min(lifetime / 5));
        Self::new(format!("Bearer {token}"), false, lifetime).ok_or_else(invalid)
    }

    /// The login itself (RFC 7617). `None` if it is not a valid header value.
    pub(crate) fn from_login(login: &Login) -> Option<Self> {
        let login = format!("{}:{}", login.username, login.password.expose_secret());
        Self::new(format!("Basic {}", STANDARD.encode(login)), true, MAX_LIFETIME)
    }

    /// Whether it can be sent now.
    pub(crate) fn is_valid(&self) -> bool {
        clock::now() < self.expires
    }

    /// Time until it expires.
    pub(crate) fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(clock::now())
    }

    fn new(text: String, is_login: bool, lifetime: Duration) -> Option<Self> {
        let mut authorization = HeaderValue::try_from(text).ok()?;
        authorization.set_sensitive(true);
        Some(Self { authorization, is_login, expires: clock::now() + lifetime })
    }
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// The time in seconds as a number or, from some token services, as text. `None` where it is neither.
fn lifetime(expires_in: &serde_json::Value) -> Option<Duration> {
    let seconds = match expires_in {
        serde_json::Value::Number(number) => number.as_f64()?,
        serde_json::Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let seconds = seconds.clamp(0.0, MAX_LIFETIME.as_secs_f64());
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_valid_until_shortly_before_its_expiry() {
        for (body, seconds) in [
            (r#"{"token":"a"}"#, 50),
            (r#"{"token":"a","expires_in":300}"#, 290),
            (r#"{"token":"a","expires_in":10}"#, 8),
            (r#"{"token":"a","expires_in":18446744073709551615}"#, 3590),
            (r#"{"token":"a","expires_in":0}"#, 0),
            (r#"{"token":"a","expires_in":"300"}"#, 290),
            (r#"{"token":"a","expires_in":300.0}"#, 290),
            (r#"{"token":"a","expires_in":-1}"#, 0),
            (r#"{"token":"a","expires_in":null}"#, 50),
            (r#"{"token":"a","expires_in":"soon"}"#, 50),
            (r#"{"token":"a","expires_in":"NaN"}"#, 50),
        ] {
            let grant = Grant::from_token_response(body.as_bytes(), "auth.test").unwrap();
            assert_eq!(grant.remaining(), Duration::from_secs(seconds), "{body}");
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert!(!grant.is_valid(), "{body}");
        }
    }

    #[tokio::test]
    async fn a_token_has_one_of_two_names_and_is_never_printed() {
        let from = |body: &[u8]| Grant::from_token_response(body, "auth.test");
        let grant = from(br#"{"token":"","access_token":"hidden"}"#).unwrap();
        assert_eq!(grant.authorization, "Bearer hidden");
        let with_mark = from(b"\xef\xbb\xbf{\"token\":\"a\"}").unwrap();
        assert_eq!(with_mark.authorization, "Bearer a");
        assert!(!format!("{grant:?}").contains("hidden"));
        for body in ["", "{}", "[]", r#"{"token":5}"#, r#"{"token":null}"#, r#"{"token":"a\nb"}"#] {
            let error = from(body.as_bytes()).unwrap_err();
            assert!(matches!(error, UpstreamError::InvalidResponse(_)), "{body}");
        }
    }
}
