//! Redirects to the object store.

use std::fs;

use reqwest::StatusCode;
use tempfile::TempDir;
use tidegate_tests::{
    assert_eventually,
    chaos::ChaosUpstream,
    s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY},
    world::TestWorld,
};

use crate::support::*;

/// What clients reach the object store by.
const PUBLIC: &str = "https://objects.example.com";

/// A world whose blobs are stored in a bucket and nowhere else; `keys` are further lines of `[storage]`.
async fn with_bucket(upstream: &ChaosUpstream, bucket: &S3Server, keys: &str) -> TestWorld {
    let dir = TempDir::with_prefix("tdg-").unwrap();
    let [access, secret] = ["access", "secret"].map(|name| dir.path().join(name));
    fs::write(&access, ACCESS_KEY).unwrap();
    fs::write(&secret, SECRET_KEY).unwrap();
    let endpoint = format!("http://{}", bucket.address());
    let sections = format!(
        "[api]\ncache_max_age = \"0\"\n[content]\nlink_lifetime = \"90s\"\n\
         [storage]\nkind = \"s3\"\nbucket = {BUCKET:?}\nprefix = \"a/b\"\nendpoint = {endpoint:?}\n\
         access_key_file = {access:?}\nsecret_key_file = {secret:?}\n{keys}"
    );
    TestWorld::builder().upstream("up", upstream, "").sections(&sections).in_dir(dir).start().await
}

/// Pulls a blob of [`NAME`] through content-app, and waits until it is stored.
async fn store(world: &TestWorld, digest: &str) {
    world.get(&manifest("1")).await;
    assert_eq!(world.blob(NAME, digest).await.status, StatusCode::OK);
    let stored = format!("SELECT digest AS text FROM blobs WHERE state = 1 AND digest = '{digest}'");
    assert_eventually!(world.texts(&stored) == [digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_sent_to_the_object_store_for_what_is_stored_and_to_content_app_for_the_rest() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, &format!("public_endpoint = {PUBLIC:?}")).await;
    let [stored, other] = [0, 1].map(|layer| image.layers[layer].digest.clone());
    store(&world, &stored).await;

    let answer = world.get(&blob(&stored)).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{answer:?}");
    let (hex, location) = (stored.strip_prefix("sha256:").unwrap(), answer.header("location"));
    let object = format!("{PUBLIC}/layers/a/b/blobs/sha256/{}/{hex}?", &hex[..2]);
    assert!(location.starts_with(&object), "{location}");
    assert!(location.contains("X-Amz-Expires=90&") && !location.contains(SECRET_KEY), "{location}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("cache-status"), "tidegate; hit");
    assert_eq!(answer.header("docker-content-digest"), stored);

    let head = world.head(&blob(&stored)).await;
    assert_eq!((head.status, head.header("location")), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), image.layers[0].bytes.len().to_string());

    let answer = world.get(&blob(&other)).await;
    assert!(answer.header("location").contains("/content/v1/"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_blob_is_no_other_repositorys() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "").await;
    store(&world, &image.layers[0].digest).await;
    for name in ["up/library/other", "up/library/x/y"] {
        let answer = world.get(&blob_of(name, &image.layers[0].digest)).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::NOT_FOUND, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redirects_content_app_reads_from_the_object_store() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "redirect = false").await;
    let layer = &image.layers[0];
    store(&world, &layer.digest).await;
    let answer = world.blob(NAME, &layer.digest).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &layer.bytes));
    assert_eq!(upstream.count("GET", &layer.digest), 1);
    let hex = layer.digest.strip_prefix("sha256:").unwrap();
    assert_eventually!(bucket.asked("GET", hex) == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_object_store_has_lost_is_fetched_again() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "").await;
    let layer = &image.layers[0];
    store(&world, &layer.digest).await;
    bucket.keys().iter().for_each(|key| bucket.lose(key));
    let answer = world.get(&blob(&layer.digest)).await;
    assert!(answer.header("location").contains("/content/v1/"), "{answer:?}");
    // content-app has seen it there a moment ago.
    assert_eventually!({
        let answer = world.blob(NAME, &layer.digest).await;
        answer.status == StatusCode::OK && answer.body == layer.bytes
    });
    assert_eventually!(bucket.keys().len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_wrong_size_is_not_served_and_is_replaced() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "").await;
    let layer = &image.layers[0];
    store(&world, &layer.digest).await;
    let key = bucket.keys().pop().unwrap();
    bucket.replace(&key, b"short");
    let answer = world.get(&blob(&layer.digest)).await;
    assert!(answer.header("location").contains("/content/v1/"), "{answer:?}");
    // content-app has seen it there a moment ago.
    assert_eventually!({
        let answer = world.blob(NAME, &layer.digest).await;
        answer.status == StatusCode::OK && answer.body == layer.bytes
    });
    assert_eventually!(bucket.object(&key) == layer.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_replaced_when_it_is_read() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "redirect = false\ncache_size = \"1MiB\"").await;
    let layer = &image.layers[0];
    store(&world, &layer.digest).await;
    let hex = layer.digest.strip_prefix("sha256:").unwrap();
    let cached = world.stored_files().into_iter().find(|path| path.ends_with(hex)).unwrap();
    fs::remove_file(cached).unwrap();
    let key = bucket.keys().remove(0);
    bucket.replace(&key, &vec![0; layer.bytes.len()]);
    assert_eventually!(world.blob(NAME, &layer.digest).await.body == layer.bytes);
    assert_eventually!(bucket.keys() == [key.as_str()] && bucket.object(&key) == layer.bytes);
    assert_eq!(upstream.count("GET", &layer.digest), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_could_not_be_read_is_downloaded_once_and_read_again_when_it_is_stored_anew() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "redirect = false").await;
    let layer = &image.layers[0];
    store(&world, &layer.digest).await;
    bucket.fail("GET", layer.digest.strip_prefix("sha256:").unwrap(), usize::MAX);
    let answer = world.blob(NAME, &layer.digest).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &layer.bytes));
    assert_eq!(upstream.count("GET", &layer.digest), 2);
    bucket.fail("GET", "", 0);
    assert_eventually!({
        let answer = world.blob(NAME, &layer.digest).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &layer.bytes));
        answer.header("cache-status") == "tidegate; hit"
    });
    assert_eq!(upstream.count("GET", &layer.digest), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_client_was_sent_to_the_object_store_for_counts_as_read() {
    let ((upstream, image), bucket) = (with_image().await, S3Server::start().await);
    let world = with_bucket(&upstream, &bucket, "").await;
    let digest = &image.layers[0].digest;
    store(&world, digest).await;
    world.execute("UPDATE blobs SET last_read_at = NULL");
    assert!(world.get(&blob(digest)).await.header("location").contains("X-Amz-Signature="));
    let read = "SELECT digest AS text FROM blobs WHERE last_read_at IS NOT NULL";
    assert_eventually!(world.texts(read) == [digest.as_str()]);
}
