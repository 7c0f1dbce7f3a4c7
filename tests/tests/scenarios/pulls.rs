//! Whole images, cold and warm, and what they cost upstream.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tidegate_tests::{
    assert_eventually,
    chaos::ChaosUpstream,
    image::{Format, Image, Index, sha256, sha512},
    world::TestWorld,
};

use crate::support::*;

/// Pulls all of an image by its digest, and compares.
async fn pull(world: &TestWorld, name: &str, image: &Image) {
    let answer = world.get(&manifest_of(name, &image.digest)).await;
    assert_image(&Method::GET, &answer, image);
    for (digest, bytes) in image.blobs() {
        let blob = world.blob(name, digest).await;
        assert_eq!(blob.status, StatusCode::OK);
        assert!(blob.body == *bytes, "{digest}");
        world.assert_stored(digest, bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_cold_and_then_warm_without_upstream() {
    for format in [Format::Oci, Format::Docker] {
        let upstream = ChaosUpstream::start().await;
        let image = Image::builder(1).format(format).random_layer(100).random_layer(3_000_000).build();
        upstream.put_image(UPSTREAM_NAME, "1", &image);
        let world = TestWorld::start(&upstream).await;
        for round in ["cold", "warm"] {
            let answer = world.get(&manifest("1")).await;
            assert_image(&Method::GET, &answer, &image);
            pull(&world, NAME, &image).await;
            assert_eq!(upstream.count("HEAD", ""), 1, "{round}");
            assert_eq!(upstream.count("GET", ""), 1 + image.blobs().count(), "{round}");
            assert_eq!(upstream.count("GET", &image.digest), 1, "{round}: the manifest, by its digest");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_tag_past_its_ttl_costs_one_head_and_no_get() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    world.get(&manifest("1")).await;
    upstream.clear_requests();
    for (asked, method) in METHODS.iter().cycle().take(4).enumerate() {
        let answer = world.ask(method, &manifest("1")).await;
        assert_image(method, &answer, &image);
        assert_eq!(answer.header("cache-status"), "tidegate; fwd=stale; fwd-status=304");
        assert_eq!((upstream.count("HEAD", ""), upstream.count("GET", "")), (asked + 1, 0));
    }
    assert_eq!(
        world.metric("tidegate_pulls_total{upstream=\"up\",kind=\"manifest\",outcome=\"revalidated\"}").await,
        4.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_is_served_without_a_word_to_upstream() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let cold = world.get(&manifest("1")).await;
    assert_eq!(cold.header("cache-status"), "tidegate; fwd=miss; stored");
    upstream.clear_requests();
    for method in &METHODS {
        let answer = world.ask(method, &manifest("1")).await;
        assert_image(method, &answer, &image);
        assert!(answer.header("cache-status").starts_with("tidegate; hit; ttl=5"), "{answer:?}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_pulled_as_far_as_the_client_asks() {
    let upstream = ChaosUpstream::start().await;
    let images: Vec<_> = ["linux/amd64", "linux/arm64/v8", "linux/s390x"]
        .iter()
        .zip(1..)
        .map(|(platform, seed)| Image::builder(seed).platform(platform).random_layer(1_000).build())
        .collect();
    let index = Index::docker_list(&images.iter().collect::<Vec<_>>());
    upstream.put_index(UPSTREAM_NAME, "1", &index);
    let world = TestWorld::start(&upstream).await;
    let answer = world.get(&manifest("1")).await;
    assert_manifest(&Method::GET, &answer, &index.manifest, &index.digest, &index.media_type);
    pull(&world, NAME, &images[1]).await;
    assert_eq!(upstream.count("HEAD", ""), 1);
    assert_eq!(upstream.count("GET", "/manifests/"), 2, "the index and one child");
    assert_eq!(upstream.count("GET", "/blobs/"), 2, "one config and one layer");
    assert_eq!(world.live_jobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_index_is_pulled_level_by_level() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(3, &[500]);
    let index = Index::of_indexes(&[&Index::of(&[&image])]);
    upstream.put_index(UPSTREAM_NAME, "1", &index);
    let world = TestWorld::start(&upstream).await;
    assert_eq!(world.get(&manifest("1")).await.body, index.manifest);
    assert_eq!(world.get(&manifest(&index.indexes[0].digest)).await.body, index.indexes[0].manifest);
    pull(&world, NAME, &image).await;
    assert_eq!(upstream.count("HEAD", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_odd_bytes_keeps_them() {
    let (upstream, image) = with_image().await;
    let text = String::from_utf8(image.manifest.to_vec()).unwrap();
    let odd = text
        .replacen('{', "{\r\n\t \"org.example.unknown\" : { \"deep\":[1,2.50,null] } ,\r\n", 1)
        .replace(",\"", " ,\r\n\"")
        + "\r\n \n";
    let body = Bytes::from(odd);
    let digest = upstream.put_manifest(UPSTREAM_NAME, "odd", &image.media_type, body.clone());
    let world = TestWorld::start(&upstream).await;
    for reference in ["odd", &digest] {
        for method in [Method::GET, Method::HEAD] {
            let answer = world.ask(&method, &manifest(reference)).await;
            assert_manifest(&method, &answer, &body, &sha256(&body), &image.media_type);
        }
    }
    assert_eq!(world.blob(NAME, &image.config.0).await.body, image.config.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sha512_digests_are_pulled_and_verified() {
    let (upstream, image) = with_image().await;
    let layer = Bytes::from_static(b"a layer known by its longer digest");
    let (config, layer_digest) = (sha512(&image.config.1), sha512(&layer));
    upstream.put_blob(UPSTREAM_NAME, &config, image.config.1.clone());
    upstream.put_blob(UPSTREAM_NAME, &layer_digest, layer.clone());
    let body = Bytes::from(
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": image.config.1.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len() }],
        })
        .to_string(),
    );
    let digest = sha512(&body);
    upstream.put_manifest(UPSTREAM_NAME, &digest, &image.media_type, body.clone());
    upstream.move_tag(UPSTREAM_NAME, "long", &digest);
    let world = TestWorld::start(&upstream).await;
    for reference in ["long", &digest] {
        let answer = world.get(&manifest(reference)).await;
        assert_manifest(&Method::GET, &answer, &body, &digest, &image.media_type);
    }
    for (digest, bytes) in [(&config, &image.config.1), (&layer_digest, &layer)] {
        assert_eq!(world.blob(NAME, digest).await.body, *bytes);
        world.assert_stored(digest, bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_upstream_with_the_same_image_links_it_and_sends_no_bytes() {
    let (first, image) = with_image().await;
    let second = ChaosUpstream::start().await;
    second.put_image("other/y", "stable", &image);
    let world = TestWorld::builder().upstream("up", &first, "").upstream("two", &second, "").start().await;
    pull(&world, NAME, &image).await;
    for method in &METHODS {
        let answer = world.ask(method, &manifest_of("two/other/y", "stable")).await;
        assert_image(method, &answer, &image);
    }
    for (digest, bytes) in image.blobs() {
        assert_eq!(world.blob("two/other/y", digest).await.body, *bytes);
        assert_eq!(second.count("HEAD", digest), 1, "the bytes came from the first upstream");
    }
    assert_eq!((second.count("HEAD", "/manifests/"), second.count("GET", "")), (1, 0));
    assert_eq!(world.rows("manifests"), 1);
    assert_eq!(world.rows("repositories"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_then_gets_by_digest_record_the_tag_as_docker_pulls() {
    let (upstream, image) = with_image().await;
    let world = TestWorld::start(&upstream).await;
    let answer = world.head(&manifest("1")).await;
    assert_image(&Method::HEAD, &answer, &image);
    pull(&world, NAME, &image).await;
    assert_eventually!(world.rows("tags") == 1);
    assert_eq!(upstream.count("HEAD", ""), 1);
    assert_eq!(upstream.count("GET", "/manifests/"), 1);
    upstream.stop();
    assert_image(&Method::GET, &world.get(&manifest("1")).await, &image);
}
