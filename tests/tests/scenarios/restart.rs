//! What outlives the process, and what is served from it while upstream is away.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use tidegate_tests::{
    assert_eventually,
    chaos::{Fault, Rule},
    image::Image,
    world::TestWorld,
};

use crate::support::*;

async fn assert_all_here(world: &TestWorld, image: &Image) {
    for method in &METHODS {
        assert_image(method, &world.ask(method, &manifest("1")).await, image);
        assert_image(method, &world.ask(method, &manifest(&image.digest)).await, image);
    }
    for (digest, bytes) in image.blobs() {
        let head = world.head(&blob(digest)).await;
        assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, &*bytes.len().to_string()));
        assert!(world.blob(NAME, digest).await.body == *bytes, "{digest}");
    }
    assert_eq!(world.json("/v2/up/library/x/tags/list").await["tags"], serde_json::json!(["1"]));
    assert_eq!(world.json("/v2/_catalog").await["repositories"], serde_json::json!([NAME]));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_pulled_before_pulls_again_after_a_restart_with_upstream_stopped() {
    let (upstream, image) = with_image().await;
    let unpulled = Image::random(2, &[10]);
    upstream.put_image(UPSTREAM_NAME, "2", &unpulled);
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    world.get(&manifest("1")).await;
    for (digest, bytes) in image.blobs() {
        world.blob(NAME, digest).await;
        world.assert_stored(digest, bytes).await;
    }
    let dir = world.stop().await;
    upstream.stop();
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "tag_ttl = \"0\"").start().await;
    assert_eq!(
        world.internal_get("/readyz").await.status,
        StatusCode::OK,
        "upstream is none of its concerns"
    );
    for _ in 0..3 {
        assert_all_here(&world, &image).await;
        for method in &METHODS {
            for path in [manifest("2"), manifest(&unpulled.digest), blob(&unpulled.config.0)] {
                let started = Instant::now();
                let answer = world.ask(method, &path).await;
                assert!(matches!(answer.status.as_u16(), 502..=504), "{path} {answer:?}");
                assert!(started.elapsed() < Duration::from_secs(10), "{path} {:?}", started.elapsed());
            }
        }
    }
    let dir = world.stop().await;
    upstream.restart().await;
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    assert_image(&Method::GET, &world.get(&manifest("2")).await, &unpulled);
    assert_eq!(world.get(&manifest("1")).await.header("cache-status"), "tidegate; fwd=stale; fwd-status=304");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_keeps_nobody_longer_than_ten_seconds() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, "tag_ttl = \"0\"").start().await;
    world.get(&manifest("1")).await;
    upstream.on(Rule::on("*", "").then(Fault::Delay(Duration::MAX)));
    let (unknown_manifest, unknown_blob, known) = (manifest("2"), blob(&image.digest), manifest("1"));
    let timed = |path| {
        let world = &world;
        async move {
            let started = Instant::now();
            (world.get(path).await, started.elapsed())
        }
    };
    let ((manifest, blob), (list, known)) =
        tokio::join!(async { tokio::join!(timed(&unknown_manifest), timed(&unknown_blob)) }, async {
            tokio::join!(timed("/v2/up/library/y/tags/list"), timed(&known))
        },);
    for (answer, took) in [manifest, blob, list] {
        assert_error(&Method::GET, &answer, 504, "UNAVAILABLE");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    assert_image(&Method::GET, &known.0, &image);
    assert!((1_800..4_000).contains(&known.1.as_millis()), "{:?}", known.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_stays_fresh_over_a_restart() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let dir = world.stop().await;
    upstream.clear_requests();
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
    assert_image(&Method::HEAD, &world.head(&manifest(&image.digest)).await, &image);
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_file_is_gone_is_fetched_again() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let (digest, bytes) = (&image.layers[1].digest, &image.layers[1].bytes);
    world.blob(NAME, digest).await;
    world.assert_stored(digest, bytes).await;
    let dir = world.stop().await;
    let lost = dir.path().join("data/blobs/sha256").join(&digest[7..9]).join(&digest[7..]);
    std::fs::remove_file(lost).unwrap();
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert!(world.blob(NAME, digest).await.body == *bytes);
    world.assert_stored(digest, bytes).await;
    assert_eq!(upstream.count("GET", digest), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn shut_down_lets_a_stream_finish() {
    let upstream = tidegate_tests::chaos::ChaosUpstream::start().await;
    let image = Image::random(1, &[2_000_000]);
    upstream.put_image(UPSTREAM_NAME, "1", &image);
    upstream.on(Rule::on("GET", "/blobs/").then(Fault::Throttle { bytes_per_second: 1_500_000 }));
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let layer = &image.layers[0];
    let url = world.content_url(NAME, &layer.digest).await;
    let mut answer = world.client().get(url).send().await.unwrap();
    let mut body = answer.chunk().await.unwrap().unwrap().to_vec();
    let (dir, ()) = tokio::join!(world.stop(), async {
        while let Some(chunk) = answer.chunk().await.unwrap() {
            body.extend_from_slice(&chunk);
        }
    });
    assert!(body == layer.bytes, "{} of {} bytes", body.len(), layer.bytes.len());
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert!(world.blob(NAME, &layer.digest).await.body == layer.bytes);
    assert_eq!(upstream.count("GET", &layer.digest), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_node_that_has_long_been_dead_is_forgotten() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    for (id, seconds_ago) in [("long-dead", 61), ("just-dead", 20)] {
        world.execute(&format!(
            "INSERT INTO content_nodes (id, public_url, internal_url, heartbeat_at, draining)
             VALUES ('{id}', '', '', (unixepoch() - {seconds_ago}) * 1000, false)"
        ));
    }
    let dir = world.stop().await;
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    let nodes = || world.texts("SELECT id AS text FROM content_nodes WHERE id LIKE '%dead'");
    assert_eventually!(nodes() == ["just-dead"]);
}
