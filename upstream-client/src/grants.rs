//! The grants of one upstream, by scope.

use std::{sync::Arc, time::Instant};

use moka::future::Cache;
use tokio::sync::Mutex;

use crate::{clock, error::AttemptError, grant::Grant};

/// Maximum scopes whose grants are cached.
const MAX_SCOPES: u64 = 10_000;

/// The grants of one upstream, by scope. Each is cached until it expires, and renewed by one request at a time.
#[derive(Debug)]
pub(crate) struct Grants {
    slots: Cache<String, Arc<Mutex<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    grant: Option<Arc<Grant>>,
    failure: Option<(Instant, AttemptError)>,
}

impl Slot {
    fn valid(&self) -> Option<Arc<Grant>> {
        self.grant.clone().filter(|grant| grant.is_valid())
    }
}

impl Grants {
    pub(crate) fn new() -> Self {
        Self { slots: Cache::new(MAX_SCOPES) }
    }

    /// The valid grant for a scope. Waits for a renewal that is in progress.
    pub(crate) async fn current(&self, scope: &str) -> Option<Arc<Grant>> {
        let slot = self.slots.get(scope).await?;
        let slot = slot.lock().await;
        slot.valid()
    }

    /// Removes a grant that is not accepted, unless another one has replaced it.
    pub(crate) async fn remove(&self, scope: &str, rejected: Option<&Arc<Grant>>) {
        let (Some(slot), Some(rejected)) = (self.slots.get(scope).await, rejected) else { return };
        let mut slot = slot.lock().await;
        slot.grant.take_if(|grant| Arc::ptr_eq(grant, rejected));
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
        let slot = self.slots.get_with_by_ref(scope, async { Arc::default() }).await;
        let mut slot = slot.lock().await;
        if let Some((_, failure)) = slot.failure.as_ref().filter(|(at, _)| *at >= requested_at) {
            return Err(failure.clone());
        }
        let is_rejected = |grant: &Arc<Grant>| rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, grant));
        if let Some(grant) = slot.valid().filter(|grant| !is_rejected(grant)) {
            return Ok(grant);
        }
        *slot = Slot::default();
        match fetch.await {
            Ok(grant) => Ok(Arc::clone(slot.grant.insert(Arc::new(grant)))),
            Err(failure) => {
                slot.failure = Some((clock::now(), failure.clone()));
                Err(failure)
            }
        }
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
        let token = async { Ok(Grant::from_token_response(br#"{"token":"a"}"#)?) };
        let fetched = grants.renew("s", None, token).await;
        assert_eq!(fetched.unwrap().authorization, "Bearer a");
    }
}
