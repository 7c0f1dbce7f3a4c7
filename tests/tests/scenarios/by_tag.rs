//! Manifests by tag where there is no copy: every row of table 2 for "none".

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::Image,
    world::TestWorld,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_upstream_does_not_give_is_refused_as_the_table_says() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for failing in failures() {
        for method in &METHODS {
            let tag = format!("{}-{method}", failing.what);
            upstream.on(Rule::on("*", &tag).then(failing.fault.clone()));
            let answer = world.ask(method, &manifest(&tag)).await;
            assert_error(method, &answer, failing.status, failing.code);
            assert_eq!(answer.header("retry-after"), failing.retry_after, "{tag}");
            failing.assert_requests(upstream.count("HEAD", &tag));
            assert_eq!(upstream.count("GET", &tag), usize::from(failing.refuses_head), "{tag}");
        }
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_get_that_follows_counts_like_one_of_the_head() {
    let upstream = ChaosUpstream::start().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for (failing, seed) in failures().into_iter().zip(1..) {
        let image = Image::random(seed, &[10]);
        upstream.put_image(UPSTREAM_NAME, failing.what, &image);
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/manifests/").then(failing.fault.clone()));
        let answer = world.get(&manifest(failing.what)).await;
        assert_error(&Method::GET, &answer, failing.status, failing.code);
        assert_eq!(answer.header("retry-after"), failing.retry_after, "{}", failing.what);
        assert_eq!(upstream.count("HEAD", failing.what), 1, "{}", failing.what);
        failing.assert_requests(upstream.count("GET", &image.digest));
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_is_a_bad_gateway() {
    let (upstream, _) = with_image().await;
    upstream.stop();
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for method in &METHODS {
        assert_error(method, &world.ask(method, &manifest("1")).await, 502, "UNKNOWN");
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_upstream_is_never_asked() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, "offline = true").start().await;
    for method in &METHODS {
        for path in [manifest("1"), manifest(&image.digest), blob(&image.config.0)] {
            let answer = world.ask(method, &path).await;
            assert_error(method, &answer, 503, "UNAVAILABLE");
            assert_eq!(answer.header("retry-after"), "5");
        }
    }
    assert_error(&Method::GET, &world.get("/v2/up/library/x/tags/list").await, 503, "UNAVAILABLE");
    assert!(upstream.requests().is_empty());
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_found_is_remembered_for_the_negative_ttl_and_then_asked_again() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "")
        .sections("[api]\nnegative_ttl = \"4s\"")
        .start()
        .await;
    for method in METHODS.iter().cycle().take(6) {
        assert_error(method, &world.ask(method, &manifest("2")).await, 404, "MANIFEST_UNKNOWN");
        assert_error(method, &world.ask(method, &blob(&image.digest)).await, 404, "BLOB_UNKNOWN");
        let digest = &image.config.0;
        assert_error(method, &world.ask(method, &manifest(digest)).await, 404, "MANIFEST_UNKNOWN");
    }
    // No `HEAD` has succeeded, so each is followed by a `GET`.
    let blob = format!("/blobs/{}", image.digest);
    for (path, requests) in [("/manifests/2", 2), (&*blob, 2), (&*image.config.0, 1)] {
        assert_eq!(upstream.count("*", path), requests, "{path}");
    }
    let negative = "tidegate_pulls_total{upstream=\"up\",kind=\"manifest\",outcome=\"negative\"}";
    assert_eq!(world.metric(negative).await, 10.0);
    assert_nothing_recorded(&world).await;
    upstream.move_tag(UPSTREAM_NAME, "2", &image.digest);
    assert_eventually!(world.get(&manifest("2")).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_for_the_negative_ttl() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    for failing in failures().into_iter().filter(|failing| failing.status == 403) {
        upstream.on(Rule::on("*", failing.what).then(failing.fault.clone()));
        for _ in 0..3 {
            let answer = world.get(&manifest(failing.what)).await;
            assert_error(&Method::GET, &answer, 403, "DENIED");
        }
        assert_eq!(upstream.count("HEAD", failing.what), 1, "{}", failing.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_are_no_refusals_are_not_remembered() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for failing in failures().into_iter().filter(|failing| !failing.refuses_head) {
        upstream.clear_rules();
        upstream.on(Rule::on("HEAD", "/manifests/")
            .times(if failing.retried { 3 } else { 1 })
            .then(failing.fault.clone()));
        let tag = failing.what;
        upstream.move_tag(UPSTREAM_NAME, tag, &image.digest);
        assert_eq!(world.get(&manifest(tag)).await.status.as_u16(), failing.status, "{tag}");
        assert_image(&Method::GET, &world.get(&manifest(tag)).await, &image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_name_leaves_nothing_behind() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let name = "up/libary/x";
    for method in &METHODS {
        assert_error(method, &world.ask(method, &manifest_of(name, "1")).await, 404, "MANIFEST_UNKNOWN");
        let by_digest = world.ask(method, &manifest_of(name, &image.digest)).await;
        assert_error(method, &by_digest, 404, "MANIFEST_UNKNOWN");
        assert_error(method, &world.ask(method, &blob_of(name, &image.config.0)).await, 404, "BLOB_UNKNOWN");
    }
    let list = world.get(&format!("/v2/{name}/tags/list")).await;
    assert_error(&Method::GET, &list, 404, "NAME_UNKNOWN");
    assert_nothing_recorded(&world).await;
    assert_eq!(world.stored_files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_head_has_no_digest_or_is_not_allowed_is_asked_by_get() {
    for fault in [Fault::NoDigestHeader, Fault::HeadNotAllowed] {
        for method in &METHODS {
            let (upstream, image) = with_image().await;
            upstream.on(Rule::on("*", "/manifests/").then(fault.clone()));
            let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
            let answer = world.ask(method, &manifest("1")).await;
            assert_image(method, &answer, &image);
            assert_eq!(
                (upstream.count("HEAD", "/manifests/1"), upstream.count("GET", "/manifests/1")),
                (1, 1)
            );
            assert_eq!(upstream.requests().len(), 2);
            assert_eq!(world.rows("tags"), 1);
            // It moves: only the bytes tell.
            let moved = Image::random(2, &[7]);
            upstream.put_image(UPSTREAM_NAME, "1", &moved);
            assert_image(method, &world.ask(method, &manifest("1")).await, &moved);
            assert_eq!(world.rows("tag_moves"), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_costs_one_head_and_nothing_else() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    for (asked, status) in [(1, "tidegate; fwd=miss"), (2, "tidegate; hit"), (3, "tidegate; hit")] {
        let answer = world.head(&manifest("1")).await;
        assert_image(&Method::HEAD, &answer, &image);
        assert_eq!(answer.header("cache-status"), status, "{asked}");
        assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 0));
    }
    assert_nothing_recorded(&world).await;

    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    upstream.clear_requests();
    for asked in 1..=3 {
        assert_image(&Method::HEAD, &world.head(&manifest("1")).await, &image);
        assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (asked, 0));
    }
    let fetched = world.get(&manifest("1")).await;
    assert_image(&Method::GET, &fetched, &image);
    assert_eq!(fetched.header("cache-status"), "tidegate; fwd=miss; stored");

    // The tag moves: the upstream names another manifest, and the stored one stays.
    let moved = Image::random(2, &[7]);
    upstream.put_image(UPSTREAM_NAME, "1", &moved);
    upstream.clear_requests();
    assert_image(&Method::HEAD, &world.head(&manifest("1")).await, &moved);
    assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (1, 0));
    assert_eq!(world.texts("SELECT manifest AS text FROM tags"), [image.digest.as_str()]);
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &moved);
    assert_eq!(upstream.count("GET", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_named_for_a_head_is_recorded_with_the_manifest() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    assert_image(&Method::HEAD, &world.head(&manifest("1")).await, &image);
    assert_image(&Method::GET, &world.get(&manifest(image.digest.as_str())).await, &image);
    assert_eq!(world.texts("SELECT manifest AS text FROM tags"), [image.digest.as_str()]);
    upstream.on(Rule::on("*", "").then(Fault::Status(503, Vec::new(), Bytes::new())));
    for method in [Method::HEAD, Method::GET] {
        let stale = world.ask(&method, &manifest("1")).await;
        assert_image(&method, &stale, &image);
        assert!(stale.header("cache-status").contains("stale-upstream-502"), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_the_upstream_delivers_only_by_tag_is_served() {
    let (upstream, image) = with_image().await;
    for status in [404, 424, 500] {
        upstream.clear_rules();
        let by_digest = format!("/manifests/{}", image.digest);
        upstream.on(Rule::on("GET", &by_digest).then(Fault::Status(status, Vec::new(), Bytes::new())));
        let world = TestWorld::start(&upstream).await;
        assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
        // The digest that a `HEAD` named is found by its tag, too.
        let world = TestWorld::start(&upstream).await;
        assert_image(&Method::HEAD, &world.head(&manifest("1")).await, &image);
        assert_image(&Method::GET, &world.get(&manifest(image.digest.as_str())).await, &image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_joins_the_check_of_a_head_gets_the_manifest() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    upstream.on(Rule::on("HEAD", "/manifests/1").then(Fault::Delay(Duration::from_millis(500))));
    let path = manifest("1");
    let get = async {
        assert_eventually!(upstream.count("HEAD", "") == 1);
        world.get(&path).await
    };
    let (head, get) = futures::join!(world.head(&path), get);
    assert_image(&Method::HEAD, &head, &image);
    assert_image(&Method::GET, &get, &image);
    assert_eq!(upstream.count("GET", ""), 1);
}
