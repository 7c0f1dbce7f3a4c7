//! What several processes tell each other of an upstream, through one PostgreSQL.

use shared_models::test_postgres::TestPostgres;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Rule},
    world::TestWorld,
};

use crate::support::*;

async fn database() -> (TestPostgres, String) {
    let started = tokio::task::spawn_blocking(|| {
        let server = TestPostgres::start().unwrap();
        let url = server.create_database("x").unwrap();
        (server, url)
    });
    started.await.unwrap()
}

async fn world(upstream: &ChaosUpstream, keys: &str, database: &str) -> TestWorld {
    let section = format!("[database]\nurl = {database:?}\nwait = \"1s\"");
    TestWorld::builder().upstream("up", upstream, keys).sections(&section).start().await
}

/// The state of the upstream `up` as a process tells it.
async fn state(world: &TestWorld, key: &str) -> Option<u64> {
    world.json("/api/v1/upstreams").await[0][key].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_failed_one_process_is_left_alone_by_the_other() {
    let (_server, url) = database().await;
    let (upstream, image) = with_image().await;
    let keys = "breaker_failures = 1\nbreaker_open_for = \"5s\"";
    let (one, other) = (world(&upstream, keys, &url).await, world(&upstream, keys, &url).await);
    upstream.on(Rule::on("*", "").then(unavailable()));
    assert_eq!(one.get(&manifest("1")).await.status, 502);
    assert_eventually!(state(&other, "circuit_open_for").await.is_some());
    let refused = other.get(&manifest("1")).await;
    assert_eq!((refused.status.as_u16(), refused.error_code()), (503, "UNAVAILABLE".into()));
    assert!((1..=5).contains(&refused.header("retry-after").parse::<u64>().unwrap()), "{refused:?}");
    assert_eq!(upstream.requests().len(), 1);
    upstream.clear_rules();
    assert_eventually!(other.get(&manifest("1")).await.status == 200);
    assert_image(&reqwest::Method::GET, &other.get(&manifest("1")).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_is_told_of_a_quota_the_other_goes_by_and_so_does_one_that_starts_later() {
    let (_server, url) = database().await;
    let (upstream, _) = with_image().await;
    upstream.set_rate_limit(100, 0);
    let (one, other) = (world(&upstream, "", &url).await, world(&upstream, "", &url).await);
    assert_eq!(one.get(&manifest("1")).await.status, 429);
    upstream.clear_requests();
    for told in [other, world(&upstream, "", &url).await] {
        assert_eventually!(state(&told, "retry_after").await.is_some());
        assert!((50..=60).contains(&state(&told, "retry_after").await.unwrap()));
        assert_eq!(state(&told, "ratelimit_limit").await, Some(100));
        assert_eq!(state(&told, "ratelimit_remaining").await, Some(0));
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_away_costs_only_the_sharing_meanwhile() {
    let (server, url) = database().await;
    let (upstream, _) = with_image().await;
    let (one, other) = (world(&upstream, "", &url).await, world(&upstream, "", &url).await);
    server.stop().unwrap();
    assert_eventually!(one.internal_get("/readyz").await.status == 503);
    upstream.set_rate_limit(100, 0);
    server.start_again().unwrap();
    assert_eventually!(one.get(&manifest("1")).await.status == 429);
    assert_eventually!(state(&other, "retry_after").await.is_some());
}
