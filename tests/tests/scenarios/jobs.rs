//! The job that completes images: what it fetches, how often, and what becomes of failures.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::{Image, Index},
    world::{TestWorld, WorldBuilder},
};

use crate::support::*;

/// A world whose namespace `up` has these keys.
fn world(upstream: &ChaosUpstream, namespace: &str) -> WorldBuilder {
    TestWorld::builder()
        .bare_upstream("up", &upstream.url(), "breaker_failures = 1000")
        .namespace("up", "up", namespace)
}

async fn jobs(world: &TestWorld) -> Vec<Value> {
    world.json("/api/v1/jobs").await.as_array().unwrap().clone()
}

/// The first job; null without any: a job is queued after the answer to the client.
async fn first_job(world: &TestWorld) -> Value {
    jobs(world).await.into_iter().next().unwrap_or_default()
}

/// An index of three platforms under `library/x:all`.
async fn with_index() -> (ChaosUpstream, Index) {
    let upstream = ChaosUpstream::start().await;
    let images: Vec<_> = ["linux/amd64", "linux/arm64/v8", "windows/amd64"]
        .iter()
        .zip(1..)
        .map(|(platform, seed)| Image::builder(seed).platform(platform).random_layer(2_000).build())
        .collect();
    let index = Index::of(&images.iter().collect::<Vec<_>>());
    upstream.put_index(UPSTREAM_NAME, "all", &index);
    (upstream, index)
}

