//! What a repository's requests are authorised with: kept until it expires, renewed once however many ask.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use moka::future::Cache;
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use crate::{Credentials, UpstreamError, error::AttemptError};

/// How many scopes are remembered for one upstream.
const SCOPES: u64 = 10_000;

/// How long a token is good for when its service does not say (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// No token is kept longer, and a login not without looking whether Basic is still what upstream wants.
const LONGEST_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How long before its end a token is no longer used, so that it does not expire on the way.
const MARGIN: Duration = Duration::from_secs(10);

/// The largest answer of a token service that is read.
pub(crate) const MAX_TOKEN_ANSWER: usize = 256 * 1024;

/// An `Authorization` that a challenge was answered with.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Marked sensitive, so that it is never printed.
    pub(crate) authorization: HeaderValue,
    /// The login itself, which asking again would not change.
    pub(crate) is_login: bool,
    expires: Instant,
}

/// Grants by scope.
#[derive(Debug)]
pub(crate) struct Tokens {
    slots: Cache<String, Arc<Mutex<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    grant: Option<Arc<Grant>>,
    failed: Option<(Instant, AttemptError)>,
}

impl Slot {
    fn valid(&self) -> Option<Arc<Grant>> {
        self.grant.clone().filter(|grant| Instant::now() < grant.expires)
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { slots: Cache::new(SCOPES) }
    }

    /// The grant for a scope, if there is one that has not expired. Waits while it is being renewed.
    pub(crate) async fn current(&self, scope: &str) -> Option<Arc<Grant>> {
        let slot = self.slots.get(scope).await?;
        let slot = slot.lock().await;
        slot.valid()
    }

    /// A grant other than `rejected`, by `fetch` unless somebody else has fetched one meanwhile. Those who wait share
    /// the outcome, a failure too.
    pub(crate) async fn renew(
        &self,
        scope: &str,
        rejected: Option<&Arc<Grant>>,
        fetch: impl Future<Output = Result<Grant, AttemptError>>,
    ) -> Result<Arc<Grant>, AttemptError> {
        let asked_at = Instant::now();
        let slot = self.slots.get_with_by_ref(scope, async { Arc::default() }).await;
        let mut slot = slot.lock().await;
        if let Some((_, failure)) = slot.failed.as_ref().filter(|(at, _)| *at >= asked_at) {
            return Err(failure.clone());
        }
        let stale = |grant: &Arc<Grant>| rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, grant));
        if let Some(grant) = slot.valid().filter(|grant| !stale(grant)) {
            return Ok(grant);
        }
        *slot = Slot::default();
        match fetch.await {
            Ok(grant) => Ok(Arc::clone(slot.grant.insert(Arc::new(grant)))),
            Err(failure) => {
                slot.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

impl Grant {
    /// Reads the answer of a token service.
    ///
    /// # Errors
    /// `InvalidResponse` when there is no usable token in it.
    pub(crate) fn from_token_answer(body: &[u8]) -> Result<Self, AttemptError> {
        let bad = || {
            AttemptError::from(UpstreamError::invalid_response(
                "no token in the response of the token service",
            ))
        };
        let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| bad())?;
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs).min(LONGEST_LIFETIME);
        let lifetime = lifetime.saturating_sub(MARGIN.min(lifetime / 5));
        Self::new(format!("Bearer {}", token.ok_or_else(bad)?), false, lifetime).ok_or_else(bad)
    }

    /// The login itself (RFC 7617). None if it cannot stand in a header.
    pub(crate) fn from_credentials(credentials: &Credentials) -> Option<Self> {
        let login = format!("{}:{}", credentials.username, credentials.password.expose_secret());
        Self::new(format!("Basic {}", STANDARD.encode(login)), true, LONGEST_LIFETIME)
    }

    fn new(text: String, is_login: bool, lifetime: Duration) -> Option<Self> {
        let mut authorization = HeaderValue::try_from(text).ok()?;
        authorization.set_sensitive(true);
        Some(Self { authorization, is_login, expires: Instant::now() + lifetime })
    }
}

/// The URL that gives a token for `scope`.
pub(crate) fn token_url(realm: &Url, service: Option<&str>, scope: &str) -> Url {
    let mut url = realm.clone();
    url.set_fragment(None);
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    // A challenge may name several scopes; each is a parameter of its own.
    for scope in scope.split_ascii_whitespace() {
        query.append_pair("scope", scope);
    }
    drop(query);
    url
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(body: &str) -> Duration {
        Grant::from_token_answer(body.as_bytes()).unwrap().expires - Instant::now()
    }

    #[test]
    fn a_token_is_good_until_shortly_before_its_end() {
        assert!((48..=50).contains(&left(r#"{"token":"a"}"#).as_secs()));
        assert!((289..=290).contains(&left(r#"{"token":"a","expires_in":300}"#).as_secs()));
        assert!(left(r#"{"token":"a","expires_in":18446744073709551615}"#) <= LONGEST_LIFETIME);
        assert_eq!(left(r#"{"token":"a","expires_in":0}"#), Duration::ZERO);
    }

    #[test]
    fn a_token_is_under_either_name_and_never_printed() {
        let grant = Grant::from_token_answer(br#"{"token":"","access_token":"hidden"}"#).unwrap();
        assert_eq!(grant.authorization, "Bearer hidden");
        assert!(!format!("{grant:?}").contains("hidden"));
        for body in ["", "{}", "[]", r#"{"token":5}"#, r#"{"token":null}"#, r#"{"token":"a\nb"}"#] {
            let error = Grant::from_token_answer(body.as_bytes()).unwrap_err().error;
            assert!(matches!(error, UpstreamError::InvalidResponse(_)), "{body}");
        }
    }

    #[test]
    fn a_token_is_asked_for_with_what_the_challenge_says() {
        let realm = Url::parse("https://a/token?account=x").unwrap();
        let url = token_url(&realm, Some("the registry"), "repository:a/b:pull repository:c:pull");
        let expected = "https://a/token?account=x&service=the+registry\
                        &scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull";
        assert_eq!(url.as_str(), expected);
    }

    #[tokio::test]
    async fn those_who_wait_share_a_failure_and_later_ones_try_again() {
        let tokens = Tokens::new();
        let denied = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(UpstreamError::Denied.into())
        };
        let never = || async { panic!("a second fetch") };
        let (one, other) = tokio::join!(tokens.renew("s", None, denied()), tokens.renew("s", None, never()));
        assert_eq!(one.unwrap_err().error, UpstreamError::Denied);
        assert_eq!(other.unwrap_err().error, UpstreamError::Denied);
        let fetched = tokens.renew("s", None, async { Grant::from_token_answer(br#"{"token":"a"}"#) }).await;
        assert_eq!(fetched.unwrap().authorization, "Bearer a");
    }
}
