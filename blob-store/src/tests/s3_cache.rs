//! Blobs of a bucket that are kept on the node.

use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::{
    s3_server::{Fate, S3Server, files_below},
    *,
};
use crate::DiskUsage;

async fn kept(store: &BlobStore, digest: &Digest) -> bool {
    store.stored(digest).await.unwrap().is_some()
}

async fn used(store: &BlobStore) -> u64 {
    eventually("the blobs are counted", async || store.usage().await.complete).await;
    store.usage().await.bytes
}

#[tokio::test]
async fn a_committed_blob_is_read_from_the_node_also_while_the_bucket_is_away() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(1000));
    let digest = store_blob(&store, b"0123456789").await.unwrap();
    server.stop().await;
    assert!(matches!(store.locate(&digest).await.unwrap(), Some(StoredAt::File(_))));
    assert_eq!(read_blob(&store, &digest).await.unwrap().unwrap(), b"0123456789");
    assert_eq!(used(&store).await, 10);
}

#[tokio::test]
async fn the_blob_that_was_read_longest_ago_makes_room_and_is_still_in_the_bucket() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(250));
    let one = store_blob(&store, &layer(100, 1)).await.unwrap();
    let two = store_blob(&store, &layer(100, 2)).await.unwrap();
    let open = store.stored(&two).await.unwrap().unwrap();
    assert!(kept(&store, &one).await, "which is a read");
    let three = store_blob(&store, &layer(100, 3)).await.unwrap();
    assert_eq!(used(&store).await, 200);
    assert_eq!(
        (kept(&store, &one).await, kept(&store, &two).await, kept(&store, &three).await),
        (true, false, true)
    );
    let mut bytes = [0; 100];
    open.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..], layer(100, 2), "who had it open reads on");
    assert_eq!(read_blob(&store, &two).await.unwrap().unwrap(), layer(100, 2));

    let large = store_blob(&store, &layer(251, 4)).await.unwrap();
    assert!(!kept(&store, &large).await);
    assert_eq!(read_blob(&store, &large).await.unwrap().unwrap(), layer(251, 4));
}

#[tokio::test]
async fn a_blob_that_was_read_from_the_bucket_is_kept_for_the_next_read() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let bytes = layer(3_000_000, 0);
    let digest = store_blob(&server.store(&elsewhere, None), &bytes).await.unwrap();
    let store = server.store(&root, Some(10_000_000));
    let stored = store.locate(&digest).await.unwrap().unwrap();
    assert!(matches!(stored, StoredAt::Object(_)));
    assert_eq!(read_range(&stored, 5..9).await.unwrap(), bytes[5..9]);
    eventually("it is kept", async || kept(&store, &digest).await).await;
    assert!(read_blob(&store, &digest).await.unwrap().unwrap() == bytes);
    assert_eq!(server.asked("GET", digest.hex()), 2);

    store.remove(&digest).await.unwrap();
    assert!(!kept(&store, &digest).await);
}

#[tokio::test]
async fn wrong_bytes_in_the_bucket_and_a_fetch_that_breaks_are_not_kept() {
    let (server, elsewhere, root) =
        (S3Server::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let digest = store_blob(&server.store(&elsewhere, None), b"0123").await.unwrap();
    server.spoil_object(b"evil");
    let store = server.store(&root, Some(1000));
    for fate in [Fate::Served, Fate::Status(500)] {
        server.when(move |method, _| if method == "GET" { fate } else { Fate::Served });
        let stored = store.locate(&digest).await.unwrap().unwrap();
        let _ = read_range(&stored, 0..4).await;
        eventually("nothing is left of it", async || files_below(root.path()).is_empty()).await;
        assert!(!kept(&store, &digest).await);
    }
    // The fetch may have begun only now.
    server.when(|_, _| Fate::Served);
    let partial = store.begin(&digest, Some(4)).await.unwrap();
    partial.write_at(0, b"0123").unwrap();
    store.commit(&partial, 4).await.unwrap();
    assert!(kept(&store, &digest).await, "a fill of the same blob goes before");
}

#[tokio::test]
async fn what_is_kept_and_when_it_was_read_survives_a_restart_and_a_smaller_tier_makes_room() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, Some(1000));
    let mut digests = Vec::new();
    for seed in 1..=3 {
        digests.push(store_blob(&store, &layer(100, seed)).await.unwrap());
    }
    // As if the first and the third were read an hour ago; then the first is read.
    for index in [0, 2] {
        let blob = store.stored(&digests[index]).await.unwrap().unwrap();
        let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        // The time of that read itself is noted in the background, and left as it is: it was noted just now.
        tokio::time::sleep(Duration::from_millis(50)).await;
        blob.file.set_modified(an_hour_ago).unwrap();
    }
    let blob = store.stored(&digests[0]).await.unwrap().unwrap();
    let noted = async || blob.file.metadata().unwrap().modified().unwrap().elapsed().unwrap().as_secs() < 60;
    eventually("the read is noted", noted).await;
    drop(store);

    let store = server.store(&root, Some(1000));
    assert_eq!(used(&store).await, 300);
    drop(store);
    let store = server.store(&root, Some(220));
    eventually("there is room", async || store.usage().await == DiskUsage { bytes: 200, complete: true })
        .await;
    assert!(kept(&store, &digests[0]).await);
    assert!(kept(&store, &digests[1]).await);
    assert!(!kept(&store, &digests[2]).await, "it was read longest ago");
    drop(store);

    let store = server.store(&root, None);
    eventually("nothing is kept", async || files_below(root.path()).is_empty()).await;
    assert_eq!(read_blob(&store, &digests[2]).await.unwrap().unwrap(), layer(100, 3));
}
