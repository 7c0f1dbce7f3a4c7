//! An object store that is unreachable, hangs or fails: the failure is detected within the
//! timeouts, and no blob is lost. Time is paused, so it advances only while the store waits.

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    s3_server::{Fault, S3Server},
    *,
};
use crate::S3Config;

/// The result of an operation, and the time that it took.
async fn timed<T>(operation: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (operation.await, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn every_operation_fails_soon_and_a_commit_succeeds_later() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    server.upload_timeout = Duration::from_secs(1);
    let store = server.in_process_store(&root);
    let stored = store_blob(&store, b"stored before").await.unwrap();
    server.set_fault(|_, _| Fault::Unreachable);
    let limit = server.config().timeouts.answer;
    let (result, elapsed) = timed(store.get(&stored)).await;
    assert!(result.unwrap_err().is_unavailable() && elapsed <= limit, "{elapsed:?}");
    let (result, elapsed) = timed(store.check()).await;
    assert!(result.unwrap_err().is_unavailable() && elapsed <= limit, "{elapsed:?}");
    let (result, elapsed) = timed(store.delete(&stored)).await;
    assert!(result.unwrap_err().is_unavailable() && elapsed <= limit, "{elapsed:?}");
    let (result, elapsed) = timed(store.list().try_collect::<Vec<_>>()).await;
    assert!(result.unwrap_err().is_unavailable() && elapsed <= limit, "{elapsed:?}");
    assert!(store.get_local(&stored).await.unwrap().is_none());

    let digest = Digest::sha256(b"downloaded meanwhile");
    let partial = store.open_partial(&digest, None).await.unwrap();
    partial.blocking().write_at(0, b"downloaded meanwhile").unwrap();
    let upload = store.start_upload(&partial);
    let error = store.commit(&partial, &digest, 20, upload).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let mut bytes = [0; 20];
    assert_eq!(partial.blocking().read_at(0, &mut bytes).unwrap(), 20, "open readers are not affected");

    server.set_fault(|_, _| Fault::None);
    store.commit(&partial, &digest, 20, None).await.unwrap();
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"downloaded meanwhile");
    assert_eq!(read_blob(&store, &stored).await.unwrap().unwrap(), b"stored before");
}

#[tokio::test(start_paused = true)]
async fn a_silent_object_store_opens_the_circuit_until_a_probe_succeeds() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.in_process_store(&root);
    let digest = store_blob(&store, b"x").await.unwrap();
    server.set_fault(|_, _| Fault::Hang);
    let limit = server.config().timeouts.answer;
    let (result, elapsed) = timed(store.get(&digest)).await;
    assert!(result.unwrap_err().is_unavailable());
    assert_eq!(elapsed.as_secs(), limit.as_secs());
    let (result, elapsed) = timed(store.check()).await;
    assert!(result.unwrap_err().is_unavailable());
    assert_eq!(elapsed.as_secs(), limit.as_secs());

    let requests = server.requests("", "");
    let (result, elapsed) = timed(store.get(&digest)).await;
    assert!(result.unwrap_err().is_unavailable());
    assert_eq!((server.requests("", ""), elapsed), (requests, Duration::ZERO), "the circuit is open");
    server.set_fault(|_, _| Fault::None);
    assert!(store.get(&digest).await.unwrap_err().is_unavailable(), "it is still open");
    sleep(Duration::from_secs(2)).await;
    assert!(store.get(&digest).await.unwrap().is_some(), "the probe succeeds");
    assert_eq!(server.requests("", ""), requests + 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_and_a_wrong_key_fail_the_check() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let missing = S3Config { bucket: "missing".to_owned(), ..server.config() };
    let mut wrong = server.config();
    wrong.keys.as_mut().unwrap().secret_key = "wrong".into();
    for (config, reason) in [(missing, "404 NoSuchBucket"), (wrong, "403 SignatureDoesNotMatch")] {
        let store = server.in_process_store_with(&config, &root);
        let error = store.check().await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().ends_with(reason), "{error}");
    }
    let ftp = S3Config { endpoint: Some("ftp://x".parse().unwrap()), ..server.config() };
    assert!(matches!(BlobStore::open_s3(&ftp, root.path(), None), Err(StoreError::Config(_))));
}

#[tokio::test(start_paused = true)]
async fn a_failed_upload_is_repeated_by_the_commit() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    server.upload_timeout = Duration::from_secs(1);
    let store = server.in_process_store(&root);
    let bytes = layer(11 * 1024 * 1024, 0);
    let digest = Digest::sha256(&bytes);
    let partial = store.open_partial(&digest, Some(length(&bytes))).await.unwrap();
    partial.blocking().write_at(0, &bytes).unwrap();
    let upload = store.start_upload(&partial).unwrap();
    upload.advance(6 * 1024 * 1024);
    eventually("a part is uploaded", async || server.parts() == 1).await;
    server.set_fault(|_, _| Fault::Unreachable);
    upload.advance(length(&bytes));
    // Longer than the upload retries, and than its abort.
    sleep(server.config().timeouts.upload + 2 * server.config().timeouts.answer).await;
    server.set_fault(|_, _| Fault::None);
    store.commit(&partial, &digest, length(&bytes), Some(upload)).await.unwrap();
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(server.requests("POST", "uploads"), 2, "the commit starts a second upload");
    store.sweep_partials(Duration::ZERO, &Default::default()).await.unwrap();
    assert_eq!(server.parts(), 0);
}

#[tokio::test]
async fn a_store_over_http_works_again_after_a_restart_of_the_server() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let digest = store_blob(&store, b"x").await.unwrap();
    server.stop().await;
    assert!(store.check().await.unwrap_err().is_unavailable());
    server.restart().await;
    eventually("the store works again", async || store.check().await.is_ok()).await;
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"x");
}
