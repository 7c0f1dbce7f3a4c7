//! Manifests by tag where there is a copy: every row of table 2 for "D".

use std::time::{Duration, Instant};

use reqwest::Method;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::Image,
    world::TestWorld,
};

use crate::support::*;

/// Makes every tag here look as if it was checked this much earlier. What memory says of it must be over.
fn age_tags(world: &TestWorld, by: Duration) {
    world.execute(&format!("UPDATE tags SET checked_at = checked_at - {}", by.as_millis()));
}

/// Memory that never lags behind what a test writes into the database.
const NO_MEMORY: &str = "[api]\ncache_max_age = \"0\"";

/// A tag each, all pulled, for every failure that is to come.
async fn pulled(upstream: &ChaosUpstream, world: &TestWorld, image: &Image) {
    for failing in failures() {
        upstream.move_tag(UPSTREAM_NAME, failing.what, &image.digest);
        assert_image(&Method::GET, &world.get(&manifest(failing.what)).await, image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_upstream_cannot_confirm_is_served_stale_and_says_why() {
    let (upstream, image) = with_image().await;
    let world =
        TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).sections(NO_MEMORY).start().await;
    pulled(&upstream, &world, &image).await;
    age_tags(&world, Duration::from_secs(42));
    for failing in failures() {
        let tag = failing.what;
        upstream.on(Rule::on("*", &format!("/manifests/{tag}")).then(failing.fault.clone()));
        for method in &METHODS {
            upstream.clear_requests();
            let answer = world.ask(method, &manifest(tag)).await;
            assert_image(method, &answer, &image);
            let (ttl, detail) = answer.header("cache-status").split_once("; detail=").unwrap();
            assert!(ttl.starts_with("tidegate; hit; ttl=-4"), "{tag}: {ttl}");
            assert_eq!(detail, format!("stale-upstream-{}", failing.detail), "{tag}");
            failing.assert_requests(upstream.count("*", tag));
        }
    }
    let stale = "tidegate_pulls_total{upstream=\"up\",kind=\"manifest\",outcome=\"stale\"}";
    assert_eq!(world.metric(stale).await, 22.0);
    upstream.clear_rules();
    let answer = world.get(&manifest("broken")).await;
    assert_eq!(answer.header("cache-status"), "tidegate; fwd=stale; fwd-status=304");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_new_manifest_cannot_be_fetched_is_served_stale() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    pulled(&upstream, &world, &image).await;
    for (failing, seed) in failures().into_iter().zip(100..) {
        let moved = Image::random(seed, &[10]);
        upstream.put_image(UPSTREAM_NAME, failing.what, &moved);
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/manifests/").then(failing.fault.clone()));
        let answer = world.get(&manifest(failing.what)).await;
        assert_image(&Method::GET, &answer, &image);
        assert!(answer.header("cache-status").ends_with(&format!("stale-upstream-{}", failing.detail)));
        failing.assert_requests(upstream.count("GET", &moved.digest));
    }
    assert_eq!(world.rows("manifests"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_leaves_tags_stale_and_digests_fresh() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    world.get(&manifest("1")).await;
    upstream.stop();
    for method in &METHODS {
        let by_tag = world.ask(method, &manifest("1")).await;
        assert_image(method, &by_tag, &image);
        assert!(by_tag.header("cache-status").ends_with("; detail=stale-upstream-502"), "{by_tag:?}");
        let by_digest = world.ask(method, &manifest(&image.digest)).await;
        assert_image(method, &by_digest, &image);
        assert_eq!(by_digest.header("cache-status"), "tidegate; hit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_stale_limit_a_tag_is_refused_as_if_there_were_no_copy() {
    let (upstream, image) = with_image().await;
    let keys = format!("{}\nstale_if_error = \"1h\"", ALWAYS_CHECKED);
    let world = TestWorld::builder().upstream("up", &upstream, &keys).sections(NO_MEMORY).start().await;
    pulled(&upstream, &world, &image).await;
    age_tags(&world, Duration::from_secs(1800));
    for failing in failures() {
        let path = format!("/manifests/{}", failing.what);
        upstream.on(Rule::on("HEAD", &path).then(failing.fault.clone()));
        assert_image(&Method::GET, &world.get(&manifest(failing.what)).await, &image);
    }
    age_tags(&world, Duration::from_secs(1801));
    for failing in failures() {
        for method in &METHODS {
            let answer = world.ask(method, &manifest(failing.what)).await;
            assert_error(method, &answer, failing.status, failing.code);
            assert_eq!(answer.header("retry-after"), failing.retry_after, "{}", failing.what);
        }
    }
    // By its digest it is no less true than before.
    assert_image(&Method::GET, &world.get(&manifest(&image.digest)).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_deleted_upstream_is_gone_where_that_is_wanted_and_only_then() {
    let (upstream, image) = with_image().await;
    let gone = format!("{ALWAYS_CHECKED}\nwhen_deleted_upstream = \"gone\"");
    let world = TestWorld::builder()
        .upstream("keeps", &upstream, ALWAYS_CHECKED)
        .upstream("drops", &upstream, &gone)
        .start()
        .await;
    let (keeps, drops) = (manifest_of("keeps/library/x", "1"), manifest_of("drops/library/x", "1"));
    for path in [&keeps, &drops] {
        assert_image(&Method::GET, &world.get(path).await, &image);
    }
    upstream.delete_tag(UPSTREAM_NAME, "1");
    for method in &METHODS {
        assert_image(method, &world.ask(method, &keeps).await, &image);
        assert_error(method, &world.ask(method, &drops).await, 404, "MANIFEST_UNKNOWN");
    }
    // Any other error is no deletion.
    upstream.on(Rule::on("HEAD", "").then(Fault::Empty(500)));
    for method in &METHODS {
        assert_image(method, &world.ask(method, &drops).await, &image);
    }
    upstream.clear_rules();
    upstream.move_tag(UPSTREAM_NAME, "1", &image.digest);
    assert_image(&Method::GET, &world.get(&drops).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_does_not_keep_a_client_from_the_copy() {
    let (upstream, image) = with_image().await;
    let keys = "tag_ttl = \"0\"\nanswer_timeout = \"20s\"";
    let world = TestWorld::builder()
        .upstream("up", &upstream, keys)
        .sections("[api]\nrevalidate_wait = \"300ms\"")
        .start()
        .await;
    world.get(&manifest("1")).await;
    let moved = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "1", &moved);
    upstream.clear_requests();
    upstream.on(Rule::on("HEAD", "/manifests/1").times(1).then(Fault::Delay(Duration::from_secs(4))));
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let started = Instant::now();
        let answer = world.ask(&method, &manifest("1")).await;
        assert_image(&method, &answer, &image);
        assert!(answer.header("cache-status").ends_with("; detail=stale-upstream-504"), "{answer:?}");
        assert!((250..3500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    }
    assert_eq!(upstream.count("HEAD", ""), 1, "the check goes on, and all wait for the same");
    // What the check finds out holds for whoever comes later.
    assert_eventually!(world.rows("manifests") == 2);
    upstream.stop();
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_stale_limit_a_slow_upstream_is_a_timeout() {
    let (upstream, image) = with_image().await;
    let keys = "tag_ttl = \"0\"\nanswer_timeout = \"20s\"\nstale_if_error = \"1h\"";
    let world = TestWorld::builder()
        .upstream("up", &upstream, keys)
        .sections("[api]\nrevalidate_wait = \"300ms\"\ncache_max_age = \"0\"")
        .start()
        .await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    age_tags(&world, Duration::from_secs(7200));
    upstream.on(Rule::on("HEAD", "/manifests/1").then(Fault::Delay(Duration::from_secs(4))));
    for method in &METHODS {
        assert_error(method, &world.ask(method, &manifest("1")).await, 504, "UNAVAILABLE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_fetched_by_digest_once_and_its_history_is_kept() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    world.get(&manifest("1")).await;
    let moved = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "1", &moved);
    upstream.clear_requests();
    let answer = world.get(&manifest("1")).await;
    assert_image(&Method::GET, &answer, &moved);
    assert_eq!(answer.header("cache-status"), "tidegate; fwd=miss; stored");
    assert_eq!((upstream.count("HEAD", "/manifests/1"), upstream.count("GET", &moved.digest)), (1, 1));
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!((world.rows("tags"), world.rows("tag_moves")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_to_what_is_here_already_costs_no_get() {
    let (upstream, first) = with_image().await;
    let second = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "2", &second);
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for tag in ["1", "2"] {
        world.get(&manifest(tag)).await;
    }
    upstream.clear_requests();
    for (method, image) in [(Method::GET, &second), (Method::HEAD, &first)] {
        upstream.move_tag(UPSTREAM_NAME, "1", &image.digest);
        let answer = world.ask(&method, &manifest("1")).await;
        assert_image(&method, &answer, image);
        assert_eq!(answer.header("cache-status"), "tidegate; fwd=miss; fwd-status=200; detail=known-content");
    }
    assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_tags_and_offline_upstreams_are_never_checked_again() {
    let (upstream, image) = with_image().await;
    upstream.move_tag(UPSTREAM_NAME, "v1.2", &image.digest);
    let world = TestWorld::builder()
        .bare_upstream("up", &upstream.url(), ALWAYS_CHECKED)
        .namespace("up", "up", "immutable_tags = [\"v[0-9]*\"]\nprefetch = \"none\"")
        .start()
        .await;
    for tag in ["1", "v1.2"] {
        world.get(&manifest(tag)).await;
    }
    upstream.clear_requests();
    for method in &METHODS {
        let answer = world.ask(method, &manifest("v1.2")).await;
        assert_image(method, &answer, &image);
        assert_eq!(answer.header("cache-status"), "tidegate; hit");
    }
    assert!(upstream.requests().is_empty());
    world.get(&manifest("1")).await;
    assert_eq!(upstream.requests().len(), 1);

    let dir = world.stop().await;
    let keys = format!("{ALWAYS_CHECKED}\noffline = true");
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, &keys).start().await;
    upstream.clear_requests();
    for method in &METHODS {
        let answer = world.ask(method, &manifest("1")).await;
        assert_image(method, &answer, &image);
        assert_eq!(answer.header("cache-status"), "tidegate; hit");
    }
    assert!(upstream.requests().is_empty());
}
