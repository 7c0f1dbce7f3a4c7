//! Two processes with one upstream: two clients of their own.

use std::time::Duration;

use upstream_client::{
    Priority::{Background, Client},
    Upstream, UpstreamError,
};

use crate::support::{in_turn, reference, reply, repository, upstream};

async fn ask(upstream: &Upstream, priority: upstream_client::Priority) -> Result<(), UpstreamError> {
    upstream.head_manifest(&repository("a"), &reference("t"), priority).await.map(|_| ())
}

#[tokio::test]
async fn an_upstream_that_has_told_nothing_is_not_told_of() {
    let server = in_turn(vec![reply(200), reply(404)]).await;
    let upstream = server.upstream();
    assert_eq!(upstream.sighting(), None);
    ask(&upstream, Client).await.unwrap();
    ask(&upstream, Client).await.unwrap_err();
    assert_eq!(upstream.sighting(), None);
}

#[tokio::test]
async fn a_retry_after_that_one_process_met_holds_the_others_background_work_back() {
    let server = in_turn(vec![reply(429).header("retry-after", "60")]).await;
    let (one, other) = (server.upstream(), server.upstream());
    ask(&one, Client).await.unwrap_err();
    other.take_in(&one.sighting().unwrap());
    let held = ask(&other, Background).await.unwrap_err();
    let UpstreamError::RateLimited { retry_after: Some(left) } = held else { panic!("{held:?}") };
    assert!((58..=60).contains(&left.as_secs()), "{left:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(other.sighting(), None, "what it was told is no news of its own");
}

#[tokio::test]
async fn a_quota_that_one_process_was_told_counts_for_the_others_reserve() {
    let quota = |left: &str| reply(200).header("ratelimit-limit", "100").header("ratelimit-remaining", left);
    let server = in_turn(vec![quota("5"), quota("4")]).await;
    let mut config = server.config();
    config.ratelimit_reserve = 5;
    let (one, other) = (upstream(config.clone()), upstream(config));
    ask(&one, Client).await.unwrap();
    let first = one.sighting().unwrap();
    other.take_in(&first);
    assert!(matches!(ask(&other, Background).await, Err(UpstreamError::RateLimited { .. })));
    let seen = other.status().rate_limit.unwrap();
    assert_eq!((seen.limit, seen.remaining), (Some(100), Some(5)));

    tokio::time::sleep(Duration::from_millis(5)).await;
    ask(&other, Client).await.unwrap();
    other.take_in(&first);
    assert_eq!(other.status().rate_limit.unwrap().remaining, Some(4), "the older one does not come back");
}

#[tokio::test]
async fn a_circuit_that_one_process_opened_is_open_for_the_others_unless_upstream_answers_them() {
    let server = in_turn(vec![reply(200), reply(500), reply(200)]).await;
    let mut config = server.config();
    (config.breaker_failures, config.breaker_open_for) = (1, Duration::from_secs(60));
    let [one, other, third] = [(); 3].map(|()| upstream(config.clone()));
    ask(&other, Client).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    ask(&one, Client).await.unwrap_err();
    let opened = one.sighting().unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    ask(&third, Client).await.unwrap();
    for process in [&other, &third] {
        process.take_in(&opened);
    }
    assert!(matches!(ask(&other, Client).await, Err(UpstreamError::CircuitOpen { .. })));
    assert_eq!(third.status().circuit_open_for, None, "it was answered later");
    assert_eq!(server.requests().len(), 3);
}
