//! The local cache of a bucket.

use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::{
    s3_server::{Fault, S3Server, files_below},
    *,
};
use crate::DiskUsage;

async fn is_cached(store: &BlobStore, digest: &Digest) -> bool {
    store.get_local(digest).await.unwrap().is_some()
}

async fn disk_usage(store: &BlobStore) -> u64 {
    eventually("the scan is complete", async || store.disk_usage().complete).await;
    store.disk_usage().bytes
}

#[tokio::test]
async fn a_cached_blob_is_read_while_the_object_store_is_unavailable() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(1000));
    let digest = store_blob(&store, b"0123456789").await.unwrap();
    server.stop().await;
    assert!(matches!(store.get(&digest).await.unwrap(), Some(StoredBlob::File(_))));
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123456789");
    assert_eq!(disk_usage(&store).await, 10);
}

#[tokio::test]
async fn the_least_recently_read_blob_is_evicted_and_remains_in_the_bucket() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(250));
    let one = store_blob(&store, &layer(100, 1)).await.unwrap();
    let two = store_blob(&store, &layer(100, 2)).await.unwrap();
    let open = store.get_local(&two).await.unwrap().unwrap();
    assert!(is_cached(&store, &one).await, "this counts as a read");
    let three = store_blob(&store, &layer(100, 3)).await.unwrap();
    assert_eq!(disk_usage(&store).await, 200);
    assert_eq!(
        (is_cached(&store, &one).await, is_cached(&store, &two).await, is_cached(&store, &three).await),
        (true, false, true)
    );
    let mut bytes = [0; 100];
    open.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..], layer(100, 2), "open readers are not affected");
    assert_eq!(read_blob(&store, &two).await.unwrap().unwrap(), layer(100, 2));

    let large = store_blob(&store, &layer(251, 4)).await.unwrap();
    assert!(!is_cached(&store, &large).await);
    assert_eq!(read_blob(&store, &large).await.unwrap().unwrap(), layer(251, 4));
}

#[tokio::test]
async fn a_blob_read_from_the_bucket_is_cached_for_the_next_read() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let bytes = layer(3_000_000, 0);
    let digest = store_blob(&server.store(&elsewhere, None), &bytes).await.unwrap();
    let store = server.store(&root, Some(10_000_000));
    let stored = store.get(&digest).await.unwrap().unwrap();
    assert!(matches!(stored, StoredBlob::Object(_)));
    assert_eq!(read_range(&stored, 5..9).await.unwrap(), bytes[5..9]);
    eventually("it is cached", async || is_cached(&store, &digest).await).await;
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(server.requests("GET", digest.hex()), 2);

    store.delete(&digest).await.unwrap();
    assert!(!is_cached(&store, &digest).await);
}

#[tokio::test]
async fn failed_downloads_are_not_cached() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let digest = store_blob(&server.store(&elsewhere, None), b"0123").await.unwrap();
    let store = server.store(&root, Some(1000));
    server.set_fault(|method, _| if method == "GET" { Fault::Status(500) } else { Fault::None });
    let stored = store.get(&digest).await.unwrap().unwrap();
    let _ = read_range(&stored, 0..4).await;
    eventually("its partial file is removed", async || files_below(root.path()).is_empty()).await;
    assert!(!is_cached(&store, &digest).await);
    // A download to the cache may have started only now.
    server.set_fault(|_, _| Fault::None);
    let partial = store.open_partial(&digest, Some(4)).await.unwrap();
    partial.blocking().write_at(0, b"0123").unwrap();
    store.commit(&partial, &digest, 4, None).await.unwrap();
    assert!(is_cached(&store, &digest).await, "opening the partial file stops that download");
}

#[tokio::test]
async fn a_damaged_object_is_deleted_and_can_be_stored_again() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let digest = store_blob(&server.store(&elsewhere, None), b"0123").await.unwrap();
    server.corrupt_object(b"evil");
    let store = server.store(&root, Some(1000));
    let stored = store.get(&digest).await.unwrap().unwrap();
    assert_eq!(read_range(&stored, 0..4).await.unwrap(), b"evil");
    eventually("it is deleted", async || server.keys().is_empty()).await;
    assert!(store.get(&digest).await.unwrap().is_none());
    eventually("its partial file is removed", async || files_below(root.path()).is_empty()).await;
    assert_eq!(store_blob(&store, b"0123").await.unwrap(), digest);
    assert!(is_cached(&store, &digest).await);
    assert_eq!(read_blob(&server.store(&elsewhere, None), &digest).await.unwrap().unwrap(), b"0123");
}

#[tokio::test]
async fn an_object_whose_bytes_differ_from_read_to_read_is_kept() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let digest = store_blob(&server.store(&elsewhere, None), b"0123").await.unwrap();
    server.corrupt_object(b"evil");
    let (object, mut reads) = (server.object_path(), 0);
    server.set_fault(move |method, _| {
        reads += usize::from(method == "GET");
        // Those of the reader and of the download to the cache, then the second one.
        if reads == 3 {
            std::fs::write(&object, b"0123").unwrap();
        }
        Fault::None
    });
    let store = server.store(&root, Some(1000));
    eventually("it is cached", async || {
        let stored = store.get(&digest).await.unwrap().expect("it is not deleted");
        read_range(&stored, 0..4).await.unwrap();
        is_cached(&store, &digest).await
    })
    .await;
}

#[tokio::test]
async fn cached_blobs_and_their_read_times_survive_a_restart() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(1000));
    let mut digests = Vec::new();
    for seed in 1..=3 {
        digests.push(store_blob(&store, &layer(100, seed)).await.unwrap());
    }
    // The first and the third were read an hour ago; then the first is read.
    for index in [0, 2] {
        let blob = store.get_local(&digests[index]).await.unwrap().unwrap();
        let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        blob.file.set_modified(an_hour_ago).unwrap();
    }
    let blob = store.get_local(&digests[0]).await.unwrap().unwrap();
    assert!(blob.file.metadata().unwrap().modified().unwrap().elapsed().unwrap().as_secs() < 60);
    drop(store);

    let store = server.store(&root, Some(1000));
    assert_eq!(disk_usage(&store).await, 300);
    drop(store);
    let store = server.store(&root, Some(220));
    eventually("one blob is evicted", async || {
        store.disk_usage() == DiskUsage { bytes: 200, complete: true }
    })
    .await;
    assert!(is_cached(&store, &digests[0]).await);
    assert!(is_cached(&store, &digests[1]).await);
    assert!(!is_cached(&store, &digests[2]).await, "it was read least recently");
    drop(store);

    let store = server.store(&root, None);
    eventually("nothing is cached", async || files_below(root.path()).is_empty()).await;
    assert_eq!(read_blob(&store, &digests[2]).await.unwrap().unwrap(), layer(100, 3));
}
