//! The grants of one upstream, by scope.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::{clock, error::AttemptError, grant::Grant};

/// Maximum size of the cached grants and their scopes, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The grants of one upstream, by scope. Each is cached until it expires, and renewed by one request at a time.
#[derive(Debug)]
pub(crate) struct Grants {
    grants: Cache<String, Arc<Grant>>,
    /// The renewals that are in progress.
    renewals: Mutex<HashMap<String, Weak<Renewal>>>,
}

/// Held by the request that renews a grant. The last failure is for the requests that wait meanwhile.
type Renewal = AsyncMutex<Option<(Instant, AttemptError)>>;

impl Grants {
    pub(crate) fn new() -> Self {
        let size = |scope: &String, grant: &Arc<Grant>| {
            let bytes = scope.len() + size_of::<Grant>() + grant.authorization.len();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let grants = Cache::builder().weigher(size).max_capacity(MAX_BYTES).expire_after(UntilExpiry).build();
        Self { grants, renewals: Mutex::default() }
    }

    /// The valid grant for a scope. Waits for a renewal that is in progress.
    pub(crate) async fn current(&self, scope: &str) -> Option<Arc<Grant>> {
        let renewal = self.renewals.lock().get(scope).and_then(Weak::upgrade);
        let _ended = match &renewal {
            Some(renewal) => Some(renewal.lock().await),
            None => None,
        };
        self.valid(scope).await
    }

    /// Removes a grant that is not accepted, unless another one has replaced it.
    pub(crate) async fn remove(&self, scope: &str, rejected: Option<&Arc<Grant>>) {
        let renewal = self.renewal(scope);
        let _ended = renewal.lock().await;
        let current = self.grants.get(scope).await;
        if current.is_some_and(|grant| rejected.is_some_and(|rejected| Arc::ptr_eq(&grant, rejected))) {
            self.grants.invalidate(scope).await;
        }
    }

    /// A grant other than `rejected`: one that another request has fetched meanwhile, or the result of `fetch`. Requests
    /// that wait for a renewal share its failure.
    pub(crate) async fn renew(
        &self,
        scope: &str,
        rejected: Option<&Arc<Grant>>,
        fetch: impl Future<Output = Result<Grant, AttemptError>>,
    ) -> Result<Arc<Grant>, AttemptError> {
        let requested_at = clock::now();
        let renewal = self.renewal(scope);
        let mut failure = renewal.lock().await;
        if let Some((_, failure)) = failure.as_ref().filter(|(at, _)| *at >= requested_at) {
            return Err(failure.clone());
        }
        let is_rejected = |grant: &Arc<Grant>| rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, grant));
        if let Some(grant) = self.valid(scope).await.filter(|grant| !is_rejected(grant)) {
            return Ok(grant);
        }
        *failure = None;
        self.grants.invalidate(scope).await;
        match fetch.await {
            Ok(grant) => {
                let grant = Arc::new(grant);
                self.grants.insert(scope.to_owned(), Arc::clone(&grant)).await;
                Ok(grant)
            }
            Err(failed) => {
                *failure = Some((clock::now(), failed.clone()));
                Err(failed)
            }
        }
    }

    async fn valid(&self, scope: &str) -> Option<Arc<Grant>> {
        self.grants.get(scope).await.filter(|grant| grant.is_valid())
    }

    /// The renewal of a scope that is in progress, or a new one.
    fn renewal(&self, scope: &str) -> Arc<Renewal> {
        let mut renewals = self.renewals.lock();
        if let Some(renewal) = renewals.get(scope).and_then(Weak::upgrade) {
            return renewal;
        }
        renewals.retain(|_, renewal| renewal.strong_count() > 0);
        let renewal = Arc::default();
        renewals.insert(scope.to_owned(), Arc::downgrade(&renewal));
        renewal
    }
}

/// The lifetime of an entry is that of its grant.
struct UntilExpiry;

impl Expiry<String, Arc<Grant>> for UntilExpiry {
    fn expire_after_create(&self, _: &String, grant: &Arc<Grant>, _: Instant) -> Option<Duration> {
        Some(grant.remaining())
    }

    fn expire_after_update(
        &self,
        _: &String,
        grant: &Arc<Grant>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(grant.remaining())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::UpstreamError;

    #[tokio::test(start_paused = true)]
    async fn waiting_requests_share_a_failure_and_later_ones_try_again() {
        let grants = Grants::new();
        let denied = || async {
            sleep(Duration::from_millis(20)).await;
            Err(UpstreamError::Denied.into())
        };
        let never = || async { panic!("a second fetch") };
        let (first, second) =
            tokio::join!(grants.renew("s", None, denied()), grants.renew("s", None, never()));
        assert_eq!(first.unwrap_err().error, UpstreamError::Denied);
        assert_eq!(second.unwrap_err().error, UpstreamError::Denied);
        tokio::time::advance(Duration::from_millis(1)).await;
        let token = async { Ok(Grant::from_token_response(br#"{"token":"a"}"#, "auth.test")?) };
        let fetched = grants.renew("s", None, token).await;
        assert_eq!(fetched.unwrap().authorization, "Bearer a");
    }
    async fn insert(grants: &Grants, scope: &str, response: &str) {
        let grant = async { Ok(Grant::from_token_response(response.as_bytes(), "auth.test")?) };
        grants.renew(scope, None, grant).await.unwrap();
    }

    #[tokio::test]
    async fn grants_are_bounded_in_bytes_whatever_their_number() {
        let grants = Grants::new();
        let response = format!(r#"{{"token":"{}"}}"#, "a".repeat(16 * 1024));
        for number in 0..1500 {
            insert(&grants, &number.to_string(), &response).await;
        }
        grants.grants.run_pending_tasks().await;
        let (count, bytes) = (grants.grants.entry_count(), grants.grants.weighted_size());
        assert!((500..1100).contains(&count) && bytes <= MAX_BYTES, "{count} grants of {bytes} bytes");
        assert!(grants.renewals.lock().len() <= 1);
    }

    #[tokio::test]
    async fn a_grant_leaves_the_cache_when_it_expires() {
        let grants = Grants::new();
        insert(&grants, "a", r#"{"token":"a","expires_in":0}"#).await;
        insert(&grants, "b", r#"{"token":"b","expires_in":300}"#).await;
        assert!(!grants.grants.contains_key("a"));
        assert!(grants.grants.contains_key("b"));
    }
}
