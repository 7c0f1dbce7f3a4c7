//! The retry of a call's attempts.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout};

use crate::{UpstreamError, error::AttemptError};

/// Maximum retries of one call.
const MAX_RETRIES: usize = 2;

/// Lower bound of the pause before the first retry. Each pause is drawn at random between its lower bound and twice
/// that, so that the retries of many calls are spread.
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// Makes attempts until one succeeds, fails for good, or `limit` is over.
///
/// # Errors
/// The error of the last attempt; `Timeout` when an attempt is in progress at the limit.
pub(crate) async fn retry<T, F>(limit: Duration, attempt: impl Fn() -> F) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, AttemptError>>,
{
    let started = Instant::now();
    // Where no time is left for another attempt, the error of this one is more precise than a timeout.
    let in_time = |pause: &Duration| started.elapsed().saturating_add(*pause) < limit;
    let attempts = attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(MIN_BACKOFF)
                .with_max_times(MAX_RETRIES)
                .with_jitter(),
        )
        .when(|failure: &AttemptError| failure.retryable)
        .adjust(|_, pause| pause.filter(in_time));
    match timeout(limit, attempts).await {
        Ok(result) => result.map_err(|failure| failure.error),
        Err(_) => Err(UpstreamError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    fn failure(retryable: bool) -> AttemptError {
        AttemptError { error: UpstreamError::Server { status: 503 }, retryable }
    }

    /// Runs attempts that take `duration` and end as `outcomes` say. Returns the result and the number of attempts.
    async fn run(
        limit: Duration,
        duration: Duration,
        outcomes: &[Result<(), AttemptError>],
    ) -> (Result<(), UpstreamError>, usize) {
        let attempts = Cell::new(0);
        let attempt = || async {
            let outcome = outcomes[attempts.get()].clone();
            attempts.set(attempts.get() + 1);
            sleep(duration).await;
            outcome
        };
        (retry(limit, attempt).await, attempts.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_retryable_failure_is_retried_twice_with_growing_pauses() {
        let failed = || Err(failure(true));
        for (outcomes, succeeds, pauses) in [
            (vec![Ok(())], true, 0..=0),
            (vec![failed(), Ok(())], true, 100..=201),
            (vec![failed(), failed(), Ok(())], true, 300..=602),
            (vec![failed(), failed(), failed()], false, 300..=602),
        ] {
            let started = Instant::now();
            let (result, attempts) = run(LIMIT, Duration::ZERO, &outcomes).await;
            assert_eq!((result.is_ok(), attempts), (succeeds, outcomes.len()));
            assert!(pauses.contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_failure_is_final() {
        let (result, attempts) = run(LIMIT, Duration::ZERO, &[Err(failure(false))]).await;
        assert_eq!((result, attempts), (Err(UpstreamError::Server { status: 503 }), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_for_another_attempt_the_last_error_counts() {
        let started = Instant::now();
        let limit = Duration::from_millis(1000);
        let (result, attempts) = run(limit, Duration::from_millis(950), &[Err(failure(true))]).await;
        assert_eq!((result, attempts), (Err(UpstreamError::Server { status: 503 }), 1));
        assert_eq!(started.elapsed(), Duration::from_millis(950));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_at_the_limit_is_a_timeout() {
        let started = Instant::now();
        let limit = Duration::from_millis(1000);
        let outcomes = [Err(failure(true)), Ok(())];
        let (result, attempts) = run(limit, Duration::from_millis(700), &outcomes).await;
        assert_eq!((result, attempts), (Err(UpstreamError::Timeout), 2));
        assert!(started.elapsed() < Duration::from_millis(1005), "{:?}", started.elapsed());
    }
}
