//! Sizes that manifests and registries state falsely: a size is a hint, the digest decides.

use bytes::Bytes;
use reqwest::StatusCode;
use tidegate_tests::{
    chaos::{ChaosUpstream, Fault, Rule},
    image::{sha256, sha512},
    world::{TestWorld, WorldBuilder},
};

use crate::cold::{Cold, MIB, NAME, REPOSITORY, image, know, sections};

/// The manifest of an image of one layer of `size` bytes, for which it states another size.
fn manifest_with_size(size: usize, stated: usize) -> Bytes {
    let text = String::from_utf8(image(size).manifest.to_vec()).unwrap();
    let true_size = format!("\"size\":{size}");
    assert_eq!(text.matches(&true_size).count(), 1, "{text}");
    Bytes::from(text.replace(&true_size, &format!("\"size\":{stated}")))
}

/// The blob of an image whose manifest states a false size for it, in a world that knows no other size.
async fn with_stated_size(size: usize, stated: usize, builder: WorldBuilder) -> Cold {
    let upstream = ChaosUpstream::start().await;
    let layer = image(size).layers[0].clone();
    upstream.put_image(REPOSITORY, "1", &image(size));
    upstream.put_manifest(REPOSITORY, "false", &image(size).media_type, manifest_with_size(size, stated));
    let world = builder.sections(&sections("")).upstream("up", &upstream, "").start().await;
    let answer = world.get(&format!("/v2/{NAME}/manifests/false")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let url = world.content_url(NAME, &layer.digest).await;
    upstream.clear_requests();
    Cold { upstream, world, digest: layer.digest, bytes: layer.bytes, url }
}

async fn stated_as_empty(size: usize) -> Cold {
    with_stated_size(size, 0, TestWorld::builder()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_served_in_its_size_whatever_its_manifest_states() {
    for stated in [1, MIB - 1] {
        let cold = with_stated_size(MIB, stated, TestWorld::builder()).await;
        cold.assert_served().await;
        cold.assert_stored().await;
        let cold = with_stated_size(MIB, stated, TestWorld::builder()).await;
        let end = cold.range("bytes=-100").await;
        assert_eq!(end.header("content-range"), format!("bytes {}-{}/{MIB}", MIB - 100, MIB - 1), "{stated}");
        assert!(end.body == cold.bytes[MIB - 100..]);
        assert!(cold.asked().len() <= 4, "{:?}", cold.asked_ranges());
    }
    // A shorter response may have been interrupted: only the digest tells that it was the whole blob.
    for stated in [MIB + 1, 1000 * MIB] {
        let cold = with_stated_size(MIB, stated, TestWorld::builder()).await;
        assert!(!cold.raw(&[]).await.rest().await.complete, "{stated}");
        cold.assert_served().await;
        cold.assert_stored().await;
        assert!(cold.asked().len() <= 4, "{:?}", cold.asked_ranges());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_length_of_a_later_response_does_not_cut_a_blob() {
    let upstream = ChaosUpstream::start().await;
    upstream.put_image(REPOSITORY, "1", &image(MIB));
    let layer = image(MIB).layers[0].clone();
    upstream.on(Rule::on("HEAD", &layer.digest).then(Fault::NoContentLength));
    let world = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "").start().await;
    let url = world.content_url(NAME, &layer.digest).await;
    let cold = Cold { upstream, world, digest: layer.digest, bytes: layer.bytes, url };
    // All bytes without a length and without an end, and then a blob that ends before them.
    let rule =
        |faults: [Fault; 2]| faults.into_iter().fold(Rule::on("GET", &cold.digest).times(1), Rule::then);
    cold.upstream.on(rule([Fault::NoContentLength, Fault::ResetAfter(cold.size())]));
    cold.upstream.on(rule([Fault::IgnoreRange, Fault::ShorterBy(1000)]));
    let first = cold.world.client().get(&cold.url).send().await.unwrap();
    if let Ok(body) = first.bytes().await {
        assert!(body == cold.bytes, "{} bytes", body.len());
    }
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_states_size_zero_does_not_hide_the_layer() {
    for size in [20_000, 3 * MIB] {
        let cold = stated_as_empty(size).await;
        cold.assert_served().await;
        cold.assert_stored().await;
        cold.idle().await;
        assert_eq!(cold.asked_ranges(), [""]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_layer_of_stated_size_zero_is_served() {
    let cold = stated_as_empty(3 * MIB).await;
    let window = cold.range("bytes=100-199").await;
    assert_eq!(window.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(window.body, cold.bytes[100..200]);
    assert_eq!(window.header("content-range"), format!("bytes 100-199/{}", cold.size()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_layers_of_stated_size_zero_leave_places_for_other_downloads() {
    let upstream = ChaosUpstream::start().await;
    let builder = TestWorld::builder()
        .sections(&sections("max_fills = 4\nmax_fills_per_upstream = 2"))
        .upstream("up", &upstream, "");
    let cold = Cold::build(MIB, upstream, builder).await;
    // Upstream sends nothing for them, in a way that is complete: there is no blob to be had.
    for layer in 0..6 {
        let bytes = Bytes::from(format!("layer {layer}"));
        let digest = sha256(&bytes);
        cold.upstream.put_blob(REPOSITORY, &digest, bytes);
        cold.upstream.on(Rule::on("*", &digest).then(Fault::ShorterBy(7)));
        let answer = cold.world.blob(NAME, &digest).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        assert!(cold.upstream.count("GET", &digest) <= 3, "{} requests", cold.upstream.count("GET", &digest));
    }
    cold.idle().await;
    cold.assert_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_or_with_a_false_length_is_no_size() {
    for (fault, stated) in [(Fault::WrongLength(0), "0"), (Fault::NoContentLength, "none")] {
        let upstream = ChaosUpstream::start().await;
        upstream.put_image(REPOSITORY, "1", &image(20_000));
        let layer = image(20_000).layers[0].clone();
        upstream.on(Rule::on("HEAD", &layer.digest).then(fault));
        upstream.on(Rule::on("GET", &layer.digest).then(Fault::NoContentLength));
        let world = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "").start().await;
        let path = format!("/v2/{NAME}/blobs/{}", layer.digest);

        let head = world.head(&path).await;
        assert_eq!(head.status, StatusCode::OK, "{stated}: {head:?}");
        assert_eq!(head.header("docker-content-digest"), layer.digest);
        assert!(
            !head.headers.contains_key("content-length"),
            "{stated}: a length that is not known is stated"
        );

        let url = world.content_url(NAME, &layer.digest).await;
        let head = world.send(world.client().head(&url)).await;
        assert_eq!(head.status, StatusCode::OK, "{stated}: {head:?}");
        assert!(
            !head.headers.contains_key("content-length"),
            "{stated}: a length that is not known is stated"
        );

        let answer = world.blob(NAME, &layer.digest).await;
        assert_eq!((answer.status, answer.body), (StatusCode::OK, layer.bytes.clone()), "{stated}");
        let head = world.send(world.client().head(&url)).await;
        assert_eq!(head.header("content-length"), "20000", "the size is known now");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_tidegate_gets_a_blob_whose_size_the_first_does_not_know() {
    let upstream = ChaosUpstream::start().await;
    upstream.put_image(REPOSITORY, "1", &image(20_000));
    let layer = image(20_000).layers[0].clone();
    upstream.on(Rule::on("*", &layer.digest).then(Fault::NoContentLength));
    let first = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "").start().await;
    let second = TestWorld::builder()
        .sections(&sections(""))
        .bare_upstream("up", first.api(), "")
        .namespace("up", "up", "prefetch = \"none\"")
        .start()
        .await;
    let answer = second.blob(&format!("up/{NAME}"), &layer.digest).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, layer.bytes.clone()));
    assert_eq!(upstream.count("GET", &layer.digest), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_of_zero_that_an_earlier_version_recorded_is_not_believed() {
    let cold = Cold::start(20_000).await;
    let changed = cold.world.execute(&format!("UPDATE blobs SET size = 0 WHERE digest = '{}'", cold.digest));
    assert_eq!(changed, 1);
    let cold = cold.restart("").await;
    cold.assert_served().await;
    cold.assert_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_blob_is_served_and_stored_like_any_other() {
    for digest in [sha256(b""), sha512(b"")] {
        let upstream = ChaosUpstream::start().await;
        upstream.put_blob(REPOSITORY, &digest, Bytes::new());
        let world = TestWorld::builder().sections(&sections("")).upstream("up", &upstream, "").start().await;
        let head = world.head(&format!("/v2/{NAME}/blobs/{digest}")).await;
        assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "0"), "{head:?}");
        for _ in 0..2 {
            let answer = world.blob(NAME, &digest).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0), "{answer:?}");
            world.assert_stored(&digest, &Bytes::new()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_for_a_blob_of_stated_size_is_a_bad_gateway() {
    let cold = Cold::start(1000).await;
    cold.on_blob(usize::MAX, [Fault::ShorterBy(1000)]);
    let answer = cold.get(&[]).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    cold.upstream.clear_rules();
    let url = know(&cold.world, NAME, &cold.digest).await;
    assert_eq!(url.split('?').next(), cold.url.split('?').next());
    cold.assert_served().await;
}
