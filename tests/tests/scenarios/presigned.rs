//! Redirects to the object store. It is asked nothing for them, so it need not answer here.

use std::fs;

use reqwest::StatusCode;
use tempfile::TempDir;
use tidegate_tests::{assert_eventually, chaos::ChaosUpstream, world::TestWorld};

use crate::support::*;

/// What clients reach the object store by.
const PUBLIC: &str = "https://objects.example.com";

/// A world whose blobs are stored in a bucket; `keys` are further lines of `[storage]`.
async fn with_bucket(upstream: &ChaosUpstream, keys: &str) -> TestWorld {
    let dir = TempDir::with_prefix("tdg-").unwrap();
    let [access, secret] = ["access", "secret"].map(|name| dir.path().join(name));
    fs::write(&access, "AKIATEST\n").unwrap();
    fs::write(&secret, "secret-of-a-test\n").unwrap();
    let sections = format!(
        "[api]\ncache_max_age = \"0\"\n[content]\nlink_lifetime = \"90s\"\n\
         [storage]\nkind = \"s3\"\nbucket = \"layers\"\nprefix = \"a/b\"\nendpoint = \"http://127.0.0.1:9\"\n\
         access_key_file = {access:?}\nsecret_key_file = {secret:?}\n{keys}"
    );
    TestWorld::builder().upstream("up", upstream, "").sections(&sections).in_dir(dir).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_sent_to_the_object_store_for_what_is_stored_and_to_content_app_for_the_rest() {
    let (upstream, image) = with_image().await;
    let world = with_bucket(&upstream, &format!("public_endpoint = {PUBLIC:?}")).await;
    world.get(&manifest("1")).await;
    let [stored, other] = [0, 1].map(|layer| image.layers[layer].digest.clone());
    world.execute(&format!("UPDATE blobs SET state = 1 WHERE digest = '{stored}'"));

    let answer = world.get(&blob(&stored)).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{answer:?}");
    let (hex, location) = (stored.strip_prefix("sha256:").unwrap(), answer.header("location"));
    let object = format!("{PUBLIC}/layers/a/b/blobs/sha256/{}/{hex}?", &hex[..2]);
    assert!(location.starts_with(&object), "{location}");
    assert!(location.contains("X-Amz-Expires=90&") && !location.contains("secret-of-a-test"), "{location}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("cache-status"), "tidegate; hit");
    assert_eq!(answer.header("docker-content-digest"), stored);

    let head = world.head(&blob(&stored)).await;
    assert_eq!((head.status, head.header("location")), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), image.layers[0].bytes.len().to_string());

    let answer = world.get(&blob(&other)).await;
    assert!(answer.header("location").starts_with("/content/v1/"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_blob_is_no_other_repositorys() {
    let (upstream, image) = with_image().await;
    let world = with_bucket(&upstream, "").await;
    world.get(&manifest("1")).await;
    world.execute("UPDATE blobs SET state = 1");
    for name in ["up/library/other", "up/library/x/y"] {
        let answer = world.get(&blob_of(name, &image.layers[0].digest)).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::NOT_FOUND, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redirects_content_app_reads_from_the_object_store() {
    let (upstream, image) = with_image().await;
    let world = with_bucket(&upstream, "redirect = false").await;
    world.get(&manifest("1")).await;
    world.execute("UPDATE blobs SET state = 1");
    let answer = world.get(&blob(&image.layers[0].digest)).await;
    assert!(answer.header("location").starts_with("/content/v1/"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_client_was_sent_to_the_object_store_for_counts_as_read() {
    let (upstream, image) = with_image().await;
    let world = with_bucket(&upstream, "").await;
    world.get(&manifest("1")).await;
    world.execute("UPDATE blobs SET state = 1");
    world.get(&blob(&image.layers[0].digest)).await;
    let read = "SELECT digest AS text FROM blobs WHERE last_read_at IS NOT NULL";
    assert_eventually!(world.texts(read) == [image.layers[0].digest.as_str()]);
}
