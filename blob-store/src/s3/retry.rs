//! Retries of uploads while the object store is unavailable.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use crate::request_error::RequestError;

/// Back-off between the attempts.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// Repeats a request while the object store is unavailable, until `limit` has passed.
pub(super) async fn retry_while_unavailable<T, F: Future<Output = Result<T, RequestError>>>(
    limit: Duration,
    request: impl FnMut() -> F,
) -> Result<T, RequestError> {
    let deadline = Instant::now() + limit;
    request
        .retry(BACKOFF)
        .when(RequestError::is_retryable)
        .adjust(|_, delay| delay.filter(|delay| Instant::now() + *delay < deadline))
        .notify(|error, _| tracing::debug!(%error, "request to the object store will be retried"))
        .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::RequestErrorKind;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_unavailable_object_store_is_tried_until_the_limit() {
        let (attempts, start) = (Cell::new(0), Instant::now());
        let result = retry_while_unavailable(LIMIT, async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(RequestError::timed_out())
        });
        assert_eq!(result.await.unwrap_err().kind(), RequestErrorKind::Unavailable);
        let elapsed = start.elapsed();
        assert!(elapsed <= LIMIT && elapsed > LIMIT - Duration::from_secs(10), "{elapsed:?}");
        // Delays of 0.1, 0.2, … 3.2 s, then 5 s; jitter at most doubles each.
        assert!((11..=17).contains(&attempts.get()), "{} attempts", attempts.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_and_a_refusal_end_the_retries() {
        let refused = || {
            RequestError::from(object_store::Error::NotImplemented {
                operation: String::new(),
                implementer: String::new(),
            })
        };
        for last in [Ok(7), Err(refused())] {
            let attempts = Cell::new(0);
            let expected = last.as_ref().copied().map_err(RequestError::kind);
            let result = retry_while_unavailable(LIMIT, || {
                attempts.set(attempts.get() + 1);
                let result = if attempts.get() < 3 { Err(RequestError::timed_out()) } else { last.clone() };
                async { result }
            });
            assert_eq!(result.await.map_err(|error| error.kind()), expected);
            assert_eq!(attempts.get(), 3);
        }
    }
}