/// Waits until the wanted images are stored and no job is left, and asserts that no other one is stored.
async fn assert_completed(world: &TestWorld, index: &Index, wanted: &[bool]) {
    for (image, _) in index.images.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
        for (digest, _) in image.blobs() {
            assert_eventually!(world.blob_path(digest).exists(), "{}", image.platform.architecture);
        }
    }
    assert_eventually!(world.live_jobs() == 0, "{:?}", jobs(world).await);
    for (image, wanted) in index.images.iter().zip(wanted) {
        for (digest, _) in image.blobs() {
            assert_eq!(world.blob_path(digest).exists(), *wanted, "{}", image.platform.architecture);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_completed_without_further_asking() {
    let (upstream, image) = with_image().await;
    let world = world(&upstream, "").start().await;
    world.get(&manifest("1")).await;
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
        assert_eq!(upstream.count("*", digest), 1);
    }
    assert_eventually!(world.live_jobs() == 0);
    let ended = first_job(&world).await;
    assert_eq!((&ended["state"], &ended["attempts"]), (&"succeeded".into(), &1.into()), "{ended}");
    assert!(ended["ended_at"].as_i64() >= ended["created_at"].as_i64(), "{ended}");
    upstream.stop();
    for (digest, bytes) in image.blobs() {
        assert!(world.blob(NAME, digest).await.body == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_and_the_job_share_one_download_of_each_blob() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[400_000, 500_000]);
    upstream.put_image(UPSTREAM_NAME, "1", &image);
    upstream.on(Rule::on("GET", "/blobs/").then(Fault::Throttle { bytes_per_second: 1_000_000 }));
    let world = world(&upstream, "").start().await;
    world.get(&manifest("1")).await;
    let pulled = image.blobs().map(|(digest, bytes)| async {
        assert!(world.blob(NAME, digest).await.body == *bytes);
    });
    join_all(pulled).await;
    assert_eventually!(world.live_jobs() == 0);
    for (digest, bytes) in image.blobs() {
        assert_eq!(
            (upstream.count("GET", digest), upstream.blob_bytes(digest)),
            (1, u64::try_from(bytes.len()).unwrap())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_none_fetches_nothing() {
    let (upstream, index) = with_index().await;
    let world = world(&upstream, "prefetch = \"none\"").start().await;
    world.get(&manifest("all")).await;
    world.get(&manifest(&index.images[0].digest)).await;
    assert_completed(&world, &index, &[false, false, false]).await;
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_all_fetches_every_child_and_blob_once() {
    let (upstream, index) = with_index().await;
    let world = world(&upstream, "prefetch = \"all\"").start().await;
    world.get(&manifest("all")).await;
    assert_completed(&world, &index, &[true, true, true]).await;
    assert_eq!(upstream.count("HEAD", ""), 1);
    assert_eq!(upstream.count("GET", ""), 1 + 3 + 6);
    upstream.stop();
    for image in &index.images {
        assert_image(&Method::GET, &world.get(&manifest(&image.digest)).await, image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_image_fetches_the_platforms_that_are_listed() {
    let (upstream, index) = with_index().await;
    let world = world(&upstream, "platforms = [\"linux/arm64/v8\", \"linux/s390x\"]").start().await;
    world.get(&manifest("all")).await;
    assert_completed(&world, &index, &[false, true, false]).await;
    assert_eq!(upstream.count("GET", ""), 1 + 1 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_image_fetches_the_platforms_that_clients_have_asked_for() {
    let (upstream, index) = with_index().await;
    let world = world(&upstream, "").start().await;
    world.get(&manifest("all")).await;
    assert_completed(&world, &index, &[false, false, false]).await;
    // A client asks for one platform: of this image now, and of other images from now on.
    world.get(&manifest(&index.images[1].digest)).await;
    assert_completed(&world, &index, &[false, true, false]).await;
    let images: Vec<_> = index
        .images
        .iter()
        .zip(50..)
        .map(|(image, seed)| {
            let platform = &image.platform;
            let variant = platform.variant.as_ref().map_or(String::new(), |variant| format!("/{variant}"));
            let platform = format!("{}/{}{variant}", platform.os, platform.architecture);
            Image::builder(seed).platform(&platform).random_layer(100).build()
        })
        .collect();
    let next = Index::of(&images.iter().collect::<Vec<_>>());
    upstream.put_index("library/y", "1", &next);
    world.get(&manifest_of("up/library/y", "1")).await;
    assert_completed(&world, &next, &[false, true, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_index_is_completed_to_its_leaves() {
    let upstream = ChaosUpstream::start().await;
    let leaf = Index::of(&[&Image::random(1, &[100])]);
    let index = Index::of_indexes(&[&leaf]);
    upstream.put_index(UPSTREAM_NAME, "1", &index);
    let world = world(&upstream, "prefetch = \"all\"").start().await;
    world.get(&manifest("1")).await;
    assert_completed(&world, &leaf, &[true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_is_visible_and_survives_a_restart() {
    let (upstream, index) = with_index().await;
    let idle = world(&upstream, "prefetch = \"all\"").sections("[jobs]\nworkers = 0").start().await;
    for _ in 0..3 {
        join_all((0..10).map(|_| idle.get("/v2/up/library/x/manifests/all"))).await;
    }
    assert_eventually!(!jobs(&idle).await.is_empty());
    let queued = jobs(&idle).await;
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0]["kind"], "complete_image");
    assert_eq!(queued[0]["key"], format!("up@{UPSTREAM_NAME}@{}", index.digest));
    assert_eq!((&queued[0]["state"], &queued[0]["attempts"]), (&"queued".into(), &0.into()));
    assert_eq!(queued[0]["error"], Value::Null);
    let metric = "tidegate_tasks{kind=\"complete_image\",state=\"queued\"}";
    assert_eventually!(idle.metric(metric).await == 1.0);
    let dir = idle.stop().await;
    let world = world(&upstream, "prefetch = \"all\"").in_dir(dir).start().await;
    assert_completed(&world, &index, &[true, true, true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_retried_when_upstream_fails() {
    let (upstream, image) = with_image().await;
    upstream.on(Rule::on("GET", "/blobs/").times(4).then(Fault::Empty(500)));
    let quick = "[jobs]\nbackoff_min = \"1s\"\n[content]\nfill_attempts = 1";
    let world = world(&upstream, "").sections(quick).start().await;
    world.get(&manifest("1")).await;
    assert_eventually!(first_job(&world).await["error"].is_string());
    let again = first_job(&world).await;
    assert!(again["error"].as_str().unwrap().contains("upstream responded with status 500"), "{again}");
    assert_eq!(again["attempts"], 1);
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
    assert_eventually!(world.live_jobs() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_drips_does_not_keep_other_images_from_being_completed() {
    let (upstream, slow) = with_image().await;
    let quick = Image::random(2, &[1_000]);
    upstream.put_image("library/quick", "1", &quick);
    upstream.on(Rule::on("GET", &slow.layers[1].digest).then(Fault::Throttle { bytes_per_second: 10 }));
    let sections = "[jobs]\nworkers = 1\nattempt_timeout = \"2s\"\nbackoff_min = \"1s\"";
    let world = world(&upstream, "").sections(sections).start().await;
    world.get(&manifest("1")).await;
    assert_eventually!(upstream.count("GET", &slow.layers[1].digest) == 1);
    world.get(&manifest_of("up/library/quick", "1")).await;
    for (digest, bytes) in quick.blobs() {
        world.assert_stored(digest, bytes).await;
    }
    let job = || async { jobs(&world).await.into_iter().find(|job| job["error"].is_string()) };
    assert_eventually!(job().await.is_some_and(|job| job["attempts"].as_i64() > Some(1)));
    assert_eq!(job().await.unwrap()["error"], "no result within the time limit");
    assert!(!world.blob_path(&slow.layers[1].digest).exists());
    assert_eq!(upstream.count("GET", &slow.layers[1].digest), 1, "its download continues");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_succeed_fails_permanently_and_is_kept_for_the_operator() {
    let (upstream, index) = with_index().await;
    upstream.delete_manifest(UPSTREAM_NAME, &index.images[2].digest);
    let world = world(&upstream, "prefetch = \"all\"").start().await;
    world.get(&manifest("all")).await;
    assert_eventually!(first_job(&world).await["state"] == "failed");
    let failed = jobs(&world).await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().unwrap().contains("no such manifest"), "{failed:?}");
    assert_eq!(failed[0]["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_returns_a_running_job_to_the_queue() {
    let (upstream, image) = with_image().await;
    upstream.on(Rule::on("GET", "/blobs/").then(Fault::Delay(Duration::MAX)));
    let hanging = world(&upstream, "").sections("[api]\nshutdown_timeout = \"1s\"").start().await;
    hanging.get(&manifest("1")).await;
    assert_eventually!(first_job(&hanging).await["state"] == "running");
    assert_eventually!(upstream.count("GET", "/blobs/") > 0);
    let dir = hanging.stop().await;
    upstream.clear_rules();
    let world = world(&upstream, "").in_dir(dir).start().await;
    for (digest, bytes) in image.blobs() {
        world.assert_stored(digest, bytes).await;
    }
}
