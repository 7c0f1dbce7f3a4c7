//! Two processes with one upstream: two clients that share snapshots.

use std::time::Duration;

use upstream_client::{
    Priority::{self, Background, Client},
    Upstream, UpstreamError,
};

use crate::support::{advance, in_turn, reference, reply, repository, unavailable, upstream};

async fn head(upstream: &Upstream, priority: Priority) -> Result<(), UpstreamError> {
    upstream.head_manifest(&repository("a"), &reference("t"), priority).await.map(|_| ())
}

#[tokio::test]
async fn there_is_no_snapshot_before_the_first_change() {
    let server = in_turn(vec![reply(200), reply(404)]).await;
    let upstream = server.upstream();
    assert_eq!(upstream.snapshot(), None);
    head(&upstream, Client).await.unwrap();
    head(&upstream, Client).await.unwrap_err();
    assert_eq!(upstream.snapshot(), None);
}

#[tokio::test]
async fn a_429_to_one_process_delays_the_background_requests_of_the_other() {
    let server = in_turn(vec![reply(429).header("retry-after", "3600")]).await;
    let (one, other) = (server.upstream(), server.upstream());
    head(&one, Client).await.unwrap_err();
    other.merge(&one.snapshot().unwrap());
    let delayed = head(&other, Background).await.unwrap_err();
    let UpstreamError::RateLimited { retry_after: Some(wait) } = delayed else { panic!("{delayed:?}") };
    assert!((1800..=3600).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(other.snapshot(), None, "a merged snapshot is not a change of its own");
}

#[tokio::test]
async fn a_quota_that_one_process_observed_counts_for_the_reserve_of_the_other() {
    let quota = |remaining: &str| {
        reply(200).header("ratelimit-limit", "100").header("ratelimit-remaining", remaining)
    };
    let server = in_turn(vec![quota("5"), quota("4")]).await;
    let mut config = server.config();
    config.ratelimit_reserve = 5;
    let (one, other) = (upstream(config.clone()), upstream(config));
    head(&one, Client).await.unwrap();
    let first = one.snapshot().unwrap();
    other.merge(&first);
    assert!(matches!(head(&other, Background).await, Err(UpstreamError::RateLimited { .. })));
    let merged = other.status().rate_limit.unwrap();
    assert_eq!((merged.limit, merged.remaining), (Some(100), Some(5)));

    advance(Duration::from_secs(5)).await;
    head(&other, Client).await.unwrap();
    other.merge(&first);
    assert_eq!(other.status().rate_limit.unwrap().remaining, Some(4), "the older quota is not merged");
}

#[tokio::test]
async fn a_circuit_that_one_process_opened_opens_for_the_others_without_a_later_success() {
    let server = in_turn(vec![reply(200), unavailable(), reply(200)]).await;
    let mut config = server.config();
    (config.breaker_failures, config.breaker_open_for) = (1, Duration::from_secs(3600));
    let [one, other, third] = [(); 3].map(|()| upstream(config.clone()));
    head(&other, Client).await.unwrap();
    advance(Duration::from_secs(5)).await;
    head(&one, Client).await.unwrap_err();
    let opened = one.snapshot().unwrap();
    advance(Duration::from_secs(5)).await;
    head(&third, Client).await.unwrap();
    for process in [&other, &third] {
        process.merge(&opened);
    }
    assert!(matches!(head(&other, Client).await, Err(UpstreamError::CircuitOpen { .. })));
    assert_eq!(third.status().circuit_open_for, None, "its success is later");
    assert_eq!(server.requests().len(), 3);
}
