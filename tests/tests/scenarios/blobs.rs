//! Blobs: every row of table 4.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::{random_bytes, sha256},
    world::TestWorld,
};

use crate::support::*;

/// A blob of [`UPSTREAM_NAME`] that no manifest names.
fn put_lonely(upstream: &ChaosUpstream, seed: u64) -> (String, Bytes) {
    let bytes = random_bytes(seed, 30_000);
    let digest = sha256(&bytes);
    upstream.put_blob(UPSTREAM_NAME, &digest, bytes.clone());
    (digest, bytes)
}

/// Asserts that an answer describes the blob (`HEAD`) or leads to it (`GET`).
#[track_caller]
fn assert_blob(method: &Method, answer: &tidegate_tests::world::Answer, digest: &str, bytes: &Bytes) {
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert!(answer.body.is_empty());
    if *method == Method::HEAD {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("location"), "");
    } else {
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert!(answer.header("location").contains(digest), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_constant_blobs_are_served_without_upstream() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let gzip = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
    let json = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    for digest in [gzip, json] {
        for name in [NAME, "up/never/heard/of"] {
            let whole = world.get(&blob_of(name, digest)).await;
            assert_eq!((whole.status, whole.header("docker-content-digest")), (StatusCode::OK, digest));
            assert_eq!(sha256(&whole.body), digest);
            let head = world.head(&blob_of(name, digest)).await;
            assert_eq!(head.status, StatusCode::OK);
            assert_eq!(head.header("content-length"), whole.body.len().to_string());
            assert_eq!(head.header("docker-content-digest"), digest);
        }
    }
    assert!(upstream.requests().is_empty());
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_blob_is_described_and_led_to_without_a_download() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "")
        .sections("[api]\ncache_max_age = \"0\"")
        .start()
        .await;
    world.get(&manifest("1")).await;
    upstream.clear_requests();
    for (digest, bytes) in image.blobs() {
        for method in &METHODS {
            let answer = world.ask(method, &blob(digest)).await;
            assert_blob(method, &answer, digest, bytes);
            assert_eq!(answer.header("cache-status"), "tidegate; fwd=miss");
        }
        let content = world.content_url(NAME, digest).await;
        let head = world.send(world.client().head(content)).await;
        assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, &*bytes.len().to_string()));
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(world.stored_files().len(), 0);
    for (digest, bytes) in image.blobs() {
        assert!(world.blob(NAME, digest).await.body == *bytes);
        world.assert_stored(digest, bytes).await;
        assert_eventually!(world.head(&blob(digest)).await.header("cache-status") == "tidegate; hit");
        for method in &METHODS {
            assert_blob(method, &world.ask(method, &blob(digest)).await, digest, bytes);
        }
        assert_eq!(upstream.count("*", digest), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_before_its_manifest_is_pending_and_then_linked() {
    for method in &METHODS {
        let (upstream, image) = with_image().await;
        let world = TestWorld::start(&upstream).await;
        let (digest, bytes) = (&image.layers[1].digest, &image.layers[1].bytes);
        for _ in 0..3 {
            assert_blob(method, &world.ask(method, &blob(digest)).await, digest, bytes);
        }
        assert_eq!((upstream.count("HEAD", digest), upstream.requests().len()), (1, 1));
        let pending = "SELECT CAST(pending AS TEXT) AS text FROM repository_blobs";
        assert_eq!(world.texts(pending), ["1"]);
        assert!(world.blob(NAME, digest).await.body == *bytes);
        assert_eq!((upstream.count("GET", digest), upstream.requests().len()), (1, 2));
        world.get(&manifest("1")).await;
        assert_eq!(world.texts(pending), ["0", "0", "0"]);
        assert_eq!(world.json("/v2/_catalog").await["repositories"][0], NAME);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_blob_that_nobody_names_expires_and_a_linked_one_does_not() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let (lonely, _) = put_lonely(&upstream, 3);
    world.head(&blob(&lonely)).await;
    world.get(&manifest("1")).await;
    assert_eq!(world.rows("repository_blobs"), 4);
    world.execute("UPDATE repository_blobs SET touched_at = touched_at - 86000000");
    let dir = world.stop().await;
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert_eq!(world.head(&blob(&lonely)).await.status, StatusCode::OK, "a day is not over");
    world.execute("UPDATE repository_blobs SET touched_at = touched_at - 86400000");
    let dir = world.stop().await;
    let world = TestWorld::builder().in_dir(dir).upstream("up", &upstream, "").start().await;
    assert_eventually!(world.rows("repository_blobs") == 3);
    upstream.stop();
    assert_eq!(world.head(&blob(&image.config.0)).await.status, StatusCode::OK);
    assert_eq!(world.head(&blob(&lonely)).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_upstream_does_not_give_is_refused_as_the_table_says() {
    let (upstream, _) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    let mut seeds = 100..;
    for failing in failures() {
        for method in &METHODS {
            let (digest, _) = put_lonely(&upstream, seeds.next().unwrap());
            upstream.on(Rule::on("*", &digest).then(failing.fault.clone()));
            let answer = world.ask(method, &blob(&digest)).await;
            let code = failing.code.replace("MANIFEST", "BLOB");
            assert_error(method, &answer, failing.status, &code);
            assert_eq!(answer.header("retry-after"), failing.retry_after, "{}", failing.what);
            failing.assert_requests(upstream.count("HEAD", &digest));
            let gets = usize::from(failing.refuses_head);
            assert_eq!(upstream.count("GET", &digest), gets, "{}", failing.what);
        }
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_head_is_refused_is_asked_for_by_one_byte() {
    for method in &METHODS {
        for status in [405, 501, 400] {
            let (upstream, _) = with_image().await;
            let (digest, bytes) = put_lonely(&upstream, 3);
            upstream.on(Rule::on("HEAD", &digest).then(Fault::Empty(status)));
            let world = TestWorld::start(&upstream).await;
            assert_blob(method, &world.ask(method, &blob(&digest)).await, &digest, &bytes);
            let seen = upstream.requests();
            assert_eq!(seen.len(), 2, "{status}");
            assert_eq!((seen[1].method.as_str(), seen[1].header("range")), ("GET", Some("bytes=0-0")));
            assert!(world.blob(NAME, &digest).await.body == bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_head_is_redirected_is_followed() {
    for method in &METHODS {
        let (upstream, _) = with_image().await;
        let (digest, bytes) = put_lonely(&upstream, 3);
        let cdn = ChaosUpstream::start().await;
        cdn.put_file("/there", bytes.clone());
        let there = format!("{}/there?signature=1", cdn.url());
        upstream.on(Rule::on("*", &digest).then(Fault::RedirectTo(there)));
        let world = TestWorld::builder().upstream("up", &upstream, "allow_private = true").start().await;
        assert_blob(method, &world.ask(method, &blob(&digest)).await, &digest, &bytes);
        assert_eq!((upstream.count("HEAD", ""), cdn.count("HEAD", "/there")), (1, 1));
        assert!(world.blob(NAME, &digest).await.body == bytes);
        assert_eq!((upstream.count("GET", ""), cdn.count("GET", "/there")), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_one_repository_is_not_readable_through_another_one() {
    let (upstream, image) = with_image().await;
    upstream.put_image("library/other", "1", &tidegate_tests::image::Image::random(5, &[10]));
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    world.get(&manifest_of("up/library/other", "1")).await;
    for (digest, _) in image.blobs() {
        world.blob(NAME, digest).await;
        for method in &METHODS {
            let answer = world.ask(method, &blob_of("up/library/other", digest)).await;
            assert_error(method, &answer, 404, "BLOB_UNKNOWN");
        }
        assert_eq!(upstream.count("HEAD", &format!("other/blobs/{digest}")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_blob_that_cannot_be_found_is_no_404_when_upstream_has_lost_it() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    world.get(&manifest("1")).await;
    let [stored, unknown] = [0, 1].map(|layer| image.layers[layer].digest.clone());
    // As on a node whose peers have it, and are away.
    world.execute(&format!("UPDATE blobs SET state = 1 WHERE digest = '{stored}'"));
    upstream.delete_blob(UPSTREAM_NAME, &stored);
    upstream.delete_blob(UPSTREAM_NAME, &unknown);
    let answer = world.blob(NAME, &stored).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
    );
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(world.blob(NAME, &unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_a_wrong_size_keeps_no_other_repository_from_the_blob() {
    let (upstream, image) = with_image().await;
    let layer = &image.layers[0];
    let right = format!("\"size\":{}", layer.bytes.len());
    let manifests = String::from_utf8(image.manifest.to_vec()).unwrap();
    for (name, wrong) in [("library/small", 1_u64), ("library/large", 1 << 50)] {
        assert!(manifests.contains(&right), "{manifests}");
        let lie = manifests.replace(&right, &format!("\"size\":{wrong}"));
        upstream.put_manifest(name, "1", &image.media_type, lie.into());
    }
    for liar in ["library/small", "library/large"] {
        let world = TestWorld::start(&upstream).await;
        assert_eq!(world.get(&manifest_of(&format!("up/{liar}"), "1")).await.status, StatusCode::OK);
        assert_eq!(world.get(&manifest("1")).await.status, StatusCode::OK);
        let answer = world.blob(NAME, &layer.digest).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &layer.bytes), "{liar}");
    }
}
