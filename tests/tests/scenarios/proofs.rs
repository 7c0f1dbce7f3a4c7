//! What the link of a repository to content proves: a claim of a manifest suffices for bytes of the same upstream alone.

use reqwest::Method;
use tidegate_tests::{
    assert_eventually,
    chaos::ChaosUpstream,
    image::{Image, Index},
    world::TestWorld,
};

use crate::support::*;

const PRIVATE: &str = "private/library/x";
const HOSTILE: &str = "hostile/evil/y";

/// An upstream whose image, under `evil/y:1`, names the blobs of another upstream's image and has none of them.
async fn hostile(image: &Image) -> ChaosUpstream {
    let upstream = ChaosUpstream::start().await;
    upstream.put_manifest("evil/y", "1", &image.media_type, image.manifest.clone());
    upstream
}

async fn world(private: &ChaosUpstream, hostile: &ChaosUpstream) -> TestWorld {
    TestWorld::builder().upstream("private", private, "").upstream("hostile", hostile, "").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_makes_no_blob_of_another_upstream_readable() {
    let (private, image) = with_image().await;
    let hostile = hostile(&image).await;
    for stored in [true, false] {
        hostile.clear_requests();
        let world = world(&private, &hostile).await;
        world.get(&manifest_of(PRIVATE, "1")).await;
        for (digest, bytes) in image.blobs().filter(|_| stored) {
            assert!(world.blob(PRIVATE, digest).await.body == *bytes);
            world.assert_stored(digest, bytes).await;
        }
        assert_eq!(world.get(&manifest_of(HOSTILE, "1")).await.status, 200);
        for (digest, _) in image.blobs() {
            for method in METHODS.iter().cycle().take(4) {
                let answer = world.ask(method, &blob_of(HOSTILE, digest)).await;
                assert_error(method, &answer, 404, "BLOB_UNKNOWN");
            }
            assert_eq!(hostile.count("HEAD", digest), 1, "the 404 is cached");
        }
        // Its own upstream confirms what the other one has named, too.
        for (digest, bytes) in image.blobs() {
            assert!(world.blob(PRIVATE, digest).await.body == *bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_makes_no_manifest_of_another_upstream_readable() {
    let (private, image) = with_image().await;
    let hostile = ChaosUpstream::start().await;
    let index = Index::of(&[&image]);
    hostile.put_manifest("evil/y", "1", &index.media_type, index.manifest.clone());
    let world = world(&private, &hostile).await;
    world.get(&manifest_of(PRIVATE, "1")).await;
    assert_eq!(world.get(&manifest_of(HOSTILE, "1")).await.status, 200);
    for method in METHODS.iter().cycle().take(4) {
        let answer = world.ask(method, &manifest_of(HOSTILE, &image.digest)).await;
        assert_error(method, &answer, 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!((hostile.count("HEAD", &image.digest), hostile.count("GET", &image.digest)), (1, 0));
    assert_image(&Method::GET, &world.get(&manifest_of(PRIVATE, &image.digest)).await, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_bytes_of_another_upstream_costs_one_head_which_is_recorded() {
    let (first, image) = with_image().await;
    let (second, _) = with_image().await;
    let start = || TestWorld::builder().upstream("up", &first, "").upstream("two", &second, "");
    let world = start().start().await;
    world.get(&manifest("1")).await;
    for (digest, bytes) in image.blobs() {
        world.blob(NAME, digest).await;
        world.assert_stored(digest, bytes).await;
    }
    world.get(&manifest_of("two/library/x", "1")).await;
    second.clear_requests();
    let dir = world.stop().await;
    let world = start().in_dir(dir).start().await;
    for (digest, bytes) in image.blobs() {
        for _ in 0..3 {
            assert!(world.blob("two/library/x", digest).await.body == *bytes);
        }
        assert_eq!((second.count("HEAD", digest), second.count("GET", digest)), (1, 0));
    }
    let dir = world.stop().await;
    let world = start().in_dir(dir).start().await;
    for upstream in [&first, &second] {
        upstream.stop();
    }
    for (digest, bytes) in image.blobs() {
        assert!(world.blob("two/library/x", digest).await.body == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_image_and_an_image_of_one_upstream_cost_no_further_request() {
    let (upstream, image) = with_image().await;
    upstream.put_image("team/app", "1", &image);
    let world = TestWorld::start(&upstream).await;
    for name in [NAME, "up/team/app"] {
        world.get(&manifest_of(name, "1")).await;
        for (digest, bytes) in image.blobs() {
            assert!(world.blob(name, digest).await.body == *bytes);
            world.assert_stored(digest, bytes).await;
        }
    }
    assert_eq!(upstream.count("HEAD", "/blobs/"), 0);
    assert_eq!(upstream.count("GET", "/blobs/"), image.blobs().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_image_needs_no_confirmation_when_its_upstream_is_unavailable() {
    let (first, image) = with_image().await;
    let (second, _) = with_image().await;
    let world = TestWorld::builder()
        .upstream("up", &first, "")
        .bare_upstream("two", &second.url(), "")
        .namespace("two", "two", "prefetch = \"image\"")
        .start()
        .await;
    world.get(&manifest("1")).await;
    world.get(&manifest_of("two/library/x", "1")).await;
    for (digest, bytes) in image.blobs() {
        assert_eventually!(second.count("HEAD", digest) == 1);
        world.assert_stored(digest, bytes).await;
    }
    assert_eventually!(world.live_jobs() == 0);
    second.stop();
    for (digest, bytes) in image.blobs() {
        assert!(world.blob("two/library/x", digest).await.body == *bytes);
    }
}
